package muc

import (
	"encoding/base64"
	"strings"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

func (r *Room) handleIQ(st *stanza.Stanza) {
	typ := string(st.TypeRaw())
	switch {
	case typ != "get" && typ != "set":
		if st.To.IsFull() {
			r.routeAnswer(st)
		}
	case !r.exists() && st.To.IsFull(): // XEP-0410 §3.3: the client is not in the room
		r.refuse(st, mstanza.NotAcceptable, "you are not in the room")
	case !r.exists():
		r.refuse(st, mstanza.ItemNotFound, "this room does not exist")
	case st.To.IsFull():
		r.handleOccupantIQ(st)
	default:
		r.handleRoomIQ(st, st.Child(0), typ == "set")
	}
}

func (r *Room) handleRoomIQ(st *stanza.Stanza, c stanza.Child, set bool) {
	switch space := string(c.Space()); {
	case space == nsDiscoInfo && !set:
		r.discoverInfo(st, c)
	case space == nsDiscoItems && !set:
		r.discoverItems(st, c)
	case space == nsPing && !set:
		r.result(st, nil)
	case space == nsAdmin && set:
		r.setAdmin(st, c)
	case space == nsAdmin:
		r.getAdmin(st, c)
	case space == nsOwner && set:
		r.setOwner(st, c)
	case space == nsOwner:
		r.getOwner(st)
	default:
		r.refuse(st, mstanza.ServiceUnavailable, "")
	}
}

func (r *Room) result(iq *stanza.Stanza, inner []byte) {
	r.send(stanza.Result(iq, inner), iq.To, iq.From)
}

// handleOccupantIQ passes a request on to the client whose presence the nick shows (§6.6), but answers itself who asks
// whether it is still in the room (XEP-0410 §3.3).
func (r *Room) handleOccupantIQ(st *stanza.Stanza) {
	o, target := r.bySession[st.From], r.byNick[st.To.Resource()]
	switch {
	case o == nil:
		r.refuse(st, mstanza.NotAcceptable, "you are not in the room")
	case target == nil:
		r.refuse(st, mstanza.ItemNotFound, "nobody goes by this nickname")
	case target == o && st.Child(0).Is(nsPing, "ping"):
		r.result(st, nil)
	default:
		request := r.readdress(st, returnID(st.From, st.Attr("id")), o.addr)
		if request == nil {
			r.refuse(st, mstanza.BadRequest, "")
			return
		}
		r.send(request, o.addr, target.newest().addr)
	}
}

// routeAnswer brings the answer to a request that was passed on back to the session that asked.
func (r *Room) routeAnswer(st *stanza.Stanza) {
	from, to := r.bySession[st.From], r.byNick[st.To.Resource()]
	if from == nil || to == nil {
		return
	}
	resource, id, ok := parseReturnID(st.Attr("id"))
	if !ok {
		return
	}
	for i := range to.sessions {
		if asked := to.sessions[i].addr; asked.Resource() == resource {
			if answer := r.readdress(st, id, from.addr); answer != nil {
				r.send(answer, from.addr, asked)
			}
			return
		}
	}
}

// readdress gives an IQ another id and sender. It is nil for one whose content cannot stand alone.
func (r *Room) readdress(st *stanza.Stanza, id string, from stanza.Addr) *stanza.Stanza {
	next := stanza.New(stanza.IQ, st.Attr("type"), id, from, stanza.Addr{}, st.Inner())
	if next.NumChildren() != st.NumChildren() {
		return nil
	}
	return next
}

// returnID makes an id that says which session of a nick asked, and by which id, so that the room does not have to
// remember it.
func returnID(session stanza.Addr, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(session.Resource() + "\x00" + id))
}

func parseReturnID(s string) (resource, id string, ok bool) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(b), "\x00")
}
