package wal

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	preparedSize  = 64  // the half of the header that is written when the file is prepared
	segmentHeader = 128 // both halves; within one disk sector, so a power cut leaves the old or the new one
	recordHeader  = 16
	align         = 8
	maxBase       = 1 << 62 // leaves sums of positions positive

	// kindClean is the record that Close leaves as the last one. Each segment keeps room for it.
	kindClean = 0
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	order      = binary.LittleEndian
	magic      = [8]byte{'H', 'F', 'J', 'R', 'N', 'L', 0, 1}
)

// prepared is what a segment file says of itself before it is used.
type prepared struct {
	base  int64 // log position of the file's first byte
	size  int64
	epoch uint64
	boot  [16]byte
}

func (p prepared) encode(dst []byte) {
	copy(dst, magic[:])
	order.PutUint64(dst[8:], uint64(p.base))
	order.PutUint64(dst[16:], uint64(p.size))
	order.PutUint64(dst[24:], p.epoch)
	copy(dst[32:48], p.boot[:])
	clear(dst[48:60])
	order.PutUint32(dst[60:], crc32.Checksum(dst[:60], castagnoli))
}

func decodePrepared(src []byte) (p prepared, ok bool) {
	if len(src) < segmentHeader || [8]byte(src) != magic ||
		order.Uint32(src[60:]) != crc32.Checksum(src[:60], castagnoli) {
		return p, false
	}
	p.base = int64(order.Uint64(src[8:]))
	p.size = int64(order.Uint64(src[16:]))
	p.epoch = order.Uint64(src[24:])
	copy(p.boot[:], src[32:48])
	return p, p.base >= 0 && p.base < maxBase && p.size >= segmentHeader && p.size <= maxSegment
}

// activation is written when a segment becomes the current one. All zeros mean that the segment is not part of the
// log: not yet, or no longer.
type activation struct {
	first    int64 // base of the oldest segment that was live then
	prevBase int64 // the segment before, -1 if there is none
	prevEnd  int64 // log position where its records end
}

func (a activation) encode(header []byte, epoch uint64) {
	dst := header[preparedSize:segmentHeader]
	order.PutUint64(dst, uint64(a.first))
	order.PutUint64(dst[8:], uint64(a.prevBase))
	order.PutUint64(dst[16:], uint64(a.prevEnd))
	order.PutUint64(dst[24:], epoch)
	order.PutUint32(dst[60:], crc32.Checksum(dst[:60], castagnoli)|1) // never all zeros
}

func decodeActivation(header []byte, epoch uint64) (a activation, ok bool) {
	src := header[preparedSize:segmentHeader]
	if order.Uint32(src[60:]) != crc32.Checksum(src[:60], castagnoli)|1 || order.Uint64(src[24:]) != epoch {
		return a, false
	}
	a.first = int64(order.Uint64(src))
	a.prevBase = int64(order.Uint64(src[8:]))
	a.prevEnd = int64(order.Uint64(src[16:]))
	return a, true
}

// deactivate takes a segment out of the log. The checksum goes first: a kill in between leaves a segment that is
// replayed once more, never one that says something else.
func deactivate(header []byte) {
	clear(header[segmentHeader-align : segmentHeader])
	clear(header[preparedSize:segmentHeader])
}

// newEpoch makes an epoch of random bits. The tag's top bit is always set, so that zeros are never a record.
func newEpoch(random uint64) uint64 { return random | 1<<31 }

func tagAt(epoch uint64, off int) uint32 { return uint32(epoch) ^ uint32(off) }
func mask(epoch uint64) uint32           { return uint32(epoch >> 32) }

// recordSize is what a record with n bytes of payload takes.
func recordSize(n int) int { return (recordHeader + n + align - 1) &^ (align - 1) }

// putRecord writes a record at off. See the package documentation for why the order of the stores matters; that the
// last one cannot move before the others is a matter of data: it stores their checksum.
func putRecord(data []byte, off int, epoch uint64, kind uint8, head, body []byte) {
	n := len(head) + len(body)
	rec := data[off : off+recordHeader+n]
	order.PutUint64(rec[8:], uint64(uint32(n))|uint64(kind)<<32)
	copy(rec[recordHeader:], head)
	copy(rec[recordHeader+len(head):], body)
	sum := crc32.Update(0, castagnoli, rec[8:]) ^ mask(epoch)
	order.PutUint64(rec, uint64(sum)|uint64(tagAt(epoch, off))<<32)
}

// recordAt returns the record at off if there is a valid one.
func recordAt(data []byte, off int, epoch uint64) (kind uint8, payload []byte, ok bool) {
	if off+recordHeader > len(data) || order.Uint32(data[off+4:]) != tagAt(epoch, off) {
		return 0, nil, false
	}
	n := int64(order.Uint32(data[off+8:]))
	if n > int64(len(data)-off-recordHeader) || order.Uint32(data[off+12:])>>8 != 0 {
		return 0, nil, false
	}
	end := off + recordHeader + int(n)
	if order.Uint32(data[off:]) != crc32.Update(0, castagnoli, data[off+8:end])^mask(epoch) {
		return 0, nil, false
	}
	return data[off+12], data[off+recordHeader : end : end], true
}

// findRecord returns the offset of the first valid record at off or later, -1 if there is none.
func findRecord(data []byte, off int, epoch uint64) int {
	for ; off+recordHeader <= len(data); off += align {
		if order.Uint32(data[off+4:]) != tagAt(epoch, off) {
			continue
		}
		if _, _, ok := recordAt(data, off, epoch); ok {
			return off
		}
	}
	return -1
}

// walk is the outcome of reading one segment.
type walk struct {
	end     int // behind the last valid record
	records int
	bytes   int64 // of payload
	gaps    int
	gap     int   // offset of the first gap
	lost    int64 // bytes in gaps
	clean   bool  // the last record is the one that Close wrote
}

// walkRecords calls fn for each record of a segment, in order, and goes on behind damage. The payload is part of data.
func walkRecords(data []byte, epoch uint64, fn func(kind uint8, payload []byte) error) (walk, error) {
	w := walk{end: segmentHeader}
	for {
		kind, payload, ok := recordAt(data, w.end, epoch)
		if !ok {
			next := findRecord(data, w.end+align, epoch)
			if next < 0 {
				return w, nil
			}
			if w.gaps == 0 {
				w.gap = w.end
			}
			w.gaps++
			w.lost += int64(next - w.end)
			w.end = next
			continue
		}
		w.end += recordSize(len(payload))
		w.clean = kind == kindClean
		if w.clean {
			continue
		}
		if fn != nil {
			if err := fn(kind, payload); err != nil {
				return w, err
			}
		}
		w.records++
		w.bytes += int64(len(payload))
	}
}
