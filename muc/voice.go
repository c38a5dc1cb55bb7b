package muc

import (
	"strconv"

	"mellium.im/xmpp/form"
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// handleVoice passes a visitor's request for voice on to the moderators (§7.13), or does what a moderator answered to
// one (§8.6).
func (r *Room) handleVoice(o *occupant, st *stanza.Stanza, x stanza.Child) {
	var f submitted
	switch err := x.Decode(&f); {
	case o == nil:
		r.refuse(st, mstanza.NotAcceptable, "you are not in the room")
	case err != nil || !f.is(nsRequest):
		r.refuse(st, mstanza.BadRequest, "")
	case o.role == visitor:
		r.requestVoice(o, st)
	case o.role == moderator:
		r.grantVoice(st, &f)
	}
}

func (r *Room) requestVoice(o *occupant, st *stanza.Stanza) {
	request := r.mediate(st, renderForm(form.New(
		form.Title("Voice request"),
		form.Hidden("FORM_TYPE", form.Value(nsRequest)),
		form.List("muc#role", form.Label("Requested role"), form.Value(participant.String()),
			form.ListItem("Participant", participant.String())),
		form.JID("muc#jid", form.Label("User"), form.Value(o.newest().addr.String())),
		form.Text("muc#roomnick", form.Label("Nickname"), form.Value(o.nick())),
		form.Boolean("muc#request_allow", form.Label("Grant voice to this person?"), form.Value(strconv.FormatBool(false))),
	)))
	for _, to := range r.occupants {
		if to.role == moderator {
			for i := range to.sessions {
				r.send(request, r.addr, to.sessions[i].addr)
			}
		}
	}
}

// grantVoice makes a participant of whom a moderator's form names. Who has gone, or has voice, is left alone.
func (r *Room) grantVoice(st *stanza.Stanza, f *submitted) {
	allow, _ := f.value("muc#request_allow")
	nick, _ := f.value("muc#roomnick")
	if allow != "1" && allow != "true" || nick == "" {
		return
	}
	addr, err := r.addr.WithResource(nick)
	if err != nil {
		r.refuse(st, mstanza.JIDMalformed, "")
		return
	}
	if o := r.byNick[addr.Resource()]; o != nil && o.role == visitor {
		r.setRole(change{occupant: o, role: participant}, r.bySession[st.From].nick())
	}
}
