package ws

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// origins decides which web pages may connect (RFC 6455 §10.2). What sends no Origin is not a browser.
type origins struct {
	any      bool
	patterns []string // lower case: host, or scheme://host
}

func newOrigins(patterns []string) origins {
	var o origins
	for _, p := range patterns {
		if p == "*" {
			o.any = true
		}
		o.patterns = append(o.patterns, strings.ToLower(p))
	}
	return o
}

func (o origins) allow(r *http.Request) bool {
	values := r.Header["Origin"]
	if len(values) == 0 || o.any {
		return true
	}
	if len(values) > 1 {
		return false
	}
	u, err := url.Parse(values[0])
	if err != nil || u.Host == "" { // "null" too: sandboxed pages and files
		return false
	}
	host := strings.ToLower(u.Host)
	if host == strings.ToLower(r.Host) {
		return true
	}
	for _, p := range o.patterns {
		target := host
		if strings.Contains(p, "://") {
			target = strings.ToLower(u.Scheme) + "://" + host
		}
		if ok, err := path.Match(p, target); ok && err == nil {
			return true
		}
	}
	return false
}
