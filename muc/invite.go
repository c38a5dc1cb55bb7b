package muc

import (
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

const maxInvites = 10 // in one message

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

// decline tells an inviter that somebody does not come. Only who is in the room is told, so that it carries nothing
// to anybody else.
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
	b := []byte("<x xmlns='" + stanza.NSMUCUser + "'><decline from='")
	b = append(stanza.AppendEscaped(b, st.From.Bare().String()), "'>"...)
	if d.Reason != "" {
		b = append(stanza.AppendEscaped(append(b, "<reason>"...), d.Reason), "</reason>"...)
	}
	told := r.mediate(st, append(b, "</decline></x>"...))
	found := false
	for _, o := range r.occupants {
		if o.user == to.Bare() || o.addr == to {
			found = true
			for i := range o.sessions {
				r.send(told, r.addr, o.sessions[i].addr)
			}
		}
	}
	if !found {
		r.refuse(st, mstanza.ItemNotFound, "")
	}
}
