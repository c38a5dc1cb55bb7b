// Package packetcache keeps the messages that await their delivery receipt (XEP-0184), each with a deadline, and sees
// to it that something happens when the deadline passes: the configured actions run in order (resend, then offline,
// bounce or drop), so that a message that was lost on its last hop reaches the recipient after all.
//
// What asks for a receipt and what is one is decided elsewhere (package receipts); this package is told.
//
// # An entry's life
//
//	Open ──> waiting ──deadline──> running an action ──resent──> waiting
//	            │                     │    │  └──failed──> retry, with back-off ──> running
//	            │                     │    └──offline──> late ──PACKETCACHE_LATE──> forgotten
//	            └─────────────────────┴──receipt, marker, ack, Close, bounce, drop──> gone
//
// An entry is known by the message's stanza id. It is matched by the bare address of the recipient, the bare address
// of the sender and the message's id attribute: any resource of the recipient may send the receipt (XEP-0184 §5.1: a
// message to a bare JID may reach any of them) and it may go to any resource of the sender or to its bare JID.
//
// # Invariants
//
//   - Nothing is lost: an entry leaves only by proof, by a terminal action that returned nil, or by Close. An action
//     that fails is tried again, for ever, with back-off. Over the caps the oldest entries get the terminal action
//     early (outcome "evicted"), they are never just removed.
//   - One end: a receipt that comes while an action runs and what the action did are reconciled, and one outcome is
//     counted. When the action was Offline, the copy is withdrawn. When it was Bounce and it succeeded, the end is the
//     bounce.
//   - After Offline an entry stays as a small tombstone without its stanza. A late receipt finds it and says so, so
//     that the caller takes the copy out of the mailbox. Forgetting tombstones costs at worst a repetition.
//   - Entries are given to Actions in the order of their deadlines, one at a time.
//   - What closes before a Checkpoint is never written.
//
// # Ids used twice
//
// RFC 6120 §8.1.3 leaves the uniqueness of ids to the client. While several entries with one key are open, a receipt
// says only that one of them arrived, not which: closing the oldest or all could take a message for delivered that was
// lost. So receipts are counted for each resource of the recipient, and an entry closes when that resource has sent
// more of them than deliveries of all others can explain: with two messages at the second receipt, and then both. Until
// then they stay, and at worst fall back and are repeated. A client that uses an id once never sees any of this.
//
// # Restart
//
// The caller has a journal in front: every Open, and every Close that Receipt, Marker and Proved report, is in it
// before it counts, and it lets go of a piece of it only after a Checkpoint that began later returned nil. After a
// restart New loads the last checkpoint and the caller replays the rest through Restore, Open and Close, all of them
// idempotent by stanza id; nothing runs before Run. Deadlines are kept as absolute times; those that passed meanwhile
// run at once, at PACKETCACHE_RESTART_RATE. An action may therefore run twice around a crash: Actions are idempotent
// by stanza id too, and an implementation that journals what Offline did replays it as a Restore without Stanza.
//
// # Goroutines
//
// Run is the only one: it owns the waiting, claims what is due and runs the actions outside of the lock. All else
// happens on the callers' goroutines under Cache.mu, which is a leaf: nothing is called with it held.
package packetcache
