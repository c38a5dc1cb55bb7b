package wal

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Log is an open journal.
type Log struct {
	// static
	dir  string
	cfg  Config
	size int64 // of the segments this process makes
	boot [16]byte
	disk disk
	log  *slog.Logger
	reg  prometheus.Registerer
	lock *os.File
	info Info
	met  *metrics

	kick     chan struct{} // to keep: there may be work
	wake     chan struct{} // to syncs: there is a flight
	pressure chan struct{}
	quit     chan struct{}
	workers  sync.WaitGroup

	freeing sync.Mutex   // one Free or Close at a time
	synced  atomic.Int64 // written by whoever flushes, one at a time

	// guarded by mu
	mu        sync.Mutex
	data      []byte     // cur.data
	off       int        // where the next record goes in it
	limit     int        // where records must end; 0 once closed
	epoch     uint64     // cur.epoch
	base      int64      // cur.base
	records   uint64     // appended by this process
	cur       *segment   // the last of live
	live      []*segment // oldest first
	next      *segment   // prepared to become current
	spares    []*segment // freed, to be used again
	retired   []*segment // freed, keep decides what becomes of them
	total     int64      // bytes of all files
	preparing bool       // keep is making next
	failures  uint64     // of preparing
	failure   error      // the last one
	waiting   int        // Appends that wait for room
	blocked   uint64     // Appends that ever waited because of Config.Bytes
	rotations uint64
	flight    *flight // what the next flush will cover
	closed    bool
	turn      sync.Cond // next, failures, closed or the room for segments changed
}

// Option adjusts what Open makes.
type Option func(*Log)

// WithLogger sets the logger. Without it nothing is logged.
func WithLogger(log *slog.Logger) Option { return func(l *Log) { l.log = log } }

// WithMetrics registers the journal's metrics, until Close.
func WithMetrics(reg prometheus.Registerer) Option { return func(l *Log) { l.reg = reg } }

func withDisk(d disk) Option { return func(l *Log) { l.disk = d } }

// Open opens the journal in dir, which is made if it is missing, gives the records of earlier processes to replay in
// the order in which they were appended, and begins a new segment. The payload belongs to replay only during the call.
//
// Damage does not stop the replay, see Info.Damage. An error of replay does, and Open returns it wrapped. Nothing is
// removed before Free, so a later Open replays the same again, and replay must be idempotent: what it was given stays
// in the journal until the caller has put it elsewhere and called Free(Info.Boundary).
//
// The new segment is begun even when Config.Bytes is used up already.
func Open(dir string, cfg Config, replay func(kind uint8, payload []byte) error, opts ...Option) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	l := &Log{
		dir:      dir,
		cfg:      cfg,
		size:     cfg.segment(),
		boot:     bootID(),
		disk:     disk{preallocate: preallocate, flush: flushRange, sync: (*os.File).Sync},
		log:      slog.New(slog.DiscardHandler),
		kick:     make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
		pressure: make(chan struct{}, 1),
		quit:     make(chan struct{}),
	}
	l.turn.L = &l.mu
	for _, opt := range opts {
		opt(l)
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("wal: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("wal: lock %s: %w", dir, err)
	}
	l.lock = lock
	if err := l.start(replay); err != nil {
		return nil, errors.Join(fmt.Errorf("wal: open: %w", err), l.release())
	}
	return l, nil
}

func (l *Log) start(replay func(kind uint8, payload []byte) error) error {
	found, err := l.replay(replay)
	if err != nil {
		return err
	}
	if l.info.Damage != nil {
		l.log.Warn("journal has gaps", "gaps", l.info.Damage.Gaps, "bytes", l.info.Damage.Bytes,
			"first", l.info.Damage.First, "same_boot", l.info.SameBoot)
	}
	l.total = found.bytes
	l.spares = found.spares
	spare := l.takeSpareLocked()
	if spare == nil {
		l.total += l.size
	}
	first, err := l.prepare(found.nextBase, spare)
	if err != nil {
		return err
	}
	l.live = found.live
	l.next = first
	l.activateLocked(found.prevBase, found.prevEnd)
	l.info.Boundary = l.base
	for _, s := range found.empty {
		if err := os.Remove(s.path); err != nil {
			return err
		}
		l.total -= s.size
	}
	if l.met, err = newMetrics(l, l.reg); err != nil {
		return err
	}
	l.workers.Go(l.keep)
	l.workers.Go(l.syncs)
	l.kickKeep()
	return nil
}

// Append adds a record with the payload head+body (either may be empty) and returns the log position behind it: the
// record survives the death of the process when Append returns, and of the machine once Synced has reached the
// position. Kind 0 is reserved.
//
// Append waits when a new segment is needed and Config.Bytes is used up, until Free or Close. When a segment cannot be
// made (the disk is full), it returns the reason, nothing is appended, and the next Append tries again.
func (l *Log) Append(kind uint8, head, body []byte) (int64, error) {
	if kind == kindClean {
		return 0, ErrKind
	}
	n := len(head) + len(body)
	size := recordSize(n)
	l.mu.Lock()
	if l.off+size > l.limit {
		if err := l.makeRoomLocked(n); err != nil {
			l.mu.Unlock()
			return 0, err
		}
	}
	putRecord(l.data, l.off, l.epoch, kind, head, body)
	l.off += size
	l.records++
	end := l.base + int64(l.off)
	l.mu.Unlock()
	return end, nil
}

// MaxRecord is the largest payload that Append takes.
func (l *Log) MaxRecord() int {
	return int(l.size) - segmentHeader - 2*recordHeader
}

// Info says what Open found.
func (l *Log) Info() Info { return l.info }

// End is the log position behind the last record.
func (l *Log) End() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base + int64(l.off)
}

// Synced is the position up to which the log is on stable storage.
func (l *Log) Synced() int64 { return l.synced.Load() }

// Pressure gets a value, at most one at a time, when a new segment began and when an Append has to wait for Free: the
// moment for a checkpoint.
func (l *Log) Pressure() <-chan struct{} { return l.pressure }

// Stats is a snapshot of the journal.
type Stats struct {
	Segments  int    // that are live, the current one included
	Spares    int    // prepared or kept for use
	Bytes     int64  // disk space of all files
	Records   uint64 // appended since Open
	Rotations uint64
	Failures  uint64 // segments that could not be made
	Waiting   int    // Appends that wait for room now
	Blocked   uint64 // Appends that ever waited because Config.Bytes was used up
	End       int64
	Synced    int64
}

// Stats returns the present figures.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{
		Segments:  len(l.live),
		Spares:    len(l.spares),
		Bytes:     l.total,
		Records:   l.records,
		Rotations: l.rotations,
		Failures:  l.failures,
		Waiting:   l.waiting,
		Blocked:   l.blocked,
		End:       l.base + int64(l.off),
		Synced:    l.synced.Load(),
	}
	if l.next != nil {
		s.Spares++
	}
	return s
}

// Close makes everything durable, leaves the marker of a clean shutdown and lets go of the directory. Appends that
// wait return ErrClosed. If the log cannot be made durable there is no marker, and the error says why.
func (l *Log) Close() error {
	l.freeing.Lock()
	defer l.freeing.Unlock()
	if !l.stop() {
		return ErrClosed
	}
	err := l.flush()
	if err == nil {
		l.mu.Lock()
		putRecord(l.data, l.off, l.epoch, kindClean, nil, nil)
		l.off += recordHeader
		l.mu.Unlock()
		err = l.flush()
	}
	if err = errors.Join(err, l.release()); err != nil {
		return fmt.Errorf("wal: close: %w", err)
	}
	return nil
}

// stop refuses all further work and waits for the goroutines. It reports false if that was done before.
func (l *Log) stop() bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.closed = true
	l.limit = 0
	l.turn.Broadcast()
	l.mu.Unlock()
	close(l.quit)
	l.workers.Wait()
	return true
}

// release gives back every mapping and descriptor; the lock last. No goroutine of the log runs any more.
func (l *Log) release() error {
	l.met.unregister()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	all := append(append(append([]*segment{l.next}, l.live...), l.spares...), l.retired...)
	for _, s := range all {
		if s != nil {
			errs = append(errs, s.release())
		}
	}
	l.data = nil
	errs = append(errs, l.lock.Close())
	return errors.Join(errs...)
}

func (l *Log) join(name string) string { return filepath.Join(l.dir, name) }
