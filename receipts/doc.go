// Package receipts says what asks for a delivery receipt, what is one, and what else proves that a message arrived.
// It is rules alone: pure functions of a stanza, no state, no goroutine, no store.
//
// # Requests (XEP-0184 §4, §5)
//
// A message asks for a receipt when it carries <request xmlns='urn:xmpp:receipts'/> and has an id attribute that is
// not empty ("a sender MUST include an 'id' attribute on every content message that requests a receipt"). Never when
//
//   - it is of type error: only non-error content messages may ask (§5);
//   - it is of type groupchat: "received" has no meaning for a room, and each occupant would answer (§5.3);
//   - it carries <received/> as well: an ack message must not ask, lest two clients loop (§5.4).
//
// # Proof
//
// A message proves that others arrived when it carries
//
//   - <received xmlns='urn:xmpp:receipts' id='…'/>, the receipt (XEP-0184 §4), which always counts;
//   - <received/>, <displayed/> or <acknowledged/> of urn:xmpp:chat-markers:0 with an id (XEP-0333; the first and the
//     last were removed in its version 0.5 and are still sent), unless RECEIPTS_PROOF leaves markers out.
//
// The type of such a message does not matter ("a client SHOULD also accept receipts with a different message type",
// XEP-0184 §4), except that an error, which may quote a receipt that could not be delivered, and a groupchat message,
// which speaks to a room, prove nothing.
//
// A displayed marker means "all messages up to this point" to a reader. Here it proves only the message it names:
// markers "do not assume a reliable transport" (XEP-0333 §1), so an earlier message may well be the one that was lost.
//
// The acknowledgement of XEP-0198 §4 counts as proof too, when RECEIPTS_PROOF has "ack" and the recipient's client
// does not advertise urn:xmpp:receipts (XEP-0184 §6): from such a client no receipt will come, and its stream
// management is the best word there is. From a client that does advertise it, the receipt is awaited, because an
// acknowledged stanza can still be lost between the client's stream and its message store.
package receipts
