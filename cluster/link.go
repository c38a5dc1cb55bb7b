package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// Journal is what a link needs of the node's journal.
type Journal interface {
	Append(kind journal.Kind, head, tail []byte) error
	Count(kind journal.Kind, session, count uint64) error
	// Settle returns when everything appended before is safe.
	Settle(ctx context.Context) error
	// Fenced is closed when another node has taken the journal away.
	Fenced() <-chan struct{}
}

// Origin is the inbound stanza that a message came of, as the journal names it; the zero Origin for none.
type Origin struct {
	Session uint64
	N       uint32
}

// pending is a message that the other node's mailbox does not have yet.
type pending struct {
	msg     Message
	user    stanza.Addr
	journal bool // it is in the journal: it must not be lost
}

// link is the way to one other node. Messages leave it in the order in which they entered.
type link struct {
	// static
	n    *Node
	to   string
	from string // whose messages these are: this node's, or those of a dead one that it adopted
	ord  uint64 // names the link in the journal

	mu      sync.Mutex
	seq     uint32 // of the newest journaled message
	queue   []pending
	sending bool          // a goroutine works on the queue
	idle    chan struct{} // closed when sending ends; nil while nobody waits for that
	barred  bool          // the node is dead and its mailbox closed for the moment
	sealed  bool          // the node is dead and its mailbox worked off: nothing can be sent any more
	closed  bool          // what was to be sent went elsewhere, and whoever comes now has to look anew
	done    uint32        // newest journaled message that is in the mailbox
	waiters []waiter      // in the order of seq

	entries uint64 // number of the newest entry for the mailbox; owned by send
}

// waiter is called when the mailbox has everything up to seq, or, if patient is not set, takes nothing at the moment.
type waiter struct {
	seq     uint32
	patient bool
	f       func()
}

// why says what a forwarded message means for the user's home.
type why uint8

const (
	toHome   why = iota // it goes where the user is thought to be
	anywhere            // the other node finds out
	leaves              // it is the user
)

// forward journals a message and queues it; term is the one that it goes with. It reports false when the user's messages do
// not go this way any more.
func (l *link) forward(user stanza.Addr, m Message, o Origin, w why) (term uint64, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, false, nil
	}
	seq := l.seq + 1
	if seq == 0 {
		seq = 1 // 0 is what is not journaled
	}
	switch w {
	case toHome:
		if m.Term, ok = l.n.homes.sent(user, l.to, seq, m.Term); !ok {
			return 0, false, nil
		}
	case leaves:
		m.Term = l.n.homes.nextTerm(user)
	}
	rec := journal.Forward{
		Origin: o.Session, N: o.N, Link: l.ord, To: l.to, Seq: seq, Op: m.Op, Leaves: w == leaves, Term: m.Term, User: user,
	}
	var buf [256]byte
	if err := l.n.journal.Append(journal.KindForward, rec.AppendHead(buf[:0]), m.Payload); err != nil {
		return 0, false, err
	}
	l.seq = seq
	if w == leaves {
		l.n.homes.gave(user, l.to, m.Term)
	}
	m.Seq = seq
	l.pushLocked(pending{m, user, true})
	return m.Term, true, nil
}

func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// tell queues a message that may be lost.
func (l *link) tell(m Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.n.cfg.LinkBytes > 0 && l.n.queued.Load() > 2*l.n.cfg.LinkBytes {
		return false
	}
	l.pushLocked(pending{msg: m})
	return true
}

// pushLocked takes a message into the queue and has it sent.
func (l *link) pushLocked(p pending) {
	size := p.size()
	l.queue = append(l.queue, p)
	l.n.queued.Add(size)
	if l.sending || l.sealed {
		return
	}
	work := l.send
	if l.to == l.n.id {
		work = l.carryOutParked
	}
	// After Close nobody does: the next one who has the journal sends it.
	l.sending = l.n.run(work)
}

// restLocked says that nobody works on the queue any more.
func (l *link) restLocked() {
	l.sending = false
	if l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

func (l *link) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restLocked()
}

func (p *pending) size() int64 { return int64(len(p.msg.Payload) + 128) }

// whenSent calls f when the mailbox has everything that was forwarded before; one who is not patient does not wait while
// it is a dead node's and closed. The link's mu is not held then.
func (l *link) whenSent(patient bool, f func()) {
	l.mu.Lock()
	if l.done == l.seq || l.closed || !patient && (l.barred || l.sealed) {
		l.mu.Unlock()
		f()
		return
	}
	l.waiters = append(l.waiters, waiter{l.seq, patient, f})
	l.mu.Unlock()
}

// bar notes that the mailbox takes nothing at the moment.
func (l *link) bar() {
	var due []func()
	l.mu.Lock()
	l.barred = true
	l.waiters = slices.DeleteFunc(l.waiters, func(w waiter) bool {
		if !w.patient {
			due = append(due, w.f)
		}
		return !w.patient
	})
	l.mu.Unlock()
	for _, f := range due {
		f()
	}
}

const (
	sendAtOnce      = 256       // messages in one entry of a mailbox
	sendBytesAtOnce = 512 << 10 // bytes of them, unless one is larger
	sendRetry       = 20 * time.Millisecond
	sendRetryMax    = time.Second
)

// send empties the queue into the other node's mailbox. It is the only one that takes something out.
func (l *link) send() {
	var blob []byte
	wait := sendRetry
	for {
		l.mu.Lock()
		if len(l.queue) == 0 || l.sealed {
			if len(l.queue) == 0 {
				l.queue = nil
			}
			l.restLocked()
			l.mu.Unlock()
			return
		}
		blob = blob[:0]
		count, durable := 0, false
		for count < len(l.queue) && count < sendAtOnce && (count == 0 || len(blob)+len(l.queue[count].msg.Payload) <= sendBytesAtOnce) {
			blob = l.queue[count].msg.append(blob)
			durable = durable || l.queue[count].journal
			count++
		}
		l.mu.Unlock()
		l.entries++
		var sealed bool
		for {
			var err error
			if sealed, err = l.post(blob, durable, l.entries); err == nil {
				break
			}
			if l.n.ctx.Err() != nil {
				l.rest()
				return // the next one who has the journal sends it
			}
			if errors.Is(err, errBarred) {
				l.bar()
				l.n.sleep(barredRetry)
				continue
			}
			l.n.metrics.sendErrors.Inc()
			l.n.sleep(wait)
			wait = min(2*wait, sendRetryMax)
		}
		if sealed {
			l.bar()
			l.mu.Lock()
			l.sealed = true
			l.restLocked()
			l.mu.Unlock()
			l.n.noteSealed(l.to)
			return
		}
		wait = sendRetry
		l.sent(count)
	}
}

// errBarred says that a dead node's mailbox is closed, and not yet known how much its heir takes.
var errBarred = errors.New("cluster: mailbox closed")

const barredRetry = 5 * time.Millisecond

// post appends to the mailbox, and when that was taken away, to what its heir works off. It reports sealed when that is
// done with. What is appended twice, because a reply was lost, has the same number, unless that is 0.
func (l *link) post(blob []byte, durable bool, number uint64) (sealed bool, err error) {
	n := l.n
	if durable {
		// First the journal: what arrives must not be unknown here after a kill.
		if err := n.journal.Settle(n.ctx); err != nil {
			return false, err
		}
	}
	values := []any{"f", l.from, "d", blob}
	if number != 0 {
		values = append(values, "n", number)
	}
	for _, name := range []string{"mailbox", mailboxDead} {
		err := n.rdb.XAdd(n.ctx, &redis.XAddArgs{Stream: n.keys.Node(l.to, name), NoMkStream: true, Values: values}).Err()
		switch {
		case err == nil:
			n.metrics.sent.Add(1)
			n.metrics.sentBytes.Add(float64(len(blob)))
			return false, nil
		case !errors.Is(err, redis.Nil):
			return false, fmt.Errorf("cluster: mailbox: %w", err)
		}
	}
	there, err := n.rdb.Exists(n.ctx, n.keys.Node(l.to, "tomb")).Result()
	if err == nil && there > 0 {
		return true, nil
	}
	if err == nil {
		there, err = n.rdb.Exists(n.ctx, n.keys.Node(l.to, mailboxDead), n.keys.Node(l.to, mailboxClosed)).Result()
	}
	switch {
	case err != nil:
		return false, fmt.Errorf("cluster: mailbox: %w", err)
	case there > 0:
		return false, errBarred
	}
	return true, nil // so long ago that the tomb is gone
}

// sent takes the first count messages out.
func (l *link) sent(count int) {
	var due []func()
	l.mu.Lock()
	var size int64
	var newest uint32
	for i := range l.queue[:count] {
		p := &l.queue[i]
		size += p.size()
		if p.journal {
			newest = p.msg.Seq
		}
	}
	clear(l.queue[:count])
	l.queue = l.queue[count:]
	l.barred = false
	if newest != 0 {
		l.done = newest
		for len(l.waiters) > 0 && int32(l.waiters[0].seq-l.done) <= 0 {
			due = append(due, l.waiters[0].f)
			l.waiters = l.waiters[1:]
		}
	}
	l.mu.Unlock()
	l.n.release(size)
	if newest != 0 {
		// Who adopts this node need not send it again; if it does, it is recognised.
		if err := l.n.journal.Count(journal.KindHandled, l.ord, uint64(newest)); err != nil {
			l.n.log.Error("sent messages not recorded", "error", err)
		}
	}
	for _, f := range due {
		f()
	}
}

// divert empties the queue of a link to a node that is buried and had taken everything up to seen: route is called with
// each journaled message that it had not, in order. New ones that come meanwhile are behind them; then the link closes.
func (l *link) divert(seen uint32, route func(stanza.Addr, Message, Origin)) {
	l.n.homes.dead(l.to)
	for {
		l.mu.Lock()
		l.sealed = true
		if l.sending {
			// It may have just been in time.
			if l.idle == nil {
				l.idle = make(chan struct{})
			}
			idle := l.idle
			l.mu.Unlock()
			<-idle
			continue
		}
		if len(l.queue) == 0 {
			due := l.waiters
			l.closed, l.waiters = true, nil
			l.n.homes.buried(l.to)
			l.mu.Unlock()
			for _, w := range due {
				l.n.passedOn(false, w.patient, w.f) // it waits in other links
			}
			return
		}
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		var size int64
		for i := range queue {
			p := &queue[i]
			size += p.size()
			if p.journal && int32(p.msg.Seq-seen) > 0 {
				p.msg.Term = TermHome
				route(p.user, p.msg, Origin{Session: l.ord, N: p.msg.Seq})
			}
		}
		l.n.release(size)
	}
}

// carryOutParked empties the queue of what came to this node and had to wait, in order. See Node.Park.
func (l *link) carryOutParked() {
	for {
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.queue = nil
			l.restLocked()
			l.mu.Unlock()
			return
		}
		m := l.queue[0].msg
		l.mu.Unlock()
		if err := l.n.recv.Receive(l.n.ctx, l.n.id, m); err != nil {
			if l.n.ctx.Err() == nil {
				l.n.log.Error("parked message not carried out", "error", err)
				l.n.setFenced() // to go on would lose it
			}
			l.rest()
			return // the next one who has the journal carries it out
		}
		l.sent(1)
	}
}
