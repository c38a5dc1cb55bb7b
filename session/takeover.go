package session

import (
	"fmt"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// The taking side of a handover.

// takeOver makes this node the home of a user whom another one handed over.
func (sv *Service) takeOver(p *Session, user stanza.Addr, m Message) error {
	u, err := journal.DecodeUser(m.Payload)
	if err != nil {
		sv.log.Error("user handed over by another node not readable", "from", p.peer, "error", err)
		return nil
	}
	if u.Addr != user {
		sv.log.Error("user handed over by another node is not the one it names", "from", p.peer)
		return nil
	}
	sessions, err := sv.unpack(u)
	if err != nil {
		sv.log.Error("user handed over by another node not readable", "from", p.peer, "error", err)
		return nil
	}
	var failed error
	sv.router.Locked(user, func(t Table) {
		o := p.origin()
		rec := journal.Taken{Origin: o.Session, N: o.N, User: u}
		var buf [16]byte
		if failed = sv.journal.Append(journal.KindTaken, rec.AppendHead(buf[:0]), u.Append(nil)); failed != nil {
			return
		}
		p.recorded = true
		pos := sv.journal.Appended()
		sv.cluster.Take(user, p.peer, u.Seen, m.Term)
		sv.moving.PutIn(u.Awaited)
		for _, s := range sessions {
			for place := s.out.acked + 1; place <= s.out.last(); place++ {
				s.out.at(place).pos = pos
			}
			sv.add(s)
			sv.publishLocked(t, s)
		}
		sv.restorePassedLocked(t)
	})
	if failed != nil {
		return failed
	}
	sv.metrics.takenOver.Inc()
	from := p.peer
	sv.wants.came(user)
	sv.loops.Go(func() { sv.pinTaken(user, from) })
	now := time.Now()
	for _, s := range sessions {
		s.log.Info("session taken over", "from", from, "queued", s.queued())
		sv.startClock(s, now)
	}
	return nil
}

// pinTaken tells everybody where a user is that was handed over, once that is sure.
func (sv *Service) pinTaken(user stanza.Addr, from string) {
	for wait := retryFirst; sv.ctx.Err() == nil; wait = min(2*wait, retryLast) {
		err := sv.journal.Settle(sv.ctx)
		if err == nil {
			if !sv.here(user) {
				return // moved on
			}
			if err = sv.cluster.Pin(sv.ctx, user, from); err == nil {
				sv.unpinIfEmpty(user)
				return
			}
			if !sv.here(user) {
				return
			}
		}
		sv.log.Warn("home of a user not made known yet", "user", user.String(), "error", err)
		sv.sleep(wait)
	}
}

func (sv *Service) unpinIfEmpty(user stanza.Addr) {
	sv.router.Locked(user, func(t Table) {
		if len(t.Sessions()) == 0 && sv.here(user) {
			sv.cluster.Unpin(user)
		}
	})
}

// unpack makes the sessions of a user who comes from another node, under numbers of this node.
func (sv *Service) unpack(u *journal.User) ([]*Session, error) {
	sessions := make([]*Session, len(u.Sessions))
	shared := make(map[stanza.ID]*copies)
	for i := range u.Sessions {
		k := &u.Sessions[i]
		if k.State.Addr.Bare() != u.Addr {
			return nil, fmt.Errorf("session %s: not of %s", k.State.Addr, u.Addr)
		}
		s, err := sv.build(Restored{State: k.State, Handled: k.Handled, Acked: k.Acked, Queue: k.Queue}, shared)
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", k.State.Addr, err)
		}
		sv.renumber(s, k.State, k.Queue)
		s.passed, s.had = k.Passed, k.Had
		s.stored, s.kept = false, s.out.acked
		sessions[i] = s
	}
	return sessions, nil
}

// renumber gives a session that another process made a number of this one's, in what was stored of it too.
func (sv *Service) renumber(s *Session, state *journal.Session, queue []*journal.Stanza) {
	s.ord = sv.ords.Add(1)
	state.Ord = s.ord
	for i, q := range queue {
		own := *q // the record is in the queues of the user's other sessions too
		own.Targets = []journal.Target{{Session: s.ord, Pos: s.out.acked + 1 + uint64(i)}}
		queue[i] = &own
		stanza.Observe(q.Stanza.ID)
	}
	stanza.Observe(s.taken)
	stanza.Observe(s.since)
}
