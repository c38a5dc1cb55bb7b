// Package session is the protocol core: streams (RFC 6120 §4, §6, §7), the sessions that outlive them (XEP-0198), what
// clients are sent and what they say (RFC 6121), and the gateway's own answers to IQs.
//
// A stream belongs to one transport; a Session belongs to one full JID and may go through many streams. It has an outbox:
// the stanzas that its client has not acknowledged, each at a place of its own. What the package needs of the other rooms
// is in needs.go, what a transport has to be is in transport.go.
//
// Invariants:
//
//   - A stanza is in the journal, with every outbox place it got, before it can be sent and before it is counted for its
//     sender. What <a h/> says is on the disk, too.
//   - A place leaves the outbox when the client acknowledged it, or, without XEP-0198, when the transport proved it.
//     What a session leaves behind when it ends goes to the user's other sessions or to the mailbox.
//   - Everything that enters the outboxes or the mailbox of one user does so under that user's lock in Router, so there
//     is one order.
//   - Nothing that a client can feed grows without a bound: Config and Journal.Room hold it.
//
// Locks, in this order: Service.barrier (shared; a checkpoint takes it whole), a stream's inMu, Service.turns, the user's
// lock in Router, Session.mu, the locks of the stores. A stream's mu and Service.mu are leaves.
//
// Goroutines: settleLoop and askLoop of each Service; a timer for each session that waits for its client; one for each
// session that is over its limits, until it has ended. Streams are run by their transports.
package session
