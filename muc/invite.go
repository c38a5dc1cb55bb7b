package muc

import (
	"slices"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

const (
	maxInvites      = 10       // in one message
	maxInvited      = 100      // that can be declined
	maxInvitedBytes = 64 << 10 // of their addresses
)

// mediated is what of a message the room carries out itself.
type mediated struct {
	Invites []invitation `xml:"http://jabber.org/protocol/muc#user invite"`
	Decline *invitation  `xml:"http://jabber.org/protocol/muc#user decline"`
}

type invitation struct {
	To       string `xml:"to,attr"`
	Reason   string `xml:"http://jabber.org/protocol/muc#user reason"`
	Continue *struct {
		Thread string `xml:"thread,attr"`
	} `xml:"http://jabber.org/protocol/muc#user continue"`
}

func (i *invitation) tooLong() bool {
	return len(i.Reason) > maxReason || i.Continue != nil && len(i.Continue.Thread) > maxReason
}

// handleMediated does what a message to the room, but not for its occupants, asks for: invitations and refusals of
// them (§7.8.2), requests for voice (§7.13) and answers to those (§8.6).
func (r *Room) handleMediated(o *occupant, st *stanza.Stanza) {
	if x, ok := st.Find(nsData, "x"); ok {
		r.handleVoice(o, st, x)
		return
	}
	var m mediated
	x, ok := st.Find(stanza.NSMUCUser, "x")
	if ok && (x.Decode(&m) != nil || len(m.Invites) > maxInvites) {
		r.refuse(st, mstanza.BadRequest, "")
		return
	}
	switch {
	case m.Decline != nil:
		r.decline(st, m.Decline)
	case o == nil:
		r.refuse(st, mstanza.NotAcceptable, "you are not in the room")
	case len(m.Invites) > 0:
		r.invite(o, st, m.Invites)
	default:
		r.refuse(st, mstanza.BadRequest, "a message to the room is of type groupchat")
	}
}

// invite passes invitations on, and makes members of those who are invited to a members-only room.
func (r *Room) invite(o *occupant, st *stanza.Stanza, all []invitation) {
	if mine := r.affiliation(o.user); o.role < participant ||
		r.options.MembersOnly && mine < admin && (!r.options.AllowInvites || mine < member) {
		r.refuse(st, mstanza.Forbidden, "")
		return
	}
	invitees := make([]stanza.Addr, 0, len(all))
	for i := range all {
		to, err := stanza.ParseAddr(all[i].To)
		if err != nil || to.Local() == "" {
			r.refuse(st, mstanza.JIDMalformed, "")
			return
		}
		if all[i].tooLong() {
			r.refuse(st, mstanza.NotAcceptable, "the reason is too long")
			return
		}
		if r.affiliation(to.Bare()) == outcast {
			r.refuse(st, mstanza.NotAllowed, "who is invited is banned")
			return
		}
		invitees = append(invitees, to)
	}
	if r.options.MembersOnly && !r.addMembers(invitees) {
		r.refuse(st, mstanza.ResourceConstraint, "the room has too many members")
		return
	}
	r.noteInvited(o.user, invitees)
	for i, to := range invitees {
		r.send(r.invitation(o, st, &all[i]), r.addr, to)
	}
}

func (r *Room) addMembers(users []stanza.Addr) bool {
	bytes := 0
	for user := range r.affiliations {
		bytes += len(user.String())
	}
	for _, user := range users {
		bytes += len(user.String())
	}
	if len(r.affiliations)+len(users) > r.limits.Affiliations || bytes > maxAffiliated {
		return false
	}
	for _, user := range users {
		if r.affiliation(user.Bare()) == unaffiliated {
			r.setAffiliation(change{user: user.Bare(), affiliation: member}, "")
		}
	}
	return true
}

// invitation renders what the invitee gets. It keeps the id of the message by which it was asked for.
func (r *Room) invitation(o *occupant, st *stanza.Stanza, i *invitation) *stanza.Stanza {
	b := []byte("<x xmlns='" + stanza.NSMUCUser + "'><invite from='")
	b = append(stanza.AppendEscaped(b, o.user.String()), "'>"...)
	if i.Reason != "" {
		b = append(stanza.AppendEscaped(append(b, "<reason>"...), i.Reason), "</reason>"...)
	}
	if i.Continue != nil {
		b = append(stanza.AppendEscaped(append(b, "<continue thread='"...), i.Continue.Thread), "'/>"...)
	}
	b = append(b, "</invite>"...)
	if r.options.Password != "" {
		b = append(stanza.AppendEscaped(append(b, "<password>"...), r.options.Password), "</password>"...)
	}
	return r.mediate(st, append(b, "</x>"...))
}

// mediate builds a message of the room that has the id of the one it is due to.
func (r *Room) mediate(st *stanza.Stanza, inner []byte) *stanza.Stanza {
	next := stanza.New(stanza.Message, "", st.Attr("id"), r.addr, stanza.Addr{}, inner)
	next.ID = st.ID
	return next
}

// invited is an invitation that may be declined.
type invited struct {
	By   stanza.Addr `json:"by"`   // bare
	User stanza.Addr `json:"user"` // bare
}

// noteInvited remembers the invitations of one message; the oldest beyond the bounds can be declined no more.
func (r *Room) noteInvited(by stanza.Addr, users []stanza.Addr) {
	for _, user := range users {
		i := invited{By: by, User: user.Bare()}
		r.takeInvited(i)
		r.invited = append(r.invited, i)
	}
	first, bytes := len(r.invited), 0
	for first > 0 && len(r.invited)-first < maxInvited {
		bytes += r.invited[first-1].weight()
		if bytes > maxInvitedBytes {
			break
		}
		first--
	}
	r.invited = slices.Delete(r.invited, 0, first)
	r.spoken = r.options.Persistent
}

func (i invited) weight() int { return len(i.By.String()) + len(i.User.String()) }

// takeInvited forgets an invitation and reports whether there was one.
func (r *Room) takeInvited(i invited) bool {
	at := slices.Index(r.invited, i)
	if at < 0 {
		return false
	}
	r.invited = slices.Delete(r.invited, at, at+1)
	r.spoken = r.options.Persistent
	return true
}

// decline tells an inviter, who is still in the room, that somebody does not come. It carries nothing to anybody else,
// and says to nobody who is there.
func (r *Room) decline(st *stanza.Stanza, d *invitation) {
	to, err := stanza.ParseAddr(d.To)
	if err != nil {
		r.refuse(st, mstanza.JIDMalformed, "")
		return
	}
	if d.tooLong() {
		r.refuse(st, mstanza.NotAcceptable, "the reason is too long")
		return
	}
	inviter, user := to.Bare(), st.From.Bare()
	if o := r.byNick[to.Resource()]; o != nil && o.addr == to {
		inviter = o.user
	}
	if r.affiliation(user) == outcast || !r.takeInvited(invited{By: inviter, User: user}) {
		return
	}
	b := []byte("<x xmlns='" + stanza.NSMUCUser + "'><decline from='")
	b = append(stanza.AppendEscaped(b, user.String()), "'>"...)
	if d.Reason != "" {
		b = append(stanza.AppendEscaped(append(b, "<reason>"...), d.Reason), "</reason>"...)
	}
	told := r.mediate(st, append(b, "</decline></x>"...))
	for _, o := range r.occupants {
		if o.user == inviter {
			for i := range o.sessions {
				r.send(told, r.addr, o.sessions[i].addr)
			}
		}
	}
}
