package resume

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// What a journal says of other nodes, read by the recovery that both kinds of store share.

// replayed is a recovery after some records.
func replayed(t *testing.T, records ...func(*recovery) error) *Recovered {
	t.Helper()
	r := newRecovery(discard)
	for i, f := range records {
		if err := f(r); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	return r.result()
}

func record(k journal.Kind, b []byte) func(*recovery) error {
	return func(r *recovery) error { return r.record(k, b) }
}

func sessionRecord(s *journal.Session) func(*recovery) error {
	return record(journal.KindSession, s.Append(nil))
}

func forwardRecord(f *journal.Forward) func(*recovery) error {
	return record(journal.KindForward, append(f.AppendHead(nil), f.Payload...))
}

func countRecord(k journal.Kind, ord, n uint64) func(*recovery) error {
	return record(k, journal.AppendCount(nil, ord, n))
}

func stanzaRecord(s *journal.Stanza) func(*recovery) error {
	return record(journal.KindStanza, append(s.AppendHead(nil), s.Stanza.Raw()...))
}

func takenRecord(o *journal.Taken) func(*recovery) error {
	return record(journal.KindTaken, o.User.Append(o.AppendHead(nil)))
}

func managed(token string) *journal.Session {
	s := newState()
	s.Managed, s.Token, s.Max = true, token, time.Minute
	return s
}

func linkFrom(node string) *journal.Session {
	s := newState()
	s.Addr, s.Flags = stanza.MustParseAddr("link@"+node), journal.FlagLink
	return s
}

const link = 1 << 40

func forwarded(origin uint64, n, seq uint32) *journal.Forward {
	return &journal.Forward{Origin: origin, N: n, Link: link, To: "n2", Seq: seq, Op: 16, User: bob, Payload: fmt.Appendf(nil, "m%d", seq)}
}

func seqs(all []*journal.Forward) (out []uint32) {
	for _, f := range all {
		out = append(out, f.Seq)
	}
	return out
}

func TestForwardedIsHandledAndUnsent(t *testing.T) {
	s := managed("a")
	got := replayed(
		t, sessionRecord(s),
		forwardRecord(forwarded(s.Ord, 1, 1)), forwardRecord(forwarded(s.Ord, 2, 2)), forwardRecord(forwarded(s.Ord, 3, 3)),
		countRecord(journal.KindHandled, link, 1),
	)
	if len(got.Sessions) != 1 || got.Sessions[0].Handled != 3 {
		t.Errorf("%+v", got.Sessions)
	}
	if !slices.Equal(seqs(got.Unsent), []uint32{2, 3}) || string(got.Unsent[0].Payload) != "m2" {
		t.Errorf("unsent %v", seqs(got.Unsent))
	}
	// What went elsewhere in place of a link that leads nowhere is not unsent either: the record of that names it.
	other := forwarded(link, 3, 1)
	other.Link = link + 1
	got = replayed(
		t, sessionRecord(s), forwardRecord(forwarded(s.Ord, 1, 1)), forwardRecord(forwarded(s.Ord, 2, 2)), forwardRecord(forwarded(s.Ord, 3, 3)),
		countRecord(journal.KindHandled, link, 1), stanzaRecord(&journal.Stanza{Origin: link, N: 2, Stanza: chat("x")}), forwardRecord(other),
	)
	if len(got.Unsent) != 1 || got.Unsent[0].Link != link+1 {
		t.Errorf("unsent %+v", got.Unsent)
	}
}

// A link may have carried more than half of what its count can tell when the journal begins.
func TestUnsentOfALongLink(t *testing.T) {
	const far = 1<<31 + 5
	got := replayed(t, forwardRecord(forwarded(0, 0, far)), forwardRecord(forwarded(0, 0, far+1)), countRecord(journal.KindHandled, link, far))
	if !slices.Equal(seqs(got.Unsent), []uint32{far + 1}) {
		t.Errorf("unsent %v", seqs(got.Unsent))
	}
	if got = replayed(t, forwardRecord(forwarded(0, 0, far))); len(got.Unsent) != 1 {
		t.Errorf("unsent %v", seqs(got.Unsent))
	}
}

// Whoever left is another node's with everything; who has the same node since is not concerned.
func TestUserWhoLeft(t *testing.T) {
	s, alice := managed("a"), managed("b")
	alice.Addr = stanza.MustParseAddr("alice@localhost/x")
	in := linkFrom("n3")
	leaves := &journal.Forward{Link: link, To: "n2", Seq: 1, Op: 21, Leaves: true, User: bob}
	to := func(x *journal.Session, pos uint64) *journal.Stanza {
		return &journal.Stanza{Stanza: chat("x"), Flags: journal.Awaits, Targets: []journal.Target{{Session: x.Ord, Pos: pos}}}
	}
	stored := &journal.Stanza{Stanza: chat("y"), Flags: journal.Stored}
	all := []func(*recovery) error{
		sessionRecord(s), sessionRecord(alice), sessionRecord(in), stanzaRecord(to(s, 1)), stanzaRecord(stored),
		countRecord(journal.KindHandled, in.Ord, 7), forwardRecord(leaves),
	}
	got := replayed(t, all...)
	if len(got.Sessions) != 1 || got.Sessions[0].State.Token != "b" {
		t.Errorf("sessions %+v", got.Sessions)
	}
	if len(got.Links) != 1 || got.Links[0].Handled != 7 {
		t.Errorf("links %+v", got.Links)
	}
	if len(got.Unsent) != 1 || !got.Unsent[0].Leaves {
		t.Errorf("unsent %+v", got.Unsent)
	}
	if len(got.Effects) != 1 || got.Effects[0].Kind != journal.KindForward || got.Effects[0].User != bob {
		t.Errorf("effects %+v", got.Effects)
	}
	// The user comes back, with the session under another number, and then somebody acknowledges.
	back := managed("a")
	q := []*journal.Stanza{to(back, 5), to(back, 6)}
	taken := &journal.Taken{Origin: in.Ord, N: 8, User: &journal.User{
		Addr:     bob,
		Sessions: []journal.Kept{{State: back, Handled: 9, Acked: 4, Queue: q}},
		Awaited:  []journal.Await{{ID: q[0].Stanza.ID, From: q[0].Stanza.From, To: q[0].Stanza.To, Stanza: q[0].Stanza}},
	}}
	got = replayed(t, append(all, takenRecord(taken), countRecord(journal.KindAcked, back.Ord, 5), stanzaRecord(to(back, 7)))...)
	if len(got.Sessions) != 2 {
		t.Fatalf("sessions %+v", got.Sessions)
	}
	came := got.Sessions[1]
	if came.State.Ord != back.Ord || came.Handled != 9 || came.Acked != 5 || len(came.Queue) != 2 {
		t.Errorf("%+v", came)
	}
	if got.Links[0].Handled != 8 {
		t.Errorf("the link is at %d", got.Links[0].Handled)
	}
	last := got.Effects[len(got.Effects)-2]
	if last.Kind != journal.KindTaken || last.User != bob || len(last.Awaited) != 1 {
		t.Errorf("effects %+v", got.Effects)
	}
}

// A user who was released is nobody's: nothing was sent, and the node still knows nothing of it.
func TestUserReleased(t *testing.T) {
	s := managed("a")
	got := replayed(t, sessionRecord(s), forwardRecord(&journal.Forward{Leaves: true, User: bob}))
	if len(got.Sessions)+len(got.Unsent) != 0 {
		t.Errorf("%+v", got)
	}
}

// A link is forgotten when what its node sent is worked off; it is not remembered as a session that ended.
func TestLinkEnds(t *testing.T) {
	in := linkFrom("n3")
	got := replayed(t, sessionRecord(in), countRecord(journal.KindHandled, in.Ord, 7), countRecord(journal.KindEnded, in.Ord, 0))
	if len(got.Links)+len(got.Sessions) != 0 {
		t.Errorf("%+v", got)
	}
}

// Records that are none are left out, and what comes behind them is read.
func TestUnreadableClusterRecords(t *testing.T) {
	r := newRecovery(discard)
	for _, k := range []journal.Kind{journal.KindForward, journal.KindTaken} {
		if err := r.replay(uint8(k), []byte("\xffwhat is this")); err != nil {
			t.Error(err)
		}
	}
	s := managed("a")
	if err := r.replay(uint8(journal.KindSession), s.Append(nil)); err != nil || r.skipped != 2 || len(r.result().Sessions) != 1 {
		t.Errorf("%v, %d skipped", err, r.skipped)
	}
}
