// Package bench is a load generator for XMPP servers that speak WebSocket (RFC 7395) or BOSH (XEP-0124, XEP-0206), and
// for the bare relays of bench/relay, which are what a message costs before any XMPP is done.
//
// Both are driven by the same code in the same pattern: one WebSocket message, or one HTTP request, and one write for
// each stanza, one message in flight replaced by the next when its delivery (or its receipt) was seen. What differs is
// the bytes of a frame and the negotiation at the start (RFC 6120 §6 with SCRAM-SHA-256 of RFC 7677 or PLAIN of RFC 4616, §7,
// XEP-0198 §3).
//
// The figures are CPU time of the server's process, read from its POSIX CPU clock in nanoseconds (user and system,
// all its threads, ended ones too), resident memory from /proc, and latencies from the time at which a message was
// meant to be sent, so that a stalled server is charged for what it held up.
//
// Invariants:
//   - every message carries its stream and its number; a Ledger knows of each whether it came, came twice or came
//     after a later one, and a scenario's Counts say so;
//   - a scenario ends in bounded time, whatever the server does;
//   - a scenario logs its clients out again, so that nothing detached is left in the server.
//
// Goroutines: none, but for what is done to a cluster's nodes meanwhile. A scenario runs on the goroutine that called
// it, which turns one epoll loop over all connections; that is what lets one core drive a server that has another core to itself. Linux only, no TLS.
package bench
