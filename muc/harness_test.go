package muc

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

var (
	coven = stanza.MustParseAddr("coven@conference.localhost")
	start = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
)

// memoryStore is a Store for tests.
type memoryStore struct {
	rooms  map[stanza.Addr]Kept
	err    error // of every call
	failed error // of those that write
}

func (s *memoryStore) Load(_ context.Context, room stanza.Addr) (Kept, bool, error) {
	k, ok := s.rooms[room]
	return k, ok, s.err
}

func (s *memoryStore) Save(_ context.Context, k Kept) error {
	err := cmp.Or(s.err, s.failed)
	if err == nil {
		s.rooms[k.Room] = k
	}
	return err
}

func (s *memoryStore) Remove(_ context.Context, room stanza.Addr) error {
	err := cmp.Or(s.err, s.failed)
	if err == nil {
		delete(s.rooms, room)
	}
	return err
}

func (s *memoryStore) Public(_ context.Context, host, after string, count int) ([]Kept, error) {
	var found []Kept
	for addr, k := range s.rooms {
		if k.Public && addr.Domain() == host && addr.String() > after {
			k.State = nil
			found = append(found, k)
		}
	}
	slices.SortFunc(found, func(a, b Kept) int { return strings.Compare(a.Room.String(), b.Room.String()) })
	return found[:min(count, len(found))], s.err
}

func (s *memoryStore) Persistent(_ context.Context, creator stanza.Addr) (int, error) {
	n := 0
	for _, k := range s.rooms {
		if k.Persistent && k.Creator == creator {
			n++
		}
	}
	return n, s.err
}

// hall is one room, and a clock that counts what it was sent: a second each.
type hall struct {
	t     testing.TB
	sv    *Service
	store *memoryStore
	room  *Room
	now   int
	named bool // the operator named the room
}

func newHall(t testing.TB, change ...func(*Config)) *hall {
	t.Helper()
	cfg := DefaultConfig()
	for _, f := range change {
		f(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	h := &hall{t: t, store: &memoryStore{rooms: make(map[stanza.Addr]Kept)}}
	rights := Rights{
		Create: func(user stanza.Addr) bool { return !strings.HasPrefix(user.Local(), "guest") },
		Named:  func(room stanza.Addr) bool { return h.named },
	}
	var err error
	h.sv, err = New(cfg, []stanza.Addr{stanza.MustParseAddr("localhost")}, h.store, rights, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	h.open(nil)
	return h
}

func (h *hall) open(state []byte) {
	h.t.Helper()
	r, err := h.sv.Open(h.t.Context(), coven, state)
	if err != nil {
		h.t.Fatal(err)
	}
	h.room = r
}

// at returns a stanza id of a time, as the n-th of its millisecond.
func at(when time.Time, n int) stanza.ID {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(when.UnixMilli())<<16)
	b[6], b[8] = 0x70, 0x80
	binary.BigEndian.PutUint32(b[12:], uint32(n))
	id, err := stanza.IDFromBytes(b[:])
	if err != nil {
		panic(err)
	}
	return id
}

// parse reads a stanza of a user, given without addresses and namespace: from is user/resource, to a nick or empty.
func (h *hall) parse(from, to, raw string) *stanza.Stanza {
	h.t.Helper()
	user, resource, _ := strings.Cut(from, "/")
	sender := user + "@localhost"
	if resource != "" {
		sender += "/" + resource
	}
	addressee := coven
	if to != "" {
		var err error
		if addressee, err = coven.WithResource(to); err != nil {
			h.t.Fatal(err)
		}
	}
	name := raw[1 : 1+strings.IndexAny(raw[1:], " />")]
	raw = fmt.Sprintf("<%s xmlns='jabber:client' from='%s' to='%s'%s", name, sender, escape(addressee.String()), raw[1+len(name):])
	h.now++
	st, err := stanza.Parse([]byte(raw), stanza.ID{})
	if err != nil {
		h.t.Fatalf("%s: %v", raw, err)
	}
	if st.Kind() == stanza.Message {
		st.ID = at(start.Add(time.Duration(h.now)*time.Second), h.now)
	}
	return st
}

func escape(s string) string { return string(stanza.AppendEscaped(nil, s)) }

// do has the room handle a stanza and returns what it sends, one line each.
func (h *hall) do(from, to, raw string) []string {
	h.t.Helper()
	return lines(h.t, h.handle(from, to, raw))
}

func (h *hall) handle(from, to, raw string) []Out {
	h.t.Helper()
	return h.room.Handle(h.parse(from, to, raw))
}

// expect is do, and compares.
func (h *hall) expect(from, to, raw string, want ...string) {
	h.t.Helper()
	if diff := gocmp.Diff(want, h.do(from, to, raw)); diff != "" {
		h.t.Errorf("%s to %q: %s (-want +got)\n%s", from, to, raw, diff)
	}
}

func (h *hall) join(from, nick string) []string {
	h.t.Helper()
	return h.do(from, nick, "<presence><x xmlns='http://jabber.org/protocol/muc'/></presence>")
}

// joinAll lets sessions user/resource enter, each with the name of the user as nick.
func (h *hall) joinAll(sessions ...string) {
	h.t.Helper()
	for _, s := range sessions {
		user, _, _ := strings.Cut(s, "/")
		h.join(s, user)
		if h.room.bySession[stanza.MustParseAddr(strings.Replace(s, "/", "@localhost/", 1))] == nil {
			h.t.Fatalf("%s is not in the room", s)
		}
	}
}

// admin sends muc#admin items as a set.
func (h *hall) admin(from, items string) []string {
	h.t.Helper()
	return h.do(from, "", "<iq type='set' id='a'><query xmlns='http://jabber.org/protocol/muc#admin'>"+items+"</query></iq>")
}

// configure submits a configuration as alice, given as name=value.
func (h *hall) configure(fields ...string) []string {
	h.t.Helper()
	return h.do("alice/a", "", configuration(fields...))
}

func configuration(fields ...string) string {
	b := "<iq type='set' id='c'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'>" +
		"<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>"
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		if !strings.HasPrefix(name, "muc#") {
			name = "muc#roomconfig_" + name
		}
		b += "<field var='" + name + "'><value>" + escape(value) + "</value></field>"
	}
	return b + "</x></query></iq>"
}

// wire is what a recipient gets.
func wire(o Out) *stanza.Stanza {
	return o.Stanza.Rewrite(stanza.Edit{From: o.From, To: o.To})
}

func lines(t testing.TB, outs []Out) []string {
	t.Helper()
	var all []string
	for _, o := range outs {
		all = append(all, line(t, o))
	}
	return all
}

// seen is what the tests look at in a stanza of a room.
type seen struct {
	X *struct {
		Item *struct {
			Affiliation string `xml:"affiliation,attr"`
			Role        string `xml:"role,attr"`
			JID         string `xml:"jid,attr"`
			Nick        string `xml:"nick,attr"`
			Reason      string `xml:"reason"`
			Actor       struct {
				Nick string `xml:"nick,attr"`
			} `xml:"actor"`
		} `xml:"item"`
		Status []struct {
			Code string `xml:"code,attr"`
		} `xml:"status"`
		Invite *struct {
			From   string `xml:"from,attr"`
			Reason string `xml:"reason"`
		} `xml:"invite"`
		Decline *struct {
			From   string `xml:"from,attr"`
			Reason string `xml:"reason"`
		} `xml:"decline"`
		Password string    `xml:"password"`
		Destroy  *struct{} `xml:"destroy"`
	} `xml:"http://jabber.org/protocol/muc#user x"`
	Body     string         `xml:"body"`
	Show     string         `xml:"show"`
	Status   string         `xml:"status"`
	Subject  *string        `xml:"subject"`
	Delay    []xml.Name     `xml:"urn:xmpp:delay delay"`
	Error    *mstanza.Error `xml:"error"`
	Occupant []struct {
		ID string `xml:"id,attr"`
	} `xml:"urn:xmpp:occupant-id:0 occupant-id"`
}

func look(t testing.TB, st *stanza.Stanza) *seen {
	t.Helper()
	var s seen
	if err := st.Decode(&s); err != nil {
		t.Fatalf("%s: %v", st.Raw(), err)
	}
	return &s
}

// line tells of a stanza: to whom, from which nick, and what is in it.
func line(t testing.TB, o Out) string {
	t.Helper()
	s := look(t, wire(o))
	to := o.To.Local()
	if o.To.IsFull() {
		to += "/" + o.To.Resource()
	}
	from := "room"
	if o.From.IsFull() {
		from = o.From.Resource()
	}
	words := []string{to + " < " + from + ":"}
	add := func(name, v string) {
		if v != "" {
			words = append(words, name+v)
		}
	}
	add("", o.Stanza.Kind().String())
	add("", o.Stanza.Attr("type"))
	if o.Stanza.Kind() == stanza.IQ {
		add("id=", o.Stanza.Attr("id"))
	}
	if x := s.X; x != nil {
		if x.Item != nil {
			add("", x.Item.Affiliation+"/"+x.Item.Role)
			add("jid=", strings.Replace(x.Item.JID, "@localhost", "", 1))
			add("nick=", x.Item.Nick)
			add("by=", x.Item.Actor.Nick)
			add("reason=", x.Item.Reason)
		}
		for _, code := range x.Status {
			add("", code.Code)
		}
		if x.Invite != nil {
			add("invite=", x.Invite.From+","+x.Invite.Reason)
		}
		if x.Decline != nil {
			add("decline=", x.Decline.From+","+x.Decline.Reason)
		}
		add("password=", x.Password)
		if x.Destroy != nil {
			add("", "destroy")
		}
	}
	if s.Subject != nil {
		add("subject=", *s.Subject)
		if *s.Subject == "" {
			add("", "subject")
		}
	}
	add("body=", s.Body)
	add("show=", s.Show)
	add("status=", s.Status)
	if len(s.Delay) > 0 {
		add("", "delayed")
	}
	if s.Error != nil {
		add("", string(s.Error.Condition))
	}
	return strings.Join(words, " ")
}

// Dirty reports whether Save has something to do.
func (r *Room) Dirty() bool { return r.dirty || r.spoken || r.unsure }
