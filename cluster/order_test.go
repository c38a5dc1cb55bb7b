package cluster

import (
	"io"
	"testing"
	"time"

	"holdfast/stanza"
)

// hold has a gateway's reader stop before the next message of a user's senders, until the returned function is called.
func (g *gateway) hold() (held <-chan struct{}, release func()) {
	stop, reached := make(chan struct{}), make(chan struct{})
	first := true
	g.mu.Lock()
	g.receive = func(_ string, m Message) (bool, error) {
		if m.Op != opSay {
			return false, nil
		}
		if first {
			first = false
			close(reached)
		}
		select {
		case <-stop:
		case <-g.ctx.Done():
		}
		return false, nil
	}
	g.mu.Unlock()
	return reached, func() {
		g.mu.Lock()
		g.receive = nil
		g.mu.Unlock()
		close(stop)
	}
}

// apart is between with a message that the user has got.
func (w *world) apart(n int) (all []*gateway, sender, user *client) {
	w.t.Helper()
	all, sender, user = w.between(n)
	sender.sends(w.t, user, 1)
	w.arrived(user.addr, sender.name, 1)
	return all, sender, user
}

// moves hands a user over and waits until the next home has it.
func (w *world) moves(user *client, from, to *gateway) {
	w.t.Helper()
	from.detach(user.addr)
	if !from.handOver(to.id, user.addr, false) {
		w.t.Fatalf("%s stays at %s", user.name, from.id)
	}
	w.await(user.name+" is at "+to.id, func() bool { return to.node.Here(user.addr) && w.home(user.addr) == to.id })
}

func TestOrderWhileAHomeMoves(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		all, s, u := w.apart(3)
		held, release := all[1].hold()
		s.sends(t, u, 2)
		<-held
		w.moves(u, all[1], all[2])
		s.sends(t, u, 2)
		if node, _ := all[0].node.Where(u.addr); node != all[1].id {
			t.Errorf("the sender sends to %s", node)
		}
		release()
		w.arrived(u.addr, s.name, 5)
		w.await("the sender sends to the new home", func() bool {
			node, _ := all[0].node.Where(u.addr)
			return node == all[2].id
		})
		s.sends(t, u, 2)
		w.arrived(u.addr, s.name, 7)
	})
}

// The user comes to the sender's own node over another one, while what was sent is still at the first.
func TestOrderWhenAHomeComesRoundAbout(t *testing.T) {
	w := shared(t)
	all, s, u := w.apart(3)
	held1, release1 := all[1].hold()
	s.sends(t, u, 1) // 2: stays at the first home
	<-held1
	w.moves(u, all[1], all[2])
	w.moves(u, all[2], all[0])
	s.sends(t, u, 1) // 3
	held2, release2 := all[2].hold()
	release1()
	<-held2 // 2 is in the second home's mailbox now, and the first home says that it has passed it on
	all[0].node.Sync(within(t), all[1].id)
	s.sends(t, u, 1) // 4
	release2()
	w.arrived(u.addr, s.name, 4)
	// And away again, before the last one may have come.
	w.moves(u, all[0], all[1])
	s.sends(t, u, 3)
	w.arrived(u.addr, s.name, 7)
}

// A home that comes to the sender and goes again, while what was sent is under way the whole time.
func TestOrderWhenAHomeComesAndGoes(t *testing.T) {
	w := shared(t)
	all, s, u := w.between(3)
	for range 20 {
		s.sends(t, u, 5)
		w.arrive(all[0])
		w.moves(u, all[1], all[0])
		s.sends(t, u, 5)
		w.arrive(all[0])
		w.moves(u, all[0], all[2])
		s.sends(t, u, 5)
		w.arrive(all[0])
		w.moves(u, all[2], all[1])
	}
	w.arrived(u.addr, s.name, 300)
}

// A sender's place at an earlier home does not keep the user's place for ever.
func TestPassingOnEnds(t *testing.T) {
	w := shared(t)
	w.cfg = short()
	all, s, u := w.apart(3)
	_, release := all[1].hold()
	s.sends(t, u, 1)
	w.moves(u, all[1], all[0])
	// The user's session ends, so that nobody's home is kept.
	all[0].mu.Lock()
	all[0].users[u.addr].Session = false
	all[0].node.Unpin(u.addr)
	all[0].mu.Unlock()
	w.await("the user is given up", func() bool { return w.home(u.addr) == "" && len(w.homesOf(u.addr)) == 0 })
	if node, known := all[0].node.Where(u.addr); !known || node != all[1].id {
		t.Errorf("the sender sends to %q", node)
	}
	s.sends(t, u, 1)
	release()
	w.arrived(u.addr, s.name, 3)
	time.Sleep(w.cfg.HomeTime) // nothing happens to a place that is left
	s.sends(t, u, 1)
	w.arrived(u.addr, s.name, 4)
	_, _, away := all[0].node.homes.Counts()
	if here, _, _ := all[0].node.homes.Counts(); here+away > 2 {
		t.Errorf("%d places", here+away)
	}
}

// The heir dies with the mailbox of the dead node unread; what a sender has sent since from elsewhere does not overtake
// that, though it goes to the next heir at once.
func TestOrderWhenAnHeirDies(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(4)
		victim, first, second, far := all[0], all[1], all[2], all[3]
		s, u := w.client("sender"), w.client("user")
		must(t, s.connect(ctx, far))
		must(t, u.connect(ctx, victim))
		s.sends(t, u, 2)
		w.arrived(u.addr, s.name, 2)
		reached := make(chan struct{})
		stages := func(g *gateway, f func(stage, dead string) error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.adopt = f
		}
		stages(first, func(stage, dead string) error {
			if stage != "adopted" || dead != victim.id {
				return nil
			}
			close(reached)
			<-first.ctx.Done()
			return errKilled
		})
		leaves := func(_, dead string) error {
			if dead == victim.id {
				return io.ErrClosedPipe
			}
			return nil
		}
		stages(second, leaves)
		stages(far, leaves)
		held, _ := victim.hold()
		s.sends(t, u, 3) // stay in its mailbox
		<-held
		victim.kill()
		<-reached
		stages(first, func(string, string) error { return io.ErrClosedPipe })
		far.kill() // the sender's session goes on at the next heir
		stages(second, func(stage, dead string) error {
			if stage == "adopt" && dead == victim.id {
				time.Sleep(time.Second) // so that what is not kept back comes first
			}
			return nil
		})
		w.goneFrom(far, second)
		first.cancel()
		first.kill()
		must(t, s.connect(within(t), second))
		w.await("the next heir has the user", func() bool { return second.node.Here(u.addr) })
		s.sends(t, u, 3)
		w.arrived(u.addr, s.name, 8)
		w.goneFrom(victim, second)
		w.goneFrom(first, second)
		if home := w.home(u.addr); home != second.id {
			t.Errorf("the user's home is %q", home)
		}
	})
}

// Two nodes die on the way from a sender to a user, and the second one, the home of both, has an heir before the first one is
// buried, which has older messages.
func TestOrderWhenTwoNodesDie(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		all, s, u := w.apart(4)
		home, by, heir, other := all[0], all[1], all[2], all[3]
		begun, taken, bury := make(chan struct{}), make(chan struct{}), make(chan struct{})
		// stages leaves a dead node to whom that channel tells of, and calls f at the others'.
		stages := func(g, not *gateway, its <-chan struct{}, f func(stage string)) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.adopt = func(stage, dead string) error {
				if dead != not.id {
					f(stage)
					return nil
				}
				select {
				case <-its:
				case <-g.ctx.Done():
				}
				return nil
			}
		}
		stages(home, by, begun, func(string) {})
		stages(heir, by, begun, func(stage string) {
			if stage == "adopted" {
				close(taken)
			}
		})
		stages(other, home, taken, func(stage string) {
			if stage == "adopt" {
				close(begun)
				<-bury
			}
		})
		held, _ := by.hold()
		s.sends(t, u, 2) // stay in its mailbox
		<-held
		w.moves(u, by, home)
		by.kill()
		<-begun
		home.kill()
		<-taken
		time.AfterFunc(500*time.Millisecond, func() { close(bury) }) // so that what is not kept back comes first
		must(t, s.connect(within(t), heir))
		s.sends(t, u, 3)
		w.arrived(u.addr, s.name, 6)
		w.goneFrom(by, heir, other)
		w.goneFrom(home, heir, other)
		if left, err := w.admin.Exists(bg, w.keys.Deaths()).Result(); left != 0 || err != nil {
			t.Errorf("deaths are left: %v", err)
		}
	})
}

// The user comes back to a node whose passed-on messages are still on their way round.
func TestOrderWhenAHomeComesBack(t *testing.T) {
	w := shared(t)
	all, s, u := w.apart(3)
	// What the old home says comes late.
	all[0].mu.Lock()
	all[0].receive = func(_ string, m Message) (bool, error) { return m.Op == opMove, nil }
	all[0].mu.Unlock()
	w.moves(u, all[1], all[2])
	held, release := all[2].hold()
	s.sends(t, u, 1) // 2: by the old home to the new one, where it waits
	<-held
	w.moves(u, all[2], all[1])
	s.sends(t, u, 1) // 3: to the home that it is again
	all[0].node.Sync(within(t), all[1].id)
	release()
	w.arrived(u.addr, s.name, 3)
}

// logOut ends a user's session.
func (g *gateway) logOut(user stanza.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.users[user]
	p.attached, p.Session = false, false
	g.node.Unpin(user)
}

// A user whom an earlier home has given up comes to a node that still takes that one for the home: it is the home then,
// and what it sent to the earlier one, and what it sends now, comes in order.
func TestOrderWhenAHomeHasBeenGivenUp(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		w.cfg = short()
		all := w.starts(2)
		s, u := w.client("sender"), w.client("user")
		must(t, s.connect(within(t), all[0]))
		for round := range uint32(3) {
			must(t, u.connect(within(t), all[1]))
			s.sends(t, u, 2)
			w.arrived(u.addr, s.name, 7*round+2)
			all[1].logOut(u.addr)
			u.at = nil
			release := func() {}
			if round > 0 { // with something that the earlier home has not read yet
				var held <-chan struct{}
				held, release = all[1].hold()
				s.sends(t, u, 2)
				<-held
			} else {
				s.sends(t, u, 2)
				w.arrived(u.addr, s.name, 4)
			}
			w.await("the user is given up", func() bool { return w.home(u.addr) == "" })
			if node, known := all[0].node.Where(u.addr); !known || node != all[1].id {
				t.Fatalf("the sender's node takes %q for the home, %v", node, known)
			}
			must(t, u.connect(within(t), all[0]))
			s.sends(t, u, 2)
			release()
			w.arrived(u.addr, s.name, 7*round+6)
			s.sends(t, u, 1)
			w.arrived(u.addr, s.name, 7*round+7)
			if homes := w.homesOf(u.addr); len(homes) != 1 || homes[0] != all[0].id {
				t.Errorf("homes %v, want %s", homes, all[0].id)
			}
		}
	})
}

// Who was the home in an earlier term sends what was sent to it then the way that it sent what came before.
func TestDetours(t *testing.T) {
	user := stanza.MustParseAddr("user@example.org")
	h := newHomes("a", Config{}, nil, nil, nil)
	next := func(term uint64, want string) {
		t.Helper()
		if node, known := h.next(user, term); !known || node != want {
			t.Errorf("what was sent to the term %d goes to %q, not %q", term, node, want)
		}
	}
	sent := func(node string, seq uint32, term, want uint64) {
		t.Helper()
		if of, ok := h.sent(user, node, seq, term); !ok || of != want {
			t.Errorf("a message to the term %d goes with %d, %v; not %d", term, of, ok, want)
		}
	}
	h.take(user, "x", 0, 10, false)
	next(TermUnknown, "a")
	h.gave(user, "b", 11)
	sent("b", 2, 10, 11)
	h.take(user, "b", 1, 20, false) // 2 is on its way round
	next(TermUnknown, "b")
	next(10, "b")
	next(20, "a")
	next(TermHome, "a")
	sent("b", 3, TermPassed, 11)
	h.gave(user, "c", 21)
	sent("c", 2, 20, 21) // what came back by b
	h.take(user, "d", 0, 30, false)
	next(TermUnknown, "b")
	next(20, "c")
	next(30, "a")
	h.Moved(user, Move{From: "b", Was: 11, Seq: 2, Node: "c", Term: 21}) // said before 3
	h.Moved(user, Move{From: "b", Was: 9, Seq: 3, Node: "c", Term: 21})  // of what was sent otherwise
	next(TermUnknown, "b")
	h.Moved(user, Move{From: "b", Was: 11, Seq: 3, Node: "c", Term: 21}) // where the next detour begins
	next(TermUnknown, "c")
	sent("c", 3, TermUnknown, 21)
	h.Moved(user, Move{From: "c", Was: 21, Seq: 3, Node: "d", Term: 25})
	next(TermUnknown, "d")
	next(30, "a")
	sent("d", 1, TermUnknown, 25)
	h.Moved(user, Move{From: "d", Was: 25, Seq: 1, Node: "a", Term: 30})
	next(TermUnknown, "a")
	if here, _, away := h.Counts(); here != 1 || away != 0 {
		t.Errorf("%d here, %d away", here, away)
	}

	// One who goes to and fro faster than messages costs no more than so much.
	for term := uint64(31); term < 131; term += 2 {
		h.gave(user, "b", term)
		sent("b", uint32(term)+1, term-1, term)
		h.take(user, "b", 0, term+1, false)
	}
	if n := len(h.places[user].detours); n != detoursAtMost {
		t.Errorf("%d detours are remembered", n)
	}
	next(129, "b")
	next(130, "a")
	// The last of them stands for all that did not fit, and is not gone round by for ever.
	if of, ok := h.sent(user, "b", 500, 100); !ok || of != TermHome {
		t.Errorf("it goes on with %d, %v", of, ok)
	}
	h.buried("b")
	next(TermUnknown, "a")
}

// The term of an earlier home may not be known, and what went there still comes behind what it has sent round, but not for
// ever.
func TestDetourOfAnUnknownTerm(t *testing.T) {
	user := stanza.MustParseAddr("user@example.org")
	h := newHomes("a", Config{}, nil, nil, nil)
	h.learn(user, "b", TermUnknown, false, time.Now(), 0)
	if of, ok := h.sent(user, "b", 1, TermUnknown); of != TermUnknown || !ok {
		t.Errorf("%d, %v", of, ok)
	}
	if of, ok := h.sent(user, "b", 2, TermPassed); of != termUnsure || !ok {
		t.Errorf("to the home itself with %d, %v", of, ok)
	}
	const term = 1 << 40
	h.take(user, "c", 0, term, false)
	rounds := 0
	for at := TermPassed; at != TermHome; rounds++ {
		of, ok := h.sent(user, "b", uint32(3+rounds), at)
		if !ok || of <= at {
			t.Fatalf("with %d after %d, %v", of, at, ok)
		}
		at = of
	}
	if rounds < 10 || rounds > maxRounds {
		t.Errorf("it may go round %d times", rounds)
	}
	if of, _ := h.sent(user, "b", 200, term-1); of != TermHome {
		t.Errorf("what was sent to a term goes with %d", of)
	}
	h.Moved(user, Move{From: "b", Was: TermHome, Seq: 200, Node: "a", Term: term})
	if node, _ := h.Where(user); node != "b" {
		t.Errorf("a word about something else has %q be next", node)
	}
	h.Moved(user, Move{From: "b", Was: 2, Seq: 200, Node: "a", Term: term})
	if node, _ := h.Where(user); node != "a" {
		t.Errorf("next is %q", node)
	}
}
