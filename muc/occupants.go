package muc

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"

	"holdfast/stanza"
)

// occupant is who goes by one nick: one user, with one or more sessions.
type occupant struct {
	addr     stanza.Addr // room/nick
	user     stanza.Addr // bare
	role     role
	sessions []session // never empty; the one whose presence came last is last, and is what the others see
	id       []byte    // the <occupant-id/> (XEP-0421)
}

type session struct {
	addr     stanza.Addr
	presence *stanza.Stanza // stripped
}

// weight is what a session takes in a room's state.
func (s *session) weight(nick stanza.Addr) int {
	return len(s.presence.Raw()) + len(s.addr.String()) + len(nick.String())
}

// there is what all sessions take.
func (r *Room) there() (bytes int) {
	for _, o := range r.occupants {
		for i := range o.sessions {
			bytes += o.sessions[i].weight(o.addr)
		}
	}
	return bytes
}

func (o *occupant) nick() string     { return o.addr.Resource() }
func (o *occupant) newest() *session { return &o.sessions[len(o.sessions)-1] }
func (o *occupant) find(addr stanza.Addr) int {
	return slices.IndexFunc(o.sessions, func(s session) bool { return s.addr == addr })
}

// update makes a session's presence the one that is seen.
func (o *occupant) update(s session) {
	if i := o.find(s.addr); i >= 0 {
		o.sessions = slices.Delete(o.sessions, i, i+1)
	}
	o.sessions = append(o.sessions, s)
}

func (r *Room) occupantID(user stanza.Addr) []byte {
	h := hmac.New(sha256.New, r.secret)
	h.Write([]byte(user.String()))
	b := []byte("<" + occupantIDTag + " xmlns='" + nsOccupantID + "' id='")
	b = base64.RawURLEncoding.AppendEncode(b, h.Sum(nil))
	return append(b, "'/>"...)
}

// affiliation returns what a user is to the room.
func (r *Room) affiliation(user stanza.Addr) affiliation {
	if r.limits.serves(user) {
		return owner
	}
	if a, ok := r.affiliations[user]; ok {
		return a
	}
	return unaffiliated
}

// roleFor returns the role with which a user of an affiliation enters (§5.1.2).
func (r *Room) roleFor(a affiliation) role {
	switch {
	case a >= admin:
		return moderator
	case a == unaffiliated && r.options.Moderated:
		return visitor
	}
	return participant
}

// attach adds a session under a nick, at which there is nobody or the same user.
func (r *Room) attach(nick stanza.Addr, as role, s session) *occupant {
	o := r.byNick[nick.Resource()]
	if o == nil {
		o = &occupant{addr: nick, user: s.addr.Bare(), role: as}
		o.id = r.occupantID(o.user)
		r.occupants = append(r.occupants, o)
		r.byNick[o.nick()] = o
	}
	o.update(s)
	r.bySession[s.addr] = o
	r.sessions++
	return o
}

// detach takes a session out of the room and says so. base is its last presence. As long as its user has other
// sessions under the nick, only the session itself hears of it, and the others of a presence that is seen now.
func (r *Room) detach(o *occupant, addr stanza.Addr, base *stanza.Stanza, n notice) {
	if len(o.sessions) == 1 {
		r.remove(o, base, n)
		return
	}
	r.send(r.render(o, base, n, own), o.addr, addr)
	i := o.find(addr)
	seen := i == len(o.sessions)-1
	o.sessions = slices.Delete(o.sessions, i, i+1)
	delete(r.bySession, addr)
	r.sessions--
	if seen {
		r.broadcast(o, o.newest().presence, notice{role: o.role})
	}
}

// remove takes an occupant with all of its sessions out of the room and says so to everybody, itself included.
func (r *Room) remove(o *occupant, base *stanza.Stanza, n notice) {
	r.broadcast(o, base, n)
	r.forget(o)
}

func (r *Room) forget(o *occupant) {
	for _, s := range o.sessions {
		delete(r.bySession, s.addr)
	}
	r.sessions -= len(o.sessions)
	delete(r.byNick, o.nick())
	i := slices.Index(r.occupants, o)
	r.occupants = slices.Delete(r.occupants, i, i+1)
}

// notice is what an occupant's presence says of it in <x/>.
type notice struct {
	role   role
	codes  []int  // for everybody
	own    []int  // for the occupant itself besides
	nick   string // the new one
	actor  string // the nick of who did it
	reason string
}

// audience is to whom an occupant's presence goes.
type audience uint8

const (
	plain    audience = iota // to those who do not see its JID
	unveiled                 // to those who do
	own                      // to its own sessions
	audiences
)

// audienceOf returns which presence of o another occupant gets.
func (r *Room) audienceOf(o, to *occupant) audience {
	switch {
	case o == to:
		return own
	case to.role == moderator || r.options.WhoisAnyone:
		return unveiled
	}
	return plain
}

// broadcast sends a presence of o to everybody in the room.
func (r *Room) broadcast(o *occupant, base *stanza.Stanza, n notice) {
	r.broadcastExcept(o, base, n, stanza.Addr{})
}

func (r *Room) broadcastExcept(o *occupant, base *stanza.Stanza, n notice, except stanza.Addr) {
	var rendered [audiences]*stanza.Stanza
	for _, to := range r.occupants {
		f := r.audienceOf(o, to)
		for i := range to.sessions {
			if to.sessions[i].addr == except {
				continue
			}
			if rendered[f] == nil {
				rendered[f] = r.render(o, base, n, f)
			}
			r.send(rendered[f], o.addr, to.sessions[i].addr)
		}
	}
}

// render makes a presence of o out of what its client said.
func (r *Room) render(o *occupant, base *stanza.Stanza, n notice, f audience) *stanza.Stanza {
	b := append([]byte(nil), "<x xmlns='"+stanza.NSMUCUser+"'><item affiliation='"...)
	b = append(b, r.affiliation(o.user).String()...)
	b = append(append(b, "' role='"...), n.role.String()...)
	if f != plain {
		b = stanza.AppendEscaped(append(b, "' jid='"...), o.newest().addr.String())
	}
	if n.nick != "" {
		b = stanza.AppendEscaped(append(b, "' nick='"...), n.nick)
	}
	b = append(b, "'>"...)
	if n.actor != "" {
		b = append(stanza.AppendEscaped(append(b, "<actor nick='"...), n.actor), "'/>"...)
	}
	if n.reason != "" {
		b = append(stanza.AppendEscaped(append(b, "<reason>"...), n.reason), "</reason>"...)
	}
	b = append(b, "</item>"...)
	if f == own {
		b = appendStatus(b, statusSelf)
		b = appendStatus(b, n.own...)
	}
	b = appendStatus(b, n.codes...)
	b = append(b, "</x>"...)
	b = append(b, o.id...)
	return base.Rewrite(stanza.Edit{From: o.addr, Without: stanza.Delay, DelayBy: r.ours, Append: b})
}

func appendStatus(b []byte, codes ...int) []byte {
	for _, code := range codes {
		b = append(strconv.AppendInt(append(b, "<status code='"...), int64(code), 10), "'/>"...)
	}
	return b
}

// unavailable is the last presence of those who did not say one themselves.
var unavailable = stanza.New(stanza.Presence, "unavailable", "", stanza.Addr{}, stanza.Addr{}, nil)
