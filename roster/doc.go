// Package roster keeps contacts and presence subscriptions: RFC 6121 §2 (roster get, set, push, versioning),
// §3 (subscriptions and pre-approval) and Appendix A (the subscription states).
//
// It stores and decides; it sends nothing. A [Change] is a roster push to send, an [Outcome] says what becomes of
// one presence stanza of type subscribe, subscribed, unsubscribe or unsubscribed, a [Removed] which of them are owed
// to a contact. Whoever holds the sessions carries them out.
//
// Invariants:
//
//   - A state change is in the store before the call that made it returns, so a stanza whose processing returned
//     without an error is settled as far as this package goes.
//   - Outbound and Inbound may be repeated, as a client does that resends what was not acknowledged. For subscribe and
//     unsubscribe the repetition is routed again; a contact that missed a subscribed or unsubscribed gets it as the
//     automatic answer to its next subscribe (§3.1.3) or probe (§4.3.2).
//   - A request to somebody who does not exist is lost, and nobody is told (§8.5.1). Whoever approves a contact and still
//     waits for its answer asks it again (Outcome.AskAgain), so that two who ask each other see each other, whoever came
//     first.
//   - The other side of a subscription is another roster, changed by its own call. No call holds two users' turns.
//   - A contact whose request is pending but whom the user never added ("None + Pending In", §A.1) is remembered but
//     is neither in a roster result nor pushed.
//   - Every visible change of a roster has its own version, greater than all before it. [Service.Since] is answered
//     from the versions of the items and of a bounded number of removals.
//   - Pre-approval (§3.4) lasts until the user says unsubscribed or removes the item. Appendix A's states do not
//     have it; it changes an inbound subscribe from pending into approved.
//
// A whole roster is cached as an immutable snapshot, written through under the user's turn. That presumes that one
// process at a time reads and writes a user's roster: the only one there is, or in a cluster the one that the user is
// assigned to. When that changes, each of the two calls [Service.Forget].
//
// The package starts no goroutines. A [Service] is safe for concurrent use.
package roster
