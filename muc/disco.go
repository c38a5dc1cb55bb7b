package muc

import (
	"strconv"

	"mellium.im/xmpp/form"
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

func appendIdentity(b []byte, name string) []byte {
	b = append(b, "<identity category='conference' type='text'"...)
	if name != "" {
		b = append(stanza.AppendEscaped(append(b, " name='"...), name), '\'')
	}
	return append(b, "/>"...)
}

func appendFeatures(b []byte, features ...string) []byte {
	for _, f := range features {
		b = append(append(append(b, "<feature var='"...), f...), "'/>"...)
	}
	return b
}

func choose(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// discoverInfo says what the room is (§6.4).
func (r *Room) discoverInfo(iq *stanza.Stanza, query stanza.Child) {
	if query.Attr("node") != "" {
		r.refuse(iq, mstanza.FeatureNotImplemented, "")
		return
	}
	o := &r.options
	b := appendIdentity([]byte("<query xmlns='"+nsDiscoInfo+"'>"), r.name())
	b = appendFeatures(b,
		nsDiscoInfo, nsDiscoItems, stanza.NSMUC, nsStableID, nsSelfPing, nsOccupantID, stanza.NSStanzaID, nsPing,
		choose(o.Public, "muc_public", "muc_hidden"),
		choose(o.MembersOnly, "muc_membersonly", "muc_open"),
		choose(o.Moderated, "muc_moderated", "muc_unmoderated"),
		choose(o.WhoisAnyone, "muc_nonanonymous", "muc_semianonymous"),
		choose(o.Password != "", "muc_passwordprotected", "muc_unsecured"),
		choose(o.Persistent, "muc_persistent", "muc_temporary"),
	)
	b = append(b, renderForm(r.info())...)
	r.result(iq, append(b, "</query>"...))
}

// name is what the room is called: by its address, unless an owner said otherwise.
func (r *Room) name() string {
	if r.options.Name != "" {
		return r.options.Name
	}
	return r.addr.Local()
}

// info is the form of §16.5.4.
func (r *Room) info() *form.Data {
	subject := ""
	if r.subject.st != nil {
		c, _ := r.subject.st.Find(stanza.NSClient, "subject")
		subject = c.Text()
	}
	return form.New(form.Result,
		form.Hidden("FORM_TYPE", form.Value(nsRoomInfo)),
		form.Text("muc#roominfo_description", form.Label("Description"), form.Value(r.options.Description)),
		form.Text("muc#roominfo_lang", form.Label("Language"), form.Value(r.options.Language)),
		form.Text("muc#roominfo_occupants", form.Label("Number of occupants"), form.Value(strconv.Itoa(len(r.occupants)))),
		form.Text("muc#roominfo_subject", form.Label("Subject"), form.Value(subject)),
		form.Boolean("muc#roominfo_subjectmod", form.Label("Occupants may change the subject"), form.Value(strconv.FormatBool(r.options.ChangeSubject))),
		form.Text("muc#maxhistoryfetch", form.Label("Messages of the history that are told at most"), form.Value(strconv.Itoa(r.maxHistory()))),
	)
}

func (r *Room) maxHistory() int {
	if r.options.MaxHistory >= 0 {
		return min(r.options.MaxHistory, r.limits.History)
	}
	return r.limits.History
}

// discoverItems says who is there (§6.5), which of a hidden room only its occupants may know.
func (r *Room) discoverItems(iq *stanza.Stanza, query stanza.Child) {
	if query.Attr("node") != "" {
		r.refuse(iq, mstanza.ItemNotFound, "")
		return
	}
	b := []byte("<query xmlns='" + nsDiscoItems + "'>")
	if r.options.Public || r.bySession[iq.From] != nil {
		for _, o := range r.occupants {
			b = append(stanza.AppendEscaped(append(b, "<item jid='"...), o.addr.String()), "'/>"...)
		}
	}
	r.result(iq, append(b, "</query>"...))
}
