package session

import (
	"errors"
	"slices"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// Sessions that another process left: built of what the stores have, then published.

// Restored is a session as the stores have it.
type Restored struct {
	State   *journal.Session
	Handled uint32
	Acked   uint64
	Queue   []*journal.Stanza // places Acked+1 and on, without a gap
}

var errGap = errors.New("session: places missing in a stored outbox")

// Restore brings back the sessions of an earlier process. It is called before the first stream. Sessions that can be
// resumed wait for their clients; the others end, and what they were sent goes where it belongs.
func (sv *Service) Restore(all []Restored) error {
	sessions := make([]*Session, 0, len(all))
	shared := make(map[stanza.ID]*copies)
	for _, r := range all {
		s, err := sv.build(r, shared)
		if err != nil {
			return err
		}
		for last := sv.ords.Load(); last < s.ord; last = sv.ords.Load() {
			sv.ords.CompareAndSwap(last, s.ord)
		}
		sv.add(s)
		sessions = append(sessions, s)
	}
	sv.publish(sessions)
	return nil
}

// build makes a session of what the stores have of it.
func (sv *Service) build(r Restored, shared map[stanza.ID]*copies) (*Session, error) {
	s := &Session{
		sv: sv, ord: r.State.Ord, addr: r.State.Addr, created: r.State.CreatedAt, log: sv.log.With("user", r.State.Addr.Bare().String(), "resource", r.State.Addr.Resource()),
		in: r.Handled, handled: r.Handled, settled: r.Handled,
		managed: r.State.Managed, token: r.State.Token, max: r.State.Max,
		carried: carried{sid: r.State.Sid, state: r.State.Carried, linger: r.State.Linger}, earlier: r.State.Earlier, base: r.State.Base, asked: r.Acked,
		priority: r.State.Priority, interested: r.State.Flags&stateInterested != 0, chosen: r.State.Flags&stateChosen != 0, dirty: true,
		rebuilt: true,
		stored:  true, // perhaps only by the journal; taking out a row that is not there does no harm
	}
	if sv.hosts(s.addr) {
		s.hosted = &hosted{s: s}
	}
	if r.State.Flags&stateReceipts != 0 {
		s.receiptsKnown.Store(receiptsSent)
	}
	if len(r.State.Presence) > 0 {
		p, err := stanza.Parse(r.State.Presence, stanza.ID{})
		if err != nil {
			// It comes back unavailable, which its client can mend; the others come back anyway.
			s.log.Error("stored presence not readable", "error", err)
		} else {
			s.presence, s.since = p, r.State.Since
		}
	}
	for _, a := range r.State.Directed {
		if addr, err := stanza.ParseAddr(a); err == nil {
			s.direct(addr)
		}
	}
	s.out.acked, s.out.sent = r.Acked, r.Acked
	for _, q := range r.Queue {
		i := slices.IndexFunc(q.Targets, func(t journal.Target) bool { return t.Session == s.ord })
		if i < 0 || q.Targets[i].Pos != s.out.next() {
			return nil, errGap
		}
		s.out.push(restoredEntry(q, shared))
	}
	s.taken = r.State.Taken
	s.out.sent = s.out.last() // the process that was killed may have sent any of it
	s.out.most = s.out.sent
	s.detached = r.State.Detached
	if now := time.Now(); s.detached.IsZero() || s.detached.After(now) {
		s.detached = now
	}
	return s, nil
}

// publish lets sessions that were built be found.
func (sv *Service) publish(sessions []*Session) {
	for _, s := range sessions {
		sv.router.Locked(s.addr.Bare(), func(t Table) { sv.publishLocked(t, s) })
	}
	for _, s := range sessions {
		sv.router.Locked(s.addr.Bare(), sv.restorePassedLocked)
	}
	now := time.Now()
	waiting := 0
	for _, s := range sessions {
		s.mu.Lock()
		if now.Sub(s.detached) < s.patienceLocked() {
			waiting++
		}
		s.mu.Unlock()
	}
	sv.metrics.restored.Add(float64(waiting))
	for _, s := range sessions {
		sv.startClock(s, now)
	}
}

// publishLocked enters a session in the table of its user, whose lock is held, and its token.
func (sv *Service) publishLocked(t Table, s *Session) {
	t.Add(s)
	chosen := chosenLocked(t)
	if d := t.Draining(); chosen && d != nil {
		d.mu.Lock()
		d.paging = false
		d.mu.Unlock()
		t.SetDraining(nil)
	}
	if s.presence != nil {
		t.SetPriority(s, true, s.priority)
		if chosen {
			// The mailbox is not poured out.
		} else if empty, err := sv.mailbox.Empty(s.addr.Bare()); s.priority >= 0 && t.Draining() == nil && (err != nil || !empty) {
			// It may have been in the middle of its mailbox. Should it end, its turn passes on.
			s.paging = true
			t.SetDraining(s)
		}
	}
	if s.token != "" {
		sv.mu.Lock()
		sv.tokens[s.token] = s
		sv.mu.Unlock()
	}
	if sid := s.carried.sid; sid != "" {
		sv.mu.Lock()
		sv.sids[sid] = s
		sv.mu.Unlock()
	}
}

// startClock lets a session that came from elsewhere expire when its time is over, which may be now.
func (sv *Service) startClock(s *Session, now time.Time) {
	if s.hosted != nil {
		s.hosted.Wake()
		return
	}
	s.mu.Lock()
	left := s.patienceLocked() - now.Sub(s.detached)
	waits := left > 0
	if waits && s.stream == nil && !s.ended {
		s.expireAfterLocked(left)
	}
	s.mu.Unlock()
	if !waits {
		sv.end(s, nil)
	}
}

// restorePassedLocked works out which messages of the mailbox a user's sessions were not given because another one held
// them.
func (sv *Service) restorePassedLocked(t Table) {
	for _, s := range t.Sessions() {
		for _, other := range t.Sessions() {
			if other == s {
				continue
			}
			for place := other.out.acked + 1; place <= other.out.last(); place++ {
				e := other.out.at(place)
				if e.flags&fromMailbox != 0 && e.st.ID.Compare(s.taken) <= 0 && !s.out.has(e.st.ID) && !slices.Contains(s.passed, e.st.ID) {
					s.passed = append(s.passed, e.st.ID)
				}
			}
		}
	}
}

func restoredEntry(q *journal.Stanza, shared map[stanza.ID]*copies) entry {
	e := entry{st: q.Stanza}
	if q.Flags&journal.Awaits != 0 {
		e.flags |= awaits
	}
	if q.Flags&journal.FromMailbox != 0 {
		e.flags |= fromMailbox
	}
	if q.Flags&journal.Held != 0 {
		e.flags |= held
	}
	if (q.Flags&journal.Copied != 0 || len(q.Targets) > 1) && !q.Stanza.ID.IsZero() {
		c := shared[q.Stanza.ID]
		if c == nil {
			// Whether one that is not restored was acknowledged is not known any more; see hadCopy.
			c = &copies{restored: true}
			shared[q.Stanza.ID] = c
		}
		c.open.Add(1)
		e.copies = c
	}
	return e
}
