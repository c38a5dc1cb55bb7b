// Package proxy finds out who the client is when load balancers stand in between: its address and whether its own
// side of the connection was TLS. Every transport (WebSocket, BOSH) asks here, so that one list of trusted
// addresses decides for all of them.
//
// Sources, in the order they are believed:
//
//   - a PROXY line (HAProxy's protocol, versions 1 and 2) at the start of a connection from a trusted address;
//   - Forwarded (RFC 7239) or X-Forwarded-For and X-Forwarded-Proto, when the address that remains is trusted;
//   - the connection itself.
//
// Invariants:
//
//   - a word of an address that is not trusted is never believed: lists are walked from the right, the end that the
//     nearest proxy wrote, and the walk stops at the first address that is not trusted;
//   - a header that does not parse counts as absent, and a client behind a trusted proxy that hides it is never
//     taken for a local one.
//
// The package starts no goroutines. A [Trust] is immutable.
package proxy
