package resume

import (
	"encoding/binary"
	"errors"

	"holdfast/internal/journal"
)

// batchBytes is about how much goes to Redis with one command. A record that is larger goes alone.
const batchBytes = 1 << 20

// batch is records that go to Redis together, as one entry of the journal's stream. An entry's id is the batch's
// number, so that Redis itself refuses what it has already, and what comes late.
type batch struct {
	n     uint64 // from 1, without gaps
	bytes []byte // each record: length of the payload as a uvarint, kind, payload
	last  uint64 // position of the newest record in it
}

func (b *batch) append(kind journal.Kind, head, tail []byte) {
	b.bytes = binary.AppendUvarint(b.bytes, uint64(len(head)+len(tail)))
	b.bytes = append(b.bytes, byte(kind))
	b.bytes = append(b.bytes, head...)
	b.bytes = append(b.bytes, tail...)
}

var errBatch = errors.New("resume: batch cut short")

// eachRecord reads a batch.
func eachRecord(b []byte, yield func(kind uint8, payload []byte) error) error {
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n >= uint64(len(b)-size) {
			return errBatch
		}
		kind, rest := b[size], b[size+1:]
		if err := yield(kind, rest[:n]); err != nil {
			return err
		}
		b = rest[n:]
	}
	return nil
}
