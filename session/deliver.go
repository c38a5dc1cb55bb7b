package session

import (
	"context"
	"errors"
	"slices"
	"sync"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// delivery is the scratch space of one deliver.
type delivery struct {
	rec     journal.Stanza
	targets []*Session
	wake    []waker
}

// waker is who looks into an outbox: a Transport, or the hold on a Resident.
type waker interface{ Wake() }

var deliveries = sync.Pool{New: func() any { return new(delivery) }}

// Deliver puts a stanza that Router routed into the outboxes of targets, under their user's lock, and reports how many
// took it. A message that asks for a receipt begins to await it.
func (sv *Service) Deliver(from *Session, st *stanza.Stanza, targets []*Session) (int, error) {
	if instead := st.To.IsFull() && len(targets) > 0 && targets[0].addr != st.To; instead && sv.hosts(st.From) {
		in := func(s *Session) bool { return s.isIn(st.From.Bare()) }
		if slices.ContainsFunc(targets, in) {
			return len(targets), nil // they got it by themselves
		}
	}
	if rules := sv.rulesOf(st); rules != nil {
		return sv.deliverByRules(rules, from, st, targets)
	}
	return sv.deliver(from, st, targets, sv.awaits(st))
}

// awaits is the flag for a message that wants a receipt.
func (sv *Service) awaits(st *stanza.Stanza) entryFlags {
	if st.Payloads()&stanza.ReceiptRequest != 0 && sv.receipts.Awaits(st) && !sv.hosts(st.From) {
		return awaits
	}
	return 0
}

// copied reports whether another session of a user than s is in the room that a message came from: each of those got it
// by itself. Under the user's lock.
func (sv *Service) copied(t Table, s *Session, st *stanza.Stanza) bool {
	return sv.hosts(st.From) && slices.ContainsFunc(t.Sessions(), func(other *Session) bool { return other != s && other.isIn(st.From.Bare()) })
}

// isIn reports whether the session is in a room.
func (s *Session) isIn(room stanza.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.directed {
		if a.Bare() == room {
			return true
		}
	}
	return false
}

// deliver writes the journal and fills the outboxes, both under the sessions' locks, so that a place is never
// sent before it is recorded. Several targets are sessions of one user whose lock is held, so that locking them in
// turn can't deadlock.
func (sv *Service) deliver(from *Session, st *stanza.Stanza, targets []*Session, flags entryFlags) (int, error) {
	d := deliveries.Get().(*delivery)
	defer d.release()
	size := len(st.Raw())
	detached := false
	for _, s := range targets {
		s.mu.Lock()
		if s.ended || s.spilling {
			s.mu.Unlock()
			continue
		}
		if s.hosted == nil && s.overLocked(size) {
			s.spilling = true
			s.mu.Unlock()
			go sv.spill(s)
			continue
		}
		detached = detached || s.away()
		d.targets = append(d.targets, s)
		d.rec.Targets = append(d.rec.Targets, journal.Target{Session: s.ord, Pos: s.out.next()})
	}
	if len(d.targets) == 0 {
		return 0, nil
	}
	d.rec.Stanza, d.rec.Flags = st, flags.record()
	if len(d.targets) > 1 {
		d.rec.Flags |= journal.Copied
	}
	if detached {
		d.rec.Flags |= journal.Held
	}
	d.rec.Origin, d.rec.N = 0, 0
	if from.counts() {
		d.rec.Origin, d.rec.N = from.ord, from.in
	}
	if err := sv.journal.Stanza(&d.rec); err != nil {
		for _, s := range d.targets {
			s.mu.Unlock()
		}
		return 0, err
	}
	if d.rec.Origin != 0 {
		from.recorded = true
	}
	e := entry{st: st, flags: flags, pos: sv.journal.Appended()}
	hold := e.pos > sv.journal.Sendable()
	if len(d.targets) > 1 {
		e.copies = new(copies)
		e.copies.open.Store(int32(len(d.targets)))
	}
	if flags&awaits != 0 {
		// Before anybody can answer; again, for what is resent, which does nothing.
		sv.receipts.Open(st)
	}
	for _, s := range d.targets {
		e.flags &^= held
		switch {
		case s.away():
			e.flags |= held
		case s.hosted != nil:
			d.wake = append(d.wake, s.hosted)
		default:
			d.wake = append(d.wake, s.stream.transport)
		}
		s.out.push(e)
		s.dirty = true
		if flags&awaits != 0 && s.since.Compare(st.ID) > 0 {
			s.rememberHad(st.ID)
		}
		s.mu.Unlock()
	}
	for _, w := range d.wake {
		if hold {
			if t, outside := w.(Transport); outside { // what a Resident sends is recorded behind this
				sv.park(t, e.pos)
				continue
			}
		}
		w.Wake()
	}
	if st.Kind() == stanza.Message {
		sv.metrics.outcomes[delivered].Inc()
	}
	return len(d.targets), nil
}

func (d *delivery) release() {
	clear(d.targets)
	clear(d.wake)
	d.rec.Stanza = nil
	d.targets, d.wake, d.rec.Targets = d.targets[:0], d.wake[:0], d.rec.Targets[:0]
	deliveries.Put(d)
}

func (f entryFlags) record() (r journal.Flags) {
	if f&awaits != 0 {
		r |= journal.Awaits
	}
	if f&fromMailbox != 0 {
		r |= journal.FromMailbox
	}
	if f&held != 0 {
		r |= journal.Held
	}
	return r
}

// maxHad bounds what a session remembers of messages it was given late.
const maxHad = 256

// rememberHad notes a message that Resend would otherwise take to be new to this session. The caller holds mu.
func (s *Session) rememberHad(id stanza.ID) {
	if len(s.had) >= maxHad {
		s.had = append(s.had[:0], s.had[1:]...)
	}
	s.had = append(s.had, id)
}

// away reports whether nobody takes what the session is sent now. The caller holds mu.
func (s *Session) away() bool { return s.stream == nil && s.hosted == nil }

// counts reports whether the stanza being handled is one that a journal record should name: its sender will hear of
// it in <a h/>.
func (s *Session) counts() bool { return s != nil && s.in != 0 && !s.recorded }

// overLocked says whether one more stanza would be too much.
func (s *Session) overLocked(size int) bool { return s.overBy(1, size) }

// overBy is overLocked for so many times the limits.
func (s *Session) overBy(times, size int) bool {
	c := &s.sv.cfg
	return c.OutboxStanzas > 0 && s.out.n >= times*c.OutboxStanzas || c.OutboxBytes > 0 && s.out.n > 0 && s.out.bytes+size > times*c.OutboxBytes
}

// frame is what goes over the wire for an entry: a stanza that waited gets a delay stamp (XEP-0198 §5, XEP-0203).
func (s *Session) frame(e *entry) []byte {
	if e.flags&held == 0 || e.st.Kind() != stanza.Message || e.st.DelayedBy(s.addr.Server()) || e.st.ID.IsZero() {
		return e.st.Raw()
	}
	return e.st.Rewrite(stanza.Edit{
		From: e.st.From, To: e.st.To,
		Append: stanza.DelayChild(s.addr.Server(), e.st.ID.Time(), ""),
	}).Raw()
}

// Store is offline storage as Router asks for it, under the user's lock.
func (sv *Service) Store(from *Session, user stanza.Addr, st *stanza.Stanza) (v Verdict, accepted bool, err error) {
	if rules := sv.rulesOf(st); rules != nil {
		return sv.storeByRules(rules, from, user, st)
	}
	v, err = sv.store(from, user, st, false)
	return v, v.Fate != Refused, err
}

// Exists tells Router whether there is such a user.
func (sv *Service) Exists(ctx context.Context, user stanza.Addr) (bool, error) {
	return sv.accounts.Exists(ctx, user)
}

func (sv *Service) store(from *Session, user stanza.Addr, st *stanza.Stanza, force bool) (Verdict, error) {
	verdict, err := sv.mailbox.Store(user, st, force)
	if err != nil {
		return verdict, err
	}
	switch verdict.Fate {
	case Kept:
		sv.metrics.outcomes[stored].Inc()
	case Dropped:
		sv.metrics.outcomes[dropped].Inc()
		return verdict, nil
	default:
		return verdict, nil
	}
	rec := journal.Stanza{Stanza: st, Flags: journal.Stored}
	if from.counts() {
		rec.Origin, rec.N = from.ord, from.in
	}
	if err := sv.journal.Stanza(&rec); err != nil {
		// The sender will send it again, with another id.
		return verdict, errors.Join(err, sv.mailbox.Discard(user, st.ID))
	}
	if rec.Origin != 0 {
		from.recorded = true
	}
	return verdict, nil
}

// unstore takes messages out of the mailbox: their recipient has them.
func (sv *Service) unstore(user stanza.Addr, ids []stanza.ID) {
	sv.takeOut(user, ids, sv.mailbox.Remove)
}

// takeOut has remove, a method of the mailbox, take messages out, and the journal know that.
func (sv *Service) takeOut(user stanza.Addr, ids []stanza.ID, remove func(stanza.Addr, ...stanza.ID) error) {
	if len(ids) == 0 {
		return
	}
	if err := sv.journal.IDs(journal.KindUnstored, user, ids); err != nil {
		sv.log.Error("removal from mailbox not recorded", "error", err)
	}
	if err := remove(user, ids...); err != nil {
		sv.log.Error("message not removed from mailbox", "error", err)
	}
}

// bounce answers a stanza of anybody's with an error, if it may be answered.
func (sv *Service) bounce(st *stanza.Stanza, cond mstanza.Error) {
	reply := stanza.ErrorReply(st, cond)
	if reply == nil {
		return
	}
	sv.metrics.bounced.WithLabelValues(string(cond.Condition)).Inc()
	sv.sendTo(st.From, reply)
}

// sendTo gives a stanza of the gateway's own to whoever has the address, if somebody does.
func (sv *Service) sendTo(to stanza.Addr, st *stanza.Stanza) {
	if !sv.Local(to) && !sv.hosts(to) {
		return
	}
	if !sv.here(to.Bare()) && sv.sendElsewhere(to.Bare(), st) {
		return
	}
	sv.sendHere(to, st)
}

// sendElsewhere journals a stanza of the gateway's own for a user of another node, in the moment in which what it tells
// of is journaled too. It reports false when the user is here after all.
func (sv *Service) sendElsewhere(user stanza.Addr, st *stanza.Stanza) bool {
	m := Message{Op: opReply, Term: TermHome, Payload: st.Raw()}
	node, _, err := sv.cluster.Forward(user, m, Origin{})
	if errors.Is(err, ErrUnlocated) {
		// Where the user is can be asked for only with nothing locked.
		var parked bool
		if parked, err = sv.parkLocked(user, m, Origin{}); err == nil && !parked {
			sv.errands.add(errand{user: user, op: opReply, st: st, kept: true})
		}
		node = ""
	}
	if err != nil {
		sv.log.Error("stanza not forwarded", "error", err)
	}
	return node != sv.cluster.ID()
}

func (sv *Service) sendHere(to stanza.Addr, st *stanza.Stanza) {
	if sv.hosts(to) {
		if err := sv.toHosted(nil, st); err != nil {
			sv.log.Error("stanza not delivered", "error", err)
		}
		return
	}
	if to.IsFull() {
		if ok, err := sv.router.Direct(to, nil, st); err != nil {
			sv.log.Error("stanza not delivered", "error", err)
		} else if ok {
			return
		}
	}
	if st.Kind() == stanza.Message && to.Local() != "" {
		// An error for a message reaches the sender's other sessions rather than nobody.
		sv.router.Each(to.Bare(), func(s *Session) {
			if err := s.send(nil, st); err != nil {
				s.log.Error("stanza not delivered", "error", err)
			}
		})
	}
}
