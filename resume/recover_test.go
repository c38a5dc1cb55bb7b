package resume

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

func rows(t testing.TB, p *process, table string) (n int) {
	t.Helper()
	if err := p.db.Read.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func checkpoint(t testing.TB, p *process, l *sessions) {
	t.Helper()
	if err := p.store.Checkpoint(t.Context(), l); err != nil {
		t.Fatal(err)
	}
}

// killed is the next process after a kill.
func killed(t testing.TB, p *process, cfg Config) *process {
	t.Helper()
	return startFor(t, image(t, p.dir), cfg)
}

func freshDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFreshDirectory(t *testing.T) {
	p := startFor(t, freshDir(t), testConfig())
	if len(p.found.Sessions)+len(p.found.Effects) != 0 {
		t.Errorf("found %+v in a new directory", p.found)
	}
	if err := p.store.Healthy(); err != nil {
		t.Error(err)
	}
}

// A session that came and went between two checkpoints costs the database nothing.
func TestShortSessionIsNotWritten(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	s := bind(t, p, l, true)
	deliver(t, p, nil, chat("x"), 0, s)
	ack(t, p, s, 1)
	finish(t, p, l, s)
	checkpoint(t, p, l)
	if n := rows(t, p, "resume_sessions") + rows(t, p, "resume_queue"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func TestAcknowledgedIsNotWritten(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	s := bind(t, p, l, true)
	for range 10 {
		deliver(t, p, nil, chat("x"), 0, s)
	}
	ack(t, p, s, 10)
	checkpoint(t, p, l)
	if n := rows(t, p, "resume_queue"); n != 0 {
		t.Errorf("%d rows of what was acknowledged", n)
	}
	deliver(t, p, nil, chat("y"), 0, s)
	checkpoint(t, p, l)
	checkpoint(t, p, l)
	if n := rows(t, p, "resume_queue"); n != 1 {
		t.Errorf("%d rows for what one checkpoint found", n)
	}
	ack(t, p, s, 1)
	checkpoint(t, p, l)
	if n := rows(t, p, "resume_queue"); n != 0 {
		t.Errorf("%d rows after the acknowledgement", n)
	}
}

// A session that the database had, and that ended, leaves it: in the same process, in the next one that heard of the
// end from the journal, and in one that brought it back and then ended it.
func TestEndedSessionLeavesTheDatabase(t *testing.T) {
	setup := func(t *testing.T) (*process, *sessions, *peer) {
		p, l := startFor(t, freshDir(t), testConfig()), newSessions()
		s := bind(t, p, l, true)
		deliver(t, p, nil, chat("x"), 0, s)
		checkpoint(t, p, l)
		if rows(t, p, "resume_sessions") != 1 || rows(t, p, "resume_queue") != 1 {
			t.Fatal("not written")
		}
		return p, l, s
	}
	empty := func(t *testing.T, p *process) {
		t.Helper()
		if s, q := rows(t, p, "resume_sessions"), rows(t, p, "resume_queue"); s+q != 0 {
			t.Errorf("%d sessions, %d queues", s, q)
		}
		next := killed(t, p, testConfig())
		if len(next.found.Sessions) != 0 {
			t.Errorf("%d sessions came back from the dead", len(next.found.Sessions))
		}
		if h, ok := next.store.Recall("token-"+fmt.Sprint(nextOrd), bob); !ok || h != 0 {
			t.Errorf("recall: %d %v", h, ok)
		}
	}
	t.Run("same process", func(t *testing.T) {
		p, l, s := setup(t)
		finish(t, p, l, s)
		checkpoint(t, p, l)
		empty(t, p)
	})
	t.Run("killed after the end", func(t *testing.T) {
		p, l, s := setup(t)
		finish(t, p, l, s)
		next := killed(t, p, testConfig())
		checkpoint(t, next, newSessions())
		empty(t, next)
	})
	t.Run("ended by the next process", func(t *testing.T) {
		p, l, s := setup(t)
		next := killed(t, p, testConfig())
		l.restart()
		finish(t, next, l, s)
		checkpoint(t, next, l)
		empty(t, next)
	})
	t.Run("checkpoint failed in between", func(t *testing.T) {
		p, l, s := setup(t)
		finish(t, p, l, s)
		next := killed(t, p, testConfig())
		ctx, cancel := context.WithCancel(t.Context())
		none := newSessions()
		none.hook = cancel
		if err := next.store.Checkpoint(ctx, none); err == nil {
			t.Fatal("no error")
		}
		none.hook = nil
		checkpoint(t, next, none)
		empty(t, next)
	})
}

// damageRecord spoils the payload of the record that holds text, in the journal of dir.
func damageRecord(t testing.TB, dir, text string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "journal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+len(text) <= len(b); i++ {
			if string(b[i:i+len(text)]) == text {
				b[i] ^= 0x55
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Fatalf("no record holds %q", text)
}

func bodies(s *Session) (all []string) {
	for _, q := range s.Queue {
		c, _ := q.Stanza.Find(stanza.NSClient, "body")
		all = append(all, c.Text())
	}
	return all
}

// A record that can't be read is not the end of the gateway, nor of what others wrote.
func TestUnreadableRecord(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	one, two := bind(t, p, l, true), bind(t, p, l, true)
	// Records as a later version might write them, and as no version does.
	for _, kind := range []uint8{99, uint8(journal.KindStanza), uint8(journal.KindSession), uint8(journal.KindAcked), uint8(journal.KindUnstored)} {
		if _, err := p.store.wal.Append(kind, []byte("\xffwhat is this"), nil); err != nil {
			t.Fatal(err)
		}
	}
	deliver(t, p, one, chat("x"), 0, two)
	next := killed(t, p, testConfig())
	if err := same(next.found, l); err != nil {
		t.Error(err)
	}
}

// Where the disk lost a message of a queue, what comes behind it still reaches its user. The client can't go on
// counting, though: it would take the wrong ones for those it has.
func TestGapInQueue(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	s, other := bind(t, p, l, true), bind(t, p, l, true)
	for _, body := range []string{"first", "second", "third", "fourth"} {
		deliver(t, p, nil, chat(body), 0, s)
	}
	deliver(t, p, nil, chat("whole"), 0, other)
	ack(t, p, s, 1)
	dir := image(t, p.dir)
	damageRecord(t, dir, ">second<")
	next := startFor(t, dir, testConfig())
	if len(next.found.Sessions) != 2 {
		t.Fatalf("%d sessions", len(next.found.Sessions))
	}
	got := next.found.Sessions[0]
	if fmt.Sprint(bodies(got)) != "[third fourth]" {
		t.Errorf("recovered %v", bodies(got))
	}
	if got.State.Token != "" {
		t.Error("the session can be resumed")
	}
	for i, q := range got.Queue {
		want := journal.Target{Session: s.state.Ord, Pos: got.Acked + uint64(i) + 1}
		if len(q.Targets) != 1 || q.Targets[0] != want {
			t.Errorf("place %d is %v, want %v", i, q.Targets, want)
		}
	}
	if next.found.Sessions[1].State.Token == "" {
		t.Error("a session that lost nothing can't be resumed")
	}
}

// reboot makes the journal of dir look as if the machine had gone down since.
func reboot(t testing.TB, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "journal", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 128 || string(b[:6]) != "HFJRNL" {
			continue
		}
		// The boot id and the header's checksum, see wal/format.go.
		copy(b[32:48], "another boot.....")
		binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], crc32.MakeTable(crc32.Castagnoli)))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// When the machine went down, counts that clients were told may be missing: the queues come back, and nobody resumes.
func TestMachineWentDown(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	s := bind(t, p, l, true)
	checkpoint(t, p, l)
	deliver(t, p, nil, chat("x"), 0, s)
	dir := image(t, p.dir)
	reboot(t, dir)
	next := startFor(t, dir, testConfig())
	if len(next.found.Sessions) != 1 || len(next.found.Sessions[0].Queue) != 1 {
		t.Fatalf("found %+v", next.found)
	}
	if next.found.Sessions[0].State.Token != "" {
		t.Error("the session can be resumed")
	}

	p.stop(t)
	clean := image(t, p.dir)
	reboot(t, clean)
	next = startFor(t, clean, testConfig())
	if len(next.found.Sessions) != 1 || next.found.Sessions[0].State.Token == "" {
		t.Error("after a clean end the session can't be resumed")
	}
}
