package session

import (
	"slices"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// detach leaves a session without a transport waiting for its client. It reports false when the session can't be
// resumed and has to end.
func (sv *Service) detach(s *Session, st *stream) bool {
	s.mu.Lock()
	if s.stream != st {
		s.mu.Unlock()
		return true // somebody else has it, or it ended
	}
	if !sv.draining.Load() && !st.leaves.Load() {
		gone := s.dropLocked() // the transport ended in this process, for good
		defer sv.forgetSid(gone)
	}
	if s.patienceLocked() == 0 || s.ended {
		s.mu.Unlock()
		return false
	}
	s.stream = nil
	paging := s.paging
	s.mu.Unlock()
	sv.await(s)
	if paging {
		sv.router.Locked(s.addr.Bare(), func(t Table) { sv.passDrainLocked(t, s, true) })
	}
	return true
}

// await starts the clock of a detached session.
func (sv *Service) await(s *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.stream != nil {
		return
	}
	s.detached = time.Now()
	// What was sent stays so until a resumption sends it again: the client may say that it has it (XEP-0198 §5).
	if err := s.noteLocked(); err != nil {
		s.log.Error("detached session not recorded", "error", err)
	}
	patience := s.patienceLocked()
	s.expireAfterLocked(patience)
	s.log.Info("session waits for its client", "queued", s.out.n, "max", patience)
}

func (s *Session) expireAfterLocked(d time.Duration) {
	s.expiry = time.AfterFunc(d, func() {
		s.sv.enter()
		defer s.sv.leave()
		s.mu.Lock()
		back := s.stream != nil
		s.mu.Unlock()
		if !back {
			s.log.Info("session expired")
			s.sv.metrics.expired.Inc()
			s.sv.end(s, nil)
		}
	})
}

// depart ends a session whose client closed the stream: it is gone for everybody else at once, but what it was sent
// is sorted out when the transport has closed too.
func (sv *Service) depart(s *Session, st *stream) {
	if !sv.retire(s, st, nil) {
		return
	}
	sv.hold(s)
	sv.farewell(s)
}

// hold keeps the user here until an ended session is buried: what is left of its queue belongs to this home.
func (sv *Service) hold(s *Session) {
	s.mu.Lock()
	held := s.holds
	s.holds = true
	s.mu.Unlock()
	if !held {
		sv.wants.begin(s.addr.Bare())
	}
}

// end ends a session and hands on what its client has not acknowledged. st is the stream the caller acts for, nil
// when none is attached; when the session belongs to another stream meanwhile, nothing happens.
func (sv *Service) end(s *Session, st *stream) {
	var queue []entry
	var refused []refusal
	var err error
	first := sv.retire(s, st, func(t Table) { queue, refused, err = sv.requeueLocked(s, t) })
	if !first {
		// depart was here before.
		s.mu.Lock()
		left := s.leaving && s.stream == st
		s.mu.Unlock()
		if !left {
			return
		}
		sv.router.Locked(s.addr.Bare(), func(t Table) {
			s.mu.Lock()
			s.leaving = false
			s.mu.Unlock()
			queue, refused, err = sv.requeueLocked(s, t)
		})
	} else {
		sv.farewell(s)
	}
	sv.settleEnd(s, queue, refused, err)
}

// settleEnd buries an ended session once its queue is somewhere else. While a store fails the session stays in the
// journal and in checkpoints, and what is left of its queue is tried again.
func (sv *Service) settleEnd(s *Session, queue []entry, refused []refusal, err error) {
	sv.refuse(queue, refused)
	if err == nil {
		sv.bury(s)
		return
	}
	s.log.Error("queue of an ended session not handed on yet", "error", err)
	sv.hold(s)
	time.AfterFunc(drainRetry, func() {
		sv.enter()
		defer sv.leave()
		if sv.ctx.Err() != nil {
			return // the next process does it
		}
		sv.router.Locked(s.addr.Bare(), func(t Table) { queue, refused, err = sv.requeueLocked(s, t) })
		sv.settleEnd(s, queue, refused, err)
	})
}

// retire takes a session out of routing. then runs under the user's lock, before anything newer can be routed. It
// reports false when the session was retired before or is another stream's now.
func (sv *Service) retire(s *Session, st *stream, then func(Table)) bool {
	first := false
	sv.router.Locked(s.addr.Bare(), func(t Table) {
		s.mu.Lock()
		if s.ended || s.stream != st {
			s.mu.Unlock()
			return
		}
		first, s.ended, s.leaving = true, true, then == nil
		if s.expiry != nil {
			s.expiry.Stop()
		}
		if then != nil {
			s.stream = nil
		}
		s.mu.Unlock()
		t.Remove(s)
		if then != nil {
			then(t)
		}
		sv.passDrainLocked(t, s, false)
		sv.leaveMailboxLocked(t, s)
		if sv.cluster != nil && len(t.Sessions()) == 0 {
			sv.cluster.Unpin(s.addr.Bare())
		}
	})
	return first
}

// farewell says to those who saw the session that it is gone.
func (sv *Service) farewell(s *Session) {
	s.mu.Lock()
	presence, directed := s.presence, s.directed
	s.presence, s.directed = nil, nil
	s.mu.Unlock()
	sv.absent(s, presence != nil, directed, nil)
}

// bury forgets an ended session, but for its count (XEP-0198 §5: <failed h='…'/>).
func (sv *Service) bury(s *Session) {
	s.mu.Lock()
	token, handled, stored, held := s.token, s.handled, s.stored, s.holds
	s.holds = false
	s.mu.Unlock()
	if held {
		defer sv.wants.end(s.addr.Bare())
	}
	if token != "" {
		sv.over.Remember(token, s.addr.Bare(), handled)
	}
	if err := sv.journal.Count(journal.KindEnded, s.ord, uint64(handled)); err != nil {
		s.log.Error("end of session not recorded", "error", err)
	}
	sv.forget(s, token, stored)
	sv.metrics.closed.Inc()
	s.log.Info("session ended")
}

// requeueLocked hands on what the client did not acknowledge, oldest first, under the user's lock: messages to the
// user's other sessions that would get them, else to the mailbox. It returns what is to be answered with an error:
// IQ requests, and messages that the mailbox refused. An error leaves the rest of the queue where it is.
func (sv *Service) requeueLocked(s *Session, t Table) (requests []entry, refused []refusal, err error) {
	var others []*Session
	for {
		s.mu.Lock()
		if s.out.n == 0 {
			s.mu.Unlock()
			return requests, refused, nil
		}
		e := *s.out.at(s.out.acked + 1)
		s.mu.Unlock()
		// Also to one that is in the middle of the mailbox: what is there is newer than what this one got live,
		// and what this one got out of it the other was not given.
		others = t.Receivers(others[:0])
		switch e.st.Kind() {
		case stanza.IQ:
			requests = append(requests, e)
		case stanza.Message:
			v, err := sv.handOn(t, s, e, others)
			if err != nil {
				return requests, refused, err
			}
			if v.Fate == Refused {
				refused = append(refused, refusal{e.st, v})
			}
		}
		// Only now: what is out of the queue is somewhere else.
		s.mu.Lock()
		s.out.pop()
		place := s.out.acked
		s.mu.Unlock()
		if err := sv.journal.Count(journal.KindMoved, s.ord, place); err != nil {
			s.log.Error("end of session not recorded", "error", err)
		}
	}
}

// handOn finds another place for one message of an ended session. The Verdict is the mailbox's, or Kept.
func (sv *Service) handOn(t Table, s *Session, e entry, others []*Session) (Verdict, error) {
	kept := Verdict{Fate: Kept}
	if onlyShown(e.st) || e.flags&fromMailbox != 0 && chosenLocked(t) {
		return kept, nil // it is in the mailbox, for who reads that by itself
	}
	if e.copies != nil && (e.copies.open.Load() > 1 || e.copies.acked.Load() || e.copies.restored && sv.hadCopy(t, s, e.st.ID)) {
		e.copies.open.Add(-1)
		return kept, nil // another of the user's clients has it
	}
	if sv.copied(t, s, e.st) {
		return kept, nil
	}
	if e.flags&awaits != 0 && !sv.receipts.Waits(e.st.ID) {
		return kept, nil // its receipt came from elsewhere, or it was given up
	}
	others = slices.DeleteFunc(others, func(o *Session) bool { return o.wasGiven(e.st.ID) })
	if sv.mailbox.Overdue(e.st) {
		others = nil // the mailbox tells of it who wants to know
	}
	if rerouted(e.st) && len(others) > 0 {
		to, flags := others, e.flags&(awaits|fromMailbox)
		if flags&fromMailbox != 0 {
			to = others[:1]
			if d := t.Draining(); d != nil && slices.Contains(others, d) {
				to[0] = d
			}
			if to[0].takes(e.st.ID) {
				return kept, nil // it had it out of the mailbox itself
			}
		}
		if n, err := sv.deliver(nil, e.st, to, flags); err != nil || n > 0 {
			return kept, err
		}
	}
	if e.flags&fromMailbox != 0 {
		return kept, nil // it is still there
	}
	if gone, err := sv.userGone(s.addr.Bare(), e.st.ID); err != nil || gone {
		return kept, err // its recipient's account is gone
	}
	return sv.store(nil, s.addr.Bare(), e.st, true)
}

// hadCopy reports whether another session of the user got a copy of a message that went to several: one that is available
// and was so when the message came in. That session's outbox, or its client's acknowledgement, answers for the message
// then, which is known so also after a restart, when what the copies knew of each other is gone.
func (sv *Service) hadCopy(t Table, s *Session, id stanza.ID) bool {
	for _, other := range t.Sessions() {
		other.mu.Lock()
		had := other != s && other.presence != nil && other.priority >= 0 && !other.spilling && other.since.Compare(id) < 0
		other.mu.Unlock()
		if had {
			return true
		}
	}
	return false
}

// wasGiven reports whether the session was given a message later than the others of its user.
func (s *Session) wasGiven(id stanza.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.had, id)
}

// takes notes that the session is given a message of the mailbox, and reports whether it was given it before.
func (s *Session) takes(id stanza.ID) (before bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken.Compare(id) < 0 {
		s.taken = id
		return false
	}
	i := slices.Index(s.passed, id)
	if i < 0 {
		return true
	}
	s.passed = slices.Delete(s.passed, i, i+1)
	return false
}

// rerouted says which messages, meant for a session that is gone, make sense for another one of its user
// (RFC 6121 §8.5.3.2.1; a normal message with content is treated like chat, for it was acknowledged already).
func rerouted(st *stanza.Stanza) bool {
	switch string(st.TypeRaw()) {
	case "error", "groupchat", "headline":
		return false
	}
	return true
}

// refusal is a message that the mailbox does not take.
type refusal struct {
	st      *stanza.Stanza
	verdict Verdict
}

// refuse answers what nobody will get.
func (sv *Service) refuse(requests []entry, refused []refusal) {
	for _, e := range requests {
		sv.bounce(e.st, serviceUnavailable)
	}
	for _, r := range refused {
		sv.bounce(r.st, r.verdict.condition())
	}
}

// spill ends a session that is over its caps: it loses its resumption, not its messages (contract 5).
func (sv *Service) spill(s *Session) {
	sv.enter()
	defer sv.leave()
	sv.metrics.spilled.Inc()
	s.log.Warn("session over its limits, its messages go to offline storage")
	sv.terminate(s, stanza.ResourceConstraint.WithText("too much waits to be acknowledged"))
}

// terminate ends a session whatever becomes of its stream meanwhile. Nothing of the stream is handled any more when it
// returns. The caller holds no inMu but that of a stream without a session.
func (sv *Service) terminate(s *Session, why stanza.StreamError) {
	for {
		s.mu.Lock()
		st, ended := s.stream, s.ended
		s.mu.Unlock()
		if ended {
			return
		}
		if st == nil {
			sv.end(s, nil)
			continue
		}
		st.inMu.Lock()
		st.over = true
		sv.end(s, st)
		st.inMu.Unlock()
		st.control(why.Raw())
		st.finish(Closed)
	}
}
