package resume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

func TestRedisNewNode(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m := r.nodeFor(t)
		if left := r.left(t, m.id, allKeys...); fmt.Sprint(left) != "[journal mailbox]" {
			t.Errorf("a new node has %v", left)
		}
		for _, key := range []string{"journal", "mailbox"} {
			if n, err := r.rdb.XLen(t.Context(), r.keys.Node(m.id, key)).Result(); n != 0 || err != nil {
				t.Errorf("%s: %d entries, %v", key, n, err)
			}
		}
		must(t, m.Healthy())
		again := func() error {
			_, err := OpenRedis(t.Context(), r.cfg, r.rdb, r.keys, m.id, discard, prometheus.NewRegistry())
			return err
		}
		if again() == nil {
			t.Error("two nodes of one name")
		}
		other := r.nodeFor(t)
		other.adopt(t, m)
		if again() == nil {
			t.Error("a node of a dead one's name")
		}
		must(t, other.Bury(t.Context(), m.id))
		if again() == nil {
			t.Error("a node of a buried one's name")
		}
	})
}

// What was appended and settled is found by who adopts, with checkpoints in between or not.
func TestRedisAdopt(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.nodeFor(t), newSessions()
		one, two := bind(t, m, l, true), bind(t, m, l, true)
		for i := range 20 {
			deliver(t, m, one, chat(fmt.Sprint(i)), 0, two)
		}
		ack(t, m, two, 5)
		m.settle(t)
		if m.Sendable() != m.Appended() {
			t.Errorf("sendable %d of %d", m.Sendable(), m.Appended())
		}
		must(t, m.Checkpoint(t.Context(), l))
		deliver(t, m, one, chat("after"), 0, two)
		ack(t, m, two, 3)
		m.settle(t)
		other := r.nodeFor(t)
		for range 2 {
			found, _ := other.adopt(t, m)
			if err := same(found, l); err != nil {
				t.Error(err)
			}
		}
		must(t, other.Bury(t.Context(), m.id))
		if left := r.left(t, m.id, allKeys...); fmt.Sprint(left) != "[mailbox:dead fence]" {
			t.Errorf("%v left", left)
		}
		if found, meta, err := other.Load(t.Context(), m.id); err != nil || len(found.Sessions)+len(found.Effects)+len(meta) != 0 {
			t.Errorf("buried, and still %+v %v %v", found, meta, err)
		}
	})
}

// A checkpoint costs Redis what changed, and removes what was acknowledged.
func TestRedisQueuesAreNotKept(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.nodeFor(t), newSessions()
		s := bind(t, m, l, true)
		parts := func() int64 {
			t.Helper()
			must(t, m.Checkpoint(t.Context(), l))
			n, err := r.rdb.HLen(t.Context(), r.keys.Node(m.id, "queues")).Result()
			must(t, err)
			return n
		}
		for range 10 {
			deliver(t, m, nil, chat("x"), 0, s)
		}
		ack(t, m, s, 10)
		if n := parts(); n != 0 {
			t.Errorf("%d parts of what was acknowledged", n)
		}
		deliver(t, m, nil, chat("x"), 0, s)
		if n := parts(); n != 1 {
			t.Errorf("%d parts", n)
		}
		deliver(t, m, nil, chat("y"), 0, s)
		if n := parts(); n != 2 {
			t.Errorf("%d parts", n)
		}
		ack(t, m, s, 1)
		if n := parts(); n != 1 {
			t.Errorf("%d parts after an acknowledgement", n)
		}
		if n, err := r.rdb.XLen(t.Context(), r.keys.Node(m.id, "journal")).Result(); n != 0 || err != nil {
			t.Errorf("%d entries in the journal, %v", n, err)
		}
		finish(t, m, l, s)
		if n := parts(); n != 0 || len(m.stored) != 0 {
			t.Errorf("%d parts, %d in memory after the end", n, len(m.stored))
		}
		if left := r.left(t, m.id, "sessions"); len(left) != 0 {
			t.Error("the session is still there")
		}
	})
}

// An owner that was paused, fenced, and wakes up can write nothing, and never says that what it wrote may go out.
func TestRedisFenced(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, other := r.nodeFor(t), r.nodeFor(t)
		told := make(chan uint64, 100)
		m.OnSendable(func() { told <- m.Sendable() })
		l := newSessions()
		s := bind(t, m, l, true)
		must(t, m.Checkpoint(t.Context(), l))
		before := m.Sendable()
		found, _ := other.adopt(t, m)
		if err := same(found, l); err != nil {
			t.Error(err)
		}
		deliver(t, m, nil, chat("too late"), 0, s)
		<-m.Fenced()
		if n := m.Sendable(); n != before {
			t.Errorf("sendable %d, was %d", n, before)
		}
		for len(told) > 0 { // of what was written before, which may be told late
			if n := <-told; n > before {
				t.Errorf("%d was said to be sendable, was %d", n, before)
			}
		}
		for what, err := range map[string]error{
			"settle": m.Settle(t.Context()), "append": m.Append(journal.KindProved, nil, nil), "room": m.Room(t.Context()),
			"checkpoint": m.Checkpoint(t.Context(), l), "health": m.Healthy(),
		} {
			if !errors.Is(err, ErrFenced) {
				t.Errorf("%s says %v", what, err)
			}
		}
		if left := r.left(t, m.id, "journal", "mailbox"); len(left) != 0 {
			t.Errorf("%v came back", left)
		}
		again, _, err := other.Load(t.Context(), m.id)
		must(t, err)
		if len(again.Sessions) != 1 || len(again.Sessions[0].Queue) != 0 {
			t.Error("the dead node wrote something")
		}
	})
}

// A checkpoint under way when its node is fenced changes nothing.
func TestRedisFencedCheckpoint(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, other := r.nodeFor(t), r.nodeFor(t)
		l := newSessions()
		s := bind(t, m, l, true)
		must(t, m.Checkpoint(t.Context(), l))
		s.state.Priority = 7
		s.dirty = true
		r.calls.beforeScript = func(int) { other.adopt(t, m) }
		err := m.Checkpoint(t.Context(), l)
		r.calls.beforeScript = nil
		if !errors.Is(err, ErrFenced) {
			t.Errorf("checkpoint says %v", err)
		}
		found, _, err := other.Load(t.Context(), m.id)
		must(t, err)
		if found.Sessions[0].State.Priority != 0 {
			t.Error("it was written")
		}
	})
}

func TestRedisFenceHasOneHolder(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		dead, a, b, c := r.nodeFor(t), r.nodeFor(t), r.nodeFor(t), r.nodeFor(t)
		for _, step := range []struct {
			by      *member
			instead string
			want    string
		}{{a, "", a.id}, {a, "", a.id}, {b, "", a.id}, {b, c.id, a.id}, {b, a.id, b.id}, {a, "", b.id}} {
			if holder, err := step.by.Fence(t.Context(), dead.id, step.by.id, step.instead); err != nil || holder != step.want {
				t.Errorf("%s in place of %q: %s %v", step.by.id, step.instead, holder, err)
			}
		}
	})
}

func TestRedisLeave(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.node(t), newSessions()
		s := bind(t, m, l, true)
		must(t, m.Checkpoint(t.Context(), l))
		deliver(t, m, nil, chat("last"), 0, s)
		must(t, m.Leave(t.Context()))
		if err := m.Append(journal.KindProved, nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("append says %v", err)
		}
		must(t, m.Close())
		found, _ := r.nodeFor(t).adopt(t, m)
		if err := same(found, l); err != nil {
			t.Error(err)
		}
	})
}

func TestRedisClosed(t *testing.T) {
	r := newSharedPlace(t)
	m, l := r.node(t), newSessions()
	s := bind(t, m, l, true)
	deliver(t, m, nil, chat("x"), 0, s)
	must(t, m.Close())
	if err := m.Session(s.state); err == nil {
		t.Error("a record after the end")
	}
	if err := m.Checkpoint(t.Context(), l); err == nil {
		t.Error("a checkpoint after the end")
	}
	if err := m.Settle(t.Context()); err == nil {
		t.Error("safe after the end")
	}
	found, _ := r.nodeFor(t).adopt(t, m)
	if err := same(found, l); err != nil {
		t.Error(err)
	}
}

// XEP-0198 §5: every node tells the owner of an ended session, and nobody else, what was handled.
func TestRedisRecall(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.nodeFor(t), newSessions()
		alice := stanza.MustParseAddr("alice@localhost")
		m.Remember("t", bob, 1<<32-1)
		for range 2*maxEnded + 10 {
			m.Remember("other", bob, 1)
		}
		if _, ok := r.nodeFor(t).Recall("t", bob); ok {
			t.Error("known before a checkpoint")
		}
		must(t, m.Checkpoint(t.Context(), l))
		for _, who := range []*member{m, r.nodeFor(t)} {
			if h, ok := who.Recall("t", bob); !ok || h != 1<<32-1 {
				t.Errorf("%d %v", h, ok)
			}
			if _, ok := who.Recall("t", alice); ok {
				t.Error("told somebody else")
			}
			if _, ok := who.Recall("no", bob); ok {
				t.Error("told of a session that never was")
			}
		}
		ttl, err := r.rdb.PTTL(t.Context(), r.keys.Ended("t")).Result()
		if err != nil || ttl <= 0 || ttl > r.cfg.Ended {
			t.Errorf("remembered for %v %v", ttl, err)
		}
		// One that only the journal of a dead node knows of.
		s := bind(t, m, l, true)
		finish(t, m, l, s)
		m.settle(t)
		other := r.nodeFor(t)
		other.adopt(t, m)
		must(t, other.Checkpoint(t.Context(), newSessions()))
		if _, ok := r.nodeFor(t).Recall(s.state.Token, bob); !ok {
			t.Error("a session that ended before its node is forgotten")
		}
	})
}

// Marks are there when what they are about is, and not before.
func TestRedisMeta(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.nodeFor(t), newSessions()
		m.SetMeta(map[string]string{"a": "1", "b": "2"})
		broken := errors.New("no")
		if err := m.Checkpoint(t.Context(), l, flusher(func(context.Context) error { return broken })); !errors.Is(err, broken) || m.Healthy() == nil {
			t.Fatal(err)
		}
		if left := r.left(t, m.id, "meta"); len(left) != 0 {
			t.Error("marks of a checkpoint that failed")
		}
		m.SetMeta(map[string]string{"b": "3"})
		l.hook = func() { m.SetMeta(map[string]string{"late": "x"}) }
		must(t, m.Checkpoint(t.Context(), l))
		l.hook = nil
		get := func() string {
			meta, err := r.rdb.HGetAll(t.Context(), r.keys.Node(m.id, "meta")).Result()
			must(t, err)
			return fmt.Sprint(meta)
		}
		if got := get(); got != "map[a:1 b:3]" {
			t.Error(got)
		}
		m.DelMeta("a", "nothing")
		must(t, m.Checkpoint(t.Context(), l))
		if got := get(); got != "map[b:3 late:x]" {
			t.Error(got)
		}
		if _, meta := r.nodeFor(t).adopt(t, m); fmt.Sprint(meta) != "map[b:3 late:x]" {
			t.Error(meta)
		}
	})
}

// A record that can't be read is not the end of an adoption, nor of what others wrote.
func TestRedisUnreadable(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.nodeFor(t), newSessions()
		one, two := bind(t, m, l, true), bind(t, m, l, true)
		must(t, m.Checkpoint(t.Context(), l))
		for _, kind := range []journal.Kind{99, journal.KindStanza, journal.KindSession, journal.KindAcked, journal.KindUnstored} {
			must(t, m.Append(kind, []byte("\xffwhat "), []byte("is this")))
		}
		deliver(t, m, one, chat("x"), 0, two)
		m.settle(t)
		must(t, r.rdb.HSet(t.Context(), r.keys.Node(m.id, "sessions"), fmt.Sprint(two.state.Ord+1), "\x01").Err())
		must(t, r.rdb.HSet(t.Context(), r.keys.Node(m.id, "queues"), "x:y", "z", fmt.Sprint(one.state.Ord, ":9"), "\xff\xff").Err())
		found, _ := r.nodeFor(t).adopt(t, m)
		if err := same(found, l); err != nil {
			t.Error(err)
		}
	})
}

// Records that nobody waits for keep each other company, and do not wait for ever.
func TestRedisLazyRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultRedisConfig()
		to := new(counting)
		m := &Redis{queue: newGroupCommit(cfg, to, discard, newRedisMetrics(prometheus.NewRegistry()))}
		grown := make(chan uint64, 100)
		m.OnSendable(func() { grown <- m.Sendable() })
		for round := range uint64(3) {
			start := time.Now()
			for i := range uint64(10) {
				must(t, m.Count(journal.KindHandled, 1, 10*round+i))
				time.Sleep(cfg.Window / 20)
			}
			if n, took := <-grown, time.Since(start); n != 10*(round+1) || took != cfg.Window {
				t.Errorf("%d went after %v", n, took)
			}
		}
		must(t, m.queue.close(t.Context()))
		if to.writes != 3 {
			t.Errorf("%d writes", to.writes)
		}
	})
}

// What somebody waits for takes those along that nobody waits for, and does not wait for the window.
func TestRedisUrgentRecords(t *testing.T) {
	r := newSharedPlace(t)
	r.cfg.Window = time.Hour
	m := r.nodeFor(t)
	grown := make(chan uint64, 100)
	m.OnSendable(func() { grown <- m.Sendable() })
	must(t, m.Count(journal.KindHandled, 1, 1))
	m.settle(t)
	if n := <-grown; n != 1 {
		t.Errorf("%d went", n)
	}
	must(t, m.Count(journal.KindHandled, 1, 2))
	must(t, m.Stanza(numbered(1, 3)))
	for n := uint64(0); n != 3; n = <-grown {
	}
}

func newSharedPlace(t *testing.T) *place {
	t.Helper()
	return newPlace(t, sharedURL(t))
}

func TestRedisConfig(t *testing.T) {
	if err := DefaultRedisConfig().Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*RedisConfig){
		"REDIS_WINDOW":        func(c *RedisConfig) { c.Window = -1 },
		"REDIS_WRITE_RATE":    func(c *RedisConfig) { c.WriteRate = -1 },
		"REDIS_PATIENCE":      func(c *RedisConfig) { c.Patience = -1 },
		"REDIS_PENDING_BYTES": func(c *RedisConfig) { c.PendingBytes = 1 },
		"REDIS_JOURNAL_BYTES": func(c *RedisConfig) { c.JournalBytes = 1 },
	} {
		cfg := DefaultRedisConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Large records go alone, many small ones together.
func TestRedisBatches(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m := r.nodeFor(t)
		sizes := []int{10, batchBytes, 10, 3 * batchBytes, batchBytes / 2, batchBytes / 2, batchBytes / 2}
		for _, size := range sizes {
			must(t, m.Append(99, nil, make([]byte, size)))
		}
		m.settle(t)
		var got []int
		entries, err := r.rdb.XRange(t.Context(), r.keys.Node(m.id, "journal"), "-", "+").Result()
		must(t, err)
		for _, e := range entries {
			must(t, eachRecord([]byte(e.Values["d"].(string)), func(_ uint8, b []byte) error {
				got = append(got, len(b))
				return nil
			}))
		}
		if !slices.Equal(got, sizes) {
			t.Errorf("%v, want %v", got, sizes)
		}
		if m.queue.pending.Load() != 0 {
			t.Errorf("%d bytes pending", m.queue.pending.Load())
		}
	})
}
