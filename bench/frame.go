package bench

import (
	"encoding/binary"
	"errors"
)

// WebSocket opcodes (RFC 6455 §5.2).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// maxFrame bounds what a server may send in one frame.
const maxFrame = 16 << 20

var errBadFrame = errors.New("bench: the server broke RFC 6455 §5")

// appendFrame appends a whole masked frame, as a client sends it (RFC 6455 §5.3).
func appendFrame(dst []byte, op byte, payload []byte, mask uint32) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|126, byte(n>>8), byte(n))
	default:
		dst = append(dst, 0x80|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = binary.LittleEndian.AppendUint32(dst, mask)
	at := len(dst)
	dst = append(dst, payload...)
	applyMask(dst[at:], mask)
	return dst
}

// applyMask masks b in place; the first byte of mask on the wire is its lowest one.
func applyMask(b []byte, mask uint32) {
	wide := uint64(mask)<<32 | uint64(mask)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(wide >> (8 * i))
	}
}

// frame is one frame of the server. The payload belongs to the buffer it was cut from.
type frame struct {
	op      byte
	fin     bool
	payload []byte
}

// cutFrame takes the first frame off b. size is its length in b, 0 when b does not hold all of it yet.
func cutFrame(b []byte) (f frame, size int, err error) {
	if len(b) < 2 {
		return f, 0, nil
	}
	if b[0]&0x70 != 0 || b[1]&0x80 != 0 {
		return f, 0, errBadFrame // an extension that was not negotiated, or a masked frame
	}
	n, at := int(b[1]), 2
	switch n {
	case 126:
		if len(b) < 4 {
			return f, 0, nil
		}
		n, at = int(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		if len(b) < 10 {
			return f, 0, nil
		}
		wide := binary.BigEndian.Uint64(b[2:])
		if wide > maxFrame {
			return f, 0, errBadFrame
		}
		n, at = int(wide), 10
	}
	if len(b)-at < n {
		return f, 0, nil
	}
	return frame{op: b[0] & 0x0f, fin: b[0]&0x80 != 0, payload: b[at : at+n]}, at + n, nil
}
