package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// A user's home follows the user. The node that a client comes to asks the old home for the user, and gets everything
// in one message: sessions with counters and queues, receipts awaited. Where another client of the user is connected
// to the old home, the user stays there and the new connection is served through (proxy.go).

// wants are the requests of this node to be the home of users.
type wants struct {
	mu      sync.Mutex
	waiting map[stanza.Addr]map[string]chan bool // by user and request; true: stays where it is
	coming  map[stanza.Addr]int                  // clients here that are about to bind or resume
}

func (w *wants) begin(user stanza.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.coming[user]++
}

func (w *wants) end(user stanza.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.coming[user]--; w.coming[user] == 0 {
		delete(w.coming, user)
	}
}

func (w *wants) isComing(user stanza.Addr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.coming[user] > 0
}

func (w *wants) ask(user stanza.Addr, id string) chan bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan bool, 1)
	if w.waiting[user] == nil {
		w.waiting[user] = make(map[string]chan bool)
	}
	w.waiting[user][id] = ch
	return ch
}

func (w *wants) drop(user stanza.Addr, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting[user], id)
	if len(w.waiting[user]) == 0 {
		delete(w.waiting, user)
	}
}

// came answers all requests for a user.
func (w *wants) came(user stanza.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ch := range w.waiting[user] {
		select {
		case ch <- false:
		default:
		}
	}
}

// stay takes the answer of a home that keeps its user, or has none.
func (w *wants) stay(user stanza.Addr, answer string) {
	id, verdict, _ := strings.Cut(answer, " ")
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch := w.waiting[user][id]; ch != nil {
		select {
		case ch <- verdict == "stays":
		default:
		}
	}
}

const (
	wantPatience = 20 * time.Millisecond // until the other node is suspected to be dead
	wantAgain    = 250 * time.Millisecond
	wantTimeout  = 20 * time.Second
)

var errNoHome = errors.New("session: the user's home does not answer")

// bring makes this node the home of a user whose client is here, or returns the node that has to stay it. token names
// the session that the client wants to resume, if any. Nothing may be locked. The caller has called wants.begin.
func (sv *Service) bring(ctx context.Context, user stanza.Addr, token string) (stays string, err error) {
	ctx, cancel := context.WithTimeout(ctx, wantTimeout)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, retryLast) {
		if sv.here(user) {
			if err := sv.cluster.Pin(ctx, user, ""); err == nil {
				return "", nil
			}
		}
		node, err := sv.cluster.Claim(ctx, user)
		if err == nil && node != sv.cluster.ID() {
			var stays bool
			if stays, err = sv.want(ctx, node, user, token); stays {
				return node, nil
			}
		}
		most := 50 * time.Millisecond
		if err != nil {
			most = retryLast // Redis, most likely: the client would do no better elsewhere
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(errNoHome, err)
		case <-time.After(min(wait, most)):
		}
	}
}

// want asks a node for a user, and returns when it came, stays, or has to be asked for anew.
func (sv *Service) want(ctx context.Context, node string, user stanza.Addr, token string) (stays bool, err error) {
	id := secret()
	answer := sv.wants.ask(user, id)
	defer sv.wants.drop(user, id)
	if sv.here(user) {
		return false, nil
	}
	sv.cluster.Tell(node, Message{Op: opWant, User: user.String(), Payload: []byte(id + " " + token)})
	patience := time.NewTimer(wantPatience)
	defer patience.Stop()
	again := time.NewTimer(wantAgain)
	defer again.Stop()
	for {
		select {
		case stays := <-answer:
			return stays, nil
		case <-patience.C:
			go sv.cluster.Suspect(ctx, node)
			patience.Reset(wantAgain)
		case <-again.C:
			return false, nil
		case <-ctx.Done():
			return false, errNoHome
		}
	}
}

// wanted answers another node that wants to be a user's home.
func (sv *Service) wanted(node string, user stanza.Addr, request []byte) {
	id, token, _ := strings.Cut(string(request), " ")
	sv.loops.Go(func() {
		verdict := "gone"
		if sv.here(user) {
			ctx, cancel := context.WithTimeout(sv.ctx, wantTimeout)
			gave, err := sv.handOver(ctx, node, user, token)
			cancel()
			switch {
			case err != nil:
				sv.log.Warn("user not handed over", "user", user.String(), "to", node, "error", err)
				return // it asks again
			case gave:
				return
			case sv.here(user):
				verdict = "stays"
			}
		}
		sv.cluster.Tell(node, Message{Op: opStay, User: user.String(), Payload: []byte(id + " " + verdict)})
	})
}

// handOver gives a user to another node, unless a client is connected that does not come back there. It reports false
// when the user stays.
func (sv *Service) handOver(ctx context.Context, node string, user stanza.Addr, token string) (bool, error) {
	if sv.wants.isComing(user) {
		return false, nil
	}
	var old *stream
	if s := sv.byToken(token); s != nil && s.addr.Bare() == user && sv.alone(s) {
		// Its client is at the other node, so this connection is dead.
		var err error
		if old, err = sv.cut(s); err != nil {
			return false, err
		}
	}
	if sv.connected(user) {
		return false, nil
	}
	if err := sv.moving.Release(ctx, user); err != nil { // most of it with nothing locked
		return false, err
	}
	// Whom a sender here sent something to has to have it before the sender goes on elsewhere.
	sv.syncSent(ctx, user)
	sv.enter()
	gave, err := sv.giveLocked(ctx, node, user)
	sv.leave()
	if old != nil {
		old.conflict("the session was resumed by another stream")
	}
	return gave, err
}

// alone reports whether no other session of the user has a connection.
func (sv *Service) alone(s *Session) bool {
	alone := true
	sv.router.Each(s.addr.Bare(), func(other *Session) {
		other.mu.Lock()
		alone = alone && (other == s || other.stream == nil)
		other.mu.Unlock()
	})
	return alone
}

func (sv *Service) connected(user stanza.Addr) bool {
	connected := false
	sv.router.Each(user, func(s *Session) {
		s.mu.Lock()
		connected = connected || s.stream != nil
		s.mu.Unlock()
	})
	return connected
}

// cut takes the stream from a session, which then waits for its client. Nothing of the stream is handled any more.
func (sv *Service) cut(s *Session) (*stream, error) {
	s.mu.Lock()
	old := s.stream
	s.mu.Unlock()
	if old == nil {
		return nil, nil
	}
	old.inMu.Lock()
	old.over = true
	old.inMu.Unlock()
	if err := s.settleNow(); err != nil {
		old.finish(Broken)
		return nil, err
	}
	if !sv.detach(s, old) {
		old.finish(Broken) // it cannot be resumed, and ends with its stream
		return nil, errNoHome
	}
	return old, nil
}

// syncSent waits, within bounds, until other nodes have carried out what the user's sessions sent.
func (sv *Service) syncSent(ctx context.Context, user stanza.Addr) {
	nodes := make(map[string]bool)
	sv.router.Each(user, func(s *Session) {
		s.mu.Lock()
		for node, at := range s.sentTo {
			if time.Since(at) < sentMemory {
				nodes[node] = true
			}
		}
		s.mu.Unlock()
	})
	if len(nodes) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	names := make([]string, 0, len(nodes))
	for node := range nodes {
		names = append(names, node)
	}
	sv.cluster.Sync(ctx, names...)
}

// sentMemory is how long after a message to another node that is thought to be carried out for certain.
const sentMemory = 10 * time.Second

// briefly bounds what is waited for with a user locked.
const briefly = 200 * time.Millisecond

// giveLocked hands everything over in one record. The caller has entered.
func (sv *Service) giveLocked(ctx context.Context, node string, user stanza.Addr) (gave bool, err error) {
	defer sv.rosterTurn(user)()
	sv.router.Locked(user, func(t Table) {
		if !sv.here(user) || sv.wants.isComing(user) {
			return
		}
		sessions := t.Sessions()
		for _, s := range sessions {
			s.mu.Lock()
			busy := s.stream != nil || s.spilling || s.leaving
			s.mu.Unlock()
			if busy {
				return
			}
		}
		// It was done a moment ago, so this is little or nothing: everybody else waits for it.
		brief, cancel := context.WithTimeout(ctx, briefly)
		err = sv.moving.Release(brief, user)
		cancel()
		if err != nil {
			return
		}
		u := &journal.User{Addr: user, Seen: sv.seenOf(node)}
		for _, s := range sessions {
			s.mu.Lock()
			u.Sessions = append(u.Sessions, s.keptLocked())
			s.mu.Unlock()
		}
		u.Awaited = sv.moving.TakeOut(user)
		if err = sv.cluster.HandOver(node, user, Message{Op: opHandover, Payload: u.Append(nil)}); err != nil {
			sv.moving.PutIn(u.Awaited)
			return
		}
		gave = true
		t.SetDraining(nil)
		for _, s := range sessions {
			t.Remove(s)
			s.mu.Lock()
			s.ended, s.moved = true, true
			if s.expiry != nil {
				s.expiry.Stop()
			}
			token, stored := s.token, s.stored
			s.mu.Unlock()
			sv.forget(s, token, stored)
			s.log.Info("session handed over", "to", node, "queued", s.queued())
		}
		sv.metrics.handedOver.Inc()
	})
	return gave, err
}

// keptLocked describes a session with its queue.
func (s *Session) keptLocked() journal.Kept {
	k := journal.Kept{
		State: s.stateLocked(), Handled: s.handled, Acked: s.out.acked,
		Passed: slices.Clone(s.passed), Had: slices.Clone(s.had),
	}
	for a := range s.directed {
		k.State.Directed = append(k.State.Directed, a.String())
	}
	for place := s.out.acked + 1; place <= s.out.last(); place++ {
		k.Queue = append(k.Queue, s.out.at(place).record(s.ord, place))
	}
	return k
}

// seenOf is how far another node's messages have been carried out.
func (sv *Service) seenOf(node string) uint32 {
	sv.mu.Lock()
	p := sv.peers[node]
	sv.mu.Unlock()
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handled
}

// takeOver makes this node the home of a user whom another one handed over.
func (sv *Service) takeOver(p *Session, user stanza.Addr, m Message) error {
	u, err := journal.DecodeUser(m.Payload)
	if err != nil {
		sv.log.Error("user handed over by another node not readable", "from", p.peer, "error", err)
		return nil
	}
	sessions, err := sv.unpack(u)
	if err != nil {
		sv.log.Error("user handed over by another node not readable", "from", p.peer, "error", err)
		return nil
	}
	var failed error
	sv.router.Locked(user, func(t Table) {
		o := p.origin()
		rec := journal.Taken{Origin: o.Session, N: o.N, User: u}
		var buf [16]byte
		if failed = sv.journal.Append(journal.KindTaken, rec.AppendHead(buf[:0]), u.Append(nil)); failed != nil {
			return
		}
		p.recorded = true
		pos := sv.journal.Appended()
		sv.cluster.Take(user, p.peer, u.Seen)
		sv.moving.PutIn(u.Awaited)
		for _, s := range sessions {
			for place := s.out.acked + 1; place <= s.out.last(); place++ {
				s.out.at(place).pos = pos
			}
			sv.add(s)
			sv.publishLocked(t, s)
		}
		sv.restorePassedLocked(t)
	})
	if failed != nil {
		return failed
	}
	sv.metrics.takenOver.Inc()
	from := p.peer
	sv.wants.came(user)
	sv.loops.Go(func() { sv.pinTaken(user, from) })
	now := time.Now()
	for _, s := range sessions {
		s.log.Info("session taken over", "from", from, "queued", s.queued())
		sv.startClock(s, now)
	}
	return nil
}

// pinTaken tells everybody where a user is that was handed over, once that is sure.
func (sv *Service) pinTaken(user stanza.Addr, from string) {
	for wait := retryFirst; sv.ctx.Err() == nil; wait = min(2*wait, retryLast) {
		err := sv.journal.Settle(sv.ctx)
		if err == nil {
			if !sv.here(user) {
				return // moved on
			}
			if err = sv.cluster.Pin(sv.ctx, user, from); err == nil {
				sv.unpinIfEmpty(user)
				return
			}
			if !sv.here(user) {
				return
			}
		}
		sv.log.Warn("home of a user not made known yet", "user", user.String(), "error", err)
		sv.sleep(wait)
	}
}

func (sv *Service) unpinIfEmpty(user stanza.Addr) {
	sv.router.Locked(user, func(t Table) {
		if len(t.Sessions()) == 0 && sv.here(user) {
			sv.cluster.Unpin(user)
		}
	})
}

// unpack makes the sessions of a user who comes from another node, under numbers of this node.
func (sv *Service) unpack(u *journal.User) ([]*Session, error) {
	sessions := make([]*Session, len(u.Sessions))
	shared := make(map[stanza.ID]*copies)
	for i := range u.Sessions {
		k := &u.Sessions[i]
		s, err := sv.build(Restored{State: k.State, Handled: k.Handled, Acked: k.Acked, Queue: k.Queue}, shared)
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", k.State.Addr, err)
		}
		sv.renumber(s, k.State, k.Queue)
		s.passed, s.had = k.Passed, k.Had
		s.stored, s.kept = false, s.out.acked
		sessions[i] = s
	}
	return sessions, nil
}

// renumber gives a session that another process made a number of this one's, in what was stored of it too.
func (sv *Service) renumber(s *Session, state *journal.Session, queue []*journal.Stanza) {
	s.ord = sv.ords.Add(1)
	state.Ord = s.ord
	for i, q := range queue {
		place := s.out.acked + 1 + uint64(i)
		q.Targets = []journal.Target{{Session: s.ord, Pos: place}}
		stanza.Observe(q.Stanza.ID)
	}
	stanza.Observe(s.taken)
	stanza.Observe(s.since)
}

// Inheritance is what a dead node had, built and not yet to be found.
type Inheritance struct {
	sv       *Service
	dead     string
	sessions []*Session
}

// Inherit builds the sessions of a dead node, and its links. They are in the next checkpoint, and nobody finds them
// before Publish. mark is called so that no checkpoint has one without the other.
func (sv *Service) Inherit(dead string, all []Restored, mark func()) (*Inheritance, error) {
	h := &Inheritance{sv: sv, dead: dead}
	shared := make(map[stanza.ID]*copies)
	sv.enter()
	defer sv.leave()
	for i := range all {
		r := &all[i]
		if r.State.Flags&journal.FlagLink != 0 {
			sv.inheritLink(dead, r)
			continue
		}
		s, err := sv.build(*r, shared)
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", r.State.Addr, err)
		}
		sv.renumber(s, r.State, r.Queue)
		s.stored, s.kept = false, s.out.acked
		h.sessions = append(h.sessions, s)
	}
	mark()
	for _, s := range h.sessions {
		sv.add(s)
	}
	return h, nil
}

// inheritLink goes on counting where a dead node was with what another one sent it, or sent to one that was dead before.
func (sv *Service) inheritLink(dead string, r *Restored) {
	link := r.State.Addr.Domain() + "/" + dead
	if of := r.State.Addr.Resource(); of != "" {
		link = r.State.Addr.Domain() + "/" + of
	}
	addr, err := stanza.ParseAddr("link@" + link)
	if err != nil {
		sv.log.Error("link of a dead node not readable", "error", err)
		return
	}
	sv.mu.Lock()
	defer sv.mu.Unlock()
	p := sv.peers[link]
	if p == nil {
		p = &Session{sv: sv, ord: sv.ords.Add(1), addr: addr, peer: r.State.Addr.Domain(), heir: true, managed: true, created: time.Now(), log: sv.log}
		sv.peers[link] = p
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if int32(r.Handled-p.handled) > 0 {
		p.handled = r.Handled
	}
	p.dirty = true
}

// Discard takes back what was not published, and unmark the mark.
func (h *Inheritance) Discard(unmark func()) {
	h.sv.enter()
	defer h.sv.leave()
	unmark()
	for _, s := range h.sessions {
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		h.sv.forget(s, "", true)
	}
}

// PassOn brings the receipts that are awaited for messages to a user to the user's home, which is this node when there
// is none. They came here with what a dead node left. Nothing may be locked.
func (sv *Service) PassOn(ctx context.Context, user stanza.Addr) error {
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		err := sv.cluster.Locate(ctx, user, true)
		if err == nil {
			err = sv.passOn(user)
		}
		if !retryable(err) {
			return err
		}
		if !sv.sleep(wait) {
			return sv.ctx.Err()
		}
	}
}

func (sv *Service) passOn(user stanza.Addr) (err error) {
	sv.enter()
	defer sv.leave()
	sv.router.Locked(user, func(Table) {
		if sv.here(user) {
			return
		}
		u := journal.User{Addr: user, Awaited: sv.moving.TakeOut(user)}
		if len(u.Awaited) == 0 {
			return
		}
		var node string
		node, err = sv.cluster.Forward(user, Message{Op: opAwaits, Payload: u.Append(nil)}, Origin{Passed: true})
		if err != nil || node == sv.cluster.ID() {
			sv.moving.PutIn(u.Awaited)
			return
		}
		ids := make([]stanza.ID, len(u.Awaited))
		for i := range u.Awaited {
			ids[i] = u.Awaited[i].ID
		}
		err = sv.journal.IDs(journal.KindProved, stanza.Addr{}, ids)
	})
	return err
}

// takeAwaited takes in what PassOn sent.
func (sv *Service) takeAwaited(p *Session, user stanza.Addr, m Message) (err error) {
	u, err := journal.DecodeUser(m.Payload)
	if err != nil {
		sv.log.Error("awaited receipts of another node not readable", "from", p.peer, "error", err)
		return nil
	}
	sv.router.Locked(user, func(Table) {
		if !sv.here(user) {
			err = ErrElsewhere
			return
		}
		o := p.origin()
		rec := journal.Taken{Origin: o.Session, N: o.N, User: u}
		if err = sv.journal.Append(journal.KindTaken, rec.AppendHead(nil), u.Append(nil)); err != nil {
			return
		}
		p.recorded = true
		sv.moving.PutIn(u.Awaited)
	})
	return err
}

// Publish makes this node the home of the sessions' users, and returns them. Sessions whose time is over end.
func (h *Inheritance) Publish() []stanza.Addr {
	sv := h.sv
	sv.enter()
	defer sv.leave()
	byUser := make(map[stanza.Addr][]*Session)
	for _, s := range h.sessions {
		byUser[s.addr.Bare()] = append(byUser[s.addr.Bare()], s)
	}
	users := slices.Collect(maps.Keys(byUser))
	for _, user := range users {
		sv.router.Locked(user, func(t Table) {
			if !sv.here(user) {
				sv.cluster.Take(user, h.dead, 0)
			}
			for _, s := range byUser[user] {
				sv.publishLocked(t, s)
			}
			sv.restorePassedLocked(t)
		})
		sv.wants.came(user)
	}
	sv.metrics.restored.Add(float64(len(h.sessions)))
	now := time.Now()
	for _, s := range h.sessions {
		sv.startClock(s, now)
	}
	return users
}

// Vacate runs leave under the user's lock if there is nothing of the user here, and reports whether it did.
func (sv *Service) Vacate(user stanza.Addr, leave func()) (vacated bool) {
	sv.router.Locked(user, func(t Table) {
		if len(t.Sessions()) > 0 || sv.wants.isComing(user) || sv.moving.Awaits(user) {
			return
		}
		vacated = true
		leave()
	})
	return vacated
}

// Release returns when everything about a user is in the kept stores, and the journal says that it is no business of
// this node any more.
func (sv *Service) Release(ctx context.Context, user stanza.Addr) error {
	if err := sv.release(ctx, user); err != nil {
		return err
	}
	left := journal.Forward{Leaves: true, User: user}
	sv.enter()
	err := sv.journal.Append(journal.KindForward, left.AppendHead(nil), nil)
	sv.leave()
	if err != nil {
		return err
	}
	return sv.journal.Settle(ctx)
}

func (sv *Service) release(ctx context.Context, user stanza.Addr) error {
	defer sv.rosterTurn(user)()
	return sv.moving.Release(ctx, user)
}
