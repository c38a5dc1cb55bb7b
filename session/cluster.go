package session

import (
	"context"
	"errors"
	"maps"
	"time"

	"holdfast/stanza"
)

// In a cluster everything of a user is at the user's home node. What a session here has for a user who is served
// elsewhere goes there as a message: this file sends them, receive.go takes them in. What is journaled (a message, an
// IQ, a subscription) is carried out once; presence may be lost with the node that sends it, as its sessions' next
// presence says the same.

// Message.Op.
const (
	opMessage  uint8 = 16 + iota // a message is to be routed
	opDirect                     // an IQ or presence for a full address
	opArrives                    // a subscription stanza for the user's roster
	opAccount                    // a request to the user's account
	opReply                      // a stanza of a gateway's own
	opHandover                   // all of a user
	opRemoved                    // the user's account is gone
	opAwaits                     // receipts awaited for messages to the user

	opTell  // presence for the user's available sessions
	opShow  // presence for a full address
	opProbe // somebody wants the user's presence
	opMoved // the user moved on, and what was sent here was passed on
	opWant  // another node wants to be the user's home
	opStay  // the answer when it can't

	opAttach  // a transport is to serve a session of the user here
	opElement // what came over it
	opLost    // it is gone
	opProved  // its client has everything up to a mark
	opFrames  // what is to be written to it
	opFinish  // it is to end
	opSettle  // is what came over it settled?
	opSettled // it is
	opKeep    // what the transport needs to go on at another node

	opHosted // a stanza for an address that is no user's
)

// here reports whether a user is served by this node.
func (sv *Service) here(user stanza.Addr) bool { return sv.cluster == nil || sv.cluster.Here(user) }

// errHere says that what was to be forwarded is this node's business after all.
var errHere = errors.New("session: the user is here")

// origin is how the journal names the stanza that from sends.
func (s *Session) origin() Origin {
	if !s.counts() {
		return Origin{}
	}
	return Origin{Session: s.ord, N: s.in}
}

// forward sends a stanza to a user's home; errHere when that is this node.
func (sv *Service) forward(from *Session, user stanza.Addr, op uint8, st *stanza.Stanza) error {
	o, m := from.origin(), Message{Op: op, Payload: st.Raw()}
	if from != nil && from.peer != "" {
		m.Term = TermHome
	}
	node, term, err := sv.cluster.Forward(user, m, o)
	switch {
	case err != nil:
		return err
	case node == sv.cluster.ID():
		return errHere
	}
	if o.Session != 0 {
		from.recorded = true
	}
	from.noteSent(node)
	from.passedOn(user, Move{Node: node, Term: term})
	return nil
}

// noteSent remembers that a node has something of this session to carry out; see syncSent.
func (s *Session) noteSent(node string) {
	if s == nil || s.peer != "" {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.sentTo[node]) < time.Second {
		return
	}
	if s.sentTo == nil {
		s.sentTo = make(map[string]time.Time, 1)
	}
	// Nodes come and go, and a session may stay for long.
	maps.DeleteFunc(s.sentTo, func(_ string, at time.Time) bool { return now.Sub(at) >= sentMemory })
	s.sentTo[node] = now
}

// passedOn has the node that sent a stanza for a user learn where it went, when it has arrived there: what it sends from
// then on may go there at once, and comes behind.
func (s *Session) passedOn(user stanza.Addr, m Move) {
	if s == nil || s.peer == "" || s.heir || s.in == 0 {
		return
	}
	sv, peer := s.sv, s.peer
	m.Seq = s.in
	sv.cluster.WhenSent(m.Node, func() {
		sv.cluster.Tell(peer, Message{Op: opMoved, Seq: 0, User: user.String(), Payload: m.append(nil)})
	})
}

// routeMessage has Router, here or at the user's home, decide who gets a message.
func (sv *Service) routeMessage(from *Session, st *stanza.Stanza) error {
	if sv.cluster == nil {
		return sv.routeHere(from, st)
	}
	user := st.To.Bare()
	if from.nowhere == user {
		// There is no such user (RFC 6121 §8.5.1).
		if string(st.TypeRaw()) == "error" {
			return nil
		}
		return sv.Unroutable(from, st, Verdict{})
	}
	for {
		if err := sv.forward(from, user, opMessage, st); !errors.Is(err, errHere) {
			return err
		}
		if st.ID.IsZero() { // it came here a moment ago
			st = st.Rewrite(stanza.Edit{From: st.From, To: st.To, ID: stanza.NewID(), IDBy: user})
		}
		if err := sv.routeHere(from, st); !errors.Is(err, ErrElsewhere) {
			return err
		}
	}
}

// routeDirect hands a stanza to the session with exactly that full address. found is true also for one that is
// elsewhere, where it is seen to.
func (sv *Service) routeDirect(to stanza.Addr, from *Session, st *stanza.Stanza) (found bool, err error) {
	if sv.cluster == nil {
		return sv.router.Direct(to, from, st)
	}
	user := to.Bare()
	if from.nowhere == user {
		return false, nil
	}
	for {
		if err := sv.forward(from, user, opDirect, st); !errors.Is(err, errHere) {
			return err == nil, err
		}
		if found, err = sv.router.Direct(to, from, st); !errors.Is(err, ErrElsewhere) {
			return found, err
		}
	}
}

// locate finds out, with nothing locked, who serves the user that a stanza is for, so that routing need not ask. It
// returns a user whom nobody serves.
func (sv *Service) locate(e *stanza.Element, kind stanza.Kind) (nowhere stanza.Addr, err error) {
	raw, ok := e.AttrRaw("to")
	if !ok || len(raw) == 0 {
		return nowhere, nil
	}
	to, err := e.AddrAttr("to")
	hosted := err == nil && sv.hosts(to)
	if err != nil || to.Local() == "" || !hosted && !sv.Local(to) {
		return nowhere, nil // dispatch answers
	}
	user := to.Bare()
	if sv.cluster.Ready(sv.intake, user) {
		return nowhere, nil
	}
	if hosted {
		err := sv.cluster.Locate(sv.intake, user, opensBy(kind, e.TypeRaw()))
		if errors.Is(err, ErrNowhere) {
			return user, nil
		}
		return nowhere, err
	}
	claim := false
	switch kind {
	case stanza.Message:
		claim = true
	case stanza.IQ:
		claim = to.IsBare()
	case stanza.Presence:
		switch string(e.TypeRaw()) {
		case "subscribe", "subscribed", "unsubscribe", "unsubscribed":
			claim = true
		case "probe":
			return nowhere, nil // an errand
		}
	}
	err = sv.find(sv.intake, user, claim)
	if errors.Is(err, ErrNowhere) {
		return user, nil
	}
	return nowhere, err
}

// find is Cluster.Locate, which claims only users who exist.
func (sv *Service) find(ctx context.Context, user stanza.Addr, claim bool) error {
	if claim {
		// Where there is a home there is a user, whether the accounts can be asked or not.
		if err := sv.cluster.Locate(ctx, user, false); !errors.Is(err, ErrNowhere) {
			return err
		}
		exists, err := sv.accounts.Exists(ctx, user)
		if err != nil {
			return errors.Join(ErrBusy, err)
		}
		if !exists {
			return ErrNowhere
		}
	}
	return sv.cluster.Locate(ctx, user, claim)
}

// Waits between tries of what a store, or Redis, could not do.
const (
	retryFirst = 10 * time.Millisecond
	retryLast  = time.Second
)

// retryable reports whether a stanza that failed was left undone for a reason that passes.
func retryable(err error) bool {
	return errors.Is(err, ErrBusy) || errors.Is(err, ErrUnlocated) || errors.Is(err, ErrElsewhere)
}

// errand is something for another node that need not be done at once, nor before something else.
type errand struct {
	user stanza.Addr
	op   uint8
	st   *stanza.Stanza
	kept bool // it is worth the journal
}

// away says what an errand does on this node, when the user is here after all.
func (sv *Service) doErrand(x errand) {
	switch x.op {
	case opTell:
		sv.tellHere(x.user, x.st)
	case opShow:
		if _, err := sv.router.Direct(x.st.To, nil, x.st); err != nil && !errors.Is(err, ErrElsewhere) {
			sv.log.Error("presence not delivered", "error", err)
		}
	case opProbe:
		sv.probed(x.user, x.st)
	case opReply:
		sv.sendHere(x.st.To, x.st)
	case opHosted:
		if err := sv.toHosted(nil, x.st); err != nil {
			sv.log.Error("presence not delivered", "error", err)
		}
	case opArrives:
		if err := sv.arrives(x.user, x.st.From.Bare(), x.st); err != nil {
			sv.log.Error("subscription not carried out", "error", err)
		}
	}
}

// errands is a queue, so that those for one user stay in order.
type errands struct {
	sv    *Service
	queue chan errand
}

const maxErrands = 1 << 16

func (q *errands) add(x errand) {
	select {
	case q.queue <- x:
	default:
		q.sv.metrics.errandsLost.Inc()
		if x.kept {
			q.sv.log.Error("error for a sender on another node dropped, too much waits")
		}
	}
}

// errandsAtOnce bounds how many homes are asked for in one go.
const errandsAtOnce = 256

func (sv *Service) errandLoop() {
	var batch []errand
	for {
		batch = batch[:0]
		select {
		case <-sv.ctx.Done():
			return
		case x := <-sv.errands.queue:
			batch = append(batch, x)
		}
	more:
		for len(batch) < errandsAtOnce {
			select {
			case x := <-sv.errands.queue:
				batch = append(batch, x)
			default:
				break more
			}
		}
		if !sv.runErrands(batch) {
			return
		}
	}
}

// runErrands reports false when the service ends.
func (sv *Service) runErrands(batch []errand) bool {
	var unknown []stanza.Addr
	asked := make(map[stanza.Addr]bool)
	for _, x := range batch {
		if _, known := sv.cluster.Where(x.user); !known && !asked[x.user] {
			asked[x.user] = true
			unknown = append(unknown, x.user)
		}
	}
	wait := retryFirst
	for len(unknown) > 0 {
		_, err := sv.cluster.LocateAll(sv.ctx, unknown)
		if err == nil {
			break
		}
		if !sv.sleep(wait) {
			return false
		}
		wait = min(2*wait, retryLast)
	}
	for _, x := range batch {
		node, known := sv.cluster.Where(x.user)
		switch {
		case !known:
			// Nobody serves the user, so nobody would see it.
		case node == sv.cluster.ID():
			sv.enter()
			sv.doErrand(x)
			sv.leave()
		case x.kept:
			sv.enter()
			if err := sv.cluster.ForwardTo(node, x.user, Message{Op: x.op, Payload: x.st.Raw()}, Origin{}); err != nil {
				sv.log.Error("stanza not forwarded", "error", err)
			}
			sv.leave()
		default:
			sv.cluster.Tell(node, Message{Op: x.op, User: x.user.String(), Payload: x.st.Raw()})
		}
	}
	return true
}
