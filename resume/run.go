package resume

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Live is the sessions of this process, as a checkpoint needs them.
type Live interface {
	// Collect calls boundary, and then returns what changed since the last checkpoint, while nothing is being
	// handled: everything in the journal before the boundary is in what it returns or in an earlier checkpoint,
	// and everything behind it is not half done. Commit or abort is called with the outcome.
	Collect(boundary func()) (changed []Change, gone []uint64, commit, abort func())
}

// Flusher is another store whose effects are in the journal until it has committed them.
type Flusher interface {
	Checkpoint(ctx context.Context) error
}

// checkpointing is when checkpoints are made, whatever they are written to, and who waits for them.
type checkpointing struct {
	// static
	interval time.Duration
	log      *slog.Logger
	metrics  *metrics

	one   sync.Mutex    // one checkpoint at a time
	hurry chan struct{} // somebody waits for room

	mu     sync.Mutex
	failed time.Time     // since when checkpoints fail, zero while they do not
	room   chan struct{} // closed when a checkpoint made room
}

func newCheckpointing(interval time.Duration, log *slog.Logger, m *metrics) *checkpointing {
	return &checkpointing{interval: interval, log: log, metrics: m, hurry: make(chan struct{}, 1), room: make(chan struct{})}
}

// trigger says when the journal needs a checkpoint.
type trigger struct {
	records  func() int64    // how many were appended: the journal's end won't do, which a checkpoint moves
	pressure <-chan struct{} // asks for pressing
	pressing func() bool     // before its time; the later it comes, the more has been acknowledged and need not be written
}

// run makes checkpoints until ctx ends. One that fails is tried again; meanwhile the journal grows to its cap, and then
// stanzas wait.
func (c *checkpointing) run(ctx context.Context, when trigger, checkpoint func(context.Context) error) {
	var tick <-chan time.Time
	if c.interval > 0 {
		t := time.NewTicker(c.interval)
		defer t.Stop()
		tick = t.C
	}
	last := int64(-1) // the first checkpoint frees what the process before left
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			if when.records() == last {
				continue // nothing happened
			}
		case <-when.pressure:
			if !when.pressing() {
				continue
			}
		case <-c.hurry:
		}
		records := when.records()
		if !c.untilMade(ctx, checkpoint) {
			return
		}
		last = records
	}
}

func (c *checkpointing) untilMade(ctx context.Context, checkpoint func(context.Context) error) bool {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := checkpoint(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		c.log.Error("checkpoint failed, the journal keeps everything", "error", err)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

// waitRoom waits while the journal is full, and asks for a checkpoint.
func (c *checkpointing) waitRoom(ctx context.Context, full func() bool) error {
	if !full() {
		return nil
	}
	c.metrics.waits.Inc()
	for {
		c.mu.Lock()
		more := c.room
		c.mu.Unlock()
		if !full() {
			return nil
		}
		select {
		case c.hurry <- struct{}{}:
		default:
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// madeRoom wakes who waits for room.
func (c *checkpointing) madeRoom() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.room)
	c.room = make(chan struct{})
}

func (c *checkpointing) outcome(err error, took time.Duration) {
	c.metrics.seconds.Observe(took.Seconds())
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.failed = time.Time{}
	default:
		c.metrics.failures.Inc()
		if c.failed.IsZero() {
			c.failed = time.Now()
		}
	}
}

// Healthy says why acknowledgements may have to wait, or nil.
func (c *checkpointing) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.failed.IsZero() {
		return fmt.Errorf("checkpoints have been failing since %s", c.failed.Format(time.RFC3339))
	}
	return nil
}
