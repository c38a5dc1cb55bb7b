package packetcache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"holdfast/internal/sqlx"
	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/stanza"
)

// Every Store passes testStore (TestRedis is beside redis.go's other tests). open returns an empty one, and what another process sees of it after the first died
// without closing anything.
func TestMemory(t *testing.T) {
	testStore(t, func(*testing.T) (Store, func() Store) {
		m := NewMemory()
		return m, func() Store { return m }
	})
}

func TestSQLite(t *testing.T) {
	testStore(t, func(t *testing.T) (Store, func() Store) {
		dir := t.TempDir()
		open := func() Store {
			s, err := NewSQLite(t.Context(), sqlxtest.OpenDir(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		return open(), open
	})
}

func testStore(t *testing.T, open func(*testing.T) (Store, func() Store)) {
	base := time.Date(2026, 1, 2, 3, 4, 5, 678_000, time.UTC)
	entry := func(msgID string, after time.Duration) Entry {
		st := message(alice, bob, msgID)
		return Entry{ID: st.ID, From: alice, To: bob, MsgID: msgID, Stanza: st, Deadline: base.Add(after)}
	}
	apply := func(t *testing.T, s Store, put []Entry, del ...stanza.ID) {
		t.Helper()
		if err := s.Apply(t.Context(), put, del); err != nil {
			t.Fatal(err)
		}
	}
	want := func(t *testing.T, s Store, want ...Entry) {
		t.Helper()
		got := load(t, s)
		if len(got) != len(want) {
			t.Fatalf("%d entries, want %d", len(got), len(want))
		}
		for i := range want {
			if g, w := describe(got[i]), describe(want[i]); g != w {
				t.Errorf("entry %d: %s, want %s", i, g, w)
			}
		}
	}
	late, early, first := entry("late", time.Hour), entry("early", time.Minute), entry("first", time.Minute)
	early, first = first, early // by id
	odd := entry(`<&>'" ü 🙂`, 2*time.Hour)
	odd.From, odd.To = stanza.MustParseAddr(`alice@x.example/ " & <phone>`), bob1
	odd.Stanza = message(odd.From, odd.To, odd.MsgID)
	odd.ID = odd.Stanza.ID
	tombstone := entry("gone", 3*time.Hour)
	tombstone.Stanza, tombstone.Step = nil, 1
	forever := entry("forever", 0)
	forever.Deadline = time.Time{}

	t.Run("empty", func(t *testing.T) {
		s, _ := open(t)
		want(t, s)
		apply(t, s, nil)
		want(t, s)
	})
	t.Run("order of deadline, then id; every field", func(t *testing.T) {
		s, again := open(t)
		apply(t, s, []Entry{tombstone, odd, late, early, first, forever})
		want(t, again(), forever, first, early, late, odd, tombstone)
	})
	t.Run("put replaces", func(t *testing.T) {
		s, again := open(t)
		apply(t, s, []Entry{late, early})
		moved := late
		moved.Stanza, moved.Step, moved.Deadline = nil, 1, base
		apply(t, s, []Entry{moved})
		want(t, again(), moved, early)
	})
	t.Run("del removes, and what is not there is no error", func(t *testing.T) {
		s, again := open(t)
		apply(t, s, []Entry{late, early})
		apply(t, s, nil, late.ID, stanza.NewID())
		apply(t, s, nil, late.ID)
		want(t, again(), early)
	})
	t.Run("put after del of the same id", func(t *testing.T) {
		s, again := open(t)
		apply(t, s, []Entry{late})
		apply(t, s, []Entry{late}, late.ID)
		want(t, again(), late)
	})
	t.Run("a failed Apply did nothing", func(t *testing.T) {
		s, again := open(t)
		apply(t, s, []Entry{early})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Apply(ctx, []Entry{late}, []stanza.ID{early.ID}); err == nil {
			t.Fatal("no error with a context that is done")
		}
		want(t, again(), early)
	})
	t.Run("an error of yield ends Load", func(t *testing.T) {
		s, _ := open(t)
		apply(t, s, []Entry{late, early})
		n := 0
		err := s.Load(t.Context(), func(Entry) error { n++; return errDown })
		if !errors.Is(err, errDown) || n != 1 {
			t.Errorf("%v after %d entries", err, n)
		}
	})
	t.Run("a cache after a crash", func(t *testing.T) {
		s, again := open(t)
		c := newCache(t, DefaultConfig(), s, newPeer())
		kept, closed, unwritten := message(alice, bob, "m1"), message(alice, bob, "m2"), message(alice, bob, "m3")
		c.Open(kept)
		c.Open(closed)
		if err := c.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Receipt(bob1, alice, "m2")
		c.Open(unwritten)
		// Killed here. What was opened and closed since is in the journal.
		c = newCache(t, DefaultConfig(), again(), newPeer())
		if c.Len() != 2 {
			t.Fatalf("%d entries", c.Len())
		}
		c.Restore(Entry{ID: unwritten.ID, From: alice, To: bob, MsgID: "m3", Stanza: unwritten})
		c.Close(closed.ID)
		if err := c.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range load(t, again()) {
			got = append(got, e.MsgID)
		}
		if slices.Sort(got); !slices.Equal(got, []string{kept.Attr("id"), unwritten.Attr("id")}) {
			t.Errorf("the store has %q", got)
		}
	})
}

func load(t testing.TB, s Store) (all []Entry) {
	t.Helper()
	if err := s.Load(context.Background(), func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func describe(e Entry) string {
	raw := "none"
	if e.Stanza != nil {
		raw = fmt.Sprintf("%v %s", e.Stanza.ID, e.Stanza.Raw())
	}
	return fmt.Sprintf("%v %v %v %q %v %d %s", e.ID, e.From, e.To, e.MsgID, e.Deadline.UTC(), e.Step, raw)
}

const (
	killEnv   = "PACKETCACHE_TEST_KILL"
	killBatch = 40
)

// TestSQLiteKilled kills a process in the middle of its transactions: each is there whole or not at all, and those
// whose Apply returned are there.
func TestSQLiteKilled(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		applyForEver(t, dir)
		return
	}
	for round := range 3 {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestSQLiteKilled$")
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last := -1
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				continue // the test framework's own words
			}
			if last = n; n == 5+7*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || last < 0 {
			t.Fatalf("the process was not killed: %v, last batch %d", err, last)
		}
		s, err := NewSQLite(t.Context(), sqlxtest.OpenDir(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		got := load(t, s)
		steps := make([]int, 0, len(got))
		for _, e := range got {
			steps = append(steps, e.Step)
		}
		slices.Sort(steps)
		if len(steps) != killBatch || steps[0] != steps[len(steps)-1] || steps[0] < last {
			t.Errorf("after batch %d: %d entries of batches %v", last, len(steps), slices.Compact(steps))
		}
	}
}

// applyForEver replaces one batch of entries by the next, and prints the number of each that is stored.
func applyForEver(t *testing.T, dir string) {
	cfg := sqlx.DefaultConfig()
	cfg.Dir = dir
	db, err := sqlx.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSQLite(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	var gone []stanza.ID
	for n := 0; ; n++ {
		var put []Entry
		for i := range killBatch {
			st := message(alice, bob, "m"+strconv.Itoa(i))
			put = append(put, Entry{ID: st.ID, From: alice, To: bob, MsgID: st.Attr("id"), Stanza: st, Deadline: time.Now(), Step: n})
		}
		if err := s.Apply(t.Context(), put, gone); err != nil {
			t.Fatal(err)
		}
		fmt.Println(n)
		gone = gone[:0]
		for _, e := range put {
			gone = append(gone, e.ID)
		}
	}
}
