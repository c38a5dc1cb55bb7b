package ws

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"strings"

	"holdfast/internal/proxy"
)

// Path is where clients connect.
const Path = "/xmpp-websocket"

const altConnections = "urn:xmpp:alt-connections:websocket"

// HostMeta serves XEP-0156's discovery documents: JSON (RFC 6415 appendix A) where the path ends with .json, XRD
// elsewhere. The error is that of the settings.
func HostMeta(cfg Config) (http.Handler, error) {
	trust, err := trustOf(cfg)
	if err != nil {
		return nil, err
	}
	return &hostMeta{url: cfg.PublicURL, trust: trust}, nil
}

type hostMeta struct {
	url   string
	trust *proxy.Trust
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
func (h *hostMeta) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// XEP-0156 §4: a web page of any origin may look.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	doc := xrd{Links: []link{{Rel: altConnections, Href: h.href(r)}}}
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
	if err != nil { // the two strings of it cannot fail to marshal
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	if h.url == "" {
		w.Header().Set("Vary", "Host, X-Forwarded-Proto, Forwarded")
	}
	_, _ = w.Write(body) // the client is gone otherwise
}

// href is the address to announce: the one that was set, else the one that was asked.
func (h *hostMeta) href(r *http.Request) string {
	if h.url != "" {
		return h.url
	}
	scheme := "ws"
	if h.trust.TLS(r) {
		scheme = "wss"
	}
	return scheme + "://" + r.Host + Path
}
