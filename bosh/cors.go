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

// cors lets a page read the answer, errors too: without it a page sees nothing but a failure. It reports whether the page
// may connect at all.
func (s *Server) cors(h http.Header, r *http.Request) bool {
	h["Vary"] = varyOrigin
	values := r.Header["Origin"]
	if len(values) == 0 {
		h["Access-Control-Allow-Origin"] = anyOrigin
		return true
	}
	if !s.origins.Allow(r) {
		return false
	}
	h["Access-Control-Allow-Origin"] = values[:1]
	return true
}

// preflight answers OPTIONS (Fetch §3.2.2).
func preflight(w http.ResponseWriter) {
	h := w.Header()
	h["Access-Control-Allow-Methods"] = corsMethods
	h["Access-Control-Allow-Headers"] = corsHeaders
	h["Access-Control-Max-Age"] = corsMaxAge
	w.WriteHeader(http.StatusNoContent)
}
