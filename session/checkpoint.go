package session

import (
	"holdfast/internal/journal"
)

// Checkpoint is what changed since the last one, for the store that lets the journal forget (package resume).
type Checkpoint struct {
	Changed []Restored // the queue holds only what the store does not have
	Gone    []uint64   // sessions that ended

	sv       *Service
	sessions []*Session
	last     []uint64
}

// Checkpoint collects the sessions that changed. Everything appended to the journal before the call is in it or in an
// earlier one. Commit or Abort must follow.
func (sv *Service) Checkpoint() *Checkpoint {
	c := &Checkpoint{sv: sv}
	sv.mu.Lock()
	c.Gone, sv.gone = sv.gone, nil
	sv.mu.Unlock()
	for _, s := range sv.all() {
		s.mu.Lock()
		if !s.dirty {
			s.mu.Unlock()
			continue
		}
		r := Restored{State: s.stateLocked(), Handled: s.handled, Acked: s.out.acked}
		for place := max(s.kept, s.out.acked) + 1; place <= s.out.last(); place++ {
			r.Queue = append(r.Queue, s.out.at(place).record(s.ord, place))
		}
		c.Changed = append(c.Changed, r)
		c.sessions = append(c.sessions, s)
		c.last = append(c.last, s.out.last())
		// A session that ends before Commit is in gone by then, and the next checkpoint removes it.
		s.dirty, s.stored = false, true
		s.mu.Unlock()
	}
	return c
}

// Commit says that the store has it.
func (c *Checkpoint) Commit() {
	for i, s := range c.sessions {
		s.mu.Lock()
		s.kept = c.last[i]
		s.mu.Unlock()
	}
}

// Abort says that the store failed, so that the next checkpoint has it again.
func (c *Checkpoint) Abort() {
	for _, s := range c.sessions {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	c.sv.mu.Lock()
	c.sv.gone = append(c.sv.gone, c.Gone...)
	c.sv.mu.Unlock()
}

// record is the entry as the checkpoint store keeps it.
func (e *entry) record(ord, place uint64) *journal.Stanza {
	r := &journal.Stanza{Stanza: e.st, Targets: []journal.Target{{Session: ord, Pos: place}}}
	if e.flags&awaits != 0 {
		r.Flags |= journal.Awaits
	}
	if e.flags&fromMailbox != 0 {
		r.Flags |= journal.FromMailbox
	}
	if e.flags&held != 0 {
		r.Flags |= journal.Held
	}
	if e.copies != nil {
		r.Flags |= journal.Copied
	}
	return r
}
