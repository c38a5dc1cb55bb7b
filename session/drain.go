package session

import (
	"holdfast/stanza"
)

// Offline messages (XEP-0160 §3): when a client becomes available it gets the mailbox, oldest first and before
// anything newer. A long mailbox is given in pages, each when the one before is nearly acknowledged; until the last
// one is out, new messages go to the mailbox too. A message leaves the mailbox when the client has proved that it
// has it.

const pageBytes = 256 << 10

// drain begins to give the mailbox to a session, under the user's lock.
func (sv *Service) drainLocked(t Table, s *Session) error {
	if t.Draining() != nil {
		return nil
	}
	empty, err := sv.mailbox.Empty(s.addr.Bare())
	if err != nil || empty {
		return err
	}
	// What another session holds is its business until it ends.
	for _, other := range t.Sessions() {
		other.mu.Lock()
		taken := other.taken
		other.mu.Unlock()
		if other != s && s.taken.Compare(taken) < 0 {
			s.taken = taken
		}
	}
	return sv.pageLocked(t, s)
}

func (sv *Service) pageLocked(t Table, s *Session) error {
	for {
		s.mu.Lock()
		room := sv.cfg.PageMessages - s.out.n
		over := s.ended || s.spilling
		s.paging = !over && room <= 0
		after, paging := s.taken, s.paging
		s.mu.Unlock()
		if over {
			t.SetDraining(nil)
			return nil
		}
		if paging {
			t.SetDraining(s)
			return nil
		}
		page, more, err := sv.mailbox.Page(s.addr.Bare(), after, room, pageBytes)
		if err != nil {
			t.SetDraining(nil)
			return err
		}
		one := [1]*Session{s}
		for _, m := range page {
			n, err := sv.deliver(nil, m, one[:], fromMailbox|sv.awaits(m))
			if err != nil || n == 0 {
				t.SetDraining(nil)
				return err
			}
			s.mu.Lock()
			s.taken = m.ID
			s.mu.Unlock()
		}
		if !more {
			t.SetDraining(nil)
			return nil
		}
	}
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
		if t.Draining() != s {
			return
		}
		if err := sv.pageLocked(t, s); err != nil {
			s.log.Error("mailbox not read", "error", err)
		}
	})
}

// passMailbox offers what an ended session left in the mailbox to one that has had nothing of it.
func (sv *Service) passMailbox(user stanza.Addr) {
	sv.router.Locked(user, func(t Table) {
		for _, s := range t.Receivers(nil) {
			s.mu.Lock()
			fresh := s.taken.IsZero()
			s.mu.Unlock()
			if !fresh {
				continue
			}
			if err := sv.drainLocked(t, s); err != nil {
				s.log.Error("mailbox not read", "error", err)
			}
			return
		}
	})
}
