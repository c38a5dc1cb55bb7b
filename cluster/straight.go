package cluster

import (
	"context"
	"errors"
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
// whose senders go by an earlier home holds them back for the moment that it takes a trace to go the same way and be answered by
// the home: then everything before it has been carried out.

const (
	straightTime  = 2 * time.Second        // after which a home hands a user over all the same
	straightAgain = 100 * time.Millisecond // until a node that has not answered is asked anew, first
	traceTime     = 200 * time.Millisecond // in which a trace is answered, or lost
	holdTime      = 500 * time.Millisecond // after which senders that are held back may go on for a moment
	straightRetry = 5 * time.Millisecond
	adoptingRetry = 50 * time.Millisecond
)

// Straighten returns when what is sent to a user who came here lately goes straight to this node, from wherever, or when that
// takes too long: somebody may be dead. A user is handed over after that.
func (n *Node) Straighten(ctx context.Context, user stanza.Addr) {
	term, lately := n.homes.came(user)
	if !lately {
		return
	}
	n.mu.Lock()
	if done := n.straightens[user]; done != nil {
		n.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		return
	}
	done := make(chan struct{})
	n.straightens[user] = done
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.straightens, user)
		n.mu.Unlock()
		close(done)
	}()
	ctx, cancel := context.WithTimeout(ctx, straightTime)
	defer cancel()
	var all sync.WaitGroup
	for _, node := range n.Members() {
		all.Go(func() { n.askStraight(ctx, node, user, term) })
	}
	n.goStraight(ctx, user, func() *way { return n.homes.wayTo(user, n.id, term) })
	all.Wait()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		n.metrics.hastyMoves.Inc()
	}
}

// askStraight waits until what another node sends to a user comes straight here, or that node is dead and buried.
func (n *Node) askStraight(ctx context.Context, node string, user stanza.Addr, term uint64) {
	id, answer := n.expect()
	defer n.forget(id)
	question := Message{Op: opStraight, User: user.String(), Payload: []byte(id + " " + strconv.FormatUint(term, 10))}
	n.Tell(node, question)
	for wait := straightAgain; ctx.Err() == nil; {
		changed := n.AwaitChange()
		if !n.isMember(node) {
			return
		}
		select {
		case <-answer:
			return
		case <-changed:
		case <-ctx.Done():
		case <-time.After(wait):
			n.Suspect(ctx, node)
			if left, err := n.leftSomething(ctx, node); err == nil && !left {
				return // somebody has buried it
			}
			n.Tell(node, question)
			wait *= 2
		}
	}
}

// askedStraight answers that.
func (n *Node) askedStraight(from string, m Message) {
	user, err := stanza.ParseAddr(m.User)
	id, text, _ := strings.Cut(string(m.Payload), " ")
	term, _ := strconv.ParseUint(text, 10, 64)
	n.mu.Lock()
	_, again := n.toAnswer[id]
	if err != nil || again {
		n.mu.Unlock()
		return
	}
	n.toAnswer[id] = struct{}{}
	n.mu.Unlock()
	done := func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.toAnswer, id)
	}
	if !n.run(func() {
		defer done()
		ctx, cancel := context.WithTimeout(n.ctx, straightTime)
		defer cancel()
		if n.goStraight(ctx, user, func() *way { return n.homes.wayTo(user, from, term) }) {
			n.answer(from, id, "")
		}
	}) {
		done()
	}
}

// leaveWay has senders here stop going by a node which has said that the user moved on, when they had sent more meanwhile.
func (n *Node) leaveWay(user stanza.Addr, by string) {
	n.run(func() {
		ctx, cancel := context.WithTimeout(n.ctx, straightTime)
		defer cancel()
		n.goStraight(ctx, user, func() *way { return n.homes.wayBy(user, by) })
		n.homes.leftWay(user)
	})
}

// goStraight has what is sent to a user from here go straight to the home, as long as there is a way that it goes by. It
// reports false when that takes longer than ctx.
func (n *Node) goStraight(ctx context.Context, user stanza.Addr, find func() *way) bool {
	for ctx.Err() == nil && n.ctx.Err() == nil {
		if changed, adopts := n.adopts(); adopts { // what this node takes over may go by an earlier home too
			select {
			case <-changed:
			case <-time.After(adoptingRetry):
			case <-ctx.Done():
			}
			continue
		}
		w := find()
		if w == nil {
			return true
		}
		if !n.reaches(w.first) || !n.follow(ctx, user, w) {
			n.sleep(straightRetry) // somebody on the way is dead, or somebody else is at it
		}
	}
	return false
}

// follow holds senders back and has a trace go the way that they go, until they go straight. It reports false when that did
// not come about.
func (n *Node) follow(ctx context.Context, user stanza.Addr, w *way) bool {
	if !n.homes.hold(w) {
		return false
	}
	defer n.homes.letGo(w)
	for end := time.Now().Add(holdTime); ctx.Err() == nil && time.Now().Before(end); {
		if !n.homes.again(user, w) || !n.reaches(w.first) {
			return false
		}
		switch home := n.askHome(ctx, user); {
		case home == "":
			n.sleep(straightRetry)
		case n.homes.arrived(user, w, home):
			return true
		}
	}
	return false
}

// askHome sends a trace, and returns the home that answers it, "" when it did not come through.
func (n *Node) askHome(ctx context.Context, user stanza.Addr) string {
	changed := n.AwaitChange()
	id, answer := n.expect()
	defer n.forget(id)
	n.trace(Message{Op: opTrace, User: user.String(), Payload: []byte(id + " " + n.id)})
	select {
	case home := <-answer:
		return home
	case <-changed: // it may be lost
	case <-time.After(traceTime):
	case <-ctx.Done():
	}
	return ""
}

// trace passes a trace on the way that messages go, with the term that they would have, or answers it: with the home, there, or
// with nothing where it does not get on.
func (n *Node) trace(m Message) {
	user, err := stanza.ParseAddr(m.User)
	id, origin, _ := strings.Cut(string(m.Payload), " ")
	if err != nil {
		return
	}
	if n.parks() { // what is parked comes before
		n.answer(origin, id, "")
		return
	}
	switch to, of := n.homes.goes(user, m.Term); to {
	case "":
		n.run(func() {
			_ = n.homes.Locate(n.ctx, user, false) // for the next one
			n.answer(origin, id, "")
		})
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

// adopts reports whether this node takes over a dead one's estate; changed is closed when that may be over.
func (n *Node) adopts() (changed <-chan struct{}, yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed, len(n.heirOf) > 0
}

// reaches reports whether a node is there to pass something on.
func (n *Node) reaches(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	return m != nil && !m.adopting && time.Since(m.left) > n.cfg.Lease
}

// way is how what is sent to a user from here goes by an earlier home, at a moment.
type way struct {
	place   *place
	node    string
	term    uint64
	last    uint32
	detours []detour

	first string        // node that it goes to
	held  chan struct{} // place.hold of who follows it
}

func (w *way) set(p *place) {
	w.place, w.node, w.term, w.last, w.detours = p, p.node, p.term, p.last, slices.Clone(p.detours)
	w.first, _, _ = p.next(TermUnknown)
}

// still reports whether it is as it was: nothing has gone this way since.
func (w *way) still(p *place) bool {
	return p == w.place && p.node == w.node && p.term == w.term && p.last == w.last && slices.Equal(p.detours, w.detours)
}

func newWay(p *place) *way {
	w := new(way)
	w.set(p)
	return w
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

// wayTo returns the way by which what is sent to a user goes from here, nil when that is straight to home, for its term. Where
// nothing was sent yet it goes there from now on.
func (h *homes) wayTo(user stanza.Addr, home string, term uint64) *way {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	switch {
	case p == nil && home == h.self:
		return nil // it has moved on
	case p == nil:
		p = &place{node: home, term: term}
		p.use()
		h.places[user] = p
		h.away++
		h.evictLocked()
		return nil
	case len(p.detours) > 0:
	case p.node == h.self || p.node == home && p.term == term:
		return nil
	case p.term > term && p.term < termUnsure:
		return nil // home is not the home any more
	case p.last == 0 && !p.trails:
		if home != h.self {
			p.node, p.term = home, term
		}
		return nil
	}
	return newWay(p)
}

// wayBy returns the way by which what is sent to a user goes from here, if that is by this node.
func (h *homes) wayBy(user stanza.Addr, by string) *way {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p == nil || len(p.detours) == 0 && p.last == 0 {
		return nil
	}
	if w := newWay(p); w.first == by {
		return w
	}
	return nil
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

// again has the way be as it is now. It reports false when there is none.
func (h *homes) again(user stanza.Addr, w *way) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.places[user]
	if p != w.place || len(p.detours) == 0 && (p.node == h.self || p.node == "") {
		return false
	}
	w.set(p)
	return true
}

// arrived takes the answer to a trace: what senders here had sent before is at the home. It reports whether what they send
// goes straight there now. That is not so when somebody else's messages, which are not held back, went the same way
// meanwhile, or when others' go by a detour that this trace did not take.
func (h *homes) arrived(user stanza.Addr, w *way, home string) bool {
	node, term := cutHome(home)
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[user]
	if !w.still(p) || (p.node == h.self) != (node == h.self) {
		return false
	}
	if len(p.detours) > 0 {
		p.detours = slices.Delete(p.detours, 0, 1)
		h.directLocked(user, p)
		return len(p.detours) == 0 && p.node == node && p.term == term
	}
	p.node, p.term, p.last, p.trails = node, term, 0, true
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
	if by == nil && !h.knownLocked(p) {
		return "", 0
	}
	if node != h.self {
		of = passes(term, of, by)
	}
	return node, of
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
	if what != "" {
		id += " " + what
	}
	n.Tell(to, Message{Op: opAnswered, Payload: []byte(id)})
}

func (n *Node) answered(id, what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ch := n.asked[id]; ch != nil {
		ch <- what
		delete(n.asked, id)
	}
}
