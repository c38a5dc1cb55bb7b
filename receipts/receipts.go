package receipts

import (
	"bytes"
	"iter"

	"holdfast/stanza"
)

// Namespaces, also the names of the disco#info features (XEP-0184 §6, XEP-0333 §3).
const (
	NS        = "urn:xmpp:receipts"
	NSMarkers = "urn:xmpp:chat-markers:0"
)

// markers are the children of urn:xmpp:chat-markers:0 that say a message arrived.
const markers = stanza.MarkerReceived | stanza.MarkerDisplayed | stanza.MarkerAcknowledged

// Asks reports whether st asks for a receipt.
func Asks(st *stanza.Stanza) bool {
	if st.Payloads()&(stanza.ReceiptRequest|stanza.ReceiptReceived) != stanza.ReceiptRequest {
		return false
	}
	return st.Kind() == stanza.Message && len(st.IDRaw()) > 0 && provable(st)
}

// Receipt returns the id of the message that st is the receipt for. When st carries several, it is the first.
func Receipt(st *stanza.Stanza) (msgID string, ok bool) {
	for _, id := range (Policy{}).Proved(st) {
		return id, true
	}
	return "", false
}

// Proved yields what st proves: the id of each message that it names as arrived, and by what. A message that is named
// twice is yielded twice. What st can name is bounded by the children that a stanza may have.
func (p Policy) Proved(st *stanza.Stanza) iter.Seq2[Proof, string] {
	return func(yield func(Proof, string) bool) {
		want := stanza.ReceiptReceived
		if p.marker {
			want |= markers
		}
		if st.Payloads()&want == 0 || st.Kind() != stanza.Message || !provable(st) {
			return
		}
		for i := range st.NumChildren() {
			c := st.Child(i)
			by, ok := p.proof(c)
			if !ok {
				continue
			}
			if id := c.Attr("id"); id != "" && !yield(by, id) {
				return
			}
		}
	}
}

// proof says which proof a child is, if any.
func (p Policy) proof(c stanza.Child) (Proof, bool) {
	switch string(c.Space()) {
	case NS:
		return ByReceipt, string(c.Name()) == "received"
	case NSMarkers:
		switch string(c.Name()) {
		case "received", "displayed", "acknowledged":
			return ByMarker, p.marker
		}
	}
	return 0, false
}

// provable reports whether the type of a message lets it ask for a receipt or be one.
func provable(st *stanza.Stanza) bool {
	typ := st.TypeRaw()
	if bytes.IndexByte(typ, '&') >= 0 { // written with references: rare, and must not slip through
		typ = []byte(st.Attr("type"))
	}
	switch string(typ) {
	case "error", "groupchat":
		return false
	}
	return true
}
