package resume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/journal"
)

var (
	// ErrFenced says that another node has taken over what this one had: it may write nothing any more.
	ErrFenced = journal.ErrFenced
	// ErrClosed says that the journal was closed.
	ErrClosed = errors.New("resume: journal is closed")
)

// everything is what Sendable says while nothing waits for Redis.
const everything = math.MaxUint64

// writer puts one batch behind the others, once: when it is there already that is no error. doubtful says that Redis
// may have lost something that it had. errGone is for good; after any other error the batch may be there or not.
type writer interface {
	write(ctx context.Context, b *batch) (doubtful bool, err error)
	close()
}

// errGone says that the journal's stream is not there: somebody has renamed it.
var errGone = errors.New("resume: journal is gone")

// groupCommit is the queue of what goes to Redis, and the goroutine that writes it. Everything appended while a batch is
// under way goes with the next ones.
type groupCommit struct {
	// static
	cfg     RedisConfig
	to      writer
	log     *slog.Logger
	metrics *redisMetrics
	ctx     context.Context // of the goroutine; ends when the process gives up
	cancel  context.CancelFunc
	done    chan struct{} // closed when the goroutine has ended
	begun   time.Time
	witness func(context.Context) error // see Redis.Witness; set before the first append
	fenced  chan struct{}               // closed with ErrFenced
	wake    chan struct{}               // the queue is to be looked at
	press   chan struct{}               // the journal is large enough for a checkpoint

	// Read without mu, written under it.
	appended atomic.Uint64 // position of the newest record
	flushed  atomic.Uint64 // position up to which Redis has everything
	sendable atomic.Uint64 // see sendableNow
	vouched  atomic.Int64  // while sendable is everything: how long it is, in time since begun; or for ever
	pending  atomic.Int64  // bytes not in Redis
	end      atomic.Int64  // bytes ever appended
	freed    atomic.Int64  // of which checkpoints have taken
	doubt    atomic.Bool   // Redis may have lost something since the last whole checkpoint; written without mu

	vouchers sync.WaitGroup // vouch; begins with mu while err is nil

	notify     sync.Mutex // while onSendable runs; mu may be taken under it
	onSendable func()     // guarded by notify

	mu       sync.Mutex
	queue    []*batch // oldest first; the last is being filled
	sealed   bool     // the last of queue takes nothing more
	spare    []*batch
	next     uint64        // number of the next batch
	urgent   bool          // somebody waits for what is queued
	due      bool          // what is queued has waited for the window
	idle     bool          // the goroutine waits for wake or the window
	held     bool          // the goroutine waits until the pace lets it write, or there is much to write
	pace     pace          // of writes
	window   *time.Timer   // of the first lazy record in queue, or of the pace
	since    time.Time     // when the batch under way was first tried, zero when none is
	patience *time.Timer   // of the batch under way
	degraded bool          // Redis did not answer for too long
	vouching bool          // vouch is at it
	until    uint64        // when degraded: position up to which there is a backlog, once Redis answers again
	progress chan struct{} // closed when flushed grows or err is set; nil while nobody waits
	err      error         // ErrFenced, ErrClosed
	pressed  bool          // press was sent since the last checkpoint
}

func newGroupCommit(cfg RedisConfig, to writer, log *slog.Logger, m *redisMetrics) *groupCommit {
	ctx, cancel := context.WithCancel(context.Background())
	q := &groupCommit{
		cfg: cfg, to: to, log: log, metrics: m, ctx: ctx, cancel: cancel,
		done: make(chan struct{}), fenced: make(chan struct{}), wake: make(chan struct{}, 1), press: make(chan struct{}, 1),
		next: 1, begun: time.Now(), pace: newPace(cfg.WriteRate), window: newStoppedTimer(), onSendable: func() {},
	}
	q.patience = time.AfterFunc(time.Hour, q.degrade)
	q.patience.Stop()
	go q.run()
	return q
}

func newStoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// append queues a record. One that is not urgent may wait for company.
func (q *groupCommit) append(kind journal.Kind, urgent bool, head, tail []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	first := len(q.queue) == 0
	b := q.batchLocked(len(head) + len(tail))
	before := len(b.bytes)
	b.append(kind, head, tail)
	grown := int64(len(b.bytes) - before)
	b.last = q.appended.Add(1)
	q.pending.Add(grown)
	if used := q.end.Add(grown) - q.freed.Load(); !q.pressed && q.cfg.JournalBytes > 0 && used > q.cfg.JournalBytes/4 {
		q.pressed = true
		signal(q.press)
	}
	switch {
	case urgent || q.cfg.Window == 0 || len(q.queue) > 1:
		q.hurryLocked()
	case first && q.idle:
		q.window.Reset(q.cfg.Window)
	}
	if q.held && len(b.bytes) >= company {
		q.held = false
		signal(q.wake)
	}
	return nil
}

// batchLocked returns the batch that takes the next record.
func (q *groupCommit) batchLocked(size int) *batch {
	if n := len(q.queue); n > 0 && !q.sealed {
		if b := q.queue[n-1]; len(b.bytes)+size <= batchBytes {
			return b
		}
	}
	b := new(batch)
	if n := len(q.spare); n > 0 {
		b, q.spare = q.spare[n-1], q.spare[:n-1]
	}
	b.n, b.bytes, q.sealed = q.next, b.bytes[:0], false
	q.next++
	q.queue = append(q.queue, b)
	return b
}

// hurryLocked has what is queued written at once.
func (q *groupCommit) hurryLocked() {
	q.urgent = true
	if q.idle {
		q.idle = false
		signal(q.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes batches until the journal is fenced, or closed and empty.
func (q *groupCommit) run() {
	defer close(q.done)
	defer q.over()
	defer q.to.close()
	for {
		b := q.take()
		if b == nil || !q.flush(b) {
			return
		}
	}
}

// over tells who still waits that nothing will be written any more.
func (q *groupCommit) over() {
	q.cancel()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = ErrClosed
	}
	q.progressLocked()
}

// company is how many bytes have waited long enough for others.
const company = 4 << 10

// take waits for a batch that is to be written; nil ends it.
func (q *groupCommit) take() *batch {
	for {
		q.mu.Lock()
		n, hold := len(q.queue), time.Duration(0)
		if n > 0 && (q.urgent || q.due || n > 1 || q.err != nil) {
			now := time.Now()
			if n == 1 && q.err == nil && len(q.queue[0].bytes) < company {
				hold = q.pace.wait(now)
			}
			if hold <= 0 {
				b := q.takeLocked(now)
				q.mu.Unlock()
				return b
			}
		}
		over := q.err != nil
		q.held, q.idle = hold > 0, hold <= 0 && !over
		switch {
		case q.held:
			q.window.Reset(hold)
		case n > 0:
			q.window.Reset(q.cfg.Window)
		}
		q.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-q.wake:
		case <-q.window.C:
			q.mu.Lock()
			q.due = true
			q.mu.Unlock()
		case <-q.ctx.Done():
			return nil
		}
	}
}

// takeLocked takes the oldest batch, which is being written from now on.
func (q *groupCommit) takeLocked(now time.Time) *batch {
	b := q.queue[0]
	q.queue = append(q.queue[:0], q.queue[1:]...)
	if len(q.queue) == 0 {
		q.urgent, q.due = false, false
	}
	q.pace.took(now)
	q.idle, q.held, q.since = false, false, now
	if q.cfg.Patience > 0 && !q.degraded {
		q.patience.Reset(q.cfg.Patience)
	}
	return b
}

const (
	leastWait = 10 * time.Millisecond
	mostWait  = time.Second
)

// flush writes a batch, however often it has to be tried. It reports whether others may follow.
func (q *groupCommit) flush(b *batch) bool {
	for wait := leastWait; ; wait = min(2*wait, mostWait) {
		start := time.Now()
		doubtful, err := q.to.write(q.ctx, b)
		if doubtful || err != nil {
			q.doubt.Store(true)
		}
		switch {
		case err == nil:
			q.metrics.flush.Observe(time.Since(start).Seconds())
			q.written(b)
			return true
		case errors.Is(err, errGone):
			q.fence()
			return false
		case q.ctx.Err() != nil:
			return false
		case wait == leastWait:
			q.log.Warn("journal not written, trying on", "error", err)
		}
		q.metrics.retries.Inc()
		t := time.NewTimer(wait)
		select {
		case <-q.ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
	}
}

// written notes that Redis has b.
func (q *groupCommit) written(b *batch) {
	q.mu.Lock()
	q.patience.Stop()
	q.since = time.Time{}
	q.metrics.bytes.Add(float64(len(b.bytes)))
	q.metrics.records.Add(float64(b.last - q.flushed.Load()))
	q.flushed.Store(b.last)
	q.pending.Add(-int64(len(b.bytes)))
	if q.degraded {
		if q.until == 0 {
			q.until = q.appended.Load()
		}
		if b.last >= q.until {
			q.degraded = false
			q.metrics.degraded.Set(0)
			q.log.Info("redis answers again, the journal is written")
		}
	}
	if !q.degraded {
		q.sendable.Store(b.last)
	}
	if len(q.spare) < 4 && cap(b.bytes) <= 2*batchBytes {
		q.spare = append(q.spare, b)
	}
	q.progressLocked()
	q.mu.Unlock()
	q.tell()
}

// tell calls onSendable.
func (q *groupCommit) tell() {
	q.notify.Lock()
	defer q.notify.Unlock()
	q.onSendable()
}

func (q *groupCommit) progressLocked() {
	if q.progress != nil {
		close(q.progress)
		q.progress = nil
	}
}

// waitLocked releases mu until there is progress.
func (q *groupCommit) waitLocked(ctx context.Context) error {
	if q.progress == nil {
		q.progress = make(chan struct{})
	}
	more := q.progress
	q.mu.Unlock()
	defer q.mu.Lock()
	select {
	case <-more:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await returns when Redis has everything up to a position.
func (q *groupCommit) await(ctx context.Context, position uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.flushed.Load() < position {
		if q.err != nil && q.ctx.Err() != nil {
			return q.err
		}
		q.hurryLocked()
		if err := q.waitLocked(ctx); err != nil {
			return err
		}
	}
	return q.err
}

// mark is a place between two batches.
type mark struct {
	batch    uint64 // the first one behind it
	position uint64 // of the last record before it
	bytes    int64  // appended before it
}

// cut ends the batch that is being filled.
func (q *groupCommit) cut() (mark, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sealed = true
	return mark{q.next, q.appended.Load(), q.end.Load()}, q.err
}

// free says that checkpoints have everything before m.
func (q *groupCommit) free(m mark) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.freed.Store(m.bytes)
	q.pressed = false
}

// used is the size of the journal since the last checkpoint.
func (q *groupCommit) used() int64 { return q.end.Load() - q.freed.Load() }

// room waits while too much waits for Redis.
func (q *groupCommit) room(ctx context.Context) error {
	if limit := q.cfg.PendingBytes; limit > 0 && q.pending.Load() >= limit {
		q.mu.Lock()
		defer q.mu.Unlock()
		for q.err == nil && q.pending.Load() >= limit {
			q.hurryLocked()
			if err := q.waitLocked(ctx); err != nil {
				return err
			}
		}
		return q.err
	}
	return nil
}

// close refuses what comes from now on, and returns when Redis has everything that came before.
func (q *groupCommit) close(ctx context.Context) error {
	q.mu.Lock()
	if q.err == nil {
		q.err = ErrClosed
	}
	q.hurryLocked()
	q.mu.Unlock()
	err := q.await(ctx, q.appended.Load())
	if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrFenced) {
		err = fmt.Errorf("resume: %d bytes of the journal were not written: %w", q.pending.Load(), err)
	}
	q.cancel()
	<-q.done
	q.vouchers.Wait()
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
