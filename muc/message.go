package muc

import (
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

const maxSubject = 8 << 10 // bytes of a message that sets the subject, which everybody who enters is sent

func (r *Room) handleMessage(st *stanza.Stanza) {
	o := r.bySession[st.From]
	typ := string(st.TypeRaw())
	switch {
	case typ == "error":
		r.handleError(o, st)
	case !r.exists():
		r.refuse(st, mstanza.ItemNotFound, "this room does not exist")
	case st.To.IsFull():
		r.handlePrivate(o, st)
	case typ == "groupchat":
		r.handleGroupchat(o, st)
	default:
		r.handleMediated(o, st)
	}
}

// handleGroupchat sends a message to everybody, its sender included (§7.4).
func (r *Room) handleGroupchat(o *occupant, st *stanza.Stanza) {
	if o == nil {
		r.refuse(st, mstanza.NotAcceptable, "you are not in the room")
		return
	}
	subject := isSubject(st)
	if !r.mayTalk(o, subject) {
		r.refuse(st, mstanza.Forbidden, "")
		return
	}
	// A <delay/> from the room would make it look like history.
	said := r.strip(st, false).Rewrite(stanza.Edit{
		From: o.addr, ID: st.ID, IDBy: r.addr, Without: stanza.Delay, DelayBy: r.ours, Append: o.id,
	})
	if subject && len(said.Raw()) > maxSubject {
		r.refuse(st, mstanza.NotAcceptable, "the subject is too long")
		return
	}
	r.sv.metrics.messages.Inc()
	r.sendAll(said, o.addr)
	switch {
	case subject:
		r.subject = entry{st: said, at: r.timeOf(st)}
		r.changed()
	case st.Payloads().Has(stanza.Body) && !st.Payloads().Has(stanza.HintNoStore):
		r.history.add(entry{st: said, at: r.timeOf(st)}, &r.limits)
		r.spoken = r.options.Persistent
	}
}

// isSubject reports whether a message sets the subject: one that says something besides is a message with a subject
// of its own (§8.1).
func isSubject(st *stanza.Stanza) bool {
	if !st.Payloads().Has(stanza.Subject) || st.Payloads()&(stanza.Body|stanza.Thread) != 0 {
		return false
	}
	_, body := st.Find(stanza.NSClient, "body") // an empty one, which Payloads does not count
	return !body
}

// mayTalk reports whether an occupant may send to the room, or set its subject.
func (r *Room) mayTalk(o *occupant, subject bool) bool {
	if subject && !r.options.ChangeSubject {
		return o.role >= moderator
	}
	return o.role >= participant
}

// timeOf returns when a message came. One without an id came when the one before it did.
func (r *Room) timeOf(st *stanza.Stanza) time.Time {
	if !st.ID.IsZero() {
		return st.ID.Time()
	}
	if entries := r.history.entries(); len(entries) > 0 {
		return entries[len(entries)-1].at
	}
	return time.Unix(0, 0)
}

// handlePrivate passes a message on to one occupant (§7.5).
func (r *Room) handlePrivate(o *occupant, st *stanza.Stanza) {
	target := r.byNick[st.To.Resource()]
	switch {
	case string(st.TypeRaw()) == "groupchat":
		r.refuse(st, mstanza.BadRequest, "a private message is not of type groupchat")
	case o == nil:
		r.refuse(st, mstanza.NotAcceptable, "you are not in the room")
	case target == nil:
		r.refuse(st, mstanza.ItemNotFound, "nobody goes by this nickname")
	case !r.options.mayWrite(o.role):
		r.refuse(st, mstanza.Forbidden, "private messages are not allowed here")
	default:
		r.pass(o, target, r.strip(st, true))
	}
}

// pass sends a stripped message of o to all sessions of target.
func (r *Room) pass(o, target *occupant, st *stanza.Stanza) {
	mark := append([]byte("<x xmlns='"+stanza.NSMUCUser+"'/>"), o.id...)
	said := st.Rewrite(stanza.Edit{From: o.addr, Without: stanza.Delay, DelayBy: r.ours, Append: mark})
	for i := range target.sessions {
		r.send(said, o.addr, target.sessions[i].addr)
	}
}

// unreachable are the errors that tell that stanzas do not reach an occupant any more (§7.14, XEP-0410 §3).
var unreachable = map[mstanza.Condition]bool{
	mstanza.Gone:                 true,
	mstanza.InternalServerError:  true,
	mstanza.ItemNotFound:         true,
	mstanza.JIDMalformed:         true,
	mstanza.RecipientUnavailable: true,
	mstanza.Redirect:             true,
	mstanza.RemoteServerNotFound: true,
	mstanza.RemoteServerTimeout:  true,
	mstanza.ServiceUnavailable:   true,
}

// handleError removes who cannot be reached. Another error is an occupant's answer to a private message; only the error
// goes along, and only from who may write such messages, so that it is not a way to write them.
func (r *Room) handleError(o *occupant, st *stanza.Stanza) {
	if o == nil {
		return
	}
	if condition, ok := errorCondition(st); !ok || unreachable[condition] {
		r.drop(o, st.From)
		return
	}
	target := r.byNick[st.To.Resource()]
	if target == nil || !st.To.IsFull() || !r.options.mayWrite(o.role) {
		return
	}
	c, _ := st.Find(stanza.NSClient, "error")
	answer := stanza.New(stanza.Message, "error", st.Attr("id"), o.addr, stanza.Addr{}, c.Raw())
	answer.ID = st.ID
	if answer.NumChildren() == 1 { // it can stand alone
		r.pass(o, target, answer)
	}
}

// errorCondition reads the <error/> of a stanza; ok is false when it says nothing that is known.
func errorCondition(st *stanza.Stanza) (condition mstanza.Condition, ok bool) {
	c, found := st.Find(stanza.NSClient, "error")
	if !found {
		return "", false
	}
	var e mstanza.Error
	if err := c.Decode(&e); err != nil || e.Condition == "" {
		return "", false
	}
	return e.Condition, true
}
