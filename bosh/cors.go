package bosh

import "net/http"

// Shared by all answers: a header's value is never changed.
var (
	varyOrigin     = []string{"Origin"}
	varyBoth       = []string{"Origin, Accept-Encoding"}
	anyOrigin      = []string{"*"}
	corsMethods    = []string{"POST, GET, OPTIONS"}
	corsHeaders    = []string{"Content-Type"}
	corsMaxAge     = []string{"7200"}
	textXML        = []string{"text/xml; charset=utf-8"}
	encodingGzip   = []string{"gzip"}
	allowedMethods = []string{"GET, HEAD, POST, OPTIONS"}
)

// allowed reports whether the page that sent r may connect.
func (s *Server) allowed(r *http.Request) bool {
	return len(r.Header["Origin"]) == 0 || s.origins.Allow(r)
}

// cors lets a page read the answer, errors too: without it a page sees nothing but a failure.
func cors(h http.Header, r *http.Request, allowed bool) {
	h["Vary"] = varyOrigin
	switch values := r.Header["Origin"]; {
	case len(values) == 0:
		h["Access-Control-Allow-Origin"] = anyOrigin
	case allowed:
		h["Access-Control-Allow-Origin"] = values[:1]
	}
}

// preflight answers OPTIONS (Fetch §3.2.2).
func preflight(w http.ResponseWriter) {
	h := w.Header()
	h["Access-Control-Allow-Methods"] = corsMethods
	h["Access-Control-Allow-Headers"] = corsHeaders
	h["Access-Control-Max-Age"] = corsMaxAge
	w.WriteHeader(http.StatusNoContent)
}
