package stanza

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// ID is the sortable unique id that the gateway stamps on a message at ingress: a UUIDv7 (RFC 9562 §5.7). The zero
// ID is "no id".
type ID [16]byte

// ErrID is what ParseID and IDFromBytes say of anything that is not a UUIDv7.
var ErrID = errors.New("stanza: not a stanza id (UUIDv7)")

// idLen is the length of the text form.
const idLen = 36

// lastTick is the last value that tick gave out.
var lastTick atomic.Uint64

// tick returns Unix milliseconds in the upper 48 of 60 bits and a 12-bit fraction below them, greater than any value
// returned before (RFC 9562 §6.2, method 3). A clock that stands still or steps back is counted on from.
func tick() uint64 {
	ns := uint64(time.Now().UnixNano())
	now := ns/1e6<<12 | ns%1e6<<12/1e6
	for {
		last := lastTick.Load()
		next := max(now, last+1)
		if lastTick.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Observe makes the ids of this process greater than id, which another one made: clocks differ, and what comes later
// is to have the greater id.
func Observe(id ID) {
	seen := binary.BigEndian.Uint64(id[:8])
	seen = seen>>16<<12 | seen&0xfff
	for {
		last := lastTick.Load()
		if last >= seen || lastTick.CompareAndSwap(last, seen) {
			return
		}
	}
}

// NewID returns an id greater than all ids that this process made before. It is safe for concurrent use. The 62 low
// bits are random.
func NewID() ID {
	t := tick()
	var id ID
	binary.BigEndian.PutUint64(id[:8], t>>12<<16|0x7000|t&0xfff)
	binary.BigEndian.PutUint64(id[8:], 1<<63|rand.Uint64()>>2)
	return id
}

// ParseID reads the text form, in either case. Its error is ErrID.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != idLen || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return ID{}, ErrID
	}
	at := 0
	for i := range id {
		if s[at] == '-' {
			at++
		}
		hi, lo := unhex(s[at]), unhex(s[at+1])
		if hi|lo > 0xf {
			return ID{}, ErrID
		}
		id[i] = hi<<4 | lo
		at += 2
	}
	return checkID(id)
}

// IDFromBytes reads the 16 bytes that a store kept. Its error is ErrID.
func IDFromBytes(b []byte) (ID, error) {
	if len(b) != len(ID{}) {
		return ID{}, ErrID
	}
	return checkID(ID(b))
}

// checkID refuses what has another version or variant: its order and Time would mean nothing.
func checkID(id ID) (ID, error) {
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		return ID{}, ErrID
	}
	return id, nil
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// AppendTo appends the 36 characters of the text form.
func (id ID) AppendTo(dst []byte) []byte {
	var b [idLen]byte
	hex.Encode(b[0:8], id[0:4])
	b[8] = '-'
	hex.Encode(b[9:13], id[4:6])
	b[13] = '-'
	hex.Encode(b[14:18], id[6:8])
	b[18] = '-'
	hex.Encode(b[19:23], id[8:10])
	b[23] = '-'
	hex.Encode(b[24:36], id[10:16])
	return append(dst, b[:]...)
}

// String returns the text form.
func (id ID) String() string {
	var b [idLen]byte
	return string(id.AppendTo(b[:0]))
}

// IsZero reports whether id is "no id".
func (id ID) IsZero() bool { return id == ID{} }

// Time returns when the id was made, to the millisecond.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// Compare orders ids by the time they were made: -1, 0 or 1.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }
