// Package boshclient is a client of XMPP over BOSH (XEP-0124, XEP-0206) for tests, in three layers:
//
//   - Post sends one HTTP request, right or wrong, and reads the answer;
//   - Session is one BOSH session: it keeps the rid window, has a request held while somebody reads, sends a request
//     again after a lost connection, and hands on what comes in the order of the rids. It holds the server to the XEP's
//     rules and remembers where it broke them. Dial makes it a connection of package xmppclient, for what logs in, resumes
//     or misbehaves the same on every transport;
//   - Client is a model of a well-behaved client: it logs in, sends, and takes a stanza for acknowledged when the request
//     that carried it was answered. Whatever happens to the network and the server, it goes on with the same session.
//
// A Session owns one goroutine for each request that is not answered; Abort joins them. A Client is driven by Run.
package boshclient
