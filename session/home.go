package session

import (
	"context"
	"errors"
	"fmt"
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
	wantPatience = 20 * time.Millisecond // until the other node is suspected to be dead, and suspected again
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
			thought, _ := sv.cluster.Where(user)
			return "", errors.Join(fmt.Errorf("%w: it is %s, and here thought to be %q", errNoHome, node, thought), err)
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
			patience.Reset(wantPatience) // Redis may not have heard of its end yet
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
	if s := sv.byToken(token); s != nil && s.addr.Bare() == user && sv.alone(s) {
		// Its client is at the other node, so this connection is dead.
		old, err := sv.cut(s)
		if err != nil {
			return false, err
		}
		if old != nil {
			// Whether the user goes or not: nothing that comes over it is handled any more.
			defer old.conflict("the session was resumed by another stream")
		}
	}
	if sv.connected(user) {
		return false, nil
	}
	straight := make(chan struct{})
	while, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(straight)
		sv.cluster.Straighten(while, user)
	}()
	err := sv.moving.Release(ctx, user) // most of it with nothing locked
	if err != nil {
		cancel()
	}
	<-straight
	if err != nil {
		return false, err
	}
	// Whom a sender here sent something to has to have it before the sender goes on elsewhere.
	sv.syncSent(ctx, user)
	sv.enter()
	defer sv.leave()
	return sv.giveLocked(ctx, node, user)
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
	sv.enter()
	waits := sv.detach(s, old)
	sv.leave()
	if !waits {
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
			busy := s.stream != nil || s.spilling || s.leaving || len(s.shows) > 0
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
		u := &journal.User{Addr: user}
		if next, _ := sv.cluster.Where(user); next == sv.cluster.ID() { // else some of that is on its way round
			u.Seen = sv.seenOf(node)
		}
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
	// Most of it with nothing locked: a database that is away must not keep others from their turn.
	if err := sv.moving.Release(ctx, user); err != nil {
		return err
	}
	defer sv.rosterTurn(user)()
	brief, cancel := context.WithTimeout(ctx, briefly)
	defer cancel()
	return sv.moving.Release(brief, user)
}
