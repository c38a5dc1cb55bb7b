package packetcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/stanza"
)

// spy is a Store that tells what it is given.
type spy struct {
	*Memory
	calls     int
	put, del  int
	fail      bool
	meanwhile func()
}

func (s *spy) Apply(ctx context.Context, put []Entry, del []stanza.ID) error {
	s.calls++
	s.put += len(put)
	s.del += len(del)
	if s.meanwhile != nil {
		s.meanwhile()
	}
	if s.fail {
		return errDown
	}
	return s.Memory.Apply(ctx, put, del)
}

func checkpoint(t *testing.T, c *Cache) {
	t.Helper()
	if err := c.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, c)
}

func TestCheckpointWritesOnlyWhatStays(t *testing.T) {
	s := &spy{Memory: NewMemory()}
	c := newCache(t, DefaultConfig(), s, newPeer())
	checkpoint(t, c)
	for range 100 {
		c.Open(message(alice, bob, "m1"))
		c.Receipt(bob1, alice, "m1")
	}
	checkpoint(t, c)
	if s.calls != 0 {
		t.Fatalf("the store was asked %d times for what closed before", s.calls)
	}
	st := message(alice, bob, "m2")
	c.Open(st)
	checkpoint(t, c)
	checkpoint(t, c)
	if s.calls != 1 || s.put != 1 || s.del != 0 {
		t.Errorf("%d calls, %d put, %d removed for one open entry", s.calls, s.put, s.del)
	}
	c.Receipt(bob1, alice, "m2")
	checkpoint(t, c)
	checkpoint(t, c)
	if s.calls != 2 || s.put != 1 || s.del != 1 {
		t.Errorf("%d calls, %d put, %d removed once it is closed", s.calls, s.put, s.del)
	}
	if left := load(t, s); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestCheckpointFails(t *testing.T) {
	s := &spy{Memory: NewMemory()}
	c := newCache(t, DefaultConfig(), s, newPeer())
	old := message(alice, bob, "old")
	c.Open(old)
	checkpoint(t, c)
	c.Receipt(bob1, alice, "old")
	a, b := message(alice, bob, "a"), message(alice, bob, "b")
	c.Open(a)
	c.Open(b)
	s.fail = true
	for range 3 {
		if err := c.Checkpoint(t.Context()); !errors.Is(err, errDown) {
			t.Fatalf("Checkpoint = %v", err)
		}
	}
	c.Receipt(bob1, alice, "a")
	s.fail = false
	checkpoint(t, c)
	if left := load(t, s); len(left) != 1 || left[0].ID != b.ID {
		t.Errorf("left: %v", left)
	}
}

// What closes while the transaction runs is removed by the next one.
func TestClosedDuringCheckpoint(t *testing.T) {
	for _, fail := range []bool{false, true} {
		s := &spy{Memory: NewMemory()}
		c := newCache(t, DefaultConfig(), s, newPeer())
		c.Open(message(alice, bob, "m1"))
		s.fail = fail
		s.meanwhile = func() { c.Receipt(bob1, alice, "m1"); s.meanwhile = nil }
		if err := c.Checkpoint(t.Context()); (err != nil) != fail {
			t.Fatal(err)
		}
		s.fail = false
		checkpoint(t, c)
		if left := load(t, s); len(left) != 0 {
			t.Errorf("fail %v: left %v", fail, left)
		}
	}
}

// Deadlines, steps and tombstones are as they were after a restart.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, store, cfg := newPeer(), NewMemory(), DefaultConfig()
		p.online = true
		c := newCache(t, cfg, store, p)
		stop := start(t, c)
		begin := time.Now()
		c.Open(message(alice, bob, "gone"))
		checkpoint(t, c)
		time.Sleep(cfg.Timeout + time.Second) // gone was resent
		c.Open(message(alice, bob, "resent"))
		time.Sleep(cfg.Timeout - time.Second)
		checkpoint(t, c)        // what follows is a change of what is stored
		time.Sleep(time.Second) // now gone is offline
		open := message(alice, bob, "open")
		c.Open(open)
		time.Sleep(time.Second) // resent was resent
		stop()
		checkpoint(t, c)
		wantLog(t, p, "resend gone", "offline gone", "resend resent")

		time.Sleep(10 * time.Second)
		p.log = nil
		c = newCache(t, cfg, store, p)
		if c.Len() != 2 || c.Late() != 1 {
			t.Fatalf("%d open, %d late", c.Len(), c.Late())
		}
		if e, _ := c.Get(open.ID); !e.Deadline.Equal(begin.Add(3*cfg.Timeout + time.Second)) {
			t.Errorf("deadline %v after Open", e.Deadline.Sub(begin))
		}
		start(t, c)
		time.Sleep(15 * time.Second)
		wantLog(t, p)
		time.Sleep(time.Minute)
		wantLog(t, p, "offline resent", "resend open", "offline open")
		if ids, offline := c.Receipt(bob1, alice, "gone"); len(ids) != 1 || !offline {
			t.Errorf("late receipt after the restart: %v, %v", ids, offline)
		}
		check(t, c)
	})
}

// Deadlines that passed while the process was down run at once, in order, and not all in one moment.
func TestRestartAfterDeadlines(t *testing.T) {
	for rate, want := range map[int]time.Duration{0: 0, 10: 9900 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p, store, cfg := newPeer(), NewMemory(), DefaultConfig()
			cfg.RestartRate, cfg.Actions = rate, []Action{Offline}
			c := newCache(t, cfg, store, p)
			var order []string
			for i := range 100 {
				id := fmt.Sprint("m", i)
				c.Open(message(alice, bob, id))
				order = append(order, "offline "+id)
			}
			checkpoint(t, c)
			time.Sleep(time.Hour)

			c = newCache(t, cfg, store, p)
			begin := time.Now()
			var last time.Duration
			p.before = func(Action, Entry) { last = time.Since(begin) }
			start(t, c)
			time.Sleep(time.Minute)
			wantLog(t, p, order...)
			if last != want {
				t.Errorf("rate %d: the last ran after %v, want %v", rate, last, want)
			}
		})
	}
}

func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		c := newCache(t, cfg, NewMemory(), newPeer())
		st := message(alice, bob, "m1")
		e := Entry{ID: st.ID, From: alice, To: bob, MsgID: "m1", Stanza: st, Deadline: time.Now().Add(7 * time.Second)}
		want := func(name string, step int, left time.Duration, offline bool) {
			t.Helper()
			check(t, c)
			got, ok := c.Get(st.ID)
			if !ok || got.Step != step || !got.Deadline.Equal(time.Now().Add(left)) || (got.Stanza == nil) != offline || c.Len()+c.Late() != 1 {
				t.Errorf("%s: %+v, %v", name, got, ok)
			}
		}
		c.Restore(e)
		want("new", 0, 7*time.Second, false)
		c.Restore(e)
		c.Open(st)
		want("again", 0, 7*time.Second, false)
		e.Step, e.Deadline = 1, time.Now().Add(20*time.Second)
		c.Restore(e)
		want("a later step", 1, 20*time.Second, false)
		e.Step, e.Deadline = 0, time.Now()
		c.Restore(e)
		want("an earlier step", 1, 20*time.Second, false)
		e.Stanza, e.Deadline = nil, time.Time{}
		c.Restore(e)
		want("went offline", 1, cfg.Late, true)
		e.Stanza = st
		c.Restore(e)
		c.Open(st)
		want("opened, by an older record", 1, cfg.Late, true)
		c.Close(st.ID)
		if _, ok := c.Get(st.ID); ok || c.Late() != 0 {
			t.Error("not closed")
		}
		e.Stanza = nil
		c.Restore(e)
		want("offline from the start", 0, cfg.Late, true)
		c.Restore(Entry{})
		e = Entry{ID: stanza.NewID(), From: alice, To: bob, MsgID: "m2", Stanza: st, Step: 99}
		c.Restore(e)
		if got, _ := c.Get(e.ID); got.Step != 1 {
			t.Errorf("a step of a longer list of actions: %d", got.Step)
		}
		check(t, c)
	})
}

// Without a deadline of its own, a restored entry has the one that Open gave it.
func TestRestoreDeadlineFromID(t *testing.T) {
	st := message(alice, bob, "m1")
	now, wall := int64(time.Hour), st.ID.Time().Add(7*time.Second)
	c, err := newAt(DefaultConfig(), NewMemory(), slog.New(slog.DiscardHandler), nil, newPeer(),
		func() int64 { return now }, func() time.Time { return wall })
	if err != nil {
		t.Fatal(err)
	}
	c.Restore(Entry{ID: st.ID, From: alice, To: bob, MsgID: "m1", Stanza: st})
	e, _ := c.Get(st.ID)
	if off := e.Deadline.Sub(st.ID.Time().Add(30 * time.Second)); off != 0 {
		t.Errorf("off by %v", off)
	}
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*Config)
		err  string
	}{
		{"default", func(*Config) {}, ""},
		{"all lifted", func(c *Config) {
			*c = Config{Actions: []Action{Drop}, LateEntries: 1}
		}, ""},
		{"no action", func(c *Config) { c.Actions = nil }, "PACKETCACHE_ACTIONS"},
		{"resend last", func(c *Config) { c.Actions = []Action{Resend} }, "the last action must be offline, bounce or drop"},
		{"something after offline", func(c *Config) { c.Actions = []Action{Offline, Bounce} }, "offline must be the last action"},
		{"not an action", func(c *Config) { c.Actions = []Action{9} }, "none of resend"},
		{"too many", func(c *Config) { c.Actions = append(slices.Repeat([]Action{Resend}, maxActions), Drop) }, "PACKETCACHE_ACTIONS"},
		{"negative timeout", func(c *Config) { c.Timeout = -1 }, "PACKETCACHE_TIMEOUT"},
		{"negative entries", func(c *Config) { c.Entries = -1 }, "PACKETCACHE_ENTRIES"},
		{"negative bytes", func(c *Config) { c.Bytes = -1 }, "PACKETCACHE_BYTES"},
		{"tombstones for ever", func(c *Config) { c.Late, c.LateEntries = 0, 0 }, "PACKETCACHE_LATE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			tt.set(&cfg)
			err := cfg.Validate()
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Validate = %v, want %q", err, tt.err)
			}
			if _, err := New(cfg, NewMemory(), slog.New(slog.DiscardHandler), nil, newPeer()); (err != nil) != (tt.err != "") {
				t.Errorf("New = %v", err)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	c, err := New(DefaultConfig(), NewMemory(), slog.New(slog.DiscardHandler), reg, newPeer())
	if err != nil {
		t.Fatal(err)
	}
	c.Open(message(alice, bob, "m1"))
	c.Open(message(alice, bob, "m2"))
	c.Open(message(alice, bob, "m3"))
	c.Receipt(bob1, alice, "m1")
	c.Marker(bob1, alice, "m2")
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP holdfast_packetcache_entries Messages that await a receipt.
# TYPE holdfast_packetcache_entries gauge
holdfast_packetcache_entries 1
# HELP holdfast_packetcache_outcomes_total What became of messages; resend and evicted are steps, the others ends.
# TYPE holdfast_packetcache_outcomes_total counter
holdfast_packetcache_outcomes_total{outcome="ack"} 0
holdfast_packetcache_outcomes_total{outcome="bounce"} 0
holdfast_packetcache_outcomes_total{outcome="closed"} 0
holdfast_packetcache_outcomes_total{outcome="drop"} 0
holdfast_packetcache_outcomes_total{outcome="evicted"} 0
holdfast_packetcache_outcomes_total{outcome="late"} 0
holdfast_packetcache_outcomes_total{outcome="marker"} 1
holdfast_packetcache_outcomes_total{outcome="offline"} 0
holdfast_packetcache_outcomes_total{outcome="receipt"} 1
holdfast_packetcache_outcomes_total{outcome="resend"} 0
`), "holdfast_packetcache_entries", "holdfast_packetcache_outcomes_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "holdfast_packetcache_age_seconds"); n != 1 || err != nil {
		t.Errorf("age: %d, %v", n, err)
	}
	if _, err := New(DefaultConfig(), NewMemory(), slog.New(slog.DiscardHandler), reg, newPeer()); err == nil {
		t.Error("a second cache with the same registry")
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := New(DefaultConfig(), NewMemory(), slog.New(slog.DiscardHandler), reg, newPeer()); err != nil {
		t.Errorf("after Shutdown: %v", err)
	}
}

// A store that fell back to an earlier state has, after the next Checkpoint, what the cache has.
func TestTouchAll(t *testing.T) {
	store := NewMemory()
	c := newCache(t, DefaultConfig(), store, newPeer())
	lost, closed := message(alice, bob, "m1"), message(alice, bob, "m2")
	c.Open(closed)
	if err := c.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := load(t, store)
	c.Receipt(bob1, alice, "m2")
	c.Open(lost)
	if err := c.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Apply(t.Context(), before, []stanza.ID{lost.ID}); err != nil {
		t.Fatal(err)
	}
	c.TouchAll()
	if err := c.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := load(t, store); len(got) != 1 || got[0].ID != lost.ID {
		t.Errorf("the store has %+v", got)
	}
}
