package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/internal/redisx"
	"holdfast/internal/testkit/redisproc"
)

// appending appends numbered records, each of which must be found once and in order, until stop, and settles now and then.
type appending struct {
	m       *member
	n       atomic.Uint32 // appended
	settled atomic.Uint32
	quit    chan struct{}
	done    sync.WaitGroup
	err     error
}

func startAppending(m *member) *appending {
	a := &appending{m: m, quit: make(chan struct{})}
	a.done.Go(func() {
		for {
			select {
			case <-a.quit:
				return
			default:
			}
			if a.err = m.Room(context.Background()); a.err != nil {
				return
			}
			n := a.n.Load() + 1
			if a.err = m.Stanza(numbered(1, n)); a.err != nil {
				return
			}
			a.n.Store(n)
			if n%50 == 0 {
				if a.err = m.Settle(context.Background()); a.err != nil {
					return
				}
				a.settled.Store(n)
			}
		}
	})
	return a
}

// reach waits until so many more have been settled.
func (a *appending) reach(t *testing.T, more uint32) {
	t.Helper()
	want := a.settled.Load() + more
	deadline := time.Now().Add(30 * time.Second)
	for a.settled.Load() < want {
		if time.Now().After(deadline) {
			t.Fatalf("%d settled, want %d", a.settled.Load(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// stop settles everything and compares it with what another node finds.
func (a *appending) stop(t *testing.T, r *place) {
	t.Helper()
	close(a.quit)
	a.done.Wait()
	must(t, a.err)
	a.m.settle(t)
	a.m.die()
	found, _ := r.nodeFor(t).adopt(t, a.m)
	a.check(t, found, a.n.Load())
}

// check looks for the records up to the last, each once and in order.
func (a *appending) check(t *testing.T, found *Recovered, last uint32) {
	t.Helper()
	if uint32(len(found.Effects)) != last {
		t.Errorf("%d records, want %d", len(found.Effects), last)
	}
	for i, e := range found.Effects {
		if e.Stanza.N != uint32(i)+1 {
			t.Fatalf("place %d has record %d", i, e.Stanza.N)
		}
	}
}

// Redis that is killed and comes back loses nothing that was settled, and has nothing twice or out of order.
func TestRedisKilled(t *testing.T) {
	server := redisproc.Standalone(t, redisproc.Durable...)
	r := newPlace(t, server.URL())
	m := r.nodeFor(t)
	a := startAppending(m)
	for range 3 {
		a.reach(t, 100)
		failed := testutil.ToFloat64(m.Redis.metrics.retries)
		server.Kill()
		for deadline := time.Now().Add(10 * time.Second); testutil.ToFloat64(m.Redis.metrics.retries) == failed; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing fails: the test shows nothing")
			}
		}
		server.Restart(t)
	}
	a.reach(t, 100)
	if !m.queue.doubt.Load() {
		t.Error("there is no doubt that Redis lost nothing")
	}
	a.stop(t, r)
}

// A reply that is lost does not make a batch come twice.
func TestRedisRepliesLost(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		var n atomic.Int32
		r.calls.afterAdd = func() error {
			if n.Add(1)%3 != 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		a := startAppending(r.nodeFor(t))
		a.reach(t, 200)
		a.stop(t, r)
	})
}

// A node that dies in the middle of appends leaves a beginning of them, with all that it called settled or sendable.
func TestRedisDeathUnderLoad(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m := r.nodeFor(t)
		a := startAppending(m)
		a.reach(t, 100)
		heir := r.nodeFor(t)
		settled, sendable := a.settled.Load(), m.Sendable()
		found, _ := heir.adopt(t, m)
		<-m.Fenced()
		a.done.Wait()
		if !errors.Is(a.err, ErrFenced) {
			t.Errorf("ended with %v", a.err)
		}
		last := uint32(len(found.Effects))
		if last < settled || uint64(last) < sendable || uint64(last) < m.Sendable() {
			t.Errorf("%d there, %d were settled, %d sendable, %d at the end", last, settled, sendable, m.Sendable())
		}
		a.check(t, found, last)
	})
}

// While Redis does not answer, local messages go on and acknowledgements wait.
func TestRedisPaused(t *testing.T) {
	server := redisproc.Standalone(t)
	r := newPlace(t, server.URL())
	r.cfg.Patience = 200 * time.Millisecond
	m, l := r.nodeFor(t), newSessions()
	told := make(chan struct{}, 1)
	var last atomic.Uint64
	m.OnSendable(func() { last.Store(m.Sendable()); signal(told) })
	// What was told before may be old.
	await := func(want uint64) {
		for m.Sendable() != want || last.Load() != want {
			<-told
		}
	}
	s := bind(t, m, l, true)
	m.settle(t)
	server.Pause(t)
	start := time.Now()
	deliver(t, m, nil, chat("one"), 0, s)
	await(everything)
	if took := time.Since(start); took < r.cfg.Patience {
		t.Errorf("everything is sendable after %v", took)
	}
	if m.Healthy() == nil || testutil.ToFloat64(m.Redis.metrics.degraded) != 1 {
		t.Error("healthy")
	}
	deliver(t, m, nil, chat("two"), 0, s)
	if m.Sendable() != everything {
		t.Error("what comes later waits")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second-time.Since(start))
	defer cancel()
	if err := m.Settle(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("settled without Redis: %v", err)
	}
	server.Resume(t)
	m.settle(t)
	await(m.Appended())
	if m.Healthy() != nil || testutil.ToFloat64(m.Redis.metrics.degraded) != 0 {
		t.Errorf("sendable %d of %d, health %v", m.Sendable(), m.Appended(), m.Healthy())
	}
	found, _ := r.nodeFor(t).adopt(t, m)
	if err := same(found, l); err != nil {
		t.Error(err)
	}
}

// A node that let local messages go on without Redis, and was fenced meanwhile, says so no more.
func TestRedisFencedWhileDegraded(t *testing.T) {
	r := newSharedPlace(t)
	r.cfg.Patience = 20 * time.Millisecond
	m, l := r.nodeFor(t), newSessions()
	degraded := make(chan struct{})
	m.OnSendable(sync.OnceFunc(func() { close(degraded) }))
	fail := make(chan struct{})
	r.calls.beforeAdd = func() error {
		select {
		case <-fail:
			return nil
		default:
			return io.EOF
		}
	}
	bind(t, m, l, true)
	<-degraded
	if m.Sendable() != everything {
		t.Error("not degraded")
	}
	_, err := r.nodeFor(t).Fence(t.Context(), m.id, "other", "")
	must(t, err)
	close(fail)
	<-m.Fenced()
	if m.Sendable() != 0 {
		t.Errorf("sendable %d", m.Sendable())
	}
}

// Back-pressure: with Redis away, what waits for it does not grow without end.
func TestRedisRoomWhileAway(t *testing.T) {
	r := newSharedPlace(t)
	r.cfg.PendingBytes = 2 * batchBytes
	away := make(chan struct{})
	r.calls.beforeAdd = func() error {
		select {
		case <-away:
			return nil
		default:
			return io.EOF
		}
	}
	m := r.nodeFor(t)
	body := make([]byte, 10_000)
	var err error
	for range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err = m.Room(ctx)
		cancel()
		if err != nil {
			break
		}
		must(t, m.Append(99, nil, body))
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("room says %v", err)
	}
	if n := m.queue.pending.Load(); n > r.cfg.PendingBytes+20_000 {
		t.Errorf("%d bytes wait", n)
	}
	close(away)
	must(t, m.Room(t.Context()))
}

// Back-pressure: with the journal at its cap, Room waits for a checkpoint and asks for one.
func TestRedisFullJournal(t *testing.T) {
	r := newSharedPlace(t)
	r.cfg.JournalBytes, r.cfg.Interval = 2*batchBytes, 0
	m, l := r.nodeFor(t), newSessions()
	bind(t, m, l, true)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	waited := func() bool { return testutil.ToFloat64(m.Redis.metrics.waits) > 0 }
	var tries, made atomic.Int32
	var mu sync.Mutex
	done.Go(func() {
		m.Run(ctx, lockedLive{&mu, l}, flusher(func(context.Context) error {
			if tries.Add(1) <= 3 || !waited() {
				return errors.New("not yet")
			}
			made.Add(1)
			return nil
		}))
	})
	defer done.Wait()
	defer cancel()
	body := []byte(strings.Repeat("x", 30_000))
	var most int64
	for range 500 {
		must(t, m.Room(t.Context()))
		must(t, m.Append(99, body, nil))
		most = max(most, m.queue.used())
	}
	if !waited() || made.Load() == 0 {
		t.Error("nothing ever waited: the test shows nothing")
	}
	if most > r.cfg.JournalBytes+60_000 {
		t.Errorf("the journal grew to %d bytes", most)
	}
	_, err := r.nodeFor(t).Fence(t.Context(), m.id, "other", "")
	must(t, err)
	_ = m.Append(99, body, nil) // hears of it, if no checkpoint did
	<-m.Fenced()
	if err := m.Room(t.Context()); !errors.Is(err, ErrFenced) {
		t.Errorf("room says %v", err)
	}
}

// The journal's slot moves to another server while records come.
func TestRedisSlotMoves(t *testing.T) {
	for _, replicas := range []int{0, 1} {
		t.Run(fmt.Sprint("replicas=", replicas), func(t *testing.T) {
			c := redisproc.NewCluster(t)
			r := newPlace(t, c.URL())
			r.cfg.WaitTimeout = 50 * time.Millisecond
			m := r.nodeFor(t)
			if replicas > 0 {
				// There are none, so the wait is for nobody, but on the connection that it is for.
				m.die()
				m = r.waitingForNobody(t)
			}
			a := startAppending(m)
			slot, at := c.Slot(t, r.keys.Node(m.id, "journal"))
			for i := range 4 {
				a.reach(t, 100)
				c.MigrateSlot(t, slot, (at+i+1)%3)
				if i == 1 {
					continue
				}
				a.reach(t, 100)
			}
			a.reach(t, 100)
			close(a.quit)
			a.done.Wait()
			must(t, a.err)
			m.settle(t)
			other := r.nodeFor(t)
			other.adopt(t, m)
			found, _, err := other.Load(t.Context(), m.id)
			must(t, err)
			a.check(t, found, a.n.Load())
		})
	}
}

// waitingForNobody is a node with the writer that waits for replicas, of which none is needed.
func (p *place) waitingForNobody(t testing.TB) *member {
	t.Helper()
	m := p.node(t)
	m.die()
	w := &replicatedWriter{streamWriter: *m.newWriter().(*streamWriter), timeout: p.cfg.WaitTimeout}
	m.queue = newGroupCommit(p.cfg, w, discard, m.Redis.metrics)
	t.Cleanup(m.die)
	return m
}

// A primary that dies takes nothing with it that was settled, when its replica had to have it.
func TestRedisFailover(t *testing.T) {
	pair := redisproc.NewPair(t, redisproc.Durable...)
	rx := redisx.DefaultConfig()
	rx.URL, rx.Prefix, rx.WaitReplicas, rx.WaitTimeout = redisx.URL(pair.URL()), redisproc.Prefix(), 1, 100*time.Millisecond
	r := openPlace(t, rx)
	m := r.nodeFor(t)
	a := startAppending(m)
	a.reach(t, 200)
	pair.Failover(t)
	settled := a.settled.Load()
	pair.Rejoin(t)
	a.reach(t, 200)
	if a.settled.Load() < settled+200 {
		t.Error("it does not go on")
	}
	a.stop(t, r)
}

// Redis that fell back to an earlier state gets everything anew with the next checkpoint.
func TestRedisFallsBack(t *testing.T) {
	server := redisproc.Standalone(t)
	r := newPlace(t, server.URL())
	m := r.nodeFor(t)
	l := &wholeSessions{sessions: newSessions()}
	early, ended := bind(t, m, l.sessions, true), bind(t, m, l.sessions, true)
	deliver(t, m, nil, chat("one"), 0, early)
	must(t, m.Checkpoint(t.Context(), l))
	deliver(t, m, nil, chat("two"), 0, early)
	m.settle(t)
	must(t, server.Admin().Save(t.Context()).Err())
	// All this is lost.
	deliver(t, m, nil, chat("three"), 0, early)
	must(t, m.Checkpoint(t.Context(), l))
	finish(t, m, l.sessions, ended)
	deliver(t, m, nil, chat("four"), 0, bind(t, m, l.sessions, true))
	ack(t, m, early, 1)
	must(t, m.Checkpoint(t.Context(), l))
	deliver(t, m, nil, chat("five"), 0, early)
	m.settle(t)
	if l.touched != 0 {
		t.Error("everything was written anew without a reason")
	}
	server.Kill()
	server.Restart(t)
	time.Sleep(countEvery)
	deliver(t, m, nil, chat("six"), 0, early)
	m.settle(t)

	// Adopted now, there is a hole, and so nobody can resume.
	heir := r.nodeFor(t)
	found, _, err := (&copied{heir, server, r}).load(t, m)
	must(t, err)
	for _, s := range found.Sessions {
		if s.State.Token != "" {
			t.Error("a session with a hole can be resumed")
		}
	}

	must(t, m.Checkpoint(t.Context(), l))
	if l.touched != 1 {
		t.Errorf("everything was written anew %d times", l.touched)
	}
	deliver(t, m, nil, chat("seven"), 0, early)
	m.settle(t)
	must(t, m.Checkpoint(t.Context(), l))
	if l.touched != 1 {
		t.Errorf("everything was written anew %d times", l.touched)
	}
	deliver(t, m, nil, chat("eight"), 0, early)
	m.settle(t)
	found, _ = heir.adopt(t, m)
	if err := same(found, l.sessions); err != nil {
		t.Error(err)
	}
}

// copied reads what a node has as if it were dead, without hurting it.
type copied struct {
	*member
	server *redisproc.Server
	place  *place
}

func (c *copied) load(t *testing.T, m *member) (*Recovered, map[string]string, error) {
	t.Helper()
	const name = "copy"
	for from, to := range map[string]string{"journal": "journal:dead", "sessions": "sessions", "queues": "queues", "checkpoint": "checkpoint"} {
		err := c.server.Admin().Copy(t.Context(), c.place.keys.Node(m.id, from), c.place.keys.Node(name, to), 0, true).Err()
		must(t, err)
	}
	return c.Load(t.Context(), name)
}

// Redis that lost everything has no journal any more: the node can't go on under its name.
func TestRedisForgets(t *testing.T) {
	server := redisproc.Standalone(t)
	r := newPlace(t, server.URL())
	m, l := r.nodeFor(t), newSessions()
	bind(t, m, l, true)
	m.settle(t)
	server.Kill()
	server.Restart(t)
	_ = m.Session(newState()) // the first write hears of it
	<-m.Fenced()
}
