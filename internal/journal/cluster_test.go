package journal_test

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

func forwards() *rapid.Generator[*journal.Forward] {
	return rapid.Custom(func(t *rapid.T) *journal.Forward {
		f := &journal.Forward{
			Origin: rapid.Uint64().Draw(t, "origin"), N: rapid.Uint32().Draw(t, "n"),
			Link: rapid.Uint64().Draw(t, "link"), To: rapid.StringN(0, 30, -1).Draw(t, "to"), Seq: rapid.Uint32().Draw(t, "seq"),
			Op: rapid.Byte().Draw(t, "op"), Leaves: rapid.Bool().Draw(t, "leaves"),
			Term: rapid.Uint64().Draw(t, "term"),
			User: addrs().Draw(t, "user").Bare(),
		}
		if p := rapid.SliceOf(rapid.Byte()).Draw(t, "payload"); len(p) > 0 {
			f.Payload = p
		}
		return f
	})
}

func kepts() *rapid.Generator[journal.Kept] {
	return rapid.Custom(func(t *rapid.T) journal.Kept {
		k := journal.Kept{
			State: sessionRecords().Draw(t, "state"), Handled: rapid.Uint32().Draw(t, "handled"),
			Acked: rapid.Uint64().Draw(t, "acked"),
		}
		if q := rapid.SliceOfN(stanzaRecords(), 0, 3).Draw(t, "queue"); len(q) > 0 {
			k.Queue = q
		}
		if l := rapid.SliceOfN(ids(), 0, 3).Draw(t, "passed"); len(l) > 0 {
			k.Passed = l
		}
		if l := rapid.SliceOfN(ids(), 0, 3).Draw(t, "had"); len(l) > 0 {
			k.Had = l
		}
		return k
	})
}

func awaits() *rapid.Generator[journal.Await] {
	return rapid.Custom(func(t *rapid.T) journal.Await {
		a := journal.Await{
			ID: ids().Draw(t, "id"), From: addrs().Draw(t, "from"), To: addrs().Draw(t, "to"),
			MsgID: rapid.String().Draw(t, "message id"), Deadline: instants().Draw(t, "deadline"),
			Step: rapid.IntRange(0, 9).Draw(t, "step"),
		}
		if rapid.Bool().Draw(t, "with stanza") {
			st := stanzas().Draw(t, "stanza")
			a.Stanza, a.ID = st, st.ID
		}
		return a
	})
}

func users() *rapid.Generator[*journal.User] {
	return rapid.Custom(func(t *rapid.T) *journal.User {
		u := &journal.User{Addr: addrs().Draw(t, "user").Bare(), Seen: rapid.Uint32().Draw(t, "seen")}
		if l := rapid.SliceOfN(kepts(), 0, 3).Draw(t, "sessions"); len(l) > 0 {
			u.Sessions = l
		}
		if l := rapid.SliceOfN(awaits(), 0, 3).Draw(t, "awaited"); len(l) > 0 {
			u.Awaited = l
		}
		return u
	})
}

func TestForwardRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := forwards().Draw(t, "record")
		b := append(want.AppendHead([]byte("before")), want.Payload...)
		got, err := journal.DecodeForward(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 'x' // the record does not refer to it
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

// Release writes one without a link: the user has left, and nothing is sent.
func TestForwardWithoutLink(t *testing.T) {
	want := &journal.Forward{Leaves: true, User: bob}
	got, err := journal.DecodeForward(want.AppendHead(nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// sameUser compares what reflect can't: stanzas hold where they were scanned.
func sameUser(t interface{ Fatalf(string, ...any) }, got, want *journal.User) {
	if got.Addr != want.Addr || got.Seen != want.Seen || len(got.Sessions) != len(want.Sessions) || len(got.Awaited) != len(want.Awaited) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	for i := range want.Sessions {
		g, w := got.Sessions[i], want.Sessions[i]
		if !reflect.DeepEqual(g.State, w.State) || g.Handled != w.Handled || g.Acked != w.Acked || len(g.Queue) != len(w.Queue) {
			t.Fatalf("session %d:\ngot  %+v\nwant %+v", i, g, w)
		}
		for j := range w.Queue {
			if err := sameStanza(g.Queue[j], w.Queue[j]); err != nil {
				t.Fatalf("session %d, place %d: %v", i, j, err)
			}
		}
		if !reflect.DeepEqual(g.Passed, w.Passed) || !reflect.DeepEqual(g.Had, w.Had) {
			t.Fatalf("session %d: passed %v had %v, want %v %v", i, g.Passed, g.Had, w.Passed, w.Had)
		}
	}
	for i := range want.Awaited {
		g, w := got.Awaited[i], want.Awaited[i]
		if (g.Stanza == nil) != (w.Stanza == nil) || g.Stanza != nil && (!bytes.Equal(g.Stanza.Raw(), w.Stanza.Raw()) || g.Stanza.ID != w.ID) {
			t.Fatalf("awaited %d: stanza %v, want %v", i, g.Stanza, w.Stanza)
		}
		g.Stanza, w.Stanza = nil, nil
		if !reflect.DeepEqual(g, w) {
			t.Fatalf("awaited %d:\ngot  %+v\nwant %+v", i, g, w)
		}
	}
}

func TestTakenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &journal.Taken{Origin: rapid.Uint64().Draw(t, "origin"), N: rapid.Uint32().Draw(t, "n"), User: users().Draw(t, "user")}
		b := want.User.Append(want.AppendHead(nil))
		got, err := journal.DecodeTaken(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 'x'
		}
		if got.Origin != want.Origin || got.N != want.N {
			t.Fatalf("origin %d %d, want %d %d", got.Origin, got.N, want.Origin, want.N)
		}
		sameUser(t, got.User, want.User)
	})
}

// A record that lost its end is never taken for a whole one, but for what ends with a payload.
func TestClusterTruncated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := forwards().Draw(t, "forward").AppendHead(nil)
		if _, err := journal.DecodeForward(f[:rapid.IntRange(0, len(f)-1).Draw(t, "length")]); err == nil {
			t.Fatal("part of a forwarded message was taken for one")
		}
		u := users().Draw(t, "user")
		b := u.Append((&journal.Taken{Origin: 1, N: 2}).AppendHead(nil))
		if _, err := journal.DecodeTaken(b[:rapid.IntRange(0, len(b)-1).Draw(t, "length")]); err == nil {
			t.Fatal("part of a user was taken for one")
		}
	})
}

// Counts and lengths that somebody made up must not make the reader ask for memory.
func TestClusterForgedLengths(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}
	user := append([]byte{byte(len(bob.String()))}, bob.String()...)
	user = append(user, 0) // seen
	for name, b := range map[string][]byte{
		"address":  huge,
		"sessions": append(bytes.Clone(user), huge...),
		"awaited":  append(append(bytes.Clone(user), 0), huge...),
		"address that is none": {
			3, '@', '@', '@', 0, 0, 0,
		},
	} {
		if _, err := journal.DecodeUser(b); err == nil {
			t.Errorf("%s: taken for a user", name)
		}
	}
	if _, err := journal.DecodeForward(append(make([]byte, 26), huge...)); err == nil {
		t.Error("taken for a forwarded message")
	}
	if allocated := testing.AllocsPerRun(10, func() { _, _ = journal.DecodeUser(append(bytes.Clone(user), huge...)) }); allocated > 20 {
		t.Errorf("%v allocations for a record that is not one", allocated)
	}
}

func FuzzDecodeCluster(f *testing.F) {
	st, err := stanza.Parse([]byte("<message xmlns='jabber:client' from='alice@localhost/phone' to='bob@localhost'><body>x</body></message>"), stanza.NewID())
	if err != nil {
		f.Fatal(err)
	}
	u := &journal.User{
		Addr: bob, Seen: 300,
		Sessions: []journal.Kept{{
			State: &journal.Session{Ord: 1, Addr: alice, Token: "t", Managed: true, Directed: []string{"bob@localhost"}}, Handled: 5, Acked: 6,
			Queue:  []*journal.Stanza{{Flags: journal.Copied, Targets: []journal.Target{{Session: 1, Pos: 7}}, Stanza: st}},
			Passed: []stanza.ID{st.ID}, Had: []stanza.ID{st.ID},
		}},
		Awaited: []journal.Await{{ID: st.ID, From: alice, To: bob, MsgID: "m", Stanza: st, Deadline: time.UnixMilli(1e12), Step: 1}, {ID: st.ID}},
	}
	f.Add(u.Append(nil))
	f.Add(u.Append((&journal.Taken{Origin: 3, N: 4}).AppendHead(nil)))
	f.Add((&journal.Forward{Origin: 1, Link: 2, To: "n1", Seq: 3, Op: 16, Leaves: true, User: bob}).AppendHead(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What is accepted means something: it can be written again and says the same.
		if r, err := journal.DecodeForward(b); err == nil {
			again, err := journal.DecodeForward(append(r.AppendHead(nil), r.Payload...))
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("forwarded message does not survive: %v\n%+v\n%+v", err, again, r)
			}
		}
		if u, err := journal.DecodeUser(b); err == nil {
			again, err := journal.DecodeUser(u.Append(nil))
			if err != nil {
				t.Fatalf("user does not survive: %v", err)
			}
			sameUser(t, again, u)
		}
		if r, err := journal.DecodeTaken(b); err == nil {
			again, err := journal.DecodeTaken(r.User.Append(r.AppendHead(nil)))
			if err != nil || again.Origin != r.Origin || again.N != r.N {
				t.Fatalf("taken user does not survive: %v", err)
			}
		}
	})
}
