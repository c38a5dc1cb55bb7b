package offline_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/offline"
	"holdfast/stanza"
)

// marker is a chat marker (XEP-0333), with what stands beside it.
func marker(t testing.TB, sender string, id stanza.ID, kind, besides string) *stanza.Stanza {
	t.Helper()
	return marked(t, sender, id, "type='chat'", fmt.Sprintf("<%s xmlns='urn:xmpp:chat-markers:0' id='m'/>%s", kind, besides))
}

func marked(t testing.TB, sender string, id stanza.ID, attrs, inner string) *stanza.Stanza {
	t.Helper()
	raw := fmt.Appendf(nil, "<message xmlns='jabber:client' from='%s/orchard' to='%s' %s>%s</message>", sender, juliet, attrs, inner)
	st, err := stanza.Parse(raw, id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// testMarks: a Backend finds the marks of a thread.
func testMarks(t *testing.T, s offline.Backend) {
	a, b := [16]byte{1, 2, 3}, [16]byte{1, 2, 4}
	mark := func(user string, n int, sender string, thread [16]byte, rank uint8) offline.Change {
		c := put(user, n)
		c.Sender, c.Mark = sender, offline.Mark{Thread: thread, Rank: rank}
		return c
	}
	apply(t, s, mark(juliet, 1, romeo, a, 1), mark(juliet, 2, romeo, a, 255), put(juliet, 3), mark(juliet, 4, romeo, b, 2),
		mark(juliet, 5, nurse, a, 2), mark(nurse, 6, romeo, a, 2), mark(juliet, 7, romeo, a, 3), remove(juliet, 7), mark(juliet, 1, romeo, b, 1))
	for _, tt := range []struct {
		user, sender string
		thread       [16]byte
		want         map[stanza.ID]uint8
	}{
		{juliet, romeo, a, map[stanza.ID]uint8{id(1): 1, id(2): 255}},
		{juliet, romeo, b, map[stanza.ID]uint8{id(4): 2}},
		{juliet, nurse, a, map[stanza.ID]uint8{id(5): 2}},
		{nurse, romeo, a, map[stanza.ID]uint8{id(6): 2}},
		{nurse, romeo, b, nil},
		{juliet, romeo, [16]byte{}, nil},
	} {
		rows, err := s.Marks(t.Context(), tt.user, tt.sender, tt.thread)
		if err != nil || len(rows) != len(tt.want) {
			t.Errorf("%s, from %s: %v, %v", tt.user, tt.sender, rows, err)
		}
		for _, r := range rows {
			if r.Mark != (offline.Mark{Thread: tt.thread, Rank: tt.want[r.ID]}) || r.Sender != tt.sender || r.Bytes == 0 {
				t.Errorf("%s, from %s: %+v", tt.user, tt.sender, r)
			}
		}
	}
	want(t, s, juliet, 1, 2, 3, 4, 5)
}

// TestMarkers: of the markers of one sender for one thread the last stays, unless it says less.
func TestMarkers(t *testing.T) {
	const thread = "<thread>sleeping</thread>"
	type mark struct{ sender, kind, besides string }
	cases := []struct {
		name string
		in   []mark
		left []int // of in, from 1
	}{
		{"the last", []mark{{romeo, "displayed", ""}, {romeo, "displayed", ""}, {romeo, "displayed", ""}}, []int{3}},
		{"more significant", []mark{{romeo, "received", ""}, {romeo, "displayed", ""}, {romeo, "acknowledged", ""}}, []int{3}},
		{"less significant", []mark{{romeo, "acknowledged", ""}, {romeo, "displayed", ""}, {romeo, "received", ""}}, []int{1, 2, 3}},
		{"in between", []mark{{romeo, "acknowledged", ""}, {romeo, "received", ""}, {romeo, "received", ""}, {romeo, "displayed", ""}, {romeo, "received", ""}}, []int{1, 4, 5}},
		{"threads", []mark{{romeo, "displayed", thread}, {romeo, "displayed", ""}, {romeo, "displayed", thread}, {romeo, "displayed", "<thread>other</thread>"}}, []int{2, 3, 4}},
		{"no thread and an empty one", []mark{{romeo, "displayed", ""}, {romeo, "displayed", "<thread/>"}}, []int{2}},
		{"senders", []mark{{romeo, "displayed", ""}, {nurse, "displayed", ""}, {romeo, "displayed", ""}}, []int{2, 3}},
		{"what says more", []mark{{romeo, "displayed", "<body>x</body>"}, {romeo, "displayed", ""}, {romeo, "displayed", "<received xmlns='urn:xmpp:receipts' id='1'/>"}, {romeo, "displayed", ""}, {romeo, "displayed", "<markable xmlns='urn:xmpp:chat-markers:0'/>"}, {romeo, "displayed", "<other xmlns='y'/>"}}, []int{1, 3, 4, 5, 6}},
		{"two at once", []mark{{romeo, "displayed", "<received xmlns='urn:xmpp:chat-markers:0' id='2'/>"}, {romeo, "displayed", "<displayed xmlns='urn:xmpp:chat-markers:0' id='2'/>"}, {romeo, "displayed", ""}}, []int{1, 2, 3}},
		{"what means nothing", []mark{{romeo, "displayed", "<store xmlns='urn:xmpp:hints'/><origin-id xmlns='urn:xmpp:sid:0' id='1'/>"}, {romeo, "displayed", "<active xmlns='http://jabber.org/protocol/chatstates'/>"}}, []int{2}},
		{"an expiry of its own", []mark{{romeo, "displayed", "<x xmlns='jabber:x:expire' seconds='" + century + "'/>"}, {romeo, "displayed", ""}}, []int{1, 2}},
	}
	each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
		m := open(t, cfg, s)
		for _, tt := range cases {
			t.Run(tt.name, func(t *testing.T) {
				var all []*stanza.Stanza
				for i, k := range tt.in {
					st := marker(t, k.sender, id(i+1), k.kind, k.besides)
					all = append(all, st)
					mustPut(t, m, julietAddr(), st)
					if i == len(tt.in)/2 {
						checkpoint(t, m)
					}
				}
				var left []stanza.ID
				for _, n := range tt.left {
					left = append(left, id(n))
				}
				holds(t, m, julietAddr(), left...)
				// The journal may come again, in order, into a mailbox that has some of it.
				for _, st := range all {
					if err := m.Force(t.Context(), julietAddr(), st); err != nil {
						t.Fatal(err)
					}
				}
				holds(t, m, julietAddr(), left...)
				checkpoint(t, m)
				holds(t, m, julietAddr(), left...)
				want(t, s, juliet, tt.left...)
				for _, id := range left {
					if had, err := m.RemoveID(t.Context(), julietAddr(), id); err != nil || !had {
						t.Errorf("%v: %v, %v", id, had, err)
					}
				}
				holds(t, m, julietAddr())
				checkpoint(t, m)
			})
		}
	})
}

// TestMarkersOfRooms: the occupants of a room have one bare address.
func TestMarkersOfRooms(t *testing.T) {
	cfg := lifted()
	cfg.Groupchat = true
	m := open(t, cfg, newMemory())
	for n := 1; n <= 2; n++ {
		mustPut(t, m, julietAddr(), marked(t, "room@rooms.example", id(n), "type='groupchat'", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"))
	}
	mustPut(t, m, julietAddr(), marked(t, romeo, id(3), "type='chat'", "<displayed xmlns='urn:xmpp:chat-markers:0'/>")) // marks nothing
	mustPut(t, m, julietAddr(), marker(t, romeo, id(4), "displayed", ""))
	holds(t, m, julietAddr(), id(1), id(2), id(3), id(4))
}

// TestMarkersLate: one that comes after a newer one which says as much is not stored; each is counted.
func TestMarkersLate(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := offline.New(t.Context(), lifted(), newMemory(), slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	mustPut(t, m, julietAddr(), marker(t, romeo, id(5), "displayed", ""))
	for n, kind := range map[int]string{4: "displayed", 3: "received"} {
		v, err := m.Put(t.Context(), julietAddr(), marker(t, romeo, id(n), kind, ""))
		if err != nil || v != (offline.Verdict{Action: offline.Drop, Reason: offline.Superseded}) {
			t.Errorf("%s: %v for %v, %v", kind, v.Action, v.Reason, err)
		}
	}
	mustPut(t, m, julietAddr(), marker(t, romeo, id(2), "acknowledged", ""))
	holds(t, m, julietAddr(), id(2), id(5))
	mustPut(t, m, julietAddr(), marker(t, romeo, id(6), "acknowledged", ""))
	holds(t, m, julietAddr(), id(6))
	if n := counted(t, reg, "drop", "superseded"); n != 4 {
		t.Errorf("%v counted", n)
	}
}

func counted(t testing.TB, reg *prometheus.Registry, action, reason string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "holdfast_offline_decisions_total" {
			continue
		}
		for _, metric := range f.GetMetric() {
			labels := []string{}
			for _, l := range metric.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if slices.Equal(labels, []string{action, reason}) {
				n = metric.GetCounter().GetValue()
			}
		}
	}
	return n
}

// TestMarkersAndLimits: who is at a limit may still say that more was read.
func TestMarkersAndLimits(t *testing.T) {
	one := marker(t, romeo, id(1), "displayed", "")
	for name, change := range map[string]func(*offline.Config){
		"pair":     func(c *offline.Config) { c.Limit = 1 },
		"messages": func(c *offline.Config) { c.UserLimit = 1 },
		"bytes":    func(c *offline.Config) { c.UserBytes = int64(len(one.Raw())) },
	} {
		each(t, func(t *testing.T, cfg offline.Config, s offline.Backend) {
			change(&cfg)
			m := open(t, cfg, s)
			mustPut(t, m, julietAddr(), one)
			checkpoint(t, m)
			for n := 2; n <= 4; n++ {
				mustPut(t, m, julietAddr(), marker(t, romeo, id(n), "displayed", ""))
				holds(t, m, julietAddr(), id(n))
			}
			if v, err := m.Put(t.Context(), julietAddr(), marker(t, romeo, id(5), "received", "")); !errors.Is(err, offline.ErrFull) {
				t.Errorf("%s: one that replaces nothing: %v for %v, %v", name, v.Action, v.Reason, err)
			}
			holds(t, m, julietAddr(), id(4))
		})
	}
}
