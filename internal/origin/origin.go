// Package origin is the policy on web pages that may connect: those of the same host, and what the operator lists. The
// Origin header is the browser's (RFC 6454 §7); what sends none is not a browser.
package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Policy decides which web pages may connect. It is immutable.
type Policy struct {
	any      bool
	patterns []string // lower case: host, or scheme://host
}

// New makes a Policy of valid patterns.
func New(patterns []string) Policy {
	var p Policy
	for _, s := range patterns {
		if s == "*" {
			p.any = true
		}
		p.patterns = append(p.patterns, strings.ToLower(s))
	}
	return p
}

// Validate reports the first pattern that cannot be used.
func Validate(patterns []string) error {
	for _, p := range patterns {
		if err := valid(p); err != nil {
			return err
		}
	}
	return nil
}

func valid(pattern string) error {
	if pattern == "" || strings.ContainsAny(pattern, " \t") {
		return fmt.Errorf("%q is not a host, a scheme://host or *", pattern)
	}
	if _, err := path.Match(pattern, ""); err != nil {
		return fmt.Errorf("%q: %w", pattern, err)
	}
	_, host, found := strings.Cut(pattern, "://")
	if found && host == "" || strings.Contains(host, "/") || !found && strings.Contains(pattern, "/") {
		return fmt.Errorf("%q is not a host, a scheme://host or *", pattern)
	}
	return nil
}

// Allow reports whether what sent r may connect.
func (p Policy) Allow(r *http.Request) bool {
	values := r.Header["Origin"]
	if len(values) == 0 || p.any {
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
	for _, pattern := range p.patterns {
		target := host
		if strings.Contains(pattern, "://") {
			target = strings.ToLower(u.Scheme) + "://" + host
		}
		if ok, err := path.Match(pattern, target); ok && err == nil {
			return true
		}
	}
	return false
}
