package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrLocked is returned by Open when another process (or another Log in this one) uses the directory.
	ErrLocked = errors.New("wal: directory is in use")
	// ErrClosed is returned by everything that is called after Close, and by what Close interrupted.
	ErrClosed = errors.New("wal: closed")
	// ErrTooLarge is returned by Append for a record that does not fit into a segment.
	ErrTooLarge = errors.New("wal: record is larger than a segment")
	// ErrKind is returned by Append for kind 0, which the log keeps for itself.
	ErrKind = errors.New("wal: kind 0 is reserved")
	// ErrFull is returned by Rotate when no segment may be added until Free gives one back. Append waits instead.
	ErrFull = errors.New("wal: no room until segments are freed")
)

// DamageError counts what Open could not replay though it must have been there.
type DamageError struct {
	Gaps  int   // places where records are missing
	Bytes int64 // length of the gaps as far as it is known, headers included
	First int64 // log position of the first gap
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("wal: %d gaps (%d bytes) from position %d", e.Gaps, e.Bytes, e.First)
}

func (e *DamageError) add(pos, bytes int64) *DamageError {
	if e == nil {
		e = &DamageError{First: pos}
	}
	e.Gaps++
	e.Bytes += bytes
	e.First = min(e.First, pos)
	return e
}
