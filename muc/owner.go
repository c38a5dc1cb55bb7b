package muc

import (
	"strconv"

	"mellium.im/xmpp/form"
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// Bytes of the texts of a room.
const (
	maxName        = 256
	maxDescription = 1 << 10
	maxLanguage    = 64
	maxPassword    = 256
)

// ownerQuery is <query xmlns='http://jabber.org/protocol/muc#owner'/>.
type ownerQuery struct {
	Form    *submitted `xml:"jabber:x:data x"`
	Destroy *struct {
		JID      string `xml:"jid,attr"`
		Reason   string `xml:"reason"`
		Password string `xml:"password"`
	} `xml:"http://jabber.org/protocol/muc#owner destroy"`
}

func (r *Room) owns(session stanza.Addr) bool { return r.affiliation(session.Bare()) == owner }

// getOwner gives the form with which the room is configured (§10.2).
func (r *Room) getOwner(iq *stanza.Stanza) {
	if !r.owns(iq.From) {
		r.refuse(iq, mstanza.Forbidden, "")
		return
	}
	b := append([]byte("<query xmlns='"+nsOwner+"'>"), renderForm(r.configForm())...)
	r.result(iq, append(b, "</query>"...))
}

// setOwner configures the room (§10.2) or destroys it (§10.9).
func (r *Room) setOwner(iq *stanza.Stanza, query stanza.Child) {
	if !r.owns(iq.From) {
		r.refuse(iq, mstanza.Forbidden, "")
		return
	}
	var q ownerQuery
	switch err := query.Decode(&q); {
	case err != nil, q.Destroy == nil && q.Form == nil:
		r.refuse(iq, mstanza.BadRequest, "")
	case q.Destroy != nil:
		if len(q.Destroy.Reason) > maxReason || len(q.Destroy.Password) > maxPassword {
			r.refuse(iq, mstanza.NotAcceptable, "")
			return
		}
		alternate, err := stanza.ParseAddr(q.Destroy.JID)
		if q.Destroy.JID != "" && err != nil {
			r.refuse(iq, mstanza.JIDMalformed, "")
			return
		}
		r.result(iq, nil)
		r.destroy(alternate, q.Destroy.Reason, q.Destroy.Password)
	case q.Form.Type == "cancel": // a room can be used before it is configured, so that nothing is to be undone
		r.result(iq, nil)
	case q.Form.Type != "submit" || q.Form.Len() > 0 && !q.Form.is(nsRoomConfig):
		r.refuse(iq, mstanza.BadRequest, "")
	default:
		r.configure(iq, q.Form)
	}
}

// destroy ends the room for everybody in it.
func (r *Room) destroy(alternate stanza.Addr, reason, password string) {
	b := []byte("<x xmlns='" + stanza.NSMUCUser + "'><item affiliation='none' role='none'/><destroy")
	if !alternate.IsZero() {
		b = append(stanza.AppendEscaped(append(b, " jid='"...), alternate.String()), '\'')
	}
	b = append(b, '>')
	if password != "" {
		b = append(stanza.AppendEscaped(append(b, "<password>"...), password), "</password>"...)
	}
	if reason != "" {
		b = append(stanza.AppendEscaped(append(b, "<reason>"...), reason), "</reason>"...)
	}
	b = append(appendStatus(append(b, "</destroy>"...), statusSelf), "</x>"...)
	last := unavailable.Rewrite(stanza.Edit{Append: b})
	for _, o := range r.occupants {
		for i := range o.sessions {
			r.send(last, o.addr, o.sessions[i].addr)
		}
	}
	r.end()
}

func (r *Room) configForm() *form.Data {
	o := &r.options
	yes := func(name, label string, v bool) form.Field {
		return form.Boolean("muc#roomconfig_"+name, form.Label(label), form.Value(strconv.FormatBool(v)))
	}
	text := func(name, label, v string) form.Field {
		return form.Text("muc#roomconfig_"+name, form.Label(label), form.Value(v))
	}
	return form.New(
		form.Title("Configuration of "+r.name()),
		form.Hidden("FORM_TYPE", form.Value(nsRoomConfig)),
		text("roomname", "Name", o.Name),
		text("roomdesc", "Description", o.Description),
		text("lang", "Language", o.Language),
		yes("persistentroom", "The room stays when nobody is in it", o.Persistent),
		yes("publicroom", "Everybody can find the room", o.Public),
		yes("membersonly", "Only members can enter", o.MembersOnly),
		yes("moderatedroom", "Only those with voice can send messages", o.Moderated),
		yes("passwordprotectedroom", "A password is needed to enter", o.Password != ""),
		form.TextPrivate("muc#roomconfig_roomsecret", form.Label("Password"), form.Value(o.Password)),
		form.List("muc#roomconfig_whois", form.Label("Who sees the JIDs of occupants"),
			form.Value(choose(o.WhoisAnyone, "anyone", "moderators")),
			form.ListItem("Moderators", "moderators"), form.ListItem("Everybody", "anyone")),
		yes("changesubject", "Participants can change the subject", o.ChangeSubject),
		yes("allowinvites", "Members can invite others to a members-only room", o.AllowInvites),
		form.List("muc#roomconfig_allowpm", form.Label("Who can send private messages"),
			form.Value(o.PrivateMessages),
			form.ListItem("Everybody", pmAnyone), form.ListItem("Those with voice", pmParticipants),
			form.ListItem("Moderators", pmModerators), form.ListItem("Nobody", pmNone)),
		form.List("muc#roomconfig_maxusers", append(r.maxUsersChoices(),
			form.Label("Occupants at most"), form.Value(strconv.Itoa(r.maxOccupants())))...),
		form.Text("muc#maxhistoryfetch", form.Label("Messages of the history that are told at most"), form.Value(strconv.Itoa(r.maxHistory()))),
	)
}

func (r *Room) maxUsersChoices() []form.Option {
	var choices []form.Option
	now, offered := r.maxOccupants(), false
	for _, n := range []int{10, 20, 50, 100, 200, 500, 1000, maxOccupants} {
		if n >= r.limits.Occupants {
			break
		}
		offered = offered || n == now
		choices = append(choices, form.ListItem("", strconv.Itoa(n)))
	}
	choices = append(choices, form.ListItem("", strconv.Itoa(r.limits.Occupants)))
	if !offered && now != r.limits.Occupants {
		choices = append(choices, form.ListItem("", strconv.Itoa(now)))
	}
	return choices
}

// configure makes the room what a form says, or says why not.
func (r *Room) configure(iq *stanza.Stanza, f *submitted) {
	next, ok := r.optionsOf(f)
	if !ok {
		r.refuse(iq, mstanza.NotAcceptable, "")
		return
	}
	before := r.options
	leaving, talking := r.affectedBy(&next)
	if !r.fits(len(leaving) + len(talking)) {
		r.refuse(iq, mstanza.ResourceConstraint, "too many occupants would be affected")
		return
	}
	r.result(iq, nil)
	if next == before {
		return
	}
	r.options, r.dirty = next, true
	r.tellConfig(&before)
	for _, o := range leaving {
		r.remove(o, unavailable, notice{codes: []int{statusMembersOnly}})
	}
	for _, o := range talking {
		o.role = participant
		r.broadcast(o, o.newest().presence, notice{role: o.role})
	}
	r.endIfEmpty()
}

// affectedBy returns who has to leave a room that becomes members-only, and who gets voice in one that is moderated
// no more.
func (r *Room) affectedBy(next *options) (leaving, talking []*occupant) {
	for _, o := range r.occupants {
		switch {
		case next.MembersOnly && !r.options.MembersOnly && r.affiliation(o.user) < member:
			leaving = append(leaving, o)
		case r.options.Moderated && !next.Moderated && o.role == visitor:
			talking = append(talking, o)
		}
	}
	return leaving, talking
}

// tellConfig tells the occupants that the configuration is another (§10.2.1).
func (r *Room) tellConfig(before *options) {
	b := appendStatus([]byte("<x xmlns='"+stanza.NSMUCUser+"'>"), statusConfigChanged)
	if r.options.WhoisAnyone != before.WhoisAnyone {
		code := statusNowSemiAnonymous
		if r.options.WhoisAnyone {
			code = statusNowNonAnonymous
		}
		b = appendStatus(b, code)
	}
	r.sendAll(stanza.New(stanza.Message, "groupchat", "", stanza.Addr{}, stanza.Addr{}, append(b, "</x>"...)), r.addr)
}

// optionsOf reads a configuration. What is not in it stays as it is; ok is false when a value cannot be.
func (r *Room) optionsOf(f *submitted) (o options, ok bool) {
	o, ok = r.options, true
	text := func(name string, v *string, limit int) {
		if s, there := f.value(name); there {
			*v, ok = s, ok && len(s) <= limit
		}
	}
	yes := func(name string, v *bool) {
		if s, there := f.value(name); there {
			*v = s == "1" || s == "true"
			ok = ok && (*v || s == "0" || s == "false" || s == "")
		}
	}
	text("muc#roomconfig_roomname", &o.Name, maxName)
	text("muc#roomconfig_roomdesc", &o.Description, maxDescription)
	text("muc#roomconfig_lang", &o.Language, maxLanguage)
	yes("muc#roomconfig_persistentroom", &o.Persistent)
	yes("muc#roomconfig_publicroom", &o.Public)
	yes("muc#roomconfig_membersonly", &o.MembersOnly)
	yes("muc#roomconfig_moderatedroom", &o.Moderated)
	yes("muc#roomconfig_changesubject", &o.ChangeSubject)
	yes("muc#roomconfig_allowinvites", &o.AllowInvites)
	protected := o.Password != ""
	yes("muc#roomconfig_passwordprotectedroom", &protected)
	text("muc#roomconfig_roomsecret", &o.Password, maxPassword)
	if !protected {
		o.Password = ""
	}
	ok = ok && protected == (o.Password != "")
	return o, readLists(f, &o, r.limits) && ok
}

// readLists reads the fields whose values are words or numbers.
func readLists(f *submitted, o *options, l limits) bool {
	ok := true
	if s, there := f.value("muc#roomconfig_whois"); there {
		o.WhoisAnyone = s == "anyone"
		ok = o.WhoisAnyone || s == "moderators"
	}
	if s, there := f.value("muc#roomconfig_allowpm"); there {
		o.PrivateMessages = s
		ok = ok && (s == pmAnyone || s == pmParticipants || s == pmModerators || s == pmNone)
	}
	if s, there := f.value("muc#roomconfig_maxusers"); there && s != "" {
		n, err := strconv.Atoi(s)
		if s == "none" { // §16.5.3: as many as the service allows
			n, err = l.Occupants, nil
		}
		ok = ok && err == nil && n >= 1
		if o.MaxUsers = n; n >= l.Occupants {
			o.MaxUsers = 0
		}
	}
	if s, there := f.value("muc#maxhistoryfetch"); there && s != "" {
		n, err := strconv.Atoi(s)
		ok = ok && err == nil && n >= 0
		if o.MaxHistory = n; n >= l.History {
			o.MaxHistory = -1
		}
	}
	return ok
}
