package ws

import "holdfast/internal/hostmeta"

// Path is where clients connect.
const Path = "/xmpp-websocket"

// Endpoint is what discovery says of WebSocket (XEP-0156).
func Endpoint(cfg Config) hostmeta.Entry {
	return hostmeta.Entry{Rel: "urn:xmpp:alt-connections:websocket", Public: cfg.PublicURL, Plain: "ws", TLS: "wss", Path: Path}
}
