package session

import (
	"slices"
	"time"

	"holdfast/stanza"
)

// Offline messages (XEP-0160 §3): when a client becomes available it gets the mailbox, oldest first and before
// anything newer. A long mailbox is given in pages, each when the one before is nearly acknowledged; until the last
// one is out, new messages go to the mailbox too. A message leaves the mailbox when the client has proved that it
// has it.
//
// One session of a user drains at a time (Table.Draining). It keeps the turn while it has a connection, or while no
// other session could take over.

const (
	pageBytes = 256 << 10
	// drainRetry is the time after which a mailbox that could not be read is tried again.
	drainRetry = time.Second
)

// drainLocked begins to give the mailbox to a session, under the user's lock. A mailbox that cannot be read is tried
// again later.
func (sv *Service) drainLocked(t Table, s *Session) {
	if chosenLocked(t) {
		return
	}
	if other := t.Draining(); other != nil && other != s {
		other.mu.Lock()
		waits := other.stream == nil
		if waits {
			other.paging = false
		}
		other.mu.Unlock()
		if !waits {
			return
		}
	}
	if empty, err := sv.mailbox.Empty(s.addr.Bare()); err == nil && empty {
		if t.Draining() != nil {
			t.SetDraining(nil)
		}
		return
	}
	t.SetDraining(s)
	sv.pageLocked(t, s)
}

// pageLocked gives as much of the mailbox as there is room for.
func (sv *Service) pageLocked(t Table, s *Session) {
	more := true
	for more {
		s.mu.Lock()
		count, bytes := s.pageRoomLocked()
		over := s.ended || s.spilling
		s.paging = !over && count <= 0
		after, paging := s.taken, s.paging
		s.mu.Unlock()
		if over {
			return // it is ending, and its turn is passed on then
		}
		if paging {
			return
		}
		var page []*stanza.Stanza
		var err error
		page, more, err = sv.mailbox.Page(s.addr.Bare(), after, count, bytes)
		if err != nil {
			s.log.Error("mailbox not read", "error", err)
			sv.retryDrain(s)
			return
		}
		if !sv.givePage(t, s, page) {
			return
		}
	}
	s.mu.Lock()
	s.paging = false
	s.mu.Unlock()
	t.SetDraining(nil)
}

// pageRoomLocked is how much of the mailbox a session may be given now. Half of its outbox stays free for all else.
func (s *Session) pageRoomLocked() (count, bytes int) {
	cfg := &s.sv.cfg
	count, bytes = cfg.PageMessages, pageBytes
	if cfg.OutboxStanzas > 0 {
		count = min(count, max(cfg.OutboxStanzas/2, 1))
	}
	if cfg.OutboxBytes > 0 {
		bytes = min(bytes, max(cfg.OutboxBytes/2, 1))
	}
	if s.out.n > 0 && s.out.bytes >= bytes {
		return 0, 0
	}
	return count - s.out.n, max(bytes-s.out.bytes, 1)
}

// givePage puts a page into the outbox. It reports false when that has to go on later.
func (sv *Service) givePage(t Table, s *Session, page []*stanza.Stanza) bool {
	one := [1]*Session{s}
	var late []overdue
	defer func() { sv.tellLate(late) }()
	for _, m := range page {
		held := sv.heldElsewhere(t, s, m.ID)
		s.mu.Lock()
		own := s.out.has(m.ID) || slices.Contains(s.had, m.ID)
		s.mu.Unlock()
		if !held && !own {
			s.mu.Lock()
			s.paging = s.overLocked(len(m.Raw()))
			paging := s.paging
			s.mu.Unlock()
			if paging {
				return false
			}
			n, err := sv.deliver(nil, m, one[:], fromMailbox|sv.awaits(m))
			if err != nil {
				s.log.Error("message not taken from the mailbox", "error", err)
				sv.retryDrain(s)
				return false
			}
			if n == 0 {
				return false // it is ending, and what is left is handed on then
			}
			if rules := sv.lateRules(m); len(rules) > 0 {
				late = append(late, overdue{m, rules})
			}
		}
		s.mu.Lock()
		s.taken = m.ID
		if held {
			s.passed = append(s.passed, m.ID)
		}
		s.mu.Unlock()
	}
	return true
}

// heldElsewhere reports whether another session of the user has a message of the mailbox in its outbox: then it is that
// session's, until it is acknowledged or the session ends.
func (sv *Service) heldElsewhere(t Table, s *Session, id stanza.ID) bool {
	for _, other := range t.Sessions() {
		if other == s {
			continue
		}
		other.mu.Lock()
		has := other.out.has(id)
		other.mu.Unlock()
		if has {
			return true
		}
	}
	return false
}

// retryDrain tries later what could not be done now. The session keeps the turn meanwhile.
func (sv *Service) retryDrain(s *Session) {
	s.mu.Lock()
	s.paging = true
	s.mu.Unlock()
	time.AfterFunc(drainRetry, func() {
		if sv.ctx.Err() != nil {
			return
		}
		sv.enter()
		defer sv.leave()
		sv.drainMore(s)
	})
}

// drainMore gives the next page, if there is one to come.
func (sv *Service) drainMore(s *Session) {
	s.mu.Lock()
	paging := s.paging && s.out.n <= sv.cfg.PageMessages/2
	s.mu.Unlock()
	if !paging {
		return
	}
	sv.router.Locked(s.addr.Bare(), func(t Table) {
		if t.Draining() == s {
			sv.pageLocked(t, s)
		}
	})
}

// passDrainLocked lets another session go on where one cannot: that went away, or does not want messages any more. One
// without a connection goes on when it resumes. When there is none, keep says whether the turn is kept for the one that
// left.
func (sv *Service) passDrainLocked(t Table, from *Session, keep bool) {
	if t.Draining() != from {
		return
	}
	var waits *Session
	for _, s := range t.Receivers(nil) {
		s.mu.Lock()
		able := s != from && !s.ended && !s.spilling
		connected := s.stream != nil
		if able && !connected && !keep && waits == nil {
			waits, s.paging = s, true
		}
		s.mu.Unlock()
		if able && connected {
			from.mu.Lock()
			from.paging = false
			from.mu.Unlock()
			t.SetDraining(s)
			sv.pageLocked(t, s)
			return
		}
	}
	if !keep {
		t.SetDraining(waits)
	}
}

// resumeDrain lets a session that is connected again have the mailbox, where nobody else who is connected has the turn.
func (sv *Service) resumeDrain(s *Session) {
	sv.router.Locked(s.addr.Bare(), func(t Table) {
		for _, r := range t.Receivers(nil) {
			if r == s {
				sv.drainLocked(t, s)
			}
		}
	})
}
