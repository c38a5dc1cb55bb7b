package offline

import (
	"context"
	"slices"
	"time"

	"holdfast/stanza"
)

// Remove takes messages out of a mailbox, on proof that they arrived. Every other method sees that at once; the
// store gets it with the next group commit, or never hears of a message that it has not got yet. Messages that are
// not there are passed over. It never waits for room, however much waits to be written: what it removes makes room.
func (m *Mailbox) Remove(ctx context.Context, user stanza.Addr, ids ...stanza.ID) error {
	now := time.Now()
	_, err := m.remove(ctx, user, ids, func(id stanza.ID) { m.metrics.ages.Observe(now.Sub(id.Time()).Seconds()) })
	return err
}

// Discard is Remove of messages that did not have to arrive: those that the user or the operator wants gone, or the
// journal says are.
func (m *Mailbox) Discard(ctx context.Context, user stanza.Addr, ids ...stanza.ID) error {
	_, err := m.remove(ctx, user, ids, nil)
	return err
}

// RemoveID takes one message out and reports whether it was there: for a receipt that comes after the fallback to
// offline storage.
func (m *Mailbox) RemoveID(ctx context.Context, user stanza.Addr, id stanza.ID) (bool, error) {
	n, err := m.remove(ctx, user, []stanza.ID{id}, nil)
	return n > 0, err
}

// Purge empties the mailbox of user. Like Remove it never waits for room.
func (m *Mailbox) Purge(ctx context.Context, user stanza.Addr) error {
	return m.changeBox(ctx, user, writeOverhead, func(b *box) (Change, error) {
		if b.count == 0 {
			return Change{}, nil
		}
		for _, w := range b.puts {
			// One that is in flight already is gone when the purge is committed.
			w.state.CompareAndSwap(stateQueued, stateCalledOff)
		}
		m.stored.Add(-int64(b.count))
		m.known.remove(b.name)
		b.puts, b.senders, b.seen, b.count, b.bytes = nil, nil, nil, 0, 0
		return Change{Op: OpPurge, User: b.name}, nil
	})
}

// remove calls taken, if there is one, with each message that was there.
func (m *Mailbox) remove(ctx context.Context, user stanza.Addr, ids []stanza.ID, taken func(stanza.ID)) (removed int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	size := writeOverhead + int64(len(ids)*len(stanza.ID{}))
	err = m.changeBox(ctx, user, size, func(b *box) (Change, error) {
		found, err := m.lookUpLocked(ctx, b, ids)
		if err != nil {
			return Change{}, err
		}
		had := b.count
		gone, run := b.remove(ids, found, taken)
		removed = had - b.count
		m.stored.Add(-int64(removed))
		if removed > 0 && b.count == 0 {
			m.known.remove(b.name)
		}
		if len(gone) == 0 {
			return Change{}, nil
		}
		return Change{Op: OpRemove, User: b.name, IDs: gone, Run: run}, nil
	})
	return removed, err
}

// changeBox runs fn with the box of user locked and loaded, or not at all when user has no mail, and queues the
// Change that it returns, if that has a user.
func (m *Mailbox) changeBox(ctx context.Context, user stanza.Addr, size int64, fn func(*box) (Change, error)) error {
	user = user.Bare()
	if m.known.without(user.String()) {
		return nil
	}
	if err := m.gate.pass(size); err != nil {
		return err
	}
	b := m.boxes.acquire(user)
	b.mu.Lock()
	taken, err := m.changeLocked(ctx, b, size, fn)
	b.mu.Unlock()
	if !taken { // else the write keeps its place and the reference
		m.gate.leave(size)
		m.boxes.release(b)
	}
	return err
}

func (m *Mailbox) changeLocked(
	ctx context.Context, b *box, size int64, fn func(*box) (Change, error),
) (taken bool, err error) {
	if err := m.loadLocked(ctx, b); err != nil {
		return false, err
	}
	c, err := fn(b)
	if err != nil || c.User == "" {
		return false, err
	}
	if err := m.queue(&write{change: c, box: b, size: size}); err != nil {
		return false, err
	}
	return true, nil
}

// sparse is how many messages a mailbox may have for each one looked for, before they are looked for one by one.
const sparse = 16

// lookUpLocked asks the store about those of ids of which nothing is in memory.
func (m *Mailbox) lookUpLocked(ctx context.Context, b *box, ids []stanza.ID) (map[stanza.ID]meta, error) {
	if b.inStore() == 0 {
		return nil, nil
	}
	var unknown []stanza.ID
	for _, id := range ids {
		if !b.knows(id) && !id.IsZero() {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) == 0 {
		return nil, nil
	}
	slices.SortFunc(unknown, stanza.ID.Compare)
	found := make(map[stanza.ID]meta, len(unknown))
	take := func(r Row) bool {
		if _, ok := slices.BinarySearchFunc(unknown, r.ID, stanza.ID.Compare); ok {
			found[r.ID] = meta{sender: r.Sender, bytes: r.Bytes}
		}
		return true
	}
	if b.count <= sparse*len(unknown) {
		in := Range{After: before(unknown[0]), To: unknown[len(unknown)-1]}
		return found, m.store.Scan(ctx, b.name, in, take)
	}
	for _, id := range unknown {
		if err := m.store.Scan(ctx, b.name, Range{After: before(id), To: id}, take); err != nil {
			return nil, err
		}
	}
	return found, nil
}
