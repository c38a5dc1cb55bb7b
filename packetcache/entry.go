package packetcache

import (
	"time"

	"holdfast/stanza"
)

// Entry is a message that awaits its receipt, as others see it.
type Entry struct {
	ID       stanza.ID
	From, To stanza.Addr    // as in the message: From full, To bare or full
	MsgID    string         // the id attribute
	Stanza   *stanza.Stanza // nil when the message is in offline storage and only a late receipt is awaited
	Deadline time.Time      // when the next action runs; zero for never
	Step     int            // which action of PACKETCACHE_ACTIONS is next
}

// state is where an entry is in its life.
type state uint8

const (
	waiting state = iota // in Cache.due or Cache.retry
	running              // claimed by Run
	late                 // in Cache.late
)

// entry is an Entry in the cache. All fields are guarded by Cache.mu, also while Run holds the claim.
type entry struct {
	id       stanza.ID
	from, to stanza.Addr
	msgID    string
	st       *stanza.Stanza
	opened   int64 // ticks, as deadline
	deadline int64
	size     int64

	state   state
	step    uint8
	tries   uint8   // failures of the present action in a row
	sends   uint8   // how often the message may have been delivered
	doing   Action  // while running
	refused bool    // the mailbox refused it for good: Bounce takes the place of Offline
	closed  outcome // while running, or awaiting withdrawal: how it ended; it is in no index any more
	before  bool    // known from before a restart, where Offline may have run without a trace of it here
	written bool    // a Checkpoint gave it to the store
	dirty   bool    // in Cache.dirty

	hash                 uint64 // of key
	hashNext             *entry
	in                   *queue
	at                   int // index in in.heap, or inList
	prev, next           *entry
	dirtyPrev, dirtyNext *entry
	userPrev, userNext   *entry // others of the recipient, with Config.Moves
	twin, twinPrev       *entry // others with the same key, oldest first
	group                *group // set while there are or were others
}

func (e *entry) key() key { return keyOf(e.from, e.to, e.msgID) }

// maxResources bounds what a group remembers; receipts of further resources close nothing.
const maxResources = 16

// group is what is known of messages that share their key; see "Ids used twice".
type group struct {
	head, tail *entry         // those still here
	sends      int            // deliveries of all that were ever in the group
	most       int            // no entry of the group was delivered more often than this
	receipts   map[string]int // by the recipient's resource
}

func (g *group) add(e *entry) {
	e.group = g
	e.twinPrev, e.twin = g.tail, nil
	if g.tail != nil {
		g.tail.twin = e
	} else {
		g.head = e
	}
	g.tail = e
	g.sends += int(e.sends)
	g.most = max(g.most, int(e.sends))
}

func (g *group) remove(e *entry) {
	if e.twinPrev != nil {
		e.twinPrev.twin = e.twin
	} else {
		g.head = e.twin
	}
	if e.twin != nil {
		e.twin.twinPrev = e.twinPrev
	} else {
		g.tail = e.twinPrev
	}
	e.twin, e.twinPrev, e.group = nil, nil, nil
}

// sent counts one more delivery of e.
func (e *entry) sent() {
	if e.sends == 255 {
		return // only with a list of actions that Validate refuses
	}
	e.sends++
	if e.group != nil {
		e.group.sends++
		e.group.most = max(e.group.most, int(e.sends))
	}
}

// received counts a receipt from resource and appends the entries that it proves to proved.
func (g *group) received(resource string, proved []*entry) []*entry {
	n, known := g.receipts[resource]
	if !known {
		if len(g.receipts) == maxResources {
			return proved
		}
		if g.receipts == nil {
			g.receipts = make(map[string]int, 1)
		}
	}
	n++
	g.receipts[resource] = n
	if n+g.most <= g.sends {
		return proved // not even the entry that was sent most often
	}
	g.most = 0
	for e := g.head; e != nil; e = e.twin {
		if n+int(e.sends) > g.sends {
			proved = append(proved, e)
		} else {
			g.most = max(g.most, int(e.sends))
		}
	}
	return proved
}
