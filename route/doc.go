// Package route decides who gets a stanza: RFC 6121 §8, server rules for processing XML stanzas.
//
// A Hub knows the sessions that are bound here, by user. Each user has a lock, and everything that is routed to that
// user is decided and put into outboxes or into the mailbox under it. That is what keeps the order: no message can
// slip between a mailbox being emptied and its user becoming available.
//
// Invariants:
//
//   - a session is in the table from Table.Add to Table.Remove, whether it has a transport or not;
//   - nothing calls into a Hub while it holds a session's lock (user before session before store).
//
// The package starts no goroutines.
package route
