package wal

import (
	"errors"
	"fmt"
	"os"
)

// keep runs until Close: it has the next segment ready before it is needed, and disposes of freed ones.
func (l *Log) keep() {
	for {
		select {
		case <-l.quit:
			return
		case <-l.kick:
		}
		l.dispose()
		l.prepareNext()
	}
}

// dispose turns freed segments into spares, or removes them. One that a flush uses waits for the flush.
func (l *Log) dispose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	room := maxSpares
	if l.next == nil {
		room++ // prepareNext takes one
	}
	var busy []*segment
	for len(l.retired) > 0 {
		s := l.retired[0]
		l.retired = l.retired[1:]
		switch {
		case s.pinned:
			busy = append(busy, s)
			continue
		case len(l.spares) < room && s.failed == nil:
			l.spares = append(l.spares, s)
			continue
		}
		l.mu.Unlock()
		err := errors.Join(s.release(), os.Remove(s.path))
		if err != nil {
			l.log.Error("freed journal segment cannot be removed", "segment", s.path, "error", err)
		}
		l.mu.Lock()
		l.total -= s.size
	}
	l.retired = busy
}

// prepareNext makes the next segment if there is none and room for it.
func (l *Log) prepareNext() {
	l.mu.Lock()
	spare := l.takeSpareLocked()
	if l.next != nil || l.closed || (spare == nil && !l.mayGrowLocked()) {
		if spare != nil {
			l.spares = append(l.spares, spare)
		}
		l.turn.Broadcast() // Rotate may have to say ErrFull
		l.mu.Unlock()
		return
	}
	base := l.cur.base + l.cur.size // stays so: nothing but next can follow cur
	if spare == nil {
		l.total += l.size
	}
	l.preparing = true
	l.mu.Unlock()

	s, err := l.prepare(base, spare)

	l.mu.Lock()
	l.preparing = false
	if err != nil {
		l.failures++
		l.failure = fmt.Errorf("wal: new segment: %w", err)
		l.total -= l.size
	} else {
		l.next = s
	}
	l.turn.Broadcast()
	l.mu.Unlock()
	if err != nil {
		l.log.Error("journal segment cannot be made", "error", err)
		return
	}
	if err := l.makeNamed(s); err != nil {
		// Sync will find the same and tell those who wait for it.
		l.log.Error("journal directory cannot be flushed", "error", err)
	}
}

func (l *Log) takeSpareLocked() *segment {
	n := len(l.spares)
	if n == 0 {
		return nil
	}
	s := l.spares[n-1]
	l.spares[n-1] = nil
	l.spares = l.spares[:n-1]
	return s
}

// prepare makes the segment at base, from a spare if there is one. If it fails, nothing is left of either.
func (l *Log) prepare(base int64, spare *segment) (*segment, error) {
	s := spare
	if s == nil {
		s = &segment{prepared: prepared{size: l.size}, path: l.join(preparing)}
		f, err := createFile(s.path, l.size, l.disk)
		if err != nil {
			return nil, err
		}
		s.file = f
	}
	err := l.dress(s, base)
	if err != nil {
		return nil, errors.Join(err, s.release(), os.Remove(s.path))
	}
	return s, nil
}

// dress gives a file the header and the name of the segment at base. The order matters, see readHeader.
func (l *Log) dress(s *segment, base int64) error {
	if err := s.open(); err != nil {
		return err
	}
	// A spare from an earlier process may have been cut short in its making.
	if err := l.disk.preallocate(s.file, l.size); err != nil {
		return err
	}
	if !s.blocks {
		if err := l.disk.sync(s.file); err != nil {
			return err
		}
		s.blocks = true
	}
	// After the flush, which makes pages read-only until they are written to again.
	if err := populate(s.data); err != nil {
		return fmt.Errorf("populate: %w", err)
	}
	deactivate(s.data)
	s.prepared = prepared{base: base, size: l.size, epoch: randomEpoch(), boot: l.boot}
	s.prepared.encode(s.data)
	s.end, s.synced, s.failed = 0, 0, nil
	s.named.Store(false)
	path := l.join(segmentName(base))
	if err := os.Rename(s.path, path); err != nil {
		return err
	}
	s.path = path
	return nil
}

// makeNamed puts the name of a segment on stable storage.
func (l *Log) makeNamed(s *segment) error {
	if s.named.Load() {
		return nil
	}
	if err := syncDir(l.dir); err != nil {
		return err
	}
	s.named.Store(true)
	return nil
}
