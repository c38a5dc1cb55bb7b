// Package cluster is what makes several gateways one: who is a member, who serves which user, and how a message gets
// from one node to another exactly once and in order. It knows nothing of stanzas; what a message means is its
// Receiver's business (package session).
//
// # Homes
//
// Each user has one home at a time: the node that holds all of the user's sessions, mailbox turn and awaited receipts.
// A key in Redis names it (Homes). A home moves with its user: the node that a client comes back to asks for the user,
// and the old home hands everything over in one message. What a home holds is therefore never touched by two nodes,
// and the rules of one machine hold for it unchanged.
//
// # Links
//
// A message for another node is in the sender's journal before anything else happens to it; then it is appended to the
// other's mailbox, a Redis stream, with a number that counts all that went from the one to the other. The receiver
// writes the number down in the same journal record as what the message did, so after a kill of either it is known
// what arrived, and what is sent again is recognised. A mailbox is trimmed when what came out of it is safe.
//
// # Order
//
// Messages from one sender to one recipient stay in order while the recipient's home moves: who has sent to a node goes
// on sending there, and the old home passes it on, until that one says that it has passed on everything (Homes.Where
// and the notice that calls Homes.Moved). Before the home moves again all nodes have to send straight to it (Node.Straighten).
//
// # Death
//
// A node shows that it lives by a counter in Redis. One that stands still for a lease, as seen by a node that could
// reach Redis all that time, or whose subscription is gone (the kernel closes it when the process is killed), is
// fenced: its journal and its mailbox are renamed in one step, so that it can write nothing more, however long it
// slept. Then its estate is adopted as a restarted process takes up its own, after those of the nodes that it had set out
// to adopt, and what still lies in their mailboxes is carried out. Others go on sending to it meanwhile, the heir's own
// clients too, so that nothing overtakes; after one round the mailbox is closed, the rest carried out, and it is said how
// much of each sender that was. What did not get in goes to the new homes.
//
// # Goroutines
//
// One for the beat, one that reads the mailbox and calls the Receiver, one for trimming, one that keeps homes, one that
// waits for the fence, one for adoptions, one a link with something to send, and for a moment one a user whose way is made
// straight. All end with Node.Close.
package cluster
