package resume

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/journal"
)

// away is a Redis that may be away.
type away struct {
	mu  sync.Mutex
	err error
}

func (a *away) set(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *away) write(context.Context, *batch) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return false, a.err
}

func (a *away) close() {}

// witness answers what it is told to, or not at all.
type witness struct {
	mu     sync.Mutex
	err    error
	silent bool
	asked  int
}

func (w *witness) set(err error, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.silent = err, silent
}

func (w *witness) ask(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.silent {
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return ctx.Err()
	}
	return w.err
}

// Without Redis a node delivers only what a witness has vouched for lately.
func TestWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultRedisConfig()
		to, w := new(away), new(witness)
		q := newGroupCommit(cfg, to, discard, newRedisMetrics(prometheus.NewRegistry()))
		q.witness = w.ask
		put := func() { must(t, q.append(journal.KindStanza, true, make([]byte, 10), nil)) }
		after := func(d time.Duration) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
		}
		goesOn := func(yes bool) {
			t.Helper()
			want := uint64(everything)
			if !yes {
				want = 1
			}
			if got := q.sendableNow(); got != want {
				t.Errorf("sendable is %d, want %d", got, want)
			}
		}
		put()
		must(t, q.await(t.Context(), 1))
		to.set(io.EOF)
		w.set(errors.New("nobody knows"), false)
		put()
		after(cfg.Patience + time.Millisecond)
		goesOn(false)
		w.set(nil, false)
		after(vouchEvery)
		goesOn(true)
		after(10 * VouchTime)
		goesOn(true)
		w.set(nil, true)
		after(VouchTime - vouchEvery)
		goesOn(true) // the last answer still counts
		after(VouchTime)
		goesOn(false)
		w.set(nil, false)
		after(VouchTime + vouchEvery)
		goesOn(true)

		// Redis comes back, and goes again.
		to.set(nil)
		must(t, q.await(t.Context(), 2))
		if s := q.sendableNow(); s != 2 || q.healthy() != nil {
			t.Errorf("sendable is %d, %v", s, q.healthy())
		}
		after(VouchTime)
		asked := w.asked
		after(time.Minute)
		if w.asked != asked {
			t.Error("the witness is asked though Redis answers")
		}
		to.set(io.EOF)
		put()
		after(cfg.Patience + vouchEvery)
		if q.sendableNow() != everything {
			t.Error("it does not go on the second time")
		}
		w.set(ErrFenced, false)
		after(vouchEvery)
		if s := q.sendableNow(); s != 2 {
			t.Errorf("fenced, sendable is %d", s)
		}
		select {
		case <-q.fenced:
		default:
			t.Error("not fenced")
		}
		if err := q.close(t.Context()); !errors.Is(err, ErrFenced) {
			t.Error(err)
		}
	})
}

// A process that wakes up after the time for which the witness was believed delivers nothing, before any of its
// goroutines runs.
func TestWitnessOfAPausedProcess(t *testing.T) {
	q := &groupCommit{begun: time.Now().Add(-time.Hour)}
	q.sendable.Store(everything)
	q.flushed.Store(7)
	for until, want := range map[time.Duration]uint64{time.Hour - time.Millisecond: 7, 2 * time.Hour: everything, forEver: everything} {
		q.vouched.Store(int64(until))
		if got := q.sendableNow(); got != want {
			t.Errorf("believed until %v, sendable is %d, want %d", until, got, want)
		}
	}
}
