package muc

import (
	"context"
	"strconv"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

const maxPage = 100 // rooms in one answer

// Answer does what an IQ of type get or set to a room host asks for (§6.1 to §6.3), and returns the content of the
// result. An error that is to be told the sender is a mellium stanza.Error.
func (s *Service) Answer(ctx context.Context, iq *stanza.Stanza) (content []byte, err error) {
	c := iq.Child(0)
	if string(iq.TypeRaw()) != "get" {
		return nil, mstanza.Error{Condition: mstanza.ServiceUnavailable}
	}
	switch {
	case c.Is(nsPing, "ping"):
		return nil, nil
	case c.Is(nsDiscoInfo, "query"):
		if c.Attr("node") != "" {
			return nil, mstanza.Error{Condition: mstanza.ItemNotFound}
		}
		b := appendIdentity([]byte("<query xmlns='"+nsDiscoInfo+"'>"), "Rooms")
		b = appendFeatures(b, nsDiscoInfo, nsDiscoItems, stanza.NSMUC, nsStableID, nsOccupantID, nsResultSet, nsPing)
		return append(b, "</query>"...), nil
	case c.Is(nsDiscoItems, "query"):
		return s.listRooms(ctx, iq.To.Domain(), c)
	}
	return nil, mstanza.Error{Condition: mstanza.ServiceUnavailable}
}

// page is the part of a list that is asked for (XEP-0059).
type page struct {
	Set *struct {
		Max    string  `xml:"max"`
		After  string  `xml:"after"`
		Before *string `xml:"before"`
		Index  *string `xml:"index"`
	} `xml:"http://jabber.org/protocol/rsm set"`
}

// listRooms lists public rooms in the order of their addresses, forwards, a page at a time.
func (s *Service) listRooms(ctx context.Context, host string, query stanza.Child) ([]byte, error) {
	if query.Attr("node") != "" {
		return nil, mstanza.Error{Condition: mstanza.ItemNotFound}
	}
	var p page
	if len(query.Inner()) > 0 && query.Decode(&p) != nil {
		return nil, mstanza.Error{Condition: mstanza.BadRequest}
	}
	count, after := maxPage, ""
	if p.Set != nil {
		if p.Set.Before != nil || p.Set.Index != nil {
			return nil, mstanza.Error{Condition: mstanza.FeatureNotImplemented}
		}
		after = p.Set.After
		if p.Set.Max != "" {
			n, err := strconv.Atoi(p.Set.Max)
			if err != nil || n < 0 {
				return nil, mstanza.Error{Condition: mstanza.BadRequest}
			}
			count = min(n, maxPage)
		}
	}
	// One more says whether there is more.
	rooms, err := s.store.Public(ctx, host, after, count+1)
	if err != nil {
		return nil, err
	}
	more := len(rooms) > count
	return appendRooms(rooms[:min(count, len(rooms))], p.Set != nil || more), nil
}

func appendRooms(rooms []Kept, paged bool) []byte {
	b := []byte("<query xmlns='" + nsDiscoItems + "'>")
	for i := range rooms {
		name := rooms[i].Name
		if name == "" {
			name = rooms[i].Room.Local()
		}
		b = stanza.AppendEscaped(append(b, "<item jid='"...), rooms[i].Room.String())
		b = append(stanza.AppendEscaped(append(b, "' name='"...), name), "'/>"...)
	}
	if paged {
		b = append(b, "<set xmlns='"+nsResultSet+"'>"...)
		if len(rooms) > 0 {
			b = append(stanza.AppendEscaped(append(b, "<first>"...), rooms[0].Room.String()), "</first>"...)
			b = append(stanza.AppendEscaped(append(b, "<last>"...), rooms[len(rooms)-1].Room.String()), "</last>"...)
		}
		b = append(b, "</set>"...)
	}
	return append(b, "</query>"...)
}
