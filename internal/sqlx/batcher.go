package sqlx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrClosed says that a Batcher takes nothing more.
var ErrClosed = errors.New("sqlx: batcher is closed")

const (
	backoffMin = 10 * time.Millisecond
	backoffMax = time.Second
)

// Transactor runs a function in one transaction; *DB and *Postgres are such.
type Transactor interface {
	Tx(ctx context.Context, fn func(tx *sql.Tx) error) error
}

// Batch says how a Batcher collects and what it tells. Only Apply is needed.
type Batch[T any] struct {
	// Queue is how many ops may wait while a transaction runs, after which Add blocks; 0 for no limit.
	Queue int
	// Max is how many ops go into one transaction; 0 for no limit.
	Max int
	// Window is how long the first op of a transaction waits for company; 0 for none.
	Window time.Duration

	// Apply writes ops in the order in which they were added. It runs again, in a new transaction and perhaps with
	// fewer ops, when the transaction failed. It must not keep ops.
	Apply func(ctx context.Context, tx *sql.Tx, ops []T) error
	// Committed is called after each commit, in order, before Flush hears of it. It must not keep ops, nor block.
	Committed func(ops []T)
	// Rejected is told of an op that failed by itself for a reason that waiting does not change, and was given up.
	Rejected func(op T, err error)

	Log     *slog.Logger
	Ops     prometheus.Observer // ops a transaction
	Seconds prometheus.Observer // seconds a transaction took, retries counted one by one
	Retries prometheus.Counter  // transactions that failed and were tried again
}

// Batcher is a group commit: everything added while one transaction runs goes into the next. It keeps the order in
// which ops were added. A transaction that fails for a transient reason is tried again until it succeeds, with the
// queue filling up behind it: back-pressure, not loss.
type Batcher[T any] struct {
	// static
	db     Transactor
	cfg    Batch[T]
	wake   chan struct{} // one token: there are ops
	hurry  chan struct{} // one token: somebody waits for them
	closed chan struct{} // closed by Close: take nothing more
	ended  chan struct{} // closed by run
	kill   context.CancelFunc

	mu         sync.Mutex
	queue      []T           // waiting, oldest first; guarded by mu
	room       chan struct{} // closed and made new when the queue got shorter; guarded by mu
	added      uint64        // ops ever added; guarded by mu
	settled    uint64        // ops ever committed or rejected; guarded by mu
	waiters    []*waiter     // Flush calls, in order of target; guarded by mu
	unreported error         // a rejection that no Flush has heard of; guarded by mu
	isClosed   bool          // guarded by mu
}

type waiter struct {
	target uint64
	err    error
	done   chan struct{}
}

// NewBatcher starts a Batcher, which the caller closes before db.
func NewBatcher[T any](db Transactor, cfg Batch[T]) *Batcher[T] {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, kill := context.WithCancel(context.Background())
	b := &Batcher[T]{
		db: db, cfg: cfg, kill: kill,
		wake:   make(chan struct{}, 1),
		hurry:  make(chan struct{}, 1),
		closed: make(chan struct{}),
		ended:  make(chan struct{}),
		room:   make(chan struct{}),
	}
	go b.run(ctx)
	return b
}

// Add queues op for the next transaction. It blocks while the queue is full, until ctx ends.
func (b *Batcher[T]) Add(ctx context.Context, op T) error {
	for {
		b.mu.Lock()
		if b.isClosed {
			b.mu.Unlock()
			return ErrClosed
		}
		if b.cfg.Queue == 0 || len(b.queue) < b.cfg.Queue {
			b.queue = append(b.queue, op)
			b.added++
			full := b.fullLocked()
			b.mu.Unlock()
			signal(b.wake)
			if full {
				signal(b.hurry)
			}
			return nil
		}
		room := b.room
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		case <-b.closed:
			return ErrClosed
		}
	}
}

// fullLocked says that the queue has no room for more, or a transaction's worth of ops.
func (b *Batcher[T]) fullLocked() bool {
	n := len(b.queue)
	return b.cfg.Queue != 0 && n >= b.cfg.Queue || b.cfg.Max != 0 && n >= b.cfg.Max
}

// Len is how many ops are not yet committed.
func (b *Batcher[T]) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int(b.added - b.settled)
}

// Flush waits until everything added before it is committed, without the window. It returns an error when ctx ended
// first, and when one of the ops was rejected (also one rejected earlier, of which no Flush has heard).
func (b *Batcher[T]) Flush(ctx context.Context) error {
	b.mu.Lock()
	if b.settled == b.added {
		err := b.unreported
		b.unreported = nil
		b.mu.Unlock()
		return err
	}
	w := &waiter{target: b.added, err: b.unreported, done: make(chan struct{})}
	b.unreported = nil
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()
	signal(b.hurry)
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
	case <-b.ended:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.done: // at the last moment
		return w.err
	default:
	}
	for i, other := range b.waiters {
		if other == w {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			break
		}
	}
	if w.err != nil && b.unreported == nil {
		b.unreported = w.err // it was taken and not told
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ErrClosed
}

// Close takes nothing more, commits what waits and ends the goroutine. When ctx ends before that, the rest is given
// up and the error says how much it was.
func (b *Batcher[T]) Close(ctx context.Context) error {
	b.mu.Lock()
	if !b.isClosed {
		b.isClosed = true
		close(b.closed)
	}
	b.mu.Unlock()
	select {
	case <-b.ended:
	case <-ctx.Done():
		b.kill()
		<-b.ended
	}
	if left := b.Len(); left > 0 {
		return fmt.Errorf("sqlx: batcher closed with %d operations not written: %w", left, context.Cause(ctx))
	}
	return nil
}

func (b *Batcher[T]) run(ctx context.Context) {
	defer close(b.ended)
	defer b.kill()
	var ops []T
	for {
		select {
		case <-b.wake:
		case <-b.closed:
		}
		b.collect()
		for ops = b.take(ops); len(ops) > 0; ops = b.take(ops) {
			if !b.write(ctx, ops) {
				return
			}
			b.collect()
		}
		select {
		case <-b.closed:
			// Add refuses since before closed was closed, so an empty queue stays empty.
			if b.Len() == 0 {
				return
			}
		default:
		}
	}
}

// collect gives the window to ops that are already waiting.
func (b *Batcher[T]) collect() {
	if b.cfg.Window == 0 {
		return
	}
	b.mu.Lock()
	select {
	case <-b.hurry: // of ops that were written without having to wait: what it said of others is seen here
	default:
	}
	now := len(b.queue) == 0 || len(b.waiters) > 0 || b.fullLocked()
	b.mu.Unlock()
	if now {
		return
	}
	t := time.NewTimer(b.cfg.Window)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.hurry:
	case <-b.closed:
	}
}

// take moves the next ops out of the queue into buf.
func (b *Batcher[T]) take(buf []T) []T {
	clear(buf) // lets go of what they point to
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.queue)
	if b.cfg.Max != 0 {
		n = min(n, b.cfg.Max)
	}
	if n == 0 {
		return buf[:0]
	}
	if n == len(b.queue) {
		b.queue, buf = buf[:0], b.queue
	} else {
		buf = append(buf[:0], b.queue[:n]...)
		rest := copy(b.queue, b.queue[n:])
		clear(b.queue[rest:])
		b.queue = b.queue[:rest]
	}
	close(b.room)
	b.room = make(chan struct{})
	return buf
}

// write commits ops, all together or, when one of them spoils the transaction, one by one. It reports false when it
// was told to give up.
func (b *Batcher[T]) write(ctx context.Context, ops []T) bool {
	err := b.commit(ctx, ops)
	if err == nil {
		b.settle(ops, nil)
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	if len(ops) == 1 {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "operation rejected by the database", slog.Any("error", err))
		if b.cfg.Rejected != nil {
			b.cfg.Rejected(ops[0], err)
		}
		b.settle(ops, fmt.Errorf("sqlx: operation rejected: %w", err))
		return true
	}
	for i := range ops {
		if !b.write(ctx, ops[i:i+1]) {
			return false
		}
	}
	return true
}

// commit tries until the transaction is committed or fails for good.
func (b *Batcher[T]) commit(ctx context.Context, ops []T) error {
	// SQLite's driver starts a goroutine for each statement whose context can end. There BEGIN is the only one that
	// can wait, so it alone gets ctx. Who writes to PostgreSQL bounds the statements of Apply (Postgres.Bound).
	calm := context.WithoutCancel(ctx)
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		start := time.Now()
		err := b.db.Tx(ctx, func(tx *sql.Tx) error { return b.cfg.Apply(calm, tx, ops) })
		if b.cfg.Seconds != nil {
			b.cfg.Seconds.Observe(time.Since(start).Seconds())
		}
		if err == nil {
			if b.cfg.Ops != nil {
				b.cfg.Ops.Observe(float64(len(ops)))
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !Transient(err) {
			return err
		}
		if b.cfg.Retries != nil {
			b.cfg.Retries.Inc()
		}
		b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "transaction failed and will be tried again",
			slog.Any("error", err), slog.Duration("in", wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *Batcher[T]) settle(ops []T, rejected error) {
	if rejected == nil && b.cfg.Committed != nil {
		b.cfg.Committed(ops)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled += uint64(len(ops))
	if rejected != nil {
		b.rejectLocked(rejected)
	}
	n := 0
	for n < len(b.waiters) && b.waiters[n].target <= b.settled {
		close(b.waiters[n].done)
		n++
	}
	b.waiters = append(b.waiters[:0], b.waiters[n:]...)
}

// rejectLocked tells the Flush calls that wait for the op which was just counted as settled.
func (b *Batcher[T]) rejectLocked(err error) {
	told := false
	for _, w := range b.waiters {
		if w.target >= b.settled {
			told = true
			if w.err == nil {
				w.err = err
			}
		}
	}
	if !told {
		b.unreported = err
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
