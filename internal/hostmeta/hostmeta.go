// Package hostmeta serves the discovery documents that tell a client which transports there are, and where (XEP-0156).
// The package starts no goroutines; a handler is immutable.
package hostmeta

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"

	"holdfast/internal/proxy"
)

// Entry is one transport.
type Entry struct {
	Rel    string
	Public string // the address to announce; empty makes it of the address that was asked
	Plain  string // the scheme of an address without TLS
	TLS    string // and of one with
	Path   string
}

type handler struct {
	trust   *proxy.Trust
	entries []Entry
	varies  bool // with the address that was asked
}

// New serves the documents: JSON (RFC 6415 appendix A) where the path ends with .json, XRD elsewhere.
func New(trust *proxy.Trust, entries ...Entry) http.Handler {
	h := &handler{trust: trust, entries: entries}
	for _, e := range entries {
		h.varies = h.varies || e.Public == ""
	}
	return h
}

type xrd struct {
	XMLName xml.Name `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 XRD" json:"-"`
	Links   []link   `xml:"Link" json:"links"`
}

type link struct {
	Rel  string `xml:"rel,attr" json:"rel"`
	Href string `xml:"href,attr" json:"href"`
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// XEP-0156 §4: a web page of any origin may look.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	var doc xrd
	for _, e := range h.entries {
		doc.Links = append(doc.Links, link{Rel: e.Rel, Href: h.href(e, r)})
	}
	var body []byte
	var err error
	if strings.HasSuffix(r.URL.Path, ".json") {
		w.Header().Set("Content-Type", "application/json")
		body, err = json.Marshal(doc)
	} else {
		w.Header().Set("Content-Type", "application/xrd+xml")
		if body, err = xml.Marshal(doc); err == nil {
			body = append([]byte(xml.Header), body...)
		}
	}
	if err != nil { // the strings of it cannot fail to marshal
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	if h.varies {
		w.Header().Set("Vary", "Host, X-Forwarded-Proto, Forwarded")
	}
	_, _ = w.Write(body) // the client is gone otherwise
}

// href is the address to announce.
func (h *handler) href(e Entry, r *http.Request) string {
	if e.Public != "" {
		return e.Public
	}
	scheme := e.Plain
	if h.trust.TLS(r) {
		scheme = e.TLS
	}
	return scheme + "://" + r.Host + e.Path
}
