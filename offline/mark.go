package offline

import (
	"context"
	"crypto/sha256"

	"holdfast/stanza"
)

// Chat markers (XEP-0333) in the mailbox. A marker says that everything up to the message it names has been received,
// displayed or acknowledged, in this order of significance (§6), within its thread. So of several from one sender for one
// thread only the last is worth keeping, unless it says less than one before it.

// Mark is what one marker says: in which thread, and how much. The zero Mark is no marker. It is comparable.
type Mark struct {
	Thread [16]byte // a hash of the <thread/>
	Rank   uint8    // 1 received, 2 displayed, 3 acknowledged
}

const (
	markerKinds = stanza.MarkerReceived | stanza.MarkerDisplayed | stanza.MarkerAcknowledged
	// besides is what may stand beside a marker in a message that is nothing else.
	besides = passing &^ (stanza.AMP | stanza.Expire)
)

// markOf is what st marks, if it does nothing else. What asks for a receipt, or is one, is no such message, nor one with
// rules or an expiry of its own; and in a room markers of many come from one bare address.
func markOf(st *stanza.Stanza) (m Mark) {
	has := st.Payloads()
	switch has & markerKinds {
	case stanza.MarkerReceived:
		m.Rank = 1
	case stanza.MarkerDisplayed:
		m.Rank = 2
	case stanza.MarkerAcknowledged:
		m.Rank = 3
	default:
		return Mark{}
	}
	if has&^(besides|markerKinds) != 0 || effectiveType(st.TypeRaw()) == "groupchat" {
		return Mark{}
	}
	thread, names := "", 0
	for i := range st.NumChildren() {
		c := st.Child(i)
		switch {
		case string(c.Space()) == stanza.NSMarkers:
			if names++; c.Attr("id") == "" {
				return Mark{}
			}
		case c.Is(stanza.NSClient, "thread"):
			thread = c.Text()
		}
	}
	if names != 1 {
		return Mark{}
	}
	sum := sha256.Sum256([]byte(thread))
	copy(m.Thread[:], sum[:])
	return m
}

// row is how a Backend writes it down, nil for none.
func (m Mark) row() []byte {
	if m.Rank == 0 {
		return nil
	}
	return append(m.Thread[:], m.Rank)
}

// markSize is the length of a row.
const markSize = len(Mark{}.Thread) + 1

func readMark(row []byte) (m Mark) {
	if len(row) == markSize {
		copy(m.Thread[:], row)
		m.Rank = row[markSize-1]
	}
	return m
}

// marks is what a new marker does to those that are there.
type marks struct {
	ids        []stanza.ID        // those that it replaces
	found      map[stanza.ID]meta // what the store says of them
	bytes      int64              // their length
	superseded bool               // or one that is there, and newer, says as much already
}

// marksLocked looks at the markers of sender for the same thread.
func (m *Mailbox) marksLocked(ctx context.Context, b *box, sender string, mark Mark, id stanza.ID) (out marks, err error) {
	look := func(other stanza.ID, o Mark, bytes int) {
		switch newer := other.Compare(id); {
		case newer < 0 && o.Rank <= mark.Rank:
			out.ids = append(out.ids, other)
			out.bytes += int64(bytes)
		case newer > 0 && o.Rank >= mark.Rank:
			out.superseded = true
		}
	}
	for _, w := range b.puts {
		if c := &w.change; c.Mark.Rank > 0 && c.Mark.Thread == mark.Thread && c.Sender == sender {
			look(c.ID, c.Mark, len(c.Raw))
		}
	}
	if b.inStore() == 0 {
		return out, nil
	}
	rows, err := m.store.Marks(ctx, b.name, sender, mark.Thread)
	for _, r := range rows {
		if _, put := b.find(r.ID); put || b.removing[r.ID] > 0 {
			continue // committed a moment ago, or gone
		}
		if out.found == nil {
			out.found = make(map[stanza.ID]meta, len(rows))
		}
		out.found[r.ID] = meta{sender: sender, bytes: r.Bytes}
		look(r.ID, r.Mark, r.Bytes)
	}
	return out, err
}

// replaceLocked takes out what a new marker replaces, which is in the box already.
func (m *Mailbox) replaceLocked(b *box, old marks) error {
	size := writeOverhead + int64(len(old.ids)*len(stanza.ID{}))
	if err := m.gate.pass(size); err != nil {
		return err
	}
	had := b.count
	gone, run := b.remove(old.ids, old.found, nil)
	m.stored.Add(-int64(had - b.count))
	for range had - b.count {
		m.metrics.decided(Verdict{Drop, Superseded})
	}
	if len(gone) == 0 {
		m.gate.leave(size)
		return nil
	}
	w := &write{
		change: Change{Op: OpRemove, User: b.name, IDs: gone, Run: run},
		box:    m.boxes.acquire(b.user), size: size,
	}
	if err := m.queue(w); err != nil {
		m.gate.leave(size)
		m.boxes.release(b)
		return err
	}
	return nil
}
