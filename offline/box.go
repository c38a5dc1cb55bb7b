package offline

import (
	"slices"
	"sync"
	"sync/atomic"

	"holdfast/stanza"
)

// write is one Change on its way to the Backend.
type write struct {
	change Change
	box    *box  // holds a reference until the write is settled
	size   int64 // what it takes of the gate
	state  atomic.Uint32
}

// States of a write. Only an OpPut is ever called off.
const (
	stateQueued   uint32 = iota
	stateInFlight        // in a transaction
	stateCalledOff
)

// meta is what remove needs to know of a message.
type meta struct {
	sender string
	bytes  int
	place  int // see box.place; 0 for none
}

// seenMax bounds box.seen.
const seenMax = 4096

// box is what is known of one recipient's mailbox: exact counters, and what the Backend does not have yet.
type box struct {
	user stanza.Addr // static
	name string      // static: user as the Backend knows it

	// guarded by boxes.mu
	refs       int
	weight     int
	prev, next *box // among the idle ones

	mu      sync.Mutex // guards what follows; held while the Backend is asked about this user
	loaded  bool
	count   int
	bytes   int64
	senders map[string]int // messages of each sender; no zero values
	last    stanza.ID      // no message has a greater id
	own     OwnLimit

	puts     []*write           // by id: puts that are not yet committed, nor called off
	removing map[stanza.ID]int  // how many uncommitted removals there are for what the Backend has or is getting
	seen     map[stanza.ID]meta // messages that Page handed out, so that Remove need not ask for them

	// Messages that were handed out one after the other have consecutive places: there was nothing between them, so
	// that they can be removed as a range. A put that came between others since then makes the box ragged.
	place  int
	behind stanza.ID // the message that has place
	ragged bool
}

// find returns the uncommitted put of id.
func (b *box) find(id stanza.ID) (int, bool) {
	if n := len(b.puts); n == 0 || b.puts[n-1].change.ID.Compare(id) < 0 {
		return n, false
	}
	return slices.BinarySearchFunc(b.puts, id, func(w *write, id stanza.ID) int { return w.change.ID.Compare(id) })
}

// addPut enters a put that was queued. Its id has no put yet.
func (b *box) addPut(w *write) {
	i, _ := b.find(w.change.ID)
	b.puts = slices.Insert(b.puts, i, w)
	if w.change.ID.Compare(b.last) > 0 {
		b.last = w.change.ID
	} else {
		b.ragged = true
	}
	b.count++
	b.bytes += int64(len(w.change.Raw))
	if b.senders == nil {
		b.senders = make(map[string]int)
	}
	b.senders[w.change.Sender]++
}

// dropPut takes puts[i] out, by itself no change of the counters.
func (b *box) dropPut(i int) {
	if i == 0 { // the usual case: they are committed in order
		b.puts[0] = nil
		b.puts = b.puts[1:]
		if len(b.puts) == 0 {
			b.puts = nil
		}
		return
	}
	b.puts = slices.Delete(b.puts, i, i+1)
}

// uncount takes a message out of the counters.
func (b *box) uncount(m meta) {
	b.count--
	b.bytes -= int64(m.bytes)
	if b.senders[m.sender]--; b.senders[m.sender] == 0 {
		delete(b.senders, m.sender)
	}
	if b.count == 0 {
		b.seen, b.ragged = nil, false
	}
}

// inStore is how many of the messages are only in the Backend. From a purge until it is committed there are none:
// what was put since then is committed with it or later. So nobody asks the Backend, which still shows the old ones.
func (b *box) inStore() int { return b.count - len(b.puts) }

// knows reports whether the box can say about id what remove needs, without asking the Backend.
func (b *box) knows(id stanza.ID) bool {
	if _, ok := b.seen[id]; ok {
		return true
	}
	_, ok := b.find(id)
	return ok || b.removing[id] > 0
}

// remove takes ids out. found has what the Backend says of those that the box does not know. It returns those that
// the Backend must remove, and whether they are a run: all that the mailbox has from the first to the last. taken, if not
// nil, is called with each that was there.
func (b *box) remove(ids []stanza.ID, found map[stanza.ID]meta, taken func(stanza.ID)) (gone []stanza.ID, run bool) {
	run = !b.ragged
	place := 0
	for _, id := range ids {
		had := b.count
		m, ok := b.take(id, found)
		if taken != nil && b.count < had {
			taken(id)
		}
		if !ok {
			continue
		}
		if b.removing == nil {
			b.removing = make(map[stanza.ID]int)
		}
		b.removing[id]++
		if gone == nil {
			gone = make([]stanza.ID, 0, len(ids))
		}
		run = run && m.place > 0 && (len(gone) == 0 || m.place == place+1)
		place = m.place
		gone = append(gone, id)
	}
	return gone, run
}

// take takes one message out of what the box knows and reports whether the Backend has to remove it.
func (b *box) take(id stanza.ID, found map[stanza.ID]meta) (m meta, remove bool) {
	m, ok := b.seen[id]
	if i, put := b.find(id); put {
		w := b.puts[i]
		m.sender, m.bytes = w.change.Sender, len(w.change.Raw)
		b.dropPut(i)
		// Else it is in flight; called off, the Backend never hears of it.
		remove = !w.state.CompareAndSwap(stateQueued, stateCalledOff)
	} else {
		if b.removing[id] > 0 {
			return meta{}, false
		}
		if !ok {
			if m, ok = found[id]; !ok {
				return meta{}, false
			}
			delete(found, id) // it may be named twice
		}
		remove = true
	}
	delete(b.seen, id)
	b.uncount(m)
	return m, remove
}

// settle takes a committed write out of what the Backend does not have yet.
func (b *box) settle(w *write) {
	switch w.change.Op {
	case OpPut:
		// Removed or purged while in flight, it is not in puts, where another put of the same id may be.
		if i, ok := b.find(w.change.ID); ok && b.puts[i] == w {
			b.dropPut(i)
		}
	case OpRemove:
		for _, id := range w.change.IDs {
			if b.removing[id]--; b.removing[id] <= 0 {
				delete(b.removing, id)
			}
		}
		if len(b.removing) == 0 {
			b.removing = nil
		}
	}
}

// saw remembers what Page hands out, in its order; after is the message before it.
func (b *box) saw(id, after stanza.ID, m meta) {
	if b.place++; after != b.behind {
		b.place++ // a walk that begins anew
	}
	b.behind = id
	if len(b.seen) >= seenMax {
		return
	}
	if b.seen == nil {
		b.seen = make(map[stanza.ID]meta)
	}
	m.place = b.place
	b.seen[id] = m
}

// boxes keeps the boxes that are in use, and of the others those used last.
type boxes struct {
	max int // static: weight of the idle boxes, 0 for no limit

	mu     sync.Mutex
	all    map[stanza.Addr]*box
	idle   box // ring of boxes without references, the one used last at idle.next
	weight int // of the idle boxes
}

func newBoxes(limit int) *boxes {
	bs := &boxes{max: limit, all: make(map[stanza.Addr]*box)}
	bs.idle.prev, bs.idle.next = &bs.idle, &bs.idle
	return bs
}

// acquire returns the one box of user, with a reference for the caller.
func (bs *boxes) acquire(user stanza.Addr) *box {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b := bs.all[user]
	if b == nil {
		b = &box{user: user, name: user.String()}
		bs.all[user] = b
	} else if b.refs == 0 {
		bs.unlinkLocked(b)
	}
	b.refs++
	return b
}

// release gives a reference back.
func (bs *boxes) release(b *box) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b.refs--; b.refs > 0 {
		return
	}
	// Nobody else has b now, so its fields can be read without b.mu.
	b.weight = 1 + len(b.senders) + len(b.seen)
	b.prev, b.next = &bs.idle, bs.idle.next
	b.prev.next, b.next.prev = b, b
	bs.weight += b.weight
	for bs.max > 0 && bs.weight > bs.max {
		oldest := bs.idle.prev
		bs.unlinkLocked(oldest)
		delete(bs.all, oldest.user)
	}
}

// forget drops the box of user, and reports false when somebody has a reference to it.
func (bs *boxes) forget(user stanza.Addr) bool {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b := bs.all[user]
	if b == nil {
		return true
	}
	if b.refs > 0 {
		return false
	}
	bs.unlinkLocked(b)
	delete(bs.all, user)
	return true
}

func (bs *boxes) unlinkLocked(b *box) {
	b.prev.next, b.next.prev = b.next, b.prev
	b.prev, b.next = nil, nil
	bs.weight -= b.weight
}
