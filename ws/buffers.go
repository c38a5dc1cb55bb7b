package ws

import (
	"sync"

	"holdfast/session"
	"holdfast/stanza"
)

const (
	blockSize = 8 << 10  // one read of a socket
	keepSize  = 64 << 10 // larger buffers are not kept
)

// block takes what one read of a socket brings.
type block [blockSize]byte

// inbox takes one message: its bytes and what the scan finds in them.
type inbox struct {
	buf  []byte
	elem stanza.Element
}

// outbuf takes what one write of a socket sends.
type outbuf struct{ b []byte }

var (
	blocks  = sync.Pool{New: func() any { return new(block) }}
	inboxes = sync.Pool{New: func() any { return &inbox{buf: make([]byte, 0, 2<<10)} }}
	outbufs = sync.Pool{New: func() any { return &outbuf{b: make([]byte, 0, 2<<10)} }}
	batches = sync.Pool{New: func() any { return new(session.Batch) }}
)

func putInbox(in *inbox) {
	if cap(in.buf) > keepSize {
		// The element still points into the large buffer, so both go.
		return
	}
	inboxes.Put(in)
}

func putOutbuf(o *outbuf) {
	if cap(o.b) > keepSize {
		return
	}
	o.b = o.b[:0]
	outbufs.Put(o)
}
