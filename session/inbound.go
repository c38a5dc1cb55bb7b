package session

import (
	"slices"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// room is the back-pressure on clients: a stanza is handled only when the journal and the packet cache have room for it.
// Nothing may be locked.
func (sv *Service) room(e *stanza.Element) error {
	if err := sv.journal.Room(sv.intake); err != nil {
		return err
	}
	if sv.cluster != nil {
		if err := sv.cluster.Room(sv.intake); err != nil {
			return err
		}
	}
	if e.Payloads()&stanza.ReceiptRequest != 0 {
		return sv.receipts.Room(sv.intake)
	}
	return nil
}

// inbound takes one stanza of the client. When it returns without an error, everything that the stanza did is in the
// journal and it is counted; with an error it is not counted, and the client will send it again. The caller holds
// inMu of the attached stream.
func (s *Session) inbound(st *stream, e *stanza.Element, kind stanza.Kind) error {
	s.mu.Lock()
	counted := s.managed || st.carried
	if s.stream != st {
		s.mu.Unlock()
		return nil // taken over: its new stream counts
	}
	s.mu.Unlock()
	s.recorded, s.nowhere = false, st.nowhere
	if counted {
		s.in++
	}
	err := s.dispatch(e, kind)
	if err == nil && counted && !s.recorded {
		err = s.sv.journal.Count(journal.KindHandled, s.ord, uint64(s.in))
	}
	if err != nil {
		if counted {
			s.in--
		}
		return err
	}
	s.sv.metrics.inbound[kind].Inc()
	if !counted {
		return nil
	}
	s.mu.Lock()
	s.handled = s.in
	s.dirty = true
	first := !s.settling
	s.settling = true
	s.mu.Unlock()
	if first {
		s.sv.settle.wait(s)
	}
	return nil
}

func (s *Session) dispatch(e *stanza.Element, kind stanza.Kind) error {
	// A `from` that is not the client's own is refused (RFC 6120 §8.1.2.1).
	if raw, ok := e.AttrRaw("from"); ok {
		from, err := stanza.ParseAddrBytes(raw)
		if err != nil || from != s.addr && from != s.addr.Bare() {
			return stanza.InvalidFrom
		}
	}
	var to stanza.Addr
	if raw, ok := e.AttrRaw("to"); ok && len(raw) > 0 {
		var err error
		if to, err = e.AddrAttr("to"); err != nil {
			return s.refuse(e, mstanza.Error{Type: mstanza.Modify, Condition: mstanza.JIDMalformed})
		}
	}
	if s.sv.mayReach != nil && to.Local() != "" && !s.sv.mayReach(s.addr, to) {
		return s.reply(e.Rewrite(stanza.Edit{From: s.addr, To: to}), forbidden)
	}
	switch kind {
	case stanza.Message:
		return s.message(e, to)
	case stanza.Presence:
		return s.presenceIn(e, to)
	default:
		return s.iq(e, to)
	}
}

// refuse answers a stanza of this client with an error.
func (s *Session) refuse(e *stanza.Element, cond mstanza.Error) error {
	return s.reply(e.Rewrite(stanza.Edit{From: s.addr, To: s.addr.Server()}), cond)
}

// reply answers a stanza that was rewritten already.
func (s *Session) reply(st *stanza.Stanza, cond mstanza.Error) error {
	reply := stanza.ErrorReply(st, cond)
	if reply == nil {
		return nil
	}
	s.sv.metrics.bounced.WithLabelValues(string(cond.Condition)).Inc()
	return s.sv.tellSender(s, reply)
}

var (
	serviceUnavailable   = mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.ServiceUnavailable}
	remoteServerNotFound = mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.RemoteServerNotFound}
	policyViolation      = mstanza.Error{Type: mstanza.Wait, Condition: mstanza.PolicyViolation}
	internalServerError  = mstanza.Error{Type: mstanza.Wait, Condition: mstanza.InternalServerError}
	badRequest           = mstanza.Error{Type: mstanza.Modify, Condition: mstanza.BadRequest}
	noRules              = mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.FeatureNotImplemented}
	errNoNode            = mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.ItemNotFound} // of disco, XEP-0013
)

// serversWords are what a client cannot say for the server: that it delayed something (XEP-0203), or shows what it kept
// (XEP-0013 §2.4). A delay of somebody else, say of a room's, is the client's to pass on.
const serversWords = stanza.Delay | stanza.Retrieved

// message routes a message of the client (RFC 6121 §5, §8).
func (s *Session) message(e *stanza.Element, to stanza.Addr) error {
	sv := s.sv
	if to.IsZero() {
		to = s.addr.Bare() // RFC 6120 §10.3.1
	}
	edit := stanza.Edit{From: s.addr, To: to, Without: serversWords, DelayBy: sv.ours}
	local := sv.Local(to)
	if local && sv.here(to.Bare()) {
		edit.ID, edit.IDBy = stanza.NewID(), to.Bare() // else the home gives it one
	}
	st := e.Rewrite(edit)
	switch {
	case !local && !sv.hosts(to):
		return s.reply(st, remoteServerNotFound)
	case to.Local() == "":
		return s.reply(st, serviceUnavailable) // nobody reads the domain's mail
	case !local && sv.cfg.AMP && st.Payloads()&stanza.AMP != 0:
		return s.reply(st, noRules) // they are about one recipient
	case !local:
		return sv.sendHosted(s, st)
	}
	if st.Payloads()&(stanza.ReceiptReceived|stanza.MarkerReceived|stanza.MarkerDisplayed|stanza.MarkerAcknowledged) != 0 {
		s.proofSent(st)
	}
	return sv.routeMessage(s, st)
}

// proofSent looks at a receipt or marker of this client: what it proves need not be kept any more, wherever it is.
func (s *Session) proofSent(st *stanza.Stanza) {
	if st.Payloads()&stanza.ReceiptReceived != 0 && s.receipts() != receiptsSent {
		s.knowReceipts(true)
	}
	closed, stored := s.sv.receipts.Received(st)
	if len(closed) == 0 {
		return
	}
	if err := s.sv.journal.IDs(journal.KindProved, stanza.Addr{}, closed); err != nil {
		s.log.Error("receipt not recorded", "error", err)
	}
	user := s.addr.Bare()
	if empty, err := s.sv.mailbox.Empty(user); stored || err != nil || !empty {
		// It came out of the mailbox and is still there, or has been moved there.
		s.sv.unstore(user, closed)
	}
}

// Unroutable answers, as Router asks, a message that no session got and that the mailbox did not keep.
func (sv *Service) Unroutable(from *Session, st *stanza.Stanza, why Verdict) error {
	if rules := sv.rulesOf(st); rules != nil {
		if decided, err := sv.unroutableByRules(rules, from, st); decided || err != nil {
			return err
		}
	}
	sv.metrics.outcomes[refused].Inc()
	if from == nil {
		sv.bounce(st, why.condition())
		return nil
	}
	return from.reply(st, why.condition())
}

// Resend gives a message whose receipt is overdue to the sessions that can't have had it: those that became available
// after it came in. It reports how many there were.
func (sv *Service) Resend(st *stanza.Stanza) (n int, err error) {
	sv.enter()
	defer sv.leave()
	if gone, err := sv.userGone(st.To.Bare(), st.ID); gone || err != nil {
		return 0, err
	}
	sv.router.Locked(st.To.Bare(), func(t Table) {
		if !sv.here(st.To.Bare()) {
			err = ErrElsewhere // and so is the entry that asks for this
			return
		}
		if t.Draining() != nil || sv.mailbox.Overdue(st) {
			return
		}
		var fresh []*Session
		for _, s := range t.Receivers(nil) {
			s.mu.Lock()
			if s.since.Compare(st.ID) > 0 && s.taken.Compare(st.ID) < 0 && !slices.Contains(s.had, st.ID) {
				fresh = append(fresh, s)
			}
			s.mu.Unlock()
		}
		if len(fresh) > 0 {
			n, err = sv.deliver(nil, st, fresh, awaits)
		}
	})
	return n, err
}

// Fallback puts a message whose receipt did not come into the mailbox, where a late receipt still finds it. It reports
// false when the policy forbids that.
func (sv *Service) Fallback(st *stanza.Stanza) (kept bool, err error) {
	sv.enter()
	defer sv.leave()
	if gone, err := sv.userGone(st.To.Bare(), st.ID); gone || err != nil {
		return false, err
	}
	sv.router.Locked(st.To.Bare(), func(t Table) {
		if !sv.here(st.To.Bare()) {
			err = ErrElsewhere
			return
		}
		for _, s := range t.Receivers(nil) {
			s.mu.Lock()
			if s.since.Compare(st.ID) < 0 {
				s.rememberHad(st.ID) // live, so the mailbox must not give it again
			}
			s.mu.Unlock()
		}
		var verdict Verdict
		if verdict, err = sv.mailbox.Store(st.To.Bare(), st, true); err != nil || verdict.Fate != Kept {
			return
		}
		kept = true
		err = sv.journal.Stanza(&journal.Stanza{Stanza: st, Flags: journal.Stored | journal.Awaits})
	})
	return kept, err
}

// Bounce answers a message whose receipt did not come.
func (sv *Service) Bounce(st *stanza.Stanza) error {
	sv.enter()
	defer sv.leave()
	sv.bounce(st, mstanza.Error{
		Type: mstanza.Wait, Condition: mstanza.RecipientUnavailable,
		Text: map[string]string{"en": "no receipt came"},
	})
	return sv.journal.IDs(journal.KindProved, stanza.Addr{}, []stanza.ID{st.ID})
}

// Withdraw takes a message out of the mailbox again, because its receipt came while it was put there.
func (sv *Service) Withdraw(user stanza.Addr, id stanza.ID) {
	sv.enter()
	defer sv.leave()
	if sv.here(user) {
		sv.unstore(user, []stanza.ID{id})
	}
}

// Storable tells Router whether the mailbox would keep a message at all. What is said in a room is for who is in it now: it
// does not wait behind the mailbox.
func (sv *Service) Storable(st *stanza.Stanza) bool {
	return !sv.hosts(st.From) && sv.mailbox.Storable(st)
}
