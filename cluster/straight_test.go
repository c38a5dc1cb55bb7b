package cluster

import (
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

// straightens has a home make ready for its user's next move, and returns a channel that is closed when it is.
func (g *gateway) straightens(user stanza.Addr) <-chan struct{} {
	done := make(chan struct{})
	g.loops.Go(func() {
		defer close(done)
		g.node.Straighten(g.ctx, user)
	})
	return done
}

// holds reports whether what senders here have for a user has to wait.
func (g *gateway) holds(user stanza.Addr) bool {
	_, hold := g.node.homes.ready(user)
	return hold != nil
}

func (w *world) goesTo(at *gateway, user stanza.Addr, home *gateway) {
	w.t.Helper()
	if node, known := at.node.Where(user); !known || node != home.id {
		w.t.Errorf("%s sends to %q and not to %s: %s", at.id, node, home.id, at.place(user))
	}
}

// A home that a user came to lately waits until what was sent by the earlier one is there, and has it come straight from then on.
func TestStraighten(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		all, s, u := w.apart(4)
		idler := w.client("idler")
		must(t, idler.connect(within(t), all[3]))
		idler.sends(t, u, 1) // and nothing more, so that it never hears where the user went
		w.arrived(u.addr, idler.name, 1)
		held, release := all[1].hold()
		s.sends(t, u, 1)
		<-held
		w.moves(u, all[1], all[2])
		straight := all[2].straightens(u.addr)
		select {
		case <-straight:
			t.Fatal("straight with a message on its way")
		case <-time.After(3 * traceTime / 2):
		}
		for range 3 {
			s.say(u.addr)
		}
		sent, ctx := make(chan error, 1), within(t)
		go func() { sent <- s.flush(ctx) }() // waits while it is held back, and goes behind
		w.await("the sender waits", func() bool {
			return all[0].waiting.Load() > 0 && all[0].holds(u.addr) || len(sent) > 0 // between two traces it may have gone
		})
		release()
		<-straight
		must(t, <-sent)
		w.goesTo(all[0], u.addr, all[2])
		w.goesTo(all[3], u.addr, all[2])
		w.arrived(u.addr, s.name, 5)
		s.sends(t, u, 2)
		idler.sends(t, u, 1)
		w.arrived(u.addr, s.name, 7)
		w.arrived(u.addr, idler.name, 2)
		for _, g := range all {
			if n := testutil.ToFloat64(g.node.metrics.hastyMoves); n > 0 {
				t.Errorf("%s gave up %v times", g.id, n)
			}
		}
	})
}

// What was sent from the node that the user came to by a third one comes before what is sent there now.
func TestStraightenAtTheSendersOwnNode(t *testing.T) {
	w := shared(t)
	all, s, u := w.apart(3)
	held, release := all[1].hold()
	s.sends(t, u, 1)
	<-held
	w.moves(u, all[1], all[0])
	w.goesTo(all[0], u.addr, all[1])
	straight := all[0].straightens(u.addr)
	release()
	<-straight
	w.goesTo(all[0], u.addr, all[0])
	w.arrived(u.addr, s.name, 2)
}

// A sender that never stops goes on by an earlier home for a moment only.
func TestASteadyStreamGoesStraight(t *testing.T) {
	w := shared(t)
	all, s, u := w.apart(3)
	all[1].slow.Store(int64(5 * time.Millisecond)) // more comes than it passes on
	ctx := within(t)
	over, stopped := make(chan struct{}), make(chan struct{})
	all[0].loops.Go(func() {
		defer close(stopped)
		for {
			select {
			case <-over:
				return
			default:
			}
			s.say(u.addr)
			if s.flush(ctx) != nil {
				return
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	w.moves(u, all[1], all[2])
	w.await("the sender sends to the new home", func() bool {
		node, _ := all[0].node.Where(u.addr)
		return node == all[2].id
	})
	close(over)
	<-stopped
	w.arrived(u.addr, s.name, s.count[u.addr.String()])
}

// A dead node on the way is waited for until it is buried, and one that says nothing not for ever.
func TestStraightenWithADeadNode(t *testing.T) {
	w := shared(t)
	all, s, u := w.apart(4)
	held, _ := all[1].hold()
	s.sends(t, u, 1)
	<-held
	w.moves(u, all[1], all[2])
	s.sends(t, u, 1)
	all[1].kill()
	<-all[2].straightens(u.addr)
	// On a slow machine the burial may take longer than that has time for.
	if testutil.ToFloat64(all[2].node.metrics.hastyMoves) == 0 {
		if left, err := all[2].node.leftSomething(within(t), all[1].id); err != nil || left {
			t.Errorf("not waited for until it is buried: %v", err)
		}
		w.goesTo(all[0], u.addr, all[2])
	}
	w.goneFrom(all[1], all[0], all[2], all[3])
	w.arrived(u.addr, s.name, 3)
	ctx := within(t)
	w.await("the sender sends to the home", func() bool {
		must(t, all[0].node.Locate(ctx, u.addr, false))
		node, _ := all[0].node.Where(u.addr)
		return node == all[2].id
	})

	all[3].gate.close() // it is stopped
	defer all[3].gate.open(false)
	began := time.Now()
	<-all[2].straightens(u.addr)
	if took := time.Since(began); took > patience {
		t.Errorf("after %v", took)
	}
}

// Who has been with a home for long may go on at once.
func TestStraightenLater(t *testing.T) {
	w := shared(t)
	all := w.starts(2)
	u := w.client("user")
	must(t, u.connect(within(t), all[0]))
	w.moves(u, all[0], all[1])
	all[1].node.homes.mu.Lock()
	all[1].node.homes.places[u.addr].since = time.Now().Add(-w.cfg.lately())
	all[1].node.homes.mu.Unlock()
	all[0].gate.close()
	defer all[0].gate.open(false)
	<-all[1].straightens(u.addr)
	if n := testutil.ToFloat64(all[1].node.metrics.hastyMoves); n > 0 {
		t.Error("somebody was asked")
	}
}

// A trace says nothing of what was sent after it.
func TestWays(t *testing.T) {
	user := stanza.MustParseAddr("user@example.org")
	h := newHomes("a", Config{}, nil, nil, nil)
	h.learn(user, "b", 10, false, time.Now(), 0)
	if w := h.wayTo(user, "c", 20); w != nil {
		t.Errorf("there is a way where nothing was sent: %+v", w)
	}
	goes := func(want string) {
		t.Helper()
		if node, known := h.Where(user); !known || node != want {
			t.Errorf("it goes to %q, not %q", node, want)
		}
	}
	goes("c") // the word of the home is taken
	send := func(node string, seq uint32, term uint64) {
		t.Helper()
		if _, ok := h.sent(user, node, seq, term); !ok {
			t.Errorf("nothing goes to %s", node)
		}
	}
	send("c", 1, TermUnknown)
	if w := h.wayTo(user, "c", 20); w != nil {
		t.Errorf("there is a way to the home itself: %+v", w)
	}
	if w := h.wayTo(user, "b", 15); w != nil {
		t.Errorf("there is a way to an earlier home: %+v", w)
	}
	w := h.wayTo(user, "d", 30)
	if w == nil || w.first != "c" {
		t.Fatalf("the way is %+v", w)
	}
	if !h.hold(w) || h.hold(w) {
		t.Error("two have senders wait")
	}
	send("c", 2, TermPassed) // of somebody else, who does not wait
	if h.arrived(user, w, "d 30") {
		t.Error("what was sent after the trace counts as arrived")
	}
	if !h.again(user, w) || !h.arrived(user, w, "d 30") {
		t.Error("it does not go straight")
	}
	goes("d")
	h.letGo(w)

	h.take(user, "e", 0, 40, false) // with something in the mailbox of d yet
	goes("d")
	if w = h.wayTo(user, "a", 40); w == nil || w.first != "d" {
		t.Fatalf("the way is %+v", w)
	}
	if h.arrived(user, w, "d 30") {
		t.Error("somebody else is believed to be the home")
	}
	if !h.arrived(user, w, "a 40") {
		t.Error("it does not go straight")
	}
	goes("a")

	// Others' messages went by another detour than what this node's senders sent: one trace does not do for both.
	h.gave(user, "e", 41)
	send("e", 1, 40)
	h.take(user, "e", 0, 50, false)
	h.gave(user, "f", 51)
	send("f", 1, 50)
	h.take(user, "f", 0, 60, false)
	if w = h.wayTo(user, "a", 60); w == nil || w.first != "e" || h.arrived(user, w, "a 60") {
		t.Errorf("the way is %+v", w)
	}
	goes("f")
	if !h.again(user, w) || w.first != "f" || !h.arrived(user, w, "a 60") {
		t.Errorf("the way is %+v", w)
	}
	goes("a")

	// A word that comes late is seen to, once.
	h.gave(user, "g", 61)
	send("g", 1, TermUnknown)
	send("g", 2, TermUnknown)
	late := Move{From: "g", Was: 61, Seq: 1, Node: "i", Term: 70}
	if !h.Moved(user, late) || h.Moved(user, late) {
		t.Error("it is not late, or twice")
	}
	if h.leftWay(user); !h.Moved(user, late) {
		t.Error("it is not late again")
	}
	late.Was = 40
	if h.leftWay(user); h.Moved(user, late) {
		t.Error("a word about another time is late")
	}
	if w = h.wayBy(user, "x"); w != nil {
		t.Errorf("by another node there is %+v", w)
	}
	if w = h.wayBy(user, "g"); w == nil || !h.arrived(user, w, "i 70") || h.wayBy(user, "i") != nil {
		t.Errorf("by the node itself there is %+v", w)
	}
	goes("i")
}

// Who sent to an earlier home long ago, and nothing since, learns of the present one though the earlier one has forgotten the user.
func TestStraightenByOneWhoForgot(t *testing.T) {
	w := shared(t)
	all, s, u := w.apart(3)
	w.moves(u, all[1], all[2])
	h := all[1].node.homes
	h.mu.Lock()
	delete(h.places, u.addr)
	h.away--
	h.mu.Unlock()
	<-all[2].straightens(u.addr)
	w.goesTo(all[0], u.addr, all[2])
	if n := testutil.ToFloat64(all[2].node.metrics.hastyMoves); n > 0 {
		t.Error("it was given up")
	}
	s.sends(t, u, 1)
	w.arrived(u.addr, s.name, 2)
}

// A burial of which no word came does not keep the heir from saying that it sends straight.
func TestStraightenAfterALostBurial(t *testing.T) {
	w := shared(t)
	all := w.starts(3)
	u := w.client("user")
	must(t, u.connect(within(t), all[1]))
	for _, g := range []*gateway{all[0], all[1]} {
		g.gate.set(nil, func(cmd redis.Cmder) error {
			if cmd.Name() == "hdel" && cmd.Args()[1] == w.keys.Nodes() {
				return io.ErrClosedPipe
			}
			return nil
		})
	}
	all[2].kill()
	w.goneFrom(all[2], all[:2]...)
	w.moves(u, all[1], all[0])
	<-all[0].straightens(u.addr)
	if n := testutil.ToFloat64(all[0].node.metrics.hastyMoves); n > 0 {
		t.Error("it was given up")
	}
}
