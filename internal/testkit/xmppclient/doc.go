// Package xmppclient is a client of XMPP over WebSocket (RFC 7395) for tests, in two layers:
//
//   - Conn is one connection. It sends what it is told, right or wrong, and reads whole elements. Package boshclient
//     makes one of a BOSH session.
//   - Client is a model of a well-behaved client with stream management (XEP-0198): it numbers what it sends, keeps
//     it until it is acknowledged, comes back by itself after every kind of break, resumes, and sends again exactly
//     what the server has not counted. It holds the server to the XEP's rules and remembers where it broke them.
//
// A Client is driven by Run; it owns one goroutine that reads and one that writes for the connection it has, and
// joins both before it opens the next one.
package xmppclient
