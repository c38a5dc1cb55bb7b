package session

import (
	"context"
	"slices"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// The links of a mesh: what goes from one node to another.

func (n *node) link(to string) *meshLink {
	l := n.links[to]
	if l == nil {
		n.ords++
		l = &meshLink{ord: 1<<60 + n.ords}
		n.links[to] = l
	}
	return l
}

func (n *node) Forward(user stanza.Addr, m Message, o Origin) (string, uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.places[user]
	if p == nil {
		return "", 0, ErrUnlocated
	}
	to := p.node
	if m.Term <= TermPassed && p.via != "" {
		to = p.via
	}
	switch to {
	case "":
		return "", 0, ErrUnlocated
	case n.id:
		return to, 0, nil
	}
	passed := m.Term > TermPassed
	if m.Term > 0 {
		m.Term = TermHome
	}
	if err := n.forwardLocked(to, user, m, o, false); err != nil {
		return "", 0, err
	}
	switch {
	case passed:
	case p.via == to:
		p.viaLast = n.links[to].seq
	default:
		p.last = n.links[to].seq
	}
	return to, m.Term, nil
}

func (n *node) ForwardTo(to string, user stanza.Addr, m Message, o Origin) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forwardLocked(to, user, m, o, false)
}

func (n *node) HandOver(to string, user stanza.Addr, m Message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.forwardLocked(to, user, m, Origin{}, true); err != nil {
		return err
	}
	if p := n.places[user]; p != nil {
		p.node, p.last, p.pinned = to, n.links[to].seq, false
	}
	return nil
}

func (n *node) forwardLocked(to string, user stanza.Addr, m Message, o Origin, leaves bool) error {
	l := n.link(to)
	rec := journal.Forward{Origin: o.Session, N: o.N, Link: l.ord, To: to, Seq: l.seq + 1, Op: m.Op, Leaves: leaves, Term: m.Term, User: user}
	if err := n.journal.Append(journal.KindForward, rec.AppendHead(nil), m.Payload); err != nil {
		return err
	}
	l.seq++
	m.Seq, m.User = l.seq, user.String()
	n.pushLocked(to, letter{from: n.id, m: m})
	return nil
}

// Park keeps a message for later: it comes back behind what is there.
func (n *node) Park(user stanza.Addr, m Message, o Origin) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.parks {
		return false, nil
	}
	return true, n.forwardLocked(n.id, user, m, o, false)
}

func (n *node) pushLocked(to string, x letter) {
	l := n.link(to)
	l.queue = append(l.queue, x)
	if !l.sending {
		l.sending = true
		n.loops.Go(func() { n.send(to, l) })
	}
}

// send carries the messages of one link, in order.
func (n *node) send(to string, l *meshLink) {
	for {
		n.mu.Lock()
		if n.ctx.Err() != nil { // it ends, and sends nothing more
			n.mu.Unlock()
			return
		}
		if len(l.queue) == 0 {
			l.sending = false
			n.mu.Unlock()
			return
		}
		x := l.queue[0]
		n.mu.Unlock()
		if !n.carry(to, x) {
			continue
		}
		var due []func()
		n.mu.Lock()
		l.queue = l.queue[1:]
		if x.m.Seq != 0 {
			l.done = x.m.Seq
			_ = n.journal.append(journal.KindHandled, journal.AppendCount(nil, l.ord, uint64(l.done)))
			for len(l.waiters) > 0 && int32(l.waitSeq[0]-l.done) <= 0 {
				due = append(due, l.waiters[0])
				l.waiters, l.waitSeq = l.waiters[1:], l.waitSeq[1:]
			}
		}
		n.mu.Unlock()
		for _, f := range due {
			f()
		}
	}
}

// carry reports false for what has to be tried again.
func (n *node) carry(to string, x letter) bool {
	n.m.mu.Lock()
	delay, cut, lose := n.m.delay, n.m.cut[n.id+">"+to] || n.m.dead[to], n.m.lose
	n.m.mu.Unlock()
	if cut {
		time.Sleep(5 * time.Millisecond)
		return false
	}
	if delay > 0 {
		time.Sleep(delay)
	}
	if x.m.Seq == 0 && x.done == nil && lose != nil && lose(n.id, to, x.m) {
		return true
	}
	if to == n.id && x.done == nil {
		// Parked: carried out beside what the reader of the mailbox does, as package cluster has it.
		if err := n.sv.Receive(n.ctx, n.id, x.m); err != nil && n.ctx.Err() == nil {
			n.m.t.Errorf("parked message: %v", err)
		}
		return true
	}
	other := n.m.node(to)
	if other == nil {
		return true // a test made it up
	}
	select {
	case other.box <- x:
	case <-n.ctx.Done():
	}
	return true
}

func (n *node) Tell(to string, m Message) bool {
	if to == n.id {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil && n.refuse(m) {
		return false
	}
	n.pushLocked(to, letter{from: n.id, m: m})
	return true
}

func (n *node) WhenSent(to string, f func()) {
	n.mu.Lock()
	l := n.link(to)
	if l.done == l.seq {
		n.mu.Unlock()
		f()
		return
	}
	l.waiters, l.waitSeq = append(l.waiters, f), append(l.waitSeq, l.seq)
	n.mu.Unlock()
}

func (n *node) Room(ctx context.Context) error {
	n.mu.Lock()
	full := n.full
	n.mu.Unlock()
	if full == nil {
		return nil
	}
	select {
	case <-full:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *node) Suspect(_ context.Context, node string) {
	n.mu.Lock()
	n.suspected = append(n.suspected, node)
	n.mu.Unlock()
}

func (n *node) Sync(ctx context.Context, nodes ...string) {
	for _, to := range nodes {
		x := letter{from: n.id, done: make(chan struct{})}
		n.mu.Lock()
		n.pushLocked(to, x)
		n.mu.Unlock()
		select {
		case <-x.done:
		case <-ctx.Done():
		}
	}
}

// reader carries out what others send.
func (n *node) reader() {
	for {
		select {
		case <-n.ctx.Done():
			return
		case x := <-n.box:
			if x.done != nil {
				close(x.done)
				continue
			}
			n.mu.Lock()
			if x.m.Seq != 0 {
				n.read = append(n.read, x)
			}
			n.mu.Unlock()
			if err := n.sv.Receive(n.ctx, x.from, x.m); err != nil && n.ctx.Err() == nil {
				n.t.Errorf("%s: message %d of %s not carried out: %v", n.id, x.m.Seq, x.from, err)
			}
		}
	}
}

// repeat has everything that came once come again, as after a kill of the reader.
func (n *node) repeat() {
	n.mu.Lock()
	again := slices.Clone(n.read)
	n.mu.Unlock()
	for _, x := range again {
		n.box <- x
	}
	n.m.rest()
}
