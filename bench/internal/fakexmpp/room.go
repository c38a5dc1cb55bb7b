package fakexmpp

import (
	"fmt"
	"slices"
	"strings"
)

// occupant is a session in a room.
type occupant struct {
	addr    string // room@host/nick
	session *session
}

// hosts reports whether an address is a room's, or an occupant's.
func (s *Server) hosts(to string) bool {
	bare, _, _ := cut(to, "/")
	return strings.HasSuffix(bare, "@conference."+s.Domain)
}

// enterOrLeaveLocked takes presence for a room. Who is in it is told of whoever comes or goes, and nobody is refused.
func (s *Server) enterOrLeaveLocked(from *session, el string) {
	a := attrs(el)
	if a["type"] == "unavailable" {
		s.leaveLocked(from, a["to"])
		return
	}
	room, _, _ := cut(a["to"], "/")
	for _, o := range s.rooms[room] {
		from.deliverLocked(occupantPresence(o.addr, from.jid, "", false))
		o.session.deliverLocked(occupantPresence(a["to"], o.session.jid, "", false))
	}
	s.rooms[room] = append(s.rooms[room], occupant{addr: a["to"], session: from})
	from.deliverLocked(occupantPresence(a["to"], from.jid, "", true))
	from.deliverLocked(fmt.Sprintf(`<message xmlns="jabber:client" from="%s" to="%s" type="groupchat"><subject/></message>`, room, from.jid))
}

func occupantPresence(from, to, typ string, own bool) string {
	status := ""
	if own {
		status = `<status code="110"/>`
	}
	if typ != "" {
		typ = ` type="` + typ + `"`
	}
	return fmt.Sprintf(`<presence xmlns="jabber:client" from="%s" to="%s"%s>`+
		`<x xmlns="http://jabber.org/protocol/muc#user"><item affiliation="none" role="participant"/>%s</x></presence>`,
		from, to, typ, status)
}

// leaveLocked takes a session out of a room, or out of all when addr is empty.
func (s *Server) leaveLocked(who *session, addr string) {
	for room, all := range s.rooms {
		i := slices.IndexFunc(all, func(o occupant) bool { return o.session == who && (addr == "" || o.addr == addr) })
		if i < 0 {
			continue
		}
		gone := all[i].addr
		for _, o := range all {
			o.session.deliverLocked(occupantPresence(gone, o.session.jid, "unavailable", o.session == who))
		}
		s.rooms[room] = slices.Delete(all, i, i+1)
	}
}

// sayLocked sends a message to everybody in a room; each copy may be lost or repeated.
func (s *Server) sayLocked(from *session, room, el string) {
	all := s.rooms[room]
	i := slices.IndexFunc(all, func(o occupant) bool { return o.session == from })
	if i < 0 {
		from.deliverLocked(fmt.Sprintf(`<message xmlns="jabber:client" from="%s" to="%s" type="error"/>`, room, from.jid))
		return
	}
	el = "<message from='" + all[i].addr + "'" + el[len("<message"):]
	for _, o := range all {
		for range s.copiesLocked() {
			o.session.deliverLocked(el)
		}
	}
}
