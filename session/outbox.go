package session

import (
	"sync/atomic"

	"holdfast/stanza"
)

// entry is one stanza on its way to a client.
type entry struct {
	st    *stanza.Stanza
	flags entryFlags
	pos   uint64 // of its record; see Sendable
	// copies is shared by the entries of one message in several outboxes; nil when there is only this one.
	copies *copies
}

type entryFlags uint8

const (
	// fromMailbox: the mailbox keeps the message until the entry is acknowledged.
	fromMailbox entryFlags = 1 << iota
	// awaits: the packet cache has an entry for it.
	awaits
	// held: it arrived while nothing was connected, so it is stamped with a delay on its way out (XEP-0203).
	held
)

// copies follows one message through the outboxes of several sessions of one user.
type copies struct {
	open  atomic.Int32 // outboxes that still hold it
	acked atomic.Bool  // one of the clients has it
	// restored: an earlier process made them, and some of them may be missing here.
	restored bool
}

// outbox holds what was sent or is to be sent to a client, in order, until the client acknowledged it. Places are
// counted from 1 since the session was bound and never wrap; what XEP-0198 calls h is the low 32 bits of the
// distance to the place where it was enabled.
//
//	acked ≤ sent ≤ most ≤ acked+n
type outbox struct {
	ring  []entry // power of two, nil while empty
	head  int     // index of the entry at place acked+1
	n     int
	acked uint64 // last place acknowledged
	sent  uint64 // last place handed to the transport
	most  uint64 // last place that was ever handed to one: the client may say that it has it
	bytes int    // of the stanzas in it
}

// next is the place that push will fill.
func (o *outbox) next() uint64 { return o.acked + uint64(o.n) + 1 }

// last is the newest place in use.
func (o *outbox) last() uint64 { return o.acked + uint64(o.n) }

func (o *outbox) push(e entry) {
	if o.n == len(o.ring) {
		o.resize(max(8, 2*len(o.ring)))
	}
	o.ring[(o.head+o.n)&(len(o.ring)-1)] = e
	o.n++
	o.bytes += len(e.st.Raw())
}

// at returns the entry at a place in (acked, last].
func (o *outbox) at(place uint64) *entry {
	return &o.ring[(o.head+int(place-o.acked-1))&(len(o.ring)-1)]
}

// pop drops the oldest entry, which the client has.
func (o *outbox) pop() entry {
	e := o.ring[o.head]
	o.ring[o.head] = entry{}
	o.head = (o.head + 1) & (len(o.ring) - 1)
	o.n--
	o.acked++
	o.sent = max(o.sent, o.acked)
	o.most = max(o.most, o.sent)
	o.bytes -= len(e.st.Raw())
	if o.n == 0 && len(o.ring) > 16 {
		// An idle session keeps no memory of its busiest hour.
		o.ring, o.head = nil, 0
	}
	return e
}

func (o *outbox) resize(size int) {
	ring := make([]entry, size)
	for i := range o.n {
		ring[i] = o.ring[(o.head+i)&(len(o.ring)-1)]
	}
	o.ring, o.head = ring, 0
}

// has reports whether a message waits in it.
func (o *outbox) has(id stanza.ID) bool {
	for i := range o.n {
		if o.ring[(o.head+i)&(len(o.ring)-1)].st.ID == id {
			return true
		}
	}
	return false
}
