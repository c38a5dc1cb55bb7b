// Package bosh is the HTTP transport: XMPP in the bodies of HTTP requests and responses (XEP-0124, XEP-0206). It carries
// whole elements between requests and a [session.CarriedStream] and knows no rules of XMPP beyond the binding's own:
// which request is next, which is held, what is sent again, and when a client has gone.
//
// # Layers
//
//   - request.go, write.go, cors.go, page.go: HTTP. A request is read whole, under a deadline and a cap, into a borrowed
//     buffer, which is given back before the request is held.
//   - body.go: <body/>. Its children leave it self-contained.
//   - create.go, window.go, serve.go, keys.go: requests, in the order of their ids.
//   - respond.go: what a request is answered with, and when.
//   - keep.go: what another process needs to go on. elsewhere.go: requests for sessions of other nodes.
//   - transport.go: what the stream sees, and how a session ends.
//
// # Who owns which goroutine
//
//   - Each request has that of net/http, and no other. It handles what is in the request, in its turn, then waits for the
//     response. What wakes it (Wake, a deadline, another request) sends a token; who is woken looks at everything.
//   - watch, one per Server: the deadlines of all sessions.
//   - A session that ends has one for a moment, which tells the stream (lose).
//
// # Invariants
//
//   - Requests are handled once, in the order of their ids, and answered in that order (XEP-0124 §14.2). A response is
//     fixed once; sent again it is the same.
//   - What is handled and fixed is noted (Keep) with mu held, in order, and safe (Settle) before the response is written
//     (contract 1). So whoever goes on knows at least what the client knows.
//   - A response is proved by a later request (contract 4): that of n = requests ids later, or one that acknowledges it.
//   - A Wake is never lost: a request is in front before it pulls.
//   - Locks: in, then mu, then those of the stream; smu and the watch's after mu. Transport's methods take neither.
//   - Lost is called exactly once, after the last Handle.
//   - What a client can make us hold is bounded: sessions by number, of each at most requests+1 open requests, a body only
//     while a request before it is missing, and the responses to its last requests.
package bosh
