package muc

import (
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

const (
	maxItems  = 100 // in one request
	maxReason = 1 << 10
	// maxAffiliated is bytes of all addresses with an affiliation, so that a state fits into a record of the journal.
	maxAffiliated = 512 << 10
)

// adminItem is one <item/> of muc#admin (§8, §9).
type adminItem struct {
	Affiliation string `xml:"affiliation,attr"`
	Role        string `xml:"role,attr"`
	JID         string `xml:"jid,attr"`
	Nick        string `xml:"nick,attr"`
	Reason      string `xml:"reason"`
}

// change is what a request makes of one user, by affiliation, or of one occupant, by role.
type change struct {
	user        stanza.Addr // zero for a change of role
	affiliation affiliation
	occupant    *occupant
	role        role
	reason      string
}

func decodeItems(query stanza.Child) ([]adminItem, bool) {
	var q struct {
		Items []adminItem `xml:"http://jabber.org/protocol/muc#admin item"`
	}
	if query.Decode(&q) != nil || len(q.Items) == 0 || len(q.Items) > maxItems {
		return nil, false
	}
	return q.Items, true
}

// getAdmin lists the users of an affiliation or the occupants of a role.
func (r *Room) getAdmin(iq *stanza.Stanza, query stanza.Child) {
	items, ok := decodeItems(query)
	if !ok || len(items) != 1 {
		r.refuse(iq, mstanza.BadRequest, "")
		return
	}
	b := []byte("<query xmlns='" + nsAdmin + "'>")
	if a, ok := parseAffiliation(items[0].Affiliation); ok && a != unaffiliated {
		if !r.mayList(iq.From, a) {
			r.refuse(iq, mstanza.Forbidden, "")
			return
		}
		b = r.appendAffiliated(b, a)
	} else if as, ok := parseRole(items[0].Role); ok && as != roleNone {
		if o := r.bySession[iq.From]; o == nil || o.role < moderator {
			r.refuse(iq, mstanza.Forbidden, "")
			return
		}
		b = r.appendRole(b, as)
	} else {
		r.refuse(iq, mstanza.BadRequest, "")
		return
	}
	r.result(iq, append(b, "</query>"...))
}

// mayList reports whether somebody may see who has an affiliation. Where everybody sees the JIDs of occupants, members
// see each other's, present or not: encryption for the whole room needs them (XEP-0384 §5.8).
func (r *Room) mayList(session stanza.Addr, a affiliation) bool {
	mine := r.affiliation(session.Bare())
	return mine >= admin || mine >= member && a >= member && r.options.WhoisAnyone
}

// appendAffiliated leaves out those who own every room: a list would have whoever encrypts for all on it encrypt for
// the operator.
func (r *Room) appendAffiliated(b []byte, a affiliation) []byte {
	for _, user := range r.affiliated() {
		if r.affiliation(user) == a {
			b = append(append(b, "<item affiliation='"...), a.String()...)
			b = append(stanza.AppendEscaped(append(b, "' jid='"...), user.String()), "'/>"...)
		}
	}
	return b
}

func (r *Room) appendRole(b []byte, as role) []byte {
	for _, o := range r.occupants {
		if o.role == as {
			b = append(append(b, "<item affiliation='"...), r.affiliation(o.user).String()...)
			b = stanza.AppendEscaped(append(b, "' jid='"...), o.newest().addr.String())
			b = stanza.AppendEscaped(append(b, "' nick='"...), o.nick())
			b = append(append(append(b, "' role='"...), as.String()...), "'/>"...)
		}
	}
	return b
}

// setAdmin makes all changes of a request or none.
func (r *Room) setAdmin(iq *stanza.Stanza, query stanza.Child) {
	items, ok := decodeItems(query)
	if !ok {
		r.refuse(iq, mstanza.BadRequest, "")
		return
	}
	changes := make([]change, 0, len(items))
	for i := range items {
		c, condition := r.plan(iq.From, &items[i])
		if condition != "" {
			r.refuse(iq, condition, "")
			return
		}
		changes = append(changes, c)
	}
	if condition := r.checkAll(changes); condition != "" {
		r.refuse(iq, condition, "")
		return
	}
	actor := ""
	if o := r.bySession[iq.From]; o != nil {
		actor = o.nick()
	}
	r.result(iq, nil)
	for _, c := range changes {
		if c.user.IsZero() {
			r.setRole(c, actor)
		} else {
			r.setAffiliation(c, actor)
		}
	}
	r.endIfEmpty()
}

// plan reads one item and returns the condition with which it is refused, if it is.
func (r *Room) plan(by stanza.Addr, item *adminItem) (c change, condition mstanza.Condition) {
	if len(item.Reason) > maxReason {
		return c, mstanza.NotAcceptable
	}
	c.reason = item.Reason
	switch {
	case (item.Affiliation == "") == (item.Role == ""):
		return c, mstanza.BadRequest
	case item.Role != "":
		return r.planRole(by, item, c)
	}
	return r.planAffiliation(by, item, c)
}

func (r *Room) planRole(by stanza.Addr, item *adminItem, c change) (change, mstanza.Condition) {
	var ok bool
	if c.role, ok = parseRole(item.Role); !ok || item.Nick == "" {
		return c, mstanza.BadRequest
	}
	addr, err := r.addr.WithResource(item.Nick)
	if err != nil {
		return c, mstanza.JIDMalformed
	}
	actor := r.bySession[by]
	if actor == nil || actor.role < moderator {
		return c, mstanza.Forbidden
	}
	if c.occupant = r.byNick[addr.Resource()]; c.occupant == nil {
		return c, mstanza.ItemNotFound
	}
	mine, theirs := r.affiliation(actor.user), r.affiliation(c.occupant.user)
	switch {
	case c.role == roleNone:
		if theirs > mine { // §8.2
			return c, mstanza.NotAllowed
		}
	case c.role == moderator:
		if mine < admin { // §9.6
			return c, mstanza.Forbidden
		}
	case theirs >= admin: // §8.4, §9.7
		return c, mstanza.NotAllowed
	case c.occupant.role == moderator && mine < admin:
		return c, mstanza.Forbidden
	}
	return c, ""
}

func (r *Room) planAffiliation(by stanza.Addr, item *adminItem, c change) (change, mstanza.Condition) {
	var ok bool
	if c.affiliation, ok = parseAffiliation(item.Affiliation); !ok {
		return c, mstanza.BadRequest
	}
	if c.user, ok = r.userOf(item); !ok {
		return c, mstanza.JIDMalformed
	}
	mine, theirs := r.affiliation(by.Bare()), r.affiliation(c.user)
	switch {
	case mine < admin:
		return c, mstanza.Forbidden
	case r.limits.serves(c.user):
		return c, mstanza.NotAllowed
	case mine < owner && theirs >= admin:
		return c, mstanza.NotAllowed
	case mine < owner && c.affiliation >= admin:
		return c, mstanza.Forbidden
	case c.affiliation == outcast && c.user == by.Bare(): // §9.1
		return c, mstanza.Conflict
	}
	return c, ""
}

// userOf returns whom an item is about: a user by JID, or an occupant by nick.
func (r *Room) userOf(item *adminItem) (stanza.Addr, bool) {
	if item.JID != "" {
		addr, err := stanza.ParseAddr(item.JID)
		return addr.Bare(), err == nil && addr.Local() != ""
	}
	addr, err := r.addr.WithResource(item.Nick)
	if err != nil || item.Nick == "" {
		return stanza.Addr{}, false
	}
	if o := r.byNick[addr.Resource()]; o != nil {
		return o.user, true
	}
	return stanza.Addr{}, false
}

// checkAll returns what is wrong with the changes together: the last of those who own the room, and not every room,
// would own it no more, the list of affiliations would be too long, or there would be too much to tell.
func (r *Room) checkAll(changes []change) mstanza.Condition {
	after := make(map[stanza.Addr]affiliation, len(changes))
	told := 0
	for _, c := range changes {
		if c.user.IsZero() {
			told++
			continue
		}
		after[c.user] = c.affiliation
		for _, o := range r.occupants {
			if o.user == c.user {
				told++
			}
		}
	}
	owned, owners, listed, bytes := false, 0, 0, 0
	for user, a := range r.affiliations {
		owned = owned || a == owner
		if _, changes := after[user]; changes {
			continue
		}
		listed++
		bytes += len(user.String())
		if a == owner {
			owners++
		}
	}
	for user, a := range after {
		if a != unaffiliated {
			listed++
			bytes += len(user.String())
		}
		if a == owner {
			owners++
		}
	}
	switch {
	case owned && owners == 0:
		return mstanza.Conflict
	case listed > max(r.limits.Affiliations, len(r.affiliations)), bytes > maxAffiliated, !r.fits(told):
		return mstanza.ResourceConstraint
	}
	return ""
}

// setRole changes what an occupant may do until it leaves, or makes it leave.
func (r *Room) setRole(c change, actor string) {
	o := c.occupant
	if r.byNick[o.nick()] != o {
		return // an item before removed it
	}
	if c.role == roleNone {
		r.remove(o, unavailable, notice{codes: []int{statusKicked}, actor: actor, reason: c.reason})
		return
	}
	if o.role != c.role {
		o.role = c.role
		r.broadcast(o, o.newest().presence, notice{role: o.role, actor: actor, reason: c.reason})
	}
}

// setAffiliation changes what a user is to the room, and with it what its occupants may do.
func (r *Room) setAffiliation(c change, actor string) {
	before := r.affiliation(c.user)
	if before == c.affiliation {
		return
	}
	if c.affiliation == unaffiliated {
		delete(r.affiliations, c.user)
	} else {
		r.affiliations[c.user] = c.affiliation
	}
	r.changed()
	var theirs []*occupant
	for _, o := range r.occupants {
		if o.user == c.user {
			theirs = append(theirs, o)
		}
	}
	for _, o := range theirs {
		n := notice{actor: actor, reason: c.reason}
		switch {
		case c.affiliation == outcast:
			n.codes = []int{statusBanned}
		case c.affiliation < member && r.options.MembersOnly:
			n.codes = []int{statusAffiliationLost}
		default:
			// A moderator whom a moderator made stays one.
			if o.role != moderator || before >= admin || c.affiliation >= admin {
				o.role = r.roleFor(c.affiliation)
			}
			n.role = o.role
			r.broadcast(o, o.newest().presence, n)
			continue
		}
		r.remove(o, unavailable, n)
	}
}
