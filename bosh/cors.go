package bosh

import "net/http"

// Shared by all answers: a header's value is never changed.
var (
	corsMethods    = []string{"POST, GET, OPTIONS"}
	corsHeaders    = []string{"Content-Type"}
	corsMaxAge     = []string{"7200"}
	allowedMethods = []string{"GET, HEAD, POST, OPTIONS"}
)

// allowed reports whether the page that sent r may connect.
func (s *Server) allowed(r *http.Request) bool {
	return len(r.Header["Origin"]) == 0 || s.origins.Allow(r)
}

// originOf is the page that sent r, "" for none.
func originOf(r *http.Request) string {
	if values := r.Header["Origin"]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// readableBy is who may read an answer, "" for nobody: without that a page sees nothing but a failure, errors too.
func readableBy(origin string, allowed bool) string {
	switch {
	case origin == "":
		return "*"
	case allowed:
		return origin
	}
	return ""
}

// preflight answers OPTIONS (Fetch §3.2.2).
func preflight(w http.ResponseWriter) {
	h := w.Header()
	h["Access-Control-Allow-Methods"] = corsMethods
	h["Access-Control-Allow-Headers"] = corsHeaders
	h["Access-Control-Max-Age"] = corsMaxAge
	w.WriteHeader(http.StatusNoContent)
}
