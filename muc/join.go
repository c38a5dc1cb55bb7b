package muc

import (
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

const (
	maxPresence = 8 << 10 // bytes of one presence, which everybody who enters is sent
	maxThere    = 3 << 19 // bytes of all presences and addresses together, so that a state fits into a record of the journal
	maxNick     = 20      // sessions of one user under one nick
	// maxSessions is how many sessions a room holds at all, admins and owners included.
	maxSessions = maxOccupants + 100
)

func (r *Room) handlePresence(st *stanza.Stanza) {
	o := r.bySession[st.From]
	switch string(st.TypeRaw()) {
	case "":
		r.handleAvailable(o, st)
	case "unavailable":
		if o != nil {
			r.leave(o, st)
		}
	case "error":
		if o != nil {
			r.drop(o, st.From)
		}
	}
}

// leave lets a session go (§7.14), to whichever nick it said so.
func (r *Room) leave(o *occupant, st *stanza.Stanza) {
	last := r.strip(st, true)
	if len(last.Raw()) > maxPresence {
		last = unavailable
	}
	r.detach(o, st.From, last, notice{})
	r.endIfEmpty()
}

// drop removes a session that stanzas do not reach (status 333).
func (r *Room) drop(o *occupant, session stanza.Addr) {
	r.detach(o, session, unavailable, notice{codes: []int{statusKicked, statusError}})
	r.endIfEmpty()
}

func (r *Room) handleAvailable(o *occupant, st *stanza.Stanza) {
	if st.From.IsBare() {
		return // no session
	}
	x, joins := st.Find(stanza.NSMUC, "x")
	if o == nil && !joins {
		r.denyMembership(st)
		return
	}
	if st.To.IsBare() {
		r.refuse(st, mstanza.JIDMalformed, "a nickname is needed")
		return
	}
	s := session{addr: st.From, presence: r.strip(st, true)}
	if len(s.presence.Raw()) > maxPresence {
		r.refuse(st, mstanza.PolicyViolation, "the presence is too large")
		return
	}
	if r.there()+s.weight(st.To) > maxThere {
		r.refuse(st, mstanza.ResourceConstraint, "too much is in the room")
		return
	}
	if o == nil {
		r.join(st, x, s)
		return
	}
	if o.addr != st.To {
		if !r.changeNick(o, st, s) {
			return
		}
	} else {
		r.update(o, s, joins)
	}
	if joins { // again: it may have missed anything
		r.welcome(r.bySession[s.addr], x, s.addr, nil)
	}
}

// update makes a session's presence the one that is seen. A session that enters again is told of it with all the rest.
func (r *Room) update(o *occupant, s session, joins bool) {
	o.update(s)
	except := stanza.Addr{}
	if joins {
		except = s.addr
	}
	r.broadcastExcept(o, s.presence, notice{role: o.role}, except)
}

// denyMembership tells a client that believes to be in the room that it is not (§7.2.18).
func (r *Room) denyMembership(st *stanza.Stanza) {
	b := []byte("<x xmlns='" + stanza.NSMUCUser + "'><item affiliation='none' role='none'><reason>You are not in the room.</reason></item>")
	b = appendStatus(b, statusSelf, statusKicked, statusError)
	r.send(stanza.New(stanza.Presence, "unavailable", st.Attr("id"), st.To, st.From, append(b, "</x>"...)), st.To, st.From)
}

// join lets a session in, or says why not (§7.2).
func (r *Room) join(st *stanza.Stanza, x stanza.Child, s session) {
	user := s.addr.Bare()
	created := !r.exists()
	if created && !r.mayCreate(user) {
		r.refuse(st, mstanza.NotAllowed, "this room does not exist")
		return
	}
	if !created && !r.admits(st, x, user) {
		return
	}
	if created {
		r.create(user)
	}
	o := r.attach(st.To, r.roleFor(r.affiliation(user)), s)
	r.sv.metrics.joins.Inc()
	r.broadcastExcept(o, s.presence, notice{role: o.role}, s.addr)
	var codes []int
	if created {
		codes = []int{statusCreated}
	}
	r.welcome(o, x, s.addr, codes)
}

func (r *Room) mayCreate(user stanza.Addr) bool {
	return r.limits.Named || r.limits.Create && r.sv.rights.Create(user)
}

// create makes the room one that exists. Who enters first owns it, unless it is the operator's.
func (r *Room) create(user stanza.Addr) {
	r.creator, r.dirty = r.nobody(), true
	if !r.limits.Named {
		r.creator = user
		r.affiliations[user] = owner
	}
}

// admits reports whether a user may come in, and says so if not.
func (r *Room) admits(st *stanza.Stanza, x stanza.Child, user stanza.Addr) bool {
	a := r.affiliation(user)
	switch {
	case a == outcast:
		r.refuse(st, mstanza.Forbidden, "you are banned")
	case r.options.MembersOnly && a < member:
		r.refuse(st, mstanza.RegistrationRequired, "this room is for members only")
	case r.options.Password != "" && password(x) != r.options.Password:
		r.refuse(st, mstanza.NotAuthorized, "the password is missing or wrong")
	default:
		return r.roomFor(st, st.To, user)
	}
	return false
}

// roomFor reports whether a nick is free for a user, and one more occupant or session not too many.
func (r *Room) roomFor(st *stanza.Stanza, nick, user stanza.Addr) bool {
	there := r.byNick[nick.Resource()]
	switch {
	case there != nil && there.user != user:
		r.refuse(st, mstanza.Conflict, "the nickname is in use")
	case there != nil && len(there.sessions) >= maxNick, r.sessions >= maxSessions:
		r.refuse(st, mstanza.ResourceConstraint, "too many sessions are in the room")
	case there == nil && len(r.occupants) >= r.maxOccupants() && r.affiliation(user) < admin:
		r.refuse(st, mstanza.ServiceUnavailable, "the room is full")
	default:
		return true
	}
	return false
}

func (r *Room) maxOccupants() int {
	if r.options.MaxUsers > 0 {
		return min(r.options.MaxUsers, r.limits.Occupants)
	}
	return r.limits.Occupants
}

// password returns what a client gave in its request to enter.
func password(x stanza.Child) string {
	var request struct {
		Password string `xml:"http://jabber.org/protocol/muc password"`
	}
	if len(x.Inner()) == 0 || x.Decode(&request) != nil {
		return ""
	}
	return request.Password
}

// welcome is what a session gets that enters (§7.1): who is there, itself last, then the history and the subject.
func (r *Room) welcome(o *occupant, x stanza.Child, to stanza.Addr, codes []int) {
	for _, other := range r.occupants {
		if other != o {
			r.tell(other, o, to)
		}
	}
	if r.options.WhoisAnyone {
		codes = append(codes, statusNonAnonymous)
	}
	r.send(r.render(o, o.newest().presence, notice{role: o.role, own: codes}, own), o.addr, to)
	r.tellHistory(to, r.want(x))
	r.tellSubject(to)
}

// tell sends the presence of one occupant to a session of another.
func (r *Room) tell(of, to *occupant, session stanza.Addr) {
	st := r.render(of, of.newest().presence, notice{role: of.role}, r.audienceOf(of, to))
	r.send(st, of.addr, session)
}

// changeNick lets a session go by another nick (§7.6) and reports whether it may. Sessions of the same user that stay
// behind keep the old one.
func (r *Room) changeNick(o *occupant, st *stanza.Stanza, s session) bool {
	target := r.byNick[st.To.Resource()]
	alone := len(o.sessions) == 1
	if target != nil || !alone {
		if !r.roomFor(st, st.To, o.user) {
			return false
		}
	}
	n := notice{role: o.role, codes: []int{statusNickChanged}, nick: st.To.Resource()}
	if target == nil && alone {
		r.broadcast(o, unavailable, n)
		delete(r.byNick, o.nick())
		o.addr = st.To
		r.byNick[o.nick()] = o
		o.update(s)
	} else {
		left := o
		r.detach(left, s.addr, unavailable, n)
		o = r.attach(st.To, n.role, s)
		if !alone { // to this session it seemed to go
			r.tell(left, o, s.addr)
		}
	}
	r.broadcast(o, s.presence, notice{role: o.role})
	return true
}
