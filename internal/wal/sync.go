package wal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// flight is one flush and those who wait for it.
type flight struct {
	done chan struct{}
	pos  int64
	err  error
}

// Sync returns when everything that was appended before the call is on stable storage, with the position up to which
// that is so. Callers share flushes: whoever comes while one runs takes part in the next.
//
// When a flush fails, what the kernel wrote of it is unknown and asking again would prove nothing, so Sync fails from
// then on until the segments in question were freed: Rotate, checkpoint elsewhere, Free. Nothing is lost as long as
// the machine runs. An error of ctx only ends the waiting.
func (l *Log) Sync(ctx context.Context) (pos int64, err error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return l.synced.Load(), ErrClosed
	}
	if end := l.base + int64(l.off); l.synced.Load() == end {
		l.mu.Unlock()
		return end, nil
	}
	f := l.flight
	if f == nil {
		f = &flight{done: make(chan struct{})}
		l.flight = f
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	select {
	case <-f.done:
		return f.pos, f.err
	case <-ctx.Done():
		return l.synced.Load(), ctx.Err()
	}
}

// pace is the time between the beginnings of two flushes, if somebody asks for one all the time. A flush costs about as
// much processor time as a dozen messages; who waits does not notice so little.
const pace = 2 * time.Millisecond

// syncs runs the flights until Close; who waits then is still served.
func (l *Log) syncs() {
	next := time.NewTimer(0)
	defer next.Stop()
	for open := true; open; {
		select {
		case <-l.quit:
			open = false
		case <-l.wake:
			select {
			case <-next.C:
			case <-l.quit:
				open = false
			}
			next.Reset(pace)
		}
		l.mu.Lock()
		f := l.flight
		l.flight = nil
		l.mu.Unlock()
		if f == nil {
			continue
		}
		f.err = l.flush()
		f.pos = l.synced.Load()
		close(f.done)
	}
}

// span is what of a segment is to be flushed.
type span struct {
	*segment
	from, to int
}

// flush puts everything appended so far on stable storage. It runs in syncs, and in Close after that.
func (l *Log) flush() error {
	spans, end, err := l.pin()
	if err != nil {
		return err
	}
	start := time.Now()
	n := 0
	for n < len(spans) && err == nil {
		err = l.flushSpan(spans[n])
		n++
	}
	l.met.flushed(time.Since(start), err)
	l.unpin(spans, n, err)
	if err != nil {
		l.log.Error("journal flush failed", "error", err)
		return fmt.Errorf("wal: sync: %w", err)
	}
	l.synced.Store(end)
	return nil
}

// pin collects what is not on stable storage yet, oldest first.
func (l *Log) pin() (spans []span, end int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.live {
		to := s.end
		if s == l.cur {
			to = l.off
		}
		if s.failed != nil {
			for _, sp := range spans {
				sp.pinned = false
			}
			return nil, 0, fmt.Errorf("wal: sync: failed before: %w", s.failed)
		}
		if s.synced < to {
			s.pinned = true
			spans = append(spans, span{s, s.synced, to})
		}
	}
	return spans, l.base + int64(l.off), nil
}

// unpin notes the outcome: n spans were tried, the last of them with err.
func (l *Log) unpin(spans []span, n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range spans {
		s.pinned = false
		switch {
		case i < n-1, i < n && err == nil:
			s.synced = s.to
		case i < n:
			s.failed = err
		}
	}
	if len(l.retired) > 0 {
		l.kickKeep()
	}
}

func (l *Log) flushSpan(s span) error {
	if s.data == nil {
		return l.flushOld(s.segment)
	}
	if err := l.makeNamed(s.segment); err != nil {
		return err
	}
	return s.flush(l.disk, s.from, s.to)
}

// flushOld flushes what an earlier process left in the page cache.
func (l *Log) flushOld(s *segment) error {
	f, err := os.OpenFile(s.path, os.O_RDWR, fileMode)
	if errors.Is(err, os.ErrNotExist) {
		return nil // freed meanwhile
	}
	if err != nil {
		return err
	}
	return errors.Join(l.disk.sync(f), f.Close(), syncDir(l.dir))
}
