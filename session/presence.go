package session

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"holdfast/stanza"
)

// Presence (RFC 6121 §3, §4). Everybody has an account on this gateway, so probes between servers (§4.3) are look-ups:
// a session that becomes available is told at once what its contacts' sessions last said.

// presenceIn takes a presence stanza of the client.
func (s *Session) presenceIn(e *stanza.Element, to stanza.Addr) error {
	typ := string(e.TypeRaw())
	switch typ {
	case "", "unavailable":
		if to.IsZero() {
			return s.broadcast(e, typ == "")
		}
		return s.directedPresence(e, to, typ == "")
	case "subscribe", "subscribed", "unsubscribe", "unsubscribed":
		if to.IsZero() {
			return s.refuse(e, badRequest)
		}
		return s.subscription(e, to.Bare())
	case "probe":
		if to.IsZero() {
			return nil
		}
		return s.probe(to.Bare())
	case "error":
		return s.directedPresence(e, to, false)
	}
	return s.refuse(e, badRequest) // §4.7.1: no other types
}

// broadcast is presence without an address: initial, changed, or unavailable (§4.2, §4.4, §4.5).
func (s *Session) broadcast(e *stanza.Element, available bool) error {
	sv := s.sv
	st := e.Rewrite(stanza.Edit{From: s.addr, Without: serversWords, DelayBy: sv.ours})
	if !available {
		return s.unavailable(st)
	}
	priority, ok := parsePriority(e)
	if !ok {
		return s.refuse(e, badRequest)
	}
	watchers, err := sv.subs.Watchers(sv.ctx, s.addr)
	if err != nil {
		return err
	}
	s.learnCaps(st)
	var drain, caughtUp bool
	var noted error
	sv.router.Locked(s.addr.Bare(), func(t Table) {
		s.mu.Lock()
		initial := s.presence == nil
		presence, prio, since := s.presence, s.priority, s.since
		drain = priority >= 0 && (initial || s.priority < 0)
		s.presence, s.priority = st, priority
		if initial {
			s.caughtUp = false
		}
		if drain {
			s.since = stanza.NewID()
		}
		caughtUp = s.caughtUp
		if noted = s.noteLocked(); noted != nil {
			// It did not happen; the client sends it again.
			s.presence, s.priority, s.since = presence, prio, since
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		t.SetPriority(s, true, priority)
		switch {
		case drain:
			// In the same step, so that nothing newer comes before the mailbox.
			sv.drainLocked(t, s)
		case priority < 0:
			sv.passDrainLocked(t, s, false)
		}
	})
	if noted != nil {
		return noted
	}
	for _, w := range watchers {
		sv.tell(w, st)
	}
	sv.tell(s.addr.Bare(), st) // the user's own sessions, this one included (§4.2.2)
	if caughtUp {
		return nil
	}
	if err := s.catchUp(); err != nil {
		return err // the client sends its presence again, and then this is done again
	}
	s.mu.Lock()
	s.caughtUp = true
	s.mu.Unlock()
	return nil
}

// parsePriority reads <priority/> (§4.7.2.3): an integer between -128 and +127, 0 when absent.
func parsePriority(e *stanza.Element) (int8, bool) {
	c, ok := e.Find(stanza.NSClient, "priority")
	if !ok {
		return 0, true
	}
	p, err := strconv.ParseInt(strings.TrimSpace(c.Text()), 10, 8)
	return int8(p), err == nil
}

// catchUp tells a session that has just become available what it missed: the presence of its contacts (§4.3) and of
// the user's other sessions, and the subscription requests that nobody has answered (§3.1.3).
func (s *Session) catchUp() error {
	sv := s.sv
	watched, err := sv.subs.Watched(sv.ctx, s.addr)
	if err != nil {
		return err
	}
	for _, contact := range watched {
		if err := s.showPresence(contact); err != nil {
			return err
		}
	}
	if err := s.showPresence(s.addr.Bare()); err != nil {
		return err
	}
	pending, err := sv.subs.Pending(sv.ctx, s.addr)
	if err != nil {
		return err
	}
	for _, raw := range pending {
		st, err := stanza.Parse(raw, stanza.ID{})
		if err != nil {
			s.log.Error("stored subscription request not readable", "error", err)
			continue
		}
		if err := s.send(nil, st); err != nil {
			return err
		}
	}
	return nil
}

// showPresence sends this session what a user's other available sessions last broadcast.
func (s *Session) showPresence(user stanza.Addr) error {
	if !s.sv.here(user) {
		s.sv.errands.add(errand{user: user, op: opProbe, st: stanza.New(stanza.Presence, "probe", "", s.addr, user, nil)})
		return nil
	}
	for _, p := range s.sv.presences(user) {
		if p.From == s.addr {
			continue
		}
		if err := s.send(nil, p.Rewrite(stanza.Edit{From: p.From, To: s.addr})); err != nil {
			return err
		}
	}
	return nil
}

// presences returns what a user's available sessions last broadcast.
func (sv *Service) presences(user stanza.Addr) (all []*stanza.Stanza) {
	sv.router.Each(user, func(s *Session) {
		s.mu.Lock()
		if s.presence != nil && !s.ended {
			all = append(all, s.presence)
		}
		s.mu.Unlock()
	})
	return all
}

// tell sends presence to all available sessions of a user.
func (sv *Service) tell(user stanza.Addr, st *stanza.Stanza) {
	if !sv.Local(user) {
		return
	}
	if !sv.here(user) {
		sv.errands.add(errand{user: user, op: opTell, st: st})
		return
	}
	sv.tellHere(user, st)
}

func (sv *Service) tellHere(user stanza.Addr, st *stanza.Stanza) {
	var rewritten *stanza.Stanza
	sv.router.Each(user, func(s *Session) {
		s.mu.Lock()
		available := s.presence != nil
		s.mu.Unlock()
		if !available {
			return
		}
		if rewritten == nil {
			rewritten = st.Rewrite(stanza.Edit{From: st.From, To: user})
		}
		if err := s.send(nil, rewritten); err != nil {
			s.log.Error("presence not delivered", "error", err)
		}
	})
}

// unavailable ends a session's presence but not the session (§4.5).
func (s *Session) unavailable(st *stanza.Stanza) error {
	// Before it is noted that nobody has to be told any more. To be told again means nothing to a room.
	s.partRooms(st)
	var was bool
	var directed map[stanza.Addr]struct{}
	var noted error
	s.sv.router.Locked(s.addr.Bare(), func(t Table) {
		s.mu.Lock()
		presence := s.presence
		was, directed = presence != nil, s.directed
		s.presence, s.directed = nil, nil
		noted = s.noteLocked()
		if noted == nil && len(directed) > 0 {
			noted = s.sv.journal.Directed(s.ord, stanza.Addr{}, false)
		}
		if noted != nil {
			// It did not happen; the client says it again.
			s.presence, s.directed = presence, directed
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		t.SetPriority(s, false, 0)
		s.sv.passDrainLocked(t, s, false)
	})
	if noted != nil {
		return noted
	}
	s.sv.absent(s, was, directed, st)
	return nil
}

// partRooms says unavailable to the rooms that the session is in.
func (s *Session) partRooms(st *stanza.Stanza) {
	if s.sv.host == nil {
		return
	}
	s.mu.Lock()
	var rooms []stanza.Addr
	for to := range s.directed {
		if s.sv.hosts(to) {
			rooms = append(rooms, to)
		}
	}
	s.mu.Unlock()
	for _, to := range rooms {
		s.sv.partHosted(to, st.Rewrite(stanza.Edit{From: s.addr, To: to}))
	}
}

// absent says unavailable to everybody who saw the session: the watchers and the user's own sessions if it was
// available, and who got directed presence (§4.5.2, §4.6.3). st is what the client said, nil when it said nothing.
func (sv *Service) absent(s *Session, was bool, directed map[stanza.Addr]struct{}, st *stanza.Stanza) {
	if st == nil {
		st = stanza.New(stanza.Presence, "unavailable", "", s.addr, stanza.Addr{}, nil)
	}
	var watchers []stanza.Addr
	if was {
		var err error
		if watchers, err = sv.subs.Watchers(sv.ctx, s.addr); err != nil {
			s.log.Error("watchers not told of unavailable presence", "error", err)
		}
		for _, w := range watchers {
			sv.tell(w, st)
		}
		sv.tell(s.addr.Bare(), st)
	}
	for to := range directed {
		if slices.Contains(watchers, to.Bare()) {
			continue // told already
		}
		sv.passPresence(to, st.Rewrite(stanza.Edit{From: s.addr, To: to}))
	}
}

// directedPresence goes to one address only, which is told too when the session becomes unavailable (§4.6).
func (s *Session) directedPresence(e *stanza.Element, to stanza.Addr, available bool) error {
	if to.IsZero() {
		return nil
	}
	st := e.Rewrite(stanza.Edit{From: s.addr, To: to, Without: serversWords, DelayBy: s.sv.ours})
	hosted := s.sv.hosts(to)
	if !hosted && !s.sv.Local(to) {
		return s.reply(st, remoteServerNotFound)
	}
	s.mu.Lock()
	_, known := s.directed[to]
	switch {
	case available && !s.direct(to):
		s.mu.Unlock()
		return s.reply(st, policyViolation)
	case !available:
		delete(s.directed, to)
	}
	var err error
	if known != available {
		s.dirty = true
		err = s.sv.journal.Directed(s.ord, to, available)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if hosted && to.Local() != "" {
		return s.sv.sendHosted(s, st)
	}
	s.sv.passPresence(to, st)
	return nil
}

// direct remembers an address; the caller holds mu. It reports false over the limit.
func (s *Session) direct(to stanza.Addr) bool {
	if _, known := s.directed[to]; known {
		return true
	}
	if limit := s.sv.cfg.DirectedLimit; limit > 0 && len(s.directed) >= limit {
		return false
	}
	if s.directed == nil {
		s.directed = make(map[stanza.Addr]struct{})
	}
	s.directed[to] = struct{}{}
	return true
}

// passPresence delivers presence to a bare or full address (§8.5.2.1.2, §8.5.3.1).
func (sv *Service) passPresence(to stanza.Addr, st *stanza.Stanza) {
	switch {
	case sv.hosts(to):
		sv.partHosted(to, st)
	case to.IsFull() && !sv.here(to.Bare()):
		sv.errands.add(errand{user: to.Bare(), op: opShow, st: st})
	case to.IsFull():
		if _, err := sv.router.Direct(to, nil, st); err != nil {
			sv.log.Error("presence not delivered", "error", err)
		}
	case to.Local() != "":
		sv.tell(to, st)
	}
}

// probe answers a client that asks for a contact's presence (§4.3.2): only one that may see it learns anything.
func (s *Session) probe(contact stanza.Addr) error {
	sv := s.sv
	if !sv.Local(contact) {
		return nil
	}
	if !sv.here(contact) {
		return s.showPresence(contact)
	}
	allowed, err := sv.maySee(s.addr.Bare(), contact)
	if err != nil || !allowed {
		return err
	}
	if len(sv.presences(contact)) == 0 {
		return s.send(nil, stanza.New(stanza.Presence, "unavailable", "", contact, s.addr, nil))
	}
	return s.showPresence(contact)
}

func (sv *Service) maySee(user, contact stanza.Addr) (bool, error) {
	if user == contact {
		return true, nil
	}
	watchers, err := sv.subs.Watchers(sv.ctx, contact)
	return slices.Contains(watchers, user), err
}

// probed answers a probe that came from another node: a client there became available, or asks.
func (sv *Service) probed(contact stanza.Addr, probe *stanza.Stanza) {
	allowed, err := sv.maySee(probe.From.Bare(), contact)
	if err != nil {
		sv.log.Error("probe not answered", "error", err)
	}
	if err != nil || !allowed {
		return
	}
	for _, p := range sv.presences(contact) {
		sv.passPresence(probe.From, p.Rewrite(stanza.Edit{From: p.From, To: probe.From}))
	}
}

// subscription takes subscribe, subscribed, unsubscribe and unsubscribed (§3) through the sender's roster and, when it
// is to be routed, through the contact's.
func (s *Session) subscription(e *stanza.Element, contact stanza.Addr) error {
	sv := s.sv
	user := s.addr.Bare()
	st := e.Rewrite(stanza.Edit{From: user, To: contact}) // §3.1.2: bare addresses
	if contact == user {
		return nil
	}
	if !sv.Local(contact) {
		return s.reply(st.Rewrite(stanza.Edit{From: s.addr, To: contact}), remoteServerNotFound)
	}
	if sv.cluster != nil && s.nowhere == contact {
		// Nobody has that address: the own roster changes all the same, and nobody hears of it (§3.1.2).
		_, err := sv.changeSubscription(user, contact, false, st)
		if cond, ok := stanzaError(err); ok {
			return s.reply(st.Rewrite(stanza.Edit{From: s.addr, To: contact}), cond)
		}
		return err
	}
	out, err := sv.changeSubscription(user, contact, false, st)
	if err != nil {
		if cond, ok := stanzaError(err); ok {
			return s.reply(st.Rewrite(stanza.Edit{From: s.addr, To: contact}), cond)
		}
		return err
	}
	return sv.carryOut(user, contact, out, st, false)
}

// changeSubscription has a roster decide, and pushes what changed. What comes in is delivered before the push
// (§3.1.6, §3.2.3, §3.3.3).
func (sv *Service) changeSubscription(user, contact stanza.Addr, inbound bool, st *stanza.Stanza) (Outcome, error) {
	defer sv.rosterTurn(user)()
	if !sv.here(user) {
		return Outcome{}, ErrElsewhere // it was handed over
	}
	out, err := sv.subs.Change(sv.ctx, user, contact, inbound, st)
	if err == nil && inbound && out.Route {
		sv.toUser(user, st)
	}
	if err == nil && out.Push != nil {
		sv.push(user, *out.Push)
	}
	return out, err
}

// carryOut does what a roster decided on a presence stanza between user and contact. Each step is safe to repeat,
// which happens when the client sends again what was not acknowledged.
func (sv *Service) carryOut(user, contact stanza.Addr, out Outcome, st *stanza.Stanza, inbound bool) error {
	if out.SendUnavailable {
		sv.hide(user, contact)
	}
	if out.Route && !inbound {
		if err := sv.arrives(contact, user, st); err != nil {
			return err
		}
	}
	if out.AutoReply != "" {
		reply := stanza.New(stanza.Presence, out.AutoReply, "", user, contact, nil)
		if err := sv.arrives(contact, user, reply); err != nil {
			return err
		}
	}
	if out.SendPresence {
		for _, p := range sv.presences(user) {
			sv.tell(contact, p)
		}
	}
	if out.AskAgain {
		return sv.arrives(contact, user, stanza.New(stanza.Presence, "subscribe", "", user, contact, nil))
	}
	return nil
}

// hide says unavailable to a contact for each of a user's available sessions.
func (sv *Service) hide(user, contact stanza.Addr) {
	for _, p := range sv.presences(user) {
		sv.tell(contact, stanza.New(stanza.Presence, "unavailable", "", p.From, contact, nil))
	}
}

// arrives takes a subscription stanza into the roster of the user it is for.
func (sv *Service) arrives(user, contact stanza.Addr, st *stanza.Stanza) error {
	if !sv.here(user) {
		_, _, err := sv.cluster.Forward(user, Message{Op: opArrives, Payload: st.Raw()}, Origin{})
		if errors.Is(err, ErrUnlocated) {
			// Known a moment ago: the errand finds it again.
			sv.errands.add(errand{user: user, op: opArrives, st: st, kept: true})
			return nil
		}
		return err
	}
	exists, err := sv.accounts.Exists(sv.ctx, user)
	if err != nil || !exists {
		return err // §8.5.1: nobody is told who exists
	}
	out, err := sv.changeSubscription(user, contact, true, st)
	if err != nil {
		if _, ok := stanzaError(err); ok {
			return nil
		}
		return err
	}
	return sv.carryOut(user, contact, out, st, true)
}

// toUser delivers a subscription stanza: a request to the available sessions, anything else to those that know the
// roster (§3.1.3, §3.1.6).
func (sv *Service) toUser(user stanza.Addr, st *stanza.Stanza) {
	request := string(st.TypeRaw()) == "subscribe"
	sv.router.Each(user, func(s *Session) {
		s.mu.Lock()
		want := s.presence != nil
		if !request {
			want = s.interested
		}
		s.mu.Unlock()
		if !want {
			return
		}
		if err := s.send(nil, st); err != nil {
			s.log.Error("presence not delivered", "error", err)
		}
	})
}
