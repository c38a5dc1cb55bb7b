package route

import (
	"context"

	"holdfast/stanza"
)

// proofs are payloads that close something for the sender of an earlier message. Unlike other messages without a type
// they are worth another session, or the mailbox, when the one they were meant for is gone.
const proofs = stanza.ReceiptReceived | stanza.MarkerReceived | stanza.MarkerDisplayed | stanza.MarkerAcknowledged

// Message routes a message by RFC 6121 §8.5. It returns an error only when nothing was done, so that it can be
// routed again.
func (h *Hub[S, V]) Message(from S, st *stanza.Stanza) error {
	bare := st.To.Bare()
	u := h.acquire(bare)
	if h.elsewhere(bare) {
		h.release(bare, u)
		return ErrElsewhere
	}
	if len(u.sessions) == 0 {
		// §8.5.1; whoever has a session exists.
		exists, err := h.backend.Exists(context.Background(), bare)
		if err != nil || !exists {
			h.release(bare, u)
			if err != nil || string(st.TypeRaw()) == "error" {
				return err
			}
			var none V
			return h.backend.Unroutable(from, st, none)
		}
	}
	verdict, accepted, err := h.messageLocked(u, from, st, bare)
	h.release(bare, u)
	if err != nil || accepted {
		return err
	}
	return h.backend.Unroutable(from, st, verdict)
}

// messageLocked reports accepted when the sender need not be told anything.
func (h *Hub[S, V]) messageLocked(u *user[S], from S, st *stanza.Stanza, bare stanza.Addr) (verdict V, accepted bool, err error) {
	if st.To.IsFull() {
		if s, ok := u.find(st.To); ok {
			if u.draining == s && h.backend.Storable(st) && later(st) {
				// Behind what it is still to be given.
				return h.backend.Store(from, bare, st)
			}
			u.targets = append(u.targets[:0], s)
			n, err := h.backend.Deliver(from, st, u.targets)
			if err != nil || n > 0 {
				return verdict, true, err
			}
			return h.backend.Store(from, bare, st)
		}
		// §8.5.3.2.1: chat goes on as if to the bare address, the others do not.
		switch string(st.TypeRaw()) {
		case "chat":
		case "error":
			return verdict, true, nil
		case "groupchat", "headline":
			return verdict, false, nil
		default:
			if st.Payloads()&proofs == 0 {
				return verdict, false, nil
			}
		}
	}
	u.targets = u.receivers(u.targets[:0])
	if len(u.targets) == 0 {
		return h.backend.Store(from, bare, st) // whatever its type is, the policy decides what becomes of it
	}
	switch string(st.TypeRaw()) { // §8.5.2.1
	case "error":
		return verdict, true, nil
	case "groupchat":
		return verdict, false, nil
	case "headline":
		_, err = h.backend.Deliver(from, st, u.targets)
		return verdict, true, err
	}
	var none S
	if u.draining == none || !h.backend.Storable(st) {
		n, err := h.backend.Deliver(from, st, u.targets)
		if err != nil || n > 0 {
			return verdict, true, err
		}
	}
	return h.backend.Store(from, bare, st)
}

// later reports whether a message may wait in the mailbox (§8.5.2): of a type that is stored at all.
func later(st *stanza.Stanza) bool {
	switch string(st.TypeRaw()) {
	case "error", "groupchat", "headline":
		return false
	}
	return true
}
