package offline

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"

	"holdfast/stanza"
)

// Checkpoint waits until every Put, Force, Remove, Purge and Choose that returned before it is committed. When it returns
// nil, the journal that covers them may be freed as far as mailboxes are concerned. A write that the store refused
// for good is offered again by each Checkpoint, which fails until it is taken.
func (m *Mailbox) Checkpoint(ctx context.Context) error {
	m.mu.Lock()
	again := m.rejected
	m.rejected = nil
	m.mu.Unlock()
	for i, w := range again {
		if err := m.queue(w); err != nil {
			m.mu.Lock()
			m.rejected = append(m.rejected, again[i:]...)
			m.mu.Unlock()
			return err
		}
	}
	if err := m.writes.Flush(ctx); err != nil {
		return fmt.Errorf("offline: checkpoint: %w", err)
	}
	return nil
}

// Release waits until every change of user's mailbox that was made before is committed, and then drops what is in
// memory of it, so that the next use asks the store: for a user whose home moves to another node, and for one who comes
// from there. It costs nothing when nothing is in memory. ErrInUse says that somebody used the mailbox meanwhile, or that
// the store refuses one of its writes; it was not dropped then.
func (m *Mailbox) Release(ctx context.Context, user stanza.Addr) error {
	user = user.Bare()
	if m.boxes.forget(user) {
		return nil // every write that is not committed has a reference
	}
	err := m.writes.Flush(ctx)
	if m.boxes.forget(user) {
		return nil // an error was about somebody else's write, which the next Checkpoint tells
	}
	if err != nil {
		return fmt.Errorf("offline: release: %w", err)
	}
	return ErrInUse
}

// apply writes a batch in one transaction. It is called by the Batcher's goroutine alone, again when the transaction
// failed.
func (m *Mailbox) apply(ctx context.Context, tx *sql.Tx, batch []*write) error {
	m.changes = m.changes[:0]
	for _, w := range batch {
		if !w.state.CompareAndSwap(stateQueued, stateInFlight) && w.state.Load() == stateCalledOff {
			continue // removed before it was ever written
		}
		m.changes = append(m.changes, w.change)
	}
	defer clear(m.changes)
	if len(m.changes) == 0 {
		return nil
	}
	return m.store.Apply(ctx, tx, m.changes)
}

// committed is told of each batch after its transaction.
func (m *Mailbox) committed(batch []*write) {
	var size int64
	puts := 0
	for _, w := range batch {
		if w.change.Op == OpPut && w.state.Load() != stateCalledOff {
			puts++
		}
		size += w.size
		b := w.box
		b.mu.Lock()
		b.settle(w)
		b.mu.Unlock()
		m.boxes.release(b)
	}
	if puts > 0 {
		m.metrics.written.Observe(float64(puts))
	}
	m.gate.leave(size)
}

// reject keeps a write that the store refused by itself: the message stays in the mailbox as long as the process
// lives, and Checkpoint does not let go of the journal that has it.
func (m *Mailbox) reject(w *write, err error) {
	m.metrics.rejected.Inc()
	m.log.Error("mailbox write refused by the store", slog.Any("error", err))
	b := w.box
	b.mu.Lock()
	if i, ok := b.find(w.change.ID); w.change.Op == OpPut && (!ok || b.puts[i] != w) {
		w.state.Store(stateCalledOff) // removed while in flight, by a write that comes before the next try
	} else {
		w.state.Store(stateQueued)
	}
	b.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rejected = append(m.rejected, w)
}
