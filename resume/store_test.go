package resume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/stanza"
)

// XEP-0198 §5: <failed h='…'/> tells the owner of an ended session, and nobody else, what was handled.
func TestRecall(t *testing.T) {
	p := startFor(t, freshDir(t), testConfig())
	alice := stanza.MustParseAddr("alice@localhost")
	p.store.Remember("t", bob, 1<<32-1)
	for _, where := range []string{"memory", "database"} {
		if h, ok := p.store.Recall("t", bob); !ok || h != 1<<32-1 {
			t.Errorf("%s: %d %v", where, h, ok)
		}
		if _, ok := p.store.Recall("t", alice); ok {
			t.Errorf("%s: told somebody else", where)
		}
		if _, ok := p.store.Recall("no", bob); ok {
			t.Errorf("%s: told of a session that never was", where)
		}
		checkpoint(t, p, newSessions())
		p.stop(t)
		*p = *startFor(t, p.dir, testConfig())
	}
}

func TestEndedSessionsAreForgotten(t *testing.T) {
	cfg := testConfig()
	cfg.Ended = time.Hour
	p := startFor(t, freshDir(t), cfg)
	p.store.Remember("t", bob, 1)
	checkpoint(t, p, newSessions())
	if _, ok := p.store.Recall("t", bob); !ok {
		t.Fatal("forgotten at once")
	}
	if _, err := p.db.Write.ExecContext(t.Context(), `UPDATE resume_ended SET at = at - 7200`); err != nil {
		t.Fatal(err)
	}
	p.store.ended.age("t", 2*time.Hour)
	if _, ok := p.store.Recall("t", bob); ok {
		t.Error("remembered beyond its time")
	}
	checkpoint(t, p, newSessions())
	if n := rows(t, p, "resume_ended"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func TestEndedSessionsNotRemembered(t *testing.T) {
	cfg := testConfig()
	cfg.Ended = 0
	p, l := startFor(t, freshDir(t), cfg), newSessions()
	s := bind(t, p, l, true)
	token := s.state.Token
	finish(t, p, l, s)
	if _, ok := p.store.Recall(token, bob); ok {
		t.Error("remembered")
	}
	next := killed(t, p, cfg)
	if _, ok := next.store.Recall(token, bob); ok {
		t.Error("remembered by the next process")
	}
	checkpoint(t, next, newSessions())
	if n := rows(t, next, "resume_ended"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

func TestEndedSessionsInMemoryAreBounded(t *testing.T) {
	p := startFor(t, freshDir(t), testConfig())
	for i := range maxEnded + 10 {
		p.store.Remember(fmt.Sprint(i), bob, uint32(i))
	}
	if n := len(p.store.ended.byToken); n != maxEnded {
		t.Errorf("%d in memory", n)
	}
	if n := len(p.store.ended.order); n != maxEnded {
		t.Errorf("%d in order", n)
	}
	checkpoint(t, p, newSessions())
	if h, ok := p.store.Recall("3", bob); !ok || h != 3 {
		t.Errorf("an old one is not in the database: %d %v", h, ok)
	}
}

// A database that fails costs nothing but time: the journal keeps everything, /readyz knows why, and the next
// checkpoint that succeeds has all of it.
func TestFailingDatabase(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	s := bind(t, p, l, true)
	deliver(t, p, nil, chat("one"), 0, s)
	if _, err := p.db.Write.ExecContext(t.Context(), `CREATE TRIGGER full BEFORE INSERT ON resume_queue BEGIN SELECT RAISE(ABORT, 'disk is full'); END`); err != nil {
		t.Fatal(err)
	}
	finished := bind(t, p, l, true)
	finish(t, p, l, finished)
	for range 3 {
		if err := p.store.Checkpoint(t.Context(), l); err == nil || !strings.Contains(err.Error(), "disk is full") {
			t.Fatalf("checkpoint says %v", err)
		}
		if p.store.Healthy() == nil {
			t.Error("healthy")
		}
	}
	if n := testutil.ToFloat64(p.store.metrics.failures); n != 3 {
		t.Errorf("%v failures counted", n)
	}
	deliver(t, p, nil, chat("two"), 0, s)
	next := killed(t, p, testConfig())
	if err := same(next.found, l); err != nil {
		t.Errorf("while it fails: %v", err)
	}
	if _, err := p.db.Write.ExecContext(t.Context(), `DROP TRIGGER full`); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, p, l)
	if err := p.store.Healthy(); err != nil {
		t.Error(err)
	}
	next = killed(t, p, testConfig())
	if err := same(next.found, l); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if _, ok := next.store.Recall(finished.state.Token, bob); !ok {
		t.Error("the ended session is forgotten")
	}
	if st := p.store.wal.Stats(); st.Records > 0 && next.store.wal.Info().Records != 0 {
		t.Errorf("%d records are still in the journal", next.store.wal.Info().Records)
	}
}

// One store that can't commit keeps the journal from forgetting what the others have committed already.
func TestFailingOtherStore(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	s := bind(t, p, l, true)
	deliver(t, p, nil, chat("one"), 0, s)
	broken := errors.New("mailbox is full")
	err := p.store.Checkpoint(t.Context(), l, flusher(func(context.Context) error { return broken }))
	if !errors.Is(err, broken) || p.store.Healthy() == nil {
		t.Fatalf("checkpoint says %v, health %v", err, p.store.Healthy())
	}
	next := killed(t, p, testConfig())
	if n := next.store.wal.Info().Records; n == 0 {
		t.Error("the journal forgot")
	}
	if err := same(next.found, l); err != nil {
		t.Error(err)
	}
}

// Back-pressure (delivery contract 5): with the journal at its cap, Room waits for a checkpoint that succeeds, and the
// journal stays about as large as it may be.
func TestFullJournalWaitsForCheckpoint(t *testing.T) {
	cfg := testConfig()
	cfg.Bytes, cfg.Interval = 8*4096, 0
	p := startFor(t, freshDir(t), cfg)
	l := newSessions()
	bind(t, p, l, true)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	waited := func() bool { return testutil.ToFloat64(p.store.metrics.waits) > 0 }
	var tries, made atomic.Int32
	var mu sync.Mutex
	done.Go(func() {
		p.store.Run(ctx, lockedLive{&mu, l}, flusher(func(context.Context) error {
			if tries.Add(1) <= 3 || !waited() {
				return errors.New("not yet")
			}
			made.Add(1)
			return nil
		}))
	})
	defer done.Wait()
	defer cancel()
	body := []byte(strings.Repeat("x", 300))
	var most int64
	for range 500 {
		if err := p.store.Room(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := p.store.wal.Append(99, body, nil); err != nil {
			t.Fatal(err)
		}
		most = max(most, p.store.used())
	}
	if !waited() {
		t.Error("nothing ever waited: the test shows nothing")
	}
	if made.Load() == 0 {
		t.Error("no checkpoint succeeded")
	}
	if most > cfg.Bytes+4096 {
		t.Errorf("the journal grew to %d bytes", most)
	}
}

// Who waits for room can give up, and what is written without asking still goes through: a checkpoint depends on it.
func TestRoomGivesUp(t *testing.T) {
	cfg := testConfig()
	cfg.Bytes = 2 * 4096
	p := startFor(t, freshDir(t), cfg)
	for range 50 {
		if _, err := p.store.wal.Append(99, make([]byte, 300), nil); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.store.Room(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("room says %v", err)
	}
	checkpoint(t, p, newSessions())
	if err := p.store.Room(t.Context()); err != nil {
		t.Error(err)
	}
	// What an earlier process left counts until it was taken over.
	for range 50 {
		if _, err := p.store.wal.Append(99, make([]byte, 300), nil); err != nil {
			t.Fatal(err)
		}
	}
	next := killed(t, p, cfg)
	if err := next.store.Room(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after a kill room says %v", err)
	}
	cfg.Bytes = 0
	if err := killed(t, p, cfg).store.Room(ctx); err != nil {
		t.Errorf("without a cap room says %v", err)
	}
}

type lockedLive struct {
	mu *sync.Mutex
	l  *sessions
}

func (l lockedLive) Collect(boundary func()) ([]Change, []uint64, func(), func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed, gone, commit, abort := l.l.Collect(boundary)
	locked := func(f func()) func() {
		return func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			f()
		}
	}
	return changed, gone, locked(commit), locked(abort)
}

func TestRunMakesCheckpointsWhenSomethingHappened(t *testing.T) {
	cfg := testConfig()
	cfg.Interval = 5 * time.Millisecond
	p := startFor(t, freshDir(t), cfg)
	l := newSessions()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	made := make(chan struct{}, 100)
	ended := make(chan struct{})
	bind(t, p, l, true)
	go func() {
		defer close(ended)
		p.store.Run(ctx, l, flusher(func(context.Context) error {
			made <- struct{}{}
			return nil
		}))
	}()
	<-made
	// The first was for the session. It rotated the journal, which is no reason for another.
	select {
	case <-made:
		t.Error("a checkpoint of nothing")
	case <-time.After(100 * time.Millisecond):
	}
	must(t, p.store.Count(2, 1, 1))
	<-made
	cancel()
	<-ended
}

// The journal may forget what the database has only when that is on the disk. A reader that holds an old snapshot keeps
// SQLite from moving its log, and must not keep it from syncing it.
func TestCheckpointBesideAReader(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	bind(t, p, l, true)
	tx, err := p.db.Read.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	var n int
	if err := tx.QueryRowContext(t.Context(), `SELECT count(*) FROM resume_sessions`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, p, l)
	if err := same(killed(t, p, testConfig()).found, l); err != nil {
		t.Error(err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	p := startFor(t, freshDir(t), testConfig())
	_, _, err := Open(t.Context(), testConfig(), p.db, discard, prometheus.NewRegistry())
	if err == nil {
		t.Error("two stores on one journal")
	}
}

func TestClosedStore(t *testing.T) {
	p, l := startFor(t, freshDir(t), testConfig()), newSessions()
	s := bind(t, p, l, true)
	must(t, p.store.Close())
	if err := p.store.Session(s.state); err == nil {
		t.Error("a record after the end")
	}
	if err := p.store.Checkpoint(t.Context(), l); err == nil {
		t.Error("a checkpoint after the end")
	}
	if err := p.store.Settle(t.Context()); err == nil {
		t.Error("safe after the end")
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"CHECKPOINT_INTERVAL": func(c *Config) { c.Interval = -1 },
		"ENDED_SESSIONS":      func(c *Config) { c.Ended = -1 },
		"JOURNAL_SEGMENT":     func(c *Config) { c.Segment = 1 },
		"JOURNAL_BYTES":       func(c *Config) { c.Bytes = 1 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
