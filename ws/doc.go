// Package ws is the WebSocket transport: XMPP over RFC 6455 connections as RFC 7395 asks for. It carries whole elements
// between a socket and a [session.Stream] and knows no rules of XMPP beyond its framing: <open/> and <close/> (RFC 7395
// §3.3 to §3.6), one element per text message, and the limits that protect the process.
//
// # Who owns which goroutine
//
//   - reader, one per connection, alive as long as the connection: run in read.go. It alone calls Stream.Open, Handle,
//     Fail, PeerClosed and Lost. While nothing arrives it holds no buffer, no request and a small stack.
//   - writer, one per connection, alive only while there is something to write: write in write.go. It alone calls
//     Stream.Pull and Stream.Proved while the connection lives; the reader does so once the writer is gone for good.
//   - watch, one per Server: the clock, and all deadlines and pings of all connections.
//
// # Invariants
//
//   - The socket is written to by the writer only, once per batch. What coder/websocket itself wants to say (a closing
//     frame after a protocol error) and our own pings, pongs and closing frames travel in the same buffer, between
//     complete frames, so nothing that reads ever blocks on a peer that does not.
//   - A Wake is never lost: see the states in transport.go.
//   - Lost is called exactly once, after the last Handle, Pull and Proved.
//   - What a peer can make us hold is bounded: one message up to its cap, one batch, one pong, one ping in flight, and
//     the handshakes and unauthenticated connections by number.
//
// RFC 6455 §5 to §7, RFC 7395, RFC 7692 (permessage-deflate).
package ws
