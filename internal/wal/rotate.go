package wal

import (
	"errors"
	"fmt"
	"os"
)

// makeRoomLocked makes the current segment one with room for a record of n bytes.
func (l *Log) makeRoomLocked(n int) error {
	if n > l.MaxRecord() {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, l.MaxRecord())
	}
	size := recordSize(n)
	failures := l.failures
	var waited, blocked bool
	for l.off+size > l.limit {
		switch {
		case l.closed:
			return ErrClosed
		case l.next != nil:
			l.rotateLocked()
			continue
		case l.failures != failures:
			return l.failure
		case !blocked && l.fullLocked():
			blocked = true
			l.blocked++
			l.signalPressure()
		}
		// Told once, as in Rotate.
		if !waited {
			waited = true
			l.kickKeep()
		}
		l.waiting++
		l.turn.Wait()
		l.waiting--
	}
	return nil
}

// rotateLocked makes next the current segment.
func (l *Log) rotateLocked() {
	l.cur.end = l.off
	l.activateLocked(l.cur.base, l.base+int64(l.off))
	l.rotations++
	l.signalPressure()
	l.kickKeep()
}

// activateLocked begins next as the current segment. Its header says what came before, so that a later Open can tell
// a torn tail from damage.
func (l *Log) activateLocked(prevBase, prevEnd int64) {
	s := l.next
	l.next = nil
	l.live = append(l.live, s)
	activation{first: l.live[0].base, prevBase: prevBase, prevEnd: prevEnd}.encode(s.data, s.epoch)
	l.cur, l.data, l.epoch, l.base = s, s.data, s.epoch, s.base
	l.off = segmentHeader
	l.limit = len(s.data) - recordHeader // Close needs one more
}

// fullLocked reports whether the next segment has to wait for Free.
func (l *Log) fullLocked() bool {
	return !l.preparing && l.next == nil && len(l.spares) == 0 && len(l.retired) == 0 && !l.mayGrowLocked()
}

func (l *Log) mayGrowLocked() bool {
	return l.cfg.Bytes == 0 || l.total+l.size <= l.cfg.Bytes
}

// Rotate begins a new segment and returns a boundary for Free: everything that was appended before the call lies
// before it. A checkpoint is Rotate, putting what the records say elsewhere, Free.
//
// It does not wait for Free: with ErrFull (Config.Bytes is used up) or another error (the disk is full) the log goes
// on in the present segment, and the boundary is only that segment's beginning. It is good for Free all the same.
func (l *Log) Rotate() (boundary int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	failures, cur := l.failures, l.cur
	for kicked := false; ; l.turn.Wait() {
		switch {
		case l.closed:
			return 0, ErrClosed
		case l.cur != cur, l.off == segmentHeader:
			return l.base, nil // an Append was first, or there is nothing to leave behind
		case l.next != nil:
			l.rotateLocked()
			return l.base, nil
		case l.failures != failures:
			return l.base, l.failure
		case l.fullLocked():
			return l.base, ErrFull
		}
		// Told once: keep looks again by itself whenever the room changes.
		if !kicked {
			kicked = true
			l.kickKeep()
		}
	}
}

// Free drops every segment whose records all lie before boundary, which may be any log position. They are never
// replayed again, also when the process is killed right after; after a power cut they may be. The current segment
// stays.
func (l *Log) Free(boundary int64) error {
	l.freeing.Lock()
	defer l.freeing.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	n := 0
	for n+1 < len(l.live) && l.live[n].base+int64(l.live[n].end) <= boundary {
		n++
	}
	old := append([]*segment(nil), l.live[:n]...)
	l.mu.Unlock()

	// Oldest first, so that a kill on the way leaves the end of the log, without a hole.
	done := 0
	var err error
	for _, s := range old {
		if s.data != nil {
			deactivate(s.data)
		} else if err = os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("wal: free: %w", err)
			break
		}
		done++
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range old[:done] {
		if s.data != nil {
			l.retired = append(l.retired, s)
		} else {
			l.total -= s.size
		}
	}
	clear(l.live[:done])
	l.live = l.live[done:]
	l.kickKeep()
	return err
}

// kickKeep tells keep that there may be work.
func (l *Log) kickKeep() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

func (l *Log) signalPressure() {
	select {
	case l.pressure <- struct{}{}:
	default:
	}
}
