package offline

import (
	"context"
	"fmt"
	"strconv"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// OwnLimit is what a recipient chose in place of OFFLINE_LIMIT. The zero OwnLimit is no choice. It is comparable.
type OwnLimit struct {
	Chosen   bool
	Lifted   bool // any number of messages
	Messages int  // of one sender, unless Lifted; with 0 nothing is stored
}

// lifted is how a Backend writes down any number.
const lifted = -1

// row is how a Backend writes it down.
func (l OwnLimit) row() int64 {
	if l.Lifted {
		return lifted
	}
	return int64(l.Messages)
}

func ownLimit(row int64) OwnLimit {
	if row == lifted {
		return OwnLimit{Chosen: true, Lifted: true}
	}
	return OwnLimit{Chosen: true, Messages: int(row)}
}

// maxOwnLimit bounds what can be chosen where the operator has no bound.
const maxOwnLimit = 1_000_000_000

// notAllowed is an error that the user's client is told.
func notAllowed(cond mstanza.Condition, text string) error {
	return mstanza.Error{Type: mstanza.Cancel, Condition: cond, Text: map[string]string{"en": text}}
}

// pairLimitLocked is how many messages of one sender are kept, and whether there is such a limit.
func (m *Mailbox) pairLimitLocked(b *box) (n int, limited bool) {
	if !m.cfg.OwnLimit || !b.own.Chosen {
		return m.cfg.Limit, m.cfg.Limit > 0
	}
	n, limited = b.own.Messages, !b.own.Lifted
	if most := m.cfg.OwnLimitMax; most > 0 && (!limited || n > most) {
		return most, true // it was chosen when the operator allowed more
	}
	return n, limited
}

// MayChoose reports whether users may choose their limit (OFFLINE_OWN_LIMIT).
func (m *Mailbox) MayChoose() bool { return m.cfg.OwnLimit }

// PairLimit is how many messages of one sender are kept for user, by the user's choice or the operator's; limited is
// false when there is no such limit.
func (m *Mailbox) PairLimit(ctx context.Context, user stanza.Addr) (n int, limited bool, err error) {
	b := m.boxes.acquire(user.Bare())
	defer m.boxes.release(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := m.loadLocked(ctx, b); err != nil {
		return 0, false, err
	}
	n, limited = m.pairLimitLocked(b)
	return n, limited, nil
}

// Choose notes how many messages of one sender user wants to be kept, and returns when that is committed. It counts from
// the moment of the call, also for writers that are at work. What is stored already stays, however much it is. What the
// operator does not allow is refused with an error that has a mellium stanza.Error for the client. With any other error it
// is not known whether the choice outlives the process.
func (m *Mailbox) Choose(ctx context.Context, user stanza.Addr, l OwnLimit) error {
	l.Chosen = true
	switch most := m.cfg.OwnLimitMax; {
	case !m.cfg.OwnLimit:
		return notAllowed(mstanza.NotAllowed, "the limit is the operator's")
	case l.Messages < 0:
		return mstanza.Error{Type: mstanza.Modify, Condition: mstanza.BadRequest}
	case most > 0 && (l.Lifted || l.Messages > most), l.Messages > maxOwnLimit:
		if most == 0 {
			most = maxOwnLimit
		}
		return notAllowed(mstanza.NotAcceptable, "the limit may be up to "+strconv.Itoa(most))
	}
	return m.setOwn(ctx, user, l)
}

// Forget empties the mailbox of user, whose account is removed, forgets what the user chose, and returns when that is
// committed.
func (m *Mailbox) Forget(ctx context.Context, user stanza.Addr) error {
	if err := m.Purge(ctx, user); err != nil {
		return err
	}
	return m.setOwn(ctx, user, OwnLimit{})
}

// setOwn changes a choice and waits for the commit. Whoever has chosen has a box that is asked for it, in memory or as
// soon as it is loaded.
func (m *Mailbox) setOwn(ctx context.Context, user stanza.Addr, l OwnLimit) error {
	if err := m.gate.pass(writeOverhead); err != nil {
		return err
	}
	b := m.boxes.acquire(user.Bare())
	b.mu.Lock()
	w, err := m.setOwnLocked(ctx, b, l)
	b.mu.Unlock()
	if w == nil { // else the write keeps its place and the reference
		m.gate.leave(writeOverhead)
		m.boxes.release(b)
	}
	if err == nil {
		err = m.writes.Flush(ctx)
	}
	if err == nil || ctx.Err() == nil && w != nil && !m.isRejected(w) {
		return nil // an error was about somebody else's write, which the next Checkpoint tells
	}
	return fmt.Errorf("offline: limit of a user: %w", err)
}

func (m *Mailbox) setOwnLocked(ctx context.Context, b *box, l OwnLimit) (*write, error) {
	if err := m.loadLocked(ctx, b); err != nil {
		return nil, err
	}
	if l == b.own && !l.Chosen {
		return nil, nil
	}
	w := &write{change: Change{Op: OpLimit, User: b.name, Limit: l}, box: b, size: writeOverhead}
	if err := m.queue(w); err != nil {
		return nil, err
	}
	switch had := b.own.Chosen; {
	case l.Chosen && !had:
		m.choosers.add(b.name)
	case !l.Chosen && had:
		m.choosers.remove(b.name)
	}
	b.own = l
	return w, nil
}

// isRejected reports whether the store refused w by itself.
func (m *Mailbox) isRejected(w *write) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rejected {
		if r == w {
			return true
		}
	}
	return false
}
