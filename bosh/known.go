package bosh

import "holdfast/internal/hostmeta"

// Path is where clients connect.
const Path = "/http-bind"

// Endpoint is what discovery says of BOSH (XEP-0156).
func Endpoint(cfg Config) hostmeta.Entry {
	return hostmeta.Entry{Rel: "urn:xmpp:alt-connections:xbosh", Public: cfg.PublicURL, Plain: "http", TLS: "https", Path: Path}
}

// Knows reports whether a session is served here; leaving, that this node is about to end, and who comes after it serves
// the sessions that it had.
func (s *Server) Knows(sid string) (here, leaving bool) { return s.find(sid) != nil, s.door.IsShut() }

// Refuse turns away who begins a session or comes with one that is not served here, from now on. It is for the time in
// which the session layer sends away those that it has; [Server.Drain] follows.
func (s *Server) Refuse() { s.door.Shut() }
