package resume

import (
	"math"

	"holdfast/internal/journal"
)

// Append implements session.Journal.
func (s *Store) Append(kind journal.Kind, head, tail []byte) error {
	_, err := s.wal.Append(uint8(kind), head, tail)
	return err
}

// Appended implements session.Sendable: an append is done when it returns.
func (s *Store) Appended() uint64 { return 0 }

// Sendable implements session.Sendable.
func (s *Store) Sendable() uint64 { return math.MaxUint64 }

// OnSendable implements session.Sendable.
func (s *Store) OnSendable(func()) {}
