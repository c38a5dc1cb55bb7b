package journal_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

var (
	alice = stanza.MustParseAddr("alice@localhost/phone")
	bob   = stanza.MustParseAddr("bob@localhost")
)

func addrs() *rapid.Generator[stanza.Addr] {
	return rapid.Custom(func(t *rapid.T) stanza.Addr {
		local := rapid.StringMatching(`[a-z][a-z0-9äß]{0,11}`).Draw(t, "local")
		resource := rapid.StringMatching(`[A-Za-z][A-Za-z0-9 /@ü]{0,8}[a-z]`).Draw(t, "resource")
		a, err := stanza.NewAddr(local, "example.org", resource)
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
}

func ids() *rapid.Generator[stanza.ID] {
	return rapid.Custom(func(t *rapid.T) (id stanza.ID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		return id
	})
}

func stanzas() *rapid.Generator[*stanza.Stanza] {
	return rapid.Custom(func(t *rapid.T) *stanza.Stanza {
		raw := fmt.Appendf(nil, "<message xmlns='jabber:client' from='%s' to='%s' type='chat' id='%d'><body>%s</body></message>",
			alice, bob, rapid.Uint32().Draw(t, "n"),
			stanza.AppendEscaped(nil, rapid.StringOfN(rapid.RuneFrom([]rune("a<&>'\"ö€🦀 \n")), 0, 400, -1).Draw(t, "body")))
		st, err := stanza.Parse(raw, ids().Draw(t, "stanza id"))
		if err != nil {
			t.Fatal(err)
		}
		return st
	})
}

func stanzaRecords() *rapid.Generator[*journal.Stanza] {
	return rapid.Custom(func(t *rapid.T) *journal.Stanza {
		return &journal.Stanza{
			Origin: rapid.Uint64().Draw(t, "origin"), N: rapid.Uint32().Draw(t, "n"),
			Flags: journal.Flags(rapid.Byte().Draw(t, "flags")),
			Targets: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) journal.Target {
				return journal.Target{Session: rapid.Uint64().Draw(t, "session"), Pos: rapid.Uint64().Draw(t, "pos")}
			}), 0, 5).Draw(t, "targets"),
			Stanza: stanzas().Draw(t, "stanza"),
		}
	})
}

func instants() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		ms := rapid.Int64Range(0, 4e12).Draw(t, "ms")
		if ms == 0 {
			return time.Time{}
		}
		return time.UnixMilli(ms)
	})
}

func sessionRecords() *rapid.Generator[*journal.Session] {
	return rapid.Custom(func(t *rapid.T) *journal.Session {
		s := &journal.Session{
			Ord: rapid.Uint64().Draw(t, "ord"), Addr: addrs().Draw(t, "addr"),
			Token: rapid.StringN(0, 40, -1).Draw(t, "token"), Managed: rapid.Bool().Draw(t, "managed"),
			Base: rapid.Uint64().Draw(t, "base"), Max: time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "max")),
			Priority: rapid.Int8().Draw(t, "priority"), Flags: rapid.Byte().Draw(t, "flags"),
			Detached: instants().Draw(t, "detached"), CreatedAt: instants().Draw(t, "created"),
			Sid: rapid.StringN(0, 40, 60).Draw(t, "sid"), Linger: time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "linger")),
			Earlier: rapid.Uint64().Draw(t, "earlier"),
		}
		if p := rapid.SliceOf(rapid.Byte()).Draw(t, "presence"); len(p) > 0 {
			s.Presence = p
		}
		if c := rapid.SliceOf(rapid.Byte()).Draw(t, "carried"); len(c) > 0 {
			s.Carried = c
		}
		if d := rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "directed"); len(d) > 0 {
			s.Directed = d
		}
		return s
	})
}

func sameStanza(a, b *journal.Stanza) error {
	switch {
	case a.Origin != b.Origin || a.N != b.N || a.Flags != b.Flags:
		return fmt.Errorf("head is %+v, want %+v", a, b)
	case len(a.Targets) != len(b.Targets):
		return fmt.Errorf("%d targets, want %d", len(a.Targets), len(b.Targets))
	case a.Stanza.ID != b.Stanza.ID || !bytes.Equal(a.Stanza.Raw(), b.Stanza.Raw()):
		return fmt.Errorf("stanza is %s %s, want %s %s", a.Stanza.ID, a.Stanza.Raw(), b.Stanza.ID, b.Stanza.Raw())
	case a.Stanza.From != b.Stanza.From || a.Stanza.To != b.Stanza.To || a.Stanza.Payloads() != b.Stanza.Payloads():
		return fmt.Errorf("head of the stanza differs in %s", a.Stanza.Raw())
	}
	for i := range a.Targets {
		if a.Targets[i] != b.Targets[i] {
			return fmt.Errorf("target %d is %+v, want %+v", i, a.Targets[i], b.Targets[i])
		}
	}
	return nil
}

// encode is the record as the log holds it: head, then the stanza's bytes.
func encode(r *journal.Stanza) []byte { return append(r.AppendHead(nil), r.Stanza.Raw()...) }

func TestStanzaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := stanzaRecords().Draw(t, "record")
		b := encode(want)
		got, err := journal.DecodeStanza(b)
		if err != nil {
			t.Fatal(err)
		}
		// The log's buffer is used again for the next record.
		for i := range b {
			b[i] = 'x'
		}
		if err := sameStanza(got, want); err != nil {
			t.Fatal(err)
		}
	})
}

func TestQueueRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(stanzaRecords(), 0, 6).Draw(t, "queue")
		var b []byte
		for _, r := range want {
			b = r.Append(b)
		}
		for i, w := range want {
			got, rest, err := journal.CutStanza(b)
			if err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			if err := sameStanza(got, w); err != nil {
				t.Fatalf("record %d: %v", i, err)
			}
			b = rest
		}
		if len(b) != 0 {
			t.Fatalf("%d bytes left over", len(b))
		}
	})
}

func TestCountRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, n := rapid.Uint64().Draw(t, "session"), rapid.Uint64().Draw(t, "count")
		gotS, gotN, err := journal.DecodeCount(journal.AppendCount(nil, s, n))
		if err != nil || gotS != s || gotN != n {
			t.Fatalf("%d, %d, %v; want %d, %d", gotS, gotN, err, s, n)
		}
	})
}

func TestIDsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var user stanza.Addr
		if rapid.Bool().Draw(t, "with user") {
			user = addrs().Draw(t, "user").Bare()
		}
		want := rapid.SliceOfN(ids(), 0, 40).Draw(t, "ids")
		gotUser, got, err := journal.DecodeIDs(journal.AppendIDs(nil, user, want))
		if err != nil {
			t.Fatal(err)
		}
		if gotUser != user || len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%v %v, want %v %v", gotUser, got, user, want)
		}
	})
}

func TestSessionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := sessionRecords().Draw(t, "session")
		b := want.Append([]byte("before"))
		got, err := journal.DecodeSession(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] = 'x'
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

// A record that lost its end is never taken for a whole one, but for what ends with text: its length is the log's
// business, as is that of a session's record cut where an older gateway's ended (TestOlderSession).
func TestTruncated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := encode(stanzaRecords().Draw(t, "record"))
		if _, err := journal.DecodeStanza(st[:rapid.IntRange(0, len(st)-1).Draw(t, "length")]); err == nil {
			t.Fatal("part of a stanza record was taken for one")
		}
		session := sessionRecords().Draw(t, "session")
		se, older := session.Append(nil), olderSession(session)
		n := rapid.IntRange(0, len(se)-1).Filter(func(n int) bool { return n != len(older) }).Draw(t, "length")
		if _, err := journal.DecodeSession(se[:n]); err == nil {
			t.Fatal("part of a session record was taken for one")
		}
		count := journal.AppendCount(nil, 1, 2)
		if _, _, err := journal.DecodeCount(count[:rapid.IntRange(0, len(count)-1).Draw(t, "length")]); err == nil {
			t.Fatal("part of a count was taken for one")
		}
		q := stanzaRecords().Draw(t, "queued").Append(nil)
		if _, _, err := journal.CutStanza(q[:rapid.IntRange(0, len(q)-1).Draw(t, "length")]); err == nil {
			t.Fatal("part of a queue was taken for one")
		}
	})
}

// olderSession encodes r as gateways did before a transport could note something: without what stands behind the
// addresses of directed presence.
func olderSession(r *journal.Session) []byte {
	b := r.Append(nil)
	tail := binary.AppendUvarint(nil, r.Earlier)
	tail = append(binary.AppendUvarint(tail, uint64(len(r.Sid))), r.Sid...)
	tail = binary.AppendUvarint(tail, uint64(r.Linger))
	tail = append(binary.AppendUvarint(tail, uint64(len(r.Carried))), r.Carried...)
	return bytes.TrimSuffix(b, tail)
}

func TestOlderSession(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := sessionRecords().Draw(t, "session")
		got, err := journal.DecodeSession(olderSession(want))
		if err != nil {
			t.Fatal(err)
		}
		want.Earlier, want.Sid, want.Linger, want.Carried = 0, "", 0, nil
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

// Counts and lengths that a broken disk made up must not make the reader ask for memory or run off the end.
func TestForgedLengths(t *testing.T) {
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}
	overflow := bytes.Repeat([]byte{0xff}, 12)
	fixed := make([]byte, 29)
	ord := make([]byte, 8)
	for name, tail := range map[string][]byte{"huge": huge, "overflow": overflow, "short": {5, 'a'}} {
		t.Run(name, func(t *testing.T) {
			if _, err := journal.DecodeStanza(append(fixed[:29:29], tail...)); err == nil {
				t.Error("stanza was taken")
			}
			if _, err := journal.DecodeSession(append(ord[:8:8], tail...)); err == nil {
				t.Error("session was taken")
			}
			if _, _, err := journal.DecodeIDs(tail); err == nil {
				t.Error("ids were taken")
			}
			if _, _, err := journal.CutStanza(tail); err == nil {
				t.Error("queue was taken")
			}
		})
	}
	if allocated := testing.AllocsPerRun(10, func() { _, _ = journal.DecodeStanza(append(fixed[:29:29], huge...)) }); allocated > 5 {
		t.Errorf("%v allocations for a record that is not one", allocated)
	}
}

func FuzzDecode(f *testing.F) {
	st, err := stanza.Parse([]byte("<message xmlns='jabber:client' from='alice@localhost/phone' to='bob@localhost'><body>x</body></message>"), stanza.NewID())
	if err != nil {
		f.Fatal(err)
	}
	rec := &journal.Stanza{Origin: 7, N: 3, Flags: journal.Stored, Targets: []journal.Target{{Session: 9, Pos: 300}}, Stanza: st}
	f.Add(encode(rec))
	f.Add(rec.Append(nil))
	f.Add((&journal.Session{Ord: 1, Addr: alice, Token: "t", Managed: true, Presence: st.Raw(), Directed: []string{"bob@localhost"}}).Append(nil))
	f.Add(journal.AppendCount(nil, 1, 2))
	f.Add(journal.AppendIDs(nil, bob, []stanza.ID{st.ID}))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What is accepted means something: it can be written again and says the same.
		if r, err := journal.DecodeStanza(b); err == nil {
			again, err := journal.DecodeStanza(encode(r))
			if err != nil {
				t.Fatalf("stanza record does not survive: %v", err)
			}
			if err := sameStanza(again, r); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := journal.DecodeSession(b); err == nil {
			again, err := journal.DecodeSession(s.Append(nil))
			if err != nil || !reflect.DeepEqual(again, s) {
				t.Fatalf("session record does not survive: %v\n%+v\n%+v", err, again, s)
			}
		}
		if user, list, err := journal.DecodeIDs(b); err == nil {
			againUser, again, err := journal.DecodeIDs(journal.AppendIDs(nil, user, list))
			if err != nil || againUser != user || !reflect.DeepEqual(again, list) {
				t.Fatalf("ids do not survive: %v", err)
			}
		}
		_, _, _ = journal.DecodeCount(b)
		for rest, last := b, len(b)+1; len(rest) > 0; last = len(rest) {
			if len(rest) >= last {
				t.Fatal("reading a queue does not get on")
			}
			var err error
			if _, rest, err = journal.CutStanza(rest); err != nil {
				break
			}
		}
	})
}
