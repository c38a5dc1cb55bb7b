package cluster

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/stanza"
)

// This file keeps the ways short that messages take.
//
// A user who moves on leaves messages on their way by the old home, and one who moves again, by two. Where a node on such a way
// dies, its heir knows nothing of the ways, and would carry out what it finds before older messages that others still have.
// So a home hands a user over who came lately only when all nodes have said that what they send goes straight to it. A node
// whose senders go by an earlier home holds them back for the moment that it takes a trace to go the same way and come back:
// then everything before it has been carried out.

const (
	settleTime  = 2 * time.Second        // after which a home hands a user over all the same
	settleAgain = 100 * time.Millisecond // until a node that has not answered is asked anew
	traceTime   = 200 * time.Millisecond // in which a trace comes back, or is lost
	holdTime    = 500 * time.Millisecond // that senders are held back at most
	settleRetry = 5 * time.Millisecond
)

// lately is how long after a home began something may still be sent by an earlier one.
func (c *Config) lately() time.Duration { return max(idle, 6*c.Lease) }

// Settle returns when what is sent to a user who came here lately goes straight to this node, from wherever, or when that takes
// too long: somebody may be dead.
func (n *Node) Settle(ctx context.Context, user stanza.Addr) {
	term, young := n.homes.came(user)
	if !young {
		return
	}
	n.mu.Lock()
	if done := n.settling[user]; done != nil {
		n.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		return
	}
	done := make(chan struct{})
	n.settling[user] = done
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.settling, user)
		n.mu.Unlock()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	var all sync.WaitGroup
	for _, node := range n.Members() {
		all.Go(func() { n.askSettled(ctx, node, user, term) })
	}
	n.straighten(ctx, user, n.id, term)
	all.Wait()
	if ctx.Err() != nil {
		n.metrics.unsettled.Inc()
	}
}

// askSettled waits until another node has what it sends to a user come straight here, or is dead and buried.
func (n *Node) askSettled(ctx context.Context, node string, user stanza.Addr, term uint64) {
	for ctx.Err() == nil && n.isMember(node) {
		changed := n.AwaitChange()
		id, answer := n.expect()
		n.Tell(node, Message{Op: opSettle, User: user.String(), Payload: []byte(id + " " + strconv.FormatUint(term, 10))})
		again := time.NewTimer(settleAgain)
		settled := false
		select {
		case <-answer:
			settled = true
		case <-changed:
		case <-ctx.Done():
		case <-again.C:
			n.Suspect(ctx, node)
			left, err := n.leftSomething(ctx, node)
			settled = err == nil && !left // somebody has buried it
		}
		again.Stop()
		n.forget(id)
		if settled {
			return
		}
	}
}

// settle does what another node asks for with opSettle.
func (n *Node) settle(from string, m Message) {
	user, err := stanza.ParseAddr(m.User)
	id, text, _ := strings.Cut(string(m.Payload), " ")
	term, _ := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return
	}
	n.run(func() {
		ctx, cancel := context.WithTimeout(n.ctx, settleTime)
		defer cancel()
		if n.straighten(ctx, user, from, term) {
			n.answer(from, id, "")
		}
	})
}

// straighten has what is sent to a user from here go straight to the home: home for term, or with home "" whoever it is. It
// reports false when that takes longer than ctx.
func (n *Node) straighten(ctx context.Context, user stanza.Addr, home string, term uint64) bool {
	for ctx.Err() == nil && n.ctx.Err() == nil {
		w := n.homes.wayTo(user, home, term)
		switch {
		case n.adopts(): // what this node takes over may go by an earlier home too
		case w == nil:
			return true
		case n.reaches(w.first) && n.follow(ctx, user, w):
			return true
		}
		n.sleep(settleRetry) // somebody on the way is dead, or somebody else is at it
	}
	return false
}

// follow holds senders back and has a trace go the way that they go. It reports whether they go straight now.
func (n *Node) follow(ctx context.Context, user stanza.Addr, w *way) bool {
	if !n.homes.hold(w) {
		return false
	}
	defer n.homes.letGo(w)
	for end := time.Now().Add(holdTime); ctx.Err() == nil && time.Now().Before(end) && n.homes.look(user, w); {
		id, answer := n.expect()
		n.trace(Message{Op: opTrace, User: user.String(), Payload: []byte(id + " " + n.id)})
		lost := time.NewTimer(traceTime)
		straight := false
		select {
		case said := <-answer:
			// Not if somebody else's messages, which are not held back, went the same way meanwhile.
			straight = n.homes.straighten(user, w, string(said))
		case <-lost.C:
		case <-ctx.Done():
		}
		lost.Stop()
		n.forget(id)
		if straight {
			return true
		}
	}
	return false
}

// trace passes a trace on the way that messages go, with the term that they would have, or answers it at the home.
func (n *Node) trace(m Message) {
	user, err := stanza.ParseAddr(m.User)
	id, origin, _ := strings.Cut(string(m.Payload), " ")
	if err != nil || n.parks() {
		return // what is parked comes before
	}
	switch to, of := n.homes.goes(user, m.Term); to {
	case "":
	case n.id:
		n.answer(origin, id, to+" "+strconv.FormatUint(of, 10))
	default:
		n.link(to).tell(Message{Op: opTrace, Term: of, User: m.User, Payload: m.Payload})
	}
}

// parks reports whether something that came here waits for a store.
func (n *Node) parks() bool {
	n.mu.Lock()
	l := n.links[n.id]
	n.mu.Unlock()
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done != l.seq
}

// adopts reports whether this node takes over a dead one's estate.
func (n *Node) adopts() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.heirOf) > 0
}

// reaches reports whether a node is there to pass something on.
func (n *Node) reaches(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	return m != nil && !m.adopting
}

// way is how what is sent to a user from here goes, at a moment.
type way struct {
	place   *place
	node    string
	term    uint64
	last    uint32
	detours []detour

	first string        // node that it goes to
	held  chan struct{} // place.hold of who follows it
}

func (w *way) take(p *place) {
	w.place, w.node, w.term, w.last, w.detours = p, p.node, p.term, p.last, slices.Clone(p.detours)
	w.first, _, _ = p.next(TermUnknown)
}

// still reports whether it is as it was: nothing has gone this way since.
func (w *way) still(p *place) bool {
	return p == w.place && p.node == w.node && p.term == w.term && p.last == w.last && slices.Equal(p.detours, w.detours)
}

// came says for which term this node is a user's home, and whether that began lately.
func (h *homes) came(user stanza.Addr) (term uint64, lately bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p == nil || p.node != h.self {
		return 0, false
	}
	return p.term, time.Since(p.since) < h.cfg.lately()
}

// wayTo returns the way that what is sent to a user goes from here, nil when that is straight to home for a term. A place that
// nothing was sent to is this home's from now on.
func (h *homes) wayTo(user stanza.Addr, home string, term uint64) *way {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	switch {
	case p == nil:
		return nil
	case len(p.detours) > 0:
	case p.node == h.self || p.node == "":
		return nil
	case p.last == 0 && (home == "" || !p.trails):
		if home != "" && p.term < term {
			p.node, p.term = home, term
		}
		return nil
	case home != "" && (p.node == home && p.term == term || p.term > term && p.term < termUnsure):
		return nil // as it is to be, or the one who asks is not the home any more
	}
	w := new(way)
	w.take(p)
	return w
}

// hold has senders here wait; letGo must follow. It reports false when somebody else has them wait.
func (h *homes) hold(w *way) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.place.hold != nil {
		return false
	}
	w.held = make(chan struct{})
	w.place.hold = w.held
	return true
}

func (h *homes) letGo(w *way) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w.place.hold = nil
	close(w.held)
}

// look has the way be as it is now. It reports false when there is none.
func (h *homes) look(user stanza.Addr, w *way) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p != w.place || len(p.detours) == 0 && (p.node == h.self || p.node == "") {
		return false
	}
	w.take(p)
	return true
}

// straighten takes what a trace came to: everything before it is there.
func (h *homes) straighten(user stanza.Addr, w *way, home string) bool {
	node, term := cutHome(home)
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	if !w.still(p) || (p.node == h.self) != (node == h.self) {
		return false
	}
	p.detours = nil
	if node != h.self {
		p.node, p.term, p.last, p.trails = node, term, 0, true
	}
	return true
}

// goes says where what was sent to a term goes from here, and for which; "" when that is not known.
func (h *homes) goes(user stanza.Addr, term uint64) (node string, of uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p == nil {
		return "", 0
	}
	node, of, by := p.next(term)
	switch {
	case by == nil && !h.knownLocked(p):
		return "", 0
	case node == h.self:
		return node, of
	}
	return node, passes(term, of, by)
}

// Ready waits while senders are held back, and reports whether it is known where what they have for a user is to go.
func (h *homes) Ready(ctx context.Context, user stanza.Addr) bool {
	for {
		known, hold := h.ready(user)
		if hold == nil {
			return known
		}
		select {
		case <-hold:
		case <-ctx.Done():
			return known
		}
	}
}

func (h *homes) ready(user stanza.Addr) (known bool, hold <-chan struct{}) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p == nil {
		return false, nil
	}
	_, known = h.nextLocked(p, TermUnknown)
	return known, p.hold
}

// Answers to what this node asks others, by a name for each question.

// expect makes a question; forget must follow.
func (n *Node) expect() (id string, answer <-chan string) {
	ch := make(chan string, 1)
	id = NewID()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[id] = ch
	return id, ch
}

func (n *Node) forget(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.asked, id)
}

// answer answers a question, which may be this node's own.
func (n *Node) answer(to, id, what string) {
	if to == n.id {
		n.answered(id, what)
		return
	}
	n.Tell(to, Message{Op: opAnswered, Payload: []byte(id + " " + what)})
}

func (n *Node) answered(id, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ch := n.asked[id]; ch != nil {
		ch <- what
		delete(n.asked, id)
	}
}
