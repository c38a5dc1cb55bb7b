package session

import (
	"maps"
	"slices"
	"time"

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

// Checkpoint waits until nothing is half done, calls boundary, and collects the sessions that changed: everything in the
// journal before the boundary is in it or in an earlier one. Commit or Abort must follow.
func (sv *Service) Checkpoint(boundary func()) *Checkpoint {
	c := &Checkpoint{sv: sv}
	sv.quiesce()
	defer sv.barrier.Unlock()
	boundary()
	sv.mu.Lock()
	c.Gone, sv.gone = sv.gone, nil
	sv.mu.Unlock()
	for _, s := range append(sv.all(), sv.links()...) {
		s.mu.Lock()
		if !s.dirty {
			s.mu.Unlock()
			continue
		}
		r := Restored{State: s.stateLocked(), Handled: s.handled, Acked: s.out.acked}
		for a := range s.directed {
			r.State.Directed = append(r.State.Directed, a.String())
		}
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

// quiesce takes the barrier. Something that takes long, like a request that waits for the database, must not hold up
// everybody else while it is waited for; only when no quiet moment comes do the others wait too.
func (sv *Service) quiesce() {
	for range 50 {
		if sv.barrier.TryLock() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	sv.barrier.Lock()
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
	r := &journal.Stanza{Stanza: e.st, Flags: e.flags.record(), Targets: []journal.Target{{Session: ord, Pos: place}}}
	if e.copies != nil {
		r.Flags |= journal.Copied
	}
	return r
}

// links returns the links from other nodes, which are kept as sessions are.
func (sv *Service) links() []*Session {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return slices.Collect(maps.Values(sv.peers))
}

// TouchAll has the next checkpoint write everything: the journal before it may have a gap.
func (sv *Service) TouchAll() {
	for _, s := range append(sv.all(), sv.links()...) {
		s.mu.Lock()
		s.dirty, s.kept = true, s.out.acked
		s.mu.Unlock()
	}
}
