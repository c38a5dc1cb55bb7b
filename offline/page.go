package offline

import (
	"context"
	"fmt"
	"time"

	"holdfast/stanza"
)

// Message is one message of a mailbox.
type Message struct {
	ID stanza.ID
	// At is when the gateway took the message, to the millisecond: the time in its id.
	At  time.Time
	Raw []byte // as it was put

	expires int64 // see Change.Expires
}

// Stanza returns the message ready for delivery to user: with the time at which it was sent (XEP-0160 §2,
// XEP-0203 §2), unless it says already that user's domain delayed it. One that has seconds to live (XEP-0023) has those
// that are left.
func (msg Message) Stanza(user stanza.Addr) (*stanza.Stanza, error) {
	st, err := stanza.Parse(msg.Raw, msg.ID)
	if err != nil {
		return nil, fmt.Errorf("offline: stored message: %w", err)
	}
	domain := user.Server()
	edit := stanza.Edit{From: st.From, To: st.To}
	if !st.DelayedBy(domain) {
		edit.Append = stanza.DelayChild(domain, msg.At, "Offline Storage")
	}
	if st.Payloads().Has(stanza.Expire) {
		if left := secondsLeft(st, time.Now()); left != nil {
			edit.Without, edit.Append = stanza.Expire, append(edit.Append, left...)
		}
	}
	if len(edit.Append) == 0 {
		return st, nil
	}
	out := st.Rewrite(edit)
	out.ID = msg.ID // Rewrite was not asked for another <stanza-id/>
	return out, nil
}

// Page returns messages of user whose ids are greater than after (the zero ID begins at the front), in the order of
// their ids: up to limit of them, and up to maxBytes together but always one; 0 for no such bound. more says that
// there are others behind. Nothing is removed by it.
//
// A message that is put while somebody pages, with an id smaller than the page's last, is not on later pages: who
// has reached the end asks Count whether there is more than was handed out. A message whose time is over is on no page.
func (m *Mailbox) Page(
	ctx context.Context, user stanza.Addr, after stanza.ID, limit, maxBytes int,
) (page []Message, more bool, err error) {
	page, more, err = m.page(ctx, user, after, limit, maxBytes, false)
	if len(page) > 0 {
		m.metrics.popped.Observe(float64(len(page)))
	}
	return page, more, err
}

// Peek is Page for who only looks at the mailbox: nothing is handed out, so it is not counted, nor expected to be removed.
func (m *Mailbox) Peek(
	ctx context.Context, user stanza.Addr, after stanza.ID, limit, maxBytes int,
) (page []Message, more bool, err error) {
	return m.page(ctx, user, after, limit, maxBytes, true)
}

func (m *Mailbox) page(
	ctx context.Context, user stanza.Addr, after stanza.ID, limit, maxBytes int, peek bool,
) (page []Message, more bool, err error) {
	p := pager{peek: peek, limit: limit, maxBytes: maxBytes, after: after, now: time.Now()}
	if m.cfg.Lifetime > 0 {
		if oldest := before(idAt(p.now.Add(-m.cfg.Lifetime))); oldest.Compare(after) > 0 {
			p.after = oldest
		}
	}
	err = m.with(ctx, user, func(b *box) error {
		if b.count == 0 {
			return nil
		}
		size := b.count
		if limit > 0 {
			size = min(size, limit)
		}
		p.box, p.page = b, make([]Message, 0, min(size, 128))
		return m.pageLocked(ctx, &p)
	})
	if err != nil {
		return nil, false, err
	}
	return p.page, p.more, nil
}

// pageLocked merges what the store has with what it does not have yet. The box stays locked, so that neither changes.
func (m *Mailbox) pageLocked(ctx context.Context, p *pager) error {
	b := p.box
	i, same := b.find(p.after)
	if same {
		i++
	}
	puts := b.puts[i:]
	if b.inStore() > 0 {
		defer since(m.metrics.pages, time.Now())
		err := m.store.Scan(ctx, b.name, Range{After: p.after, Bodies: true}, func(r Row) bool {
			for len(puts) > 0 && puts[0].change.ID.Compare(r.ID) < 0 {
				if !p.addPut(puts[0]) {
					return false
				}
				puts = puts[1:]
			}
			if len(puts) > 0 && puts[0].change.ID == r.ID {
				return true // committed a moment ago and not yet settled
			}
			if b.removing[r.ID] > 0 {
				return true
			}
			return p.add(r.ID, r.Sender, r.Raw, r.Expires)
		})
		if err != nil {
			return err
		}
	}
	for len(puts) > 0 && !p.more && p.addPut(puts[0]) {
		puts = puts[1:]
	}
	return nil
}

// pager collects one page.
type pager struct {
	box             *box
	peek            bool // see Peek
	limit, maxBytes int
	after           stanza.ID // the last message, at first where the page begins
	page            []Message
	bytes           int
	more            bool
	now             time.Time
}

func (p *pager) addPut(w *write) bool {
	return p.add(w.change.ID, w.change.Sender, w.change.Raw, w.change.Expires)
}

// add reports false, and notes that there are more, when the page is full.
func (p *pager) add(id stanza.ID, sender string, raw []byte, expires int64) bool {
	if over(expires, p.now) {
		p.box.place++ // what is handed out on both sides of it is no run
		return true
	}
	if p.limit > 0 && len(p.page) >= p.limit ||
		p.maxBytes > 0 && len(p.page) > 0 && p.bytes+len(raw) > p.maxBytes {
		p.more = true
		return false
	}
	p.page = append(p.page, Message{ID: id, At: id.Time(), Raw: raw, expires: expires})
	p.bytes += len(raw)
	if !p.peek {
		p.box.saw(id, p.after, meta{sender: sender, bytes: len(raw)})
	}
	p.after = id
	return true
}
