package sqlx

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// errSilent is what everybody is told while the database does not answer.
var errSilent = fmt.Errorf("sqlx: the database does not answer: %w", context.DeadlineExceeded)

const (
	probeEvery = 250 * time.Millisecond
	probeTime  = 2 * time.Second
)

// silence notes that a database takes connections and answers nothing. Who asks it may hold what others need, and
// would hold it for the whole time limit; so when one has waited in vain the others hear of it at once, until the
// database answers a ping.
type silence struct {
	fallen atomic.Bool

	ctx   context.Context // ends with close
	end   context.CancelFunc
	loops sync.WaitGroup
}

func (s *silence) init() { s.ctx, s.end = context.WithCancel(context.Background()) }

func (s *silence) close() {
	s.end()
	s.loops.Wait()
}

// check returns errSilent while the database is silent.
func (s *silence) check() error {
	if s.fallen.Load() {
		return errSilent
	}
	return nil
}

// heard looks at the outcome of a query that was bounded by bound, for a caller with ctx.
func (s *silence) heard(ctx, bound context.Context, err error, ping func(context.Context) error) {
	if !errors.Is(bound.Err(), context.DeadlineExceeded) || ctx.Err() != nil || err == nil {
		return
	}
	if s.ctx.Err() != nil || s.fallen.Load() {
		return
	}
	// One statement may be slow by itself.
	brief, cancel := context.WithTimeout(s.ctx, probeEvery)
	answered := ping(brief) == nil
	cancel()
	if answered || !s.fallen.CompareAndSwap(false, true) {
		return
	}
	s.loops.Go(func() {
		for {
			t := time.NewTimer(probeEvery)
			select {
			case <-s.ctx.Done():
				t.Stop()
				return
			case <-t.C:
			}
			ctx, cancel := context.WithTimeout(s.ctx, probeTime)
			err := ping(ctx)
			cancel()
			if err == nil {
				s.fallen.Store(false)
				return
			}
		}
	})
}
