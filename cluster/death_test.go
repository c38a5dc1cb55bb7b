package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

// A node dies with messages in its mailbox and in its links, while others send to it all the time.
func TestHeirCarriesOn(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(3)
		victim := all[0]
		s, other, u, far := w.client("sender"), w.client("other"), w.client("user"), w.client("far")
		must(t, s.connect(ctx, all[1]))
		must(t, other.connect(ctx, victim))
		must(t, u.connect(ctx, victim))
		must(t, far.connect(ctx, all[2]))
		s.sends(t, u, 3)
		w.arrived(u.addr, s.name, 3)
		held, _ := victim.hold()
		s.sends(t, u, 20) // stay in its mailbox
		<-held
		victim.gate.set(func(cmd redis.Cmder) error {
			if cmd.Name() == "xadd" {
				return io.ErrUnexpectedEOF // what it sends stays in its journal
			}
			return nil
		}, nil)
		other.sends(t, far, 10)
		must(t, victim.j.Settle(ctx))
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for range 400 {
				s.say(u.addr)
				if err := s.flush(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		}()
		victim.kill()
		<-sent
		w.arrived(far.addr, other.name, 10)
		w.arrived(u.addr, s.name, 423)
		w.goneFrom(victim, all[1], all[2])
		for _, what := range []string{"fence", "mailbox", mailboxDead, mailboxClosed} {
			// Another one that was about to adopt it may have made the fence anew, and takes it away again.
			w.await("no "+what+" is left", func() bool {
				n, err := w.admin.Exists(bg, w.keys.Node(victim.id, what)).Result()
				return n == 0 && err == nil
			})
		}
		w.await("the link to it is closed", func() bool { return all[1].node.link(victim.id).isClosed() })
		for _, g := range all[1:] {
			w.await(g.id+" was told", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return slices.Contains(g.goneBy, victim.id) })
		}
		s.sends(t, u, 2)
		w.arrived(u.addr, s.name, 425)
	})
}

// What comes for a dead node while its mailbox is worked off is carried out; what comes after it is sealed goes elsewhere.
func TestLateMessages(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	victim := all[0]
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(ctx, all[1]))
	must(t, u.connect(ctx, victim))
	s.sends(t, u, 1)
	w.arrived(u.addr, s.name, 1)
	adopted, bury := make(chan struct{}), make(chan struct{})
	stage := func(stage, _ string) error {
		switch stage {
		case "adopted":
			adopted <- struct{}{}
		case "bury":
			adopted <- struct{}{}
			<-bury
		}
		return nil
	}
	for _, g := range all[1:] {
		g.mu.Lock()
		g.adopt = stage
		g.mu.Unlock()
	}
	rerouted := 0
	all[1].mu.Lock()
	all[1].reroute = func(_ stanza.Addr, _ Message) { rerouted++ }
	all[1].mu.Unlock()
	victim.kill()
	s.sends(t, u, 5) // into the mailbox that the heir has
	w.await("the mailbox has them", func() bool {
		n, _ := w.admin.XLen(ctx, w.keys.Node(victim.id, mailboxDead)).Result()
		return n > 0
	})
	<-adopted
	<-adopted // it is sealed
	w.arrived(u.addr, s.name, 6)
	// All of them are in the link before it knows.
	hold := make(chan struct{})
	all[1].j.set(func(j *memJournal) { j.hold = hold })
	s.sends(t, u, 5)
	all[1].j.set(func(j *memJournal) { j.hold = nil })
	close(hold)
	w.arrived(u.addr, s.name, 11)
	close(bury)
	w.goneFrom(victim, all[1], all[2])
	s.sends(t, u, 1)
	w.arrived(u.addr, s.name, 12)
	all[1].mu.Lock()
	defer all[1].mu.Unlock()
	if rerouted != 5 {
		t.Errorf("%d messages were rerouted", rerouted)
	}
}

// Others do not stop sending to the users of a dead node, and it is buried all the same.
func TestBurialDoesNotWaitForSilence(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(3)
		victim := all[0]
		u, v := w.client("user"), w.client("another")
		must(t, u.connect(ctx, victim))
		must(t, v.connect(ctx, victim))
		senders := []*client{w.client("sender"), w.client("other")}
		buried := make(chan struct{})
		var sending sync.WaitGroup
		for i, s := range senders {
			must(t, s.connect(ctx, all[1+i]))
			s.sends(t, u, 1)
			w.arrived(u.addr, s.name, 1)
			sending.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-buried:
						return
					default:
					}
					s.say([]stanza.Addr{u.addr, v.addr}[n%2])
					if err := s.flush(ctx); err != nil {
						t.Error(err)
						return
					}
					time.Sleep(500 * time.Microsecond)
				}
			})
		}
		victim.kill()
		w.goneFrom(victim, all[1:]...)
		close(buried)
		sending.Wait()
		for _, s := range senders {
			w.arrived(u.addr, s.name, s.count[u.addr.String()])
			w.arrived(v.addr, s.name, s.count[v.addr.String()])
		}
	})
}

// An error in the middle of an adoption: it is done again, and nobody's home is forgotten.
func TestAdoptionFailsInTheMiddle(t *testing.T) {
	for _, where := range []string{"fence", "adopt", "adopted", "pin", "seal", "bury"} {
		t.Run(where, func(t *testing.T) {
			w := shared(t)
			ctx := within(t)
			all := w.starts(2)
			heir, victim := all[0], all[1]
			s, u := w.client("sender"), w.client("user")
			must(t, s.connect(ctx, heir))
			must(t, u.connect(ctx, victim))
			s.sends(t, u, 2)
			w.arrived(u.addr, s.name, 2)
			var once sync.Once
			fails := func() (err error) {
				once.Do(func() { err = io.ErrClosedPipe })
				return err
			}
			heir.mu.Lock()
			heir.adopt = func(stage, _ string) error {
				if stage == where {
					return fails()
				}
				return nil
			}
			heir.mu.Unlock()
			heir.gate.set(func(cmd redis.Cmder) error {
				args := cmd.Args()
				if where == "pin" && cmd.Name() == "eval" && fmt.Sprint(args[len(args)-1]) == victim.id || where == "seal" && isScript(sealScript)(cmd) && cmd.Name() == "evalsha" {
					return fails()
				}
				return nil
			}, nil)
			victim.kill()
			s.sends(t, u, 2)
			w.goneFrom(victim, heir)
			w.arrived(u.addr, s.name, 4)
			if home := w.home(u.addr); home != heir.id {
				t.Errorf("the user's home is %q", home)
			}
			if w.ttl(u.addr) != -1 {
				t.Error("the key expires")
			}
			fresh := w.start()
			must(t, u.connect(within(t), fresh))
			s.sends(t, u, 1)
			w.arrived(u.addr, s.name, 5)
		})
	}
}

// The heir dies over an adoption, and another one goes on where it was.
func TestHeirDies(t *testing.T) {
	for _, where := range []string{"adopt", "adopted", "bury"} {
		t.Run(where, func(t *testing.T) {
			w := shared(t)
			ctx := within(t)
			all := w.starts(4)
			victim, far := all[0], all[3]
			s, u, r := w.client("sender"), w.client("user"), w.client("recipient")
			must(t, s.connect(ctx, far))
			must(t, u.connect(ctx, victim))
			must(t, r.connect(ctx, far))
			s.sends(t, u, 5)
			w.arrived(u.addr, s.name, 5)
			u.sends(t, r, 5)
			must(t, victim.j.Settle(ctx))
			reached := make(chan *gateway, 1)
			var first sync.Once
			for _, g := range all[1:3] {
				g.mu.Lock()
				g.adopt = func(stage, dead string) error {
					var err error
					if stage == where && dead == victim.id {
						first.Do(func() {
							reached <- g
							<-g.ctx.Done()
							err = errKilled
						})
					}
					return err
				}
				g.mu.Unlock()
			}
			far.mu.Lock()
			far.adopt = func(stage, dead string) error {
				if dead == victim.id && stage == "fence" && !all[1].dead.Load() && !all[2].dead.Load() {
					return io.ErrClosedPipe // it leaves it to the others
				}
				return nil
			}
			far.mu.Unlock()
			victim.kill()
			heir := <-reached
			s.sends(t, u, 5)
			heir.cancel()
			heir.kill()
			s.sends(t, u, 5)
			var rest []*gateway
			for _, g := range all[1:] {
				if g != heir {
					rest = append(rest, g)
				}
			}
			w.goneFrom(victim, rest...)
			w.goneFrom(heir, rest...)
			w.arrived(u.addr, s.name, 15)
			w.arrived(r.addr, u.name, 5)
			if homes := w.homesOf(u.addr); len(homes) != 1 || homes[0] != w.home(u.addr) {
				t.Errorf("homes %v, the key says %s", homes, w.home(u.addr))
			}
			must(t, u.connect(within(t), rest[0]))
			if n := rest[0].heardOf(u.addr); n != 5 {
				t.Errorf("the session has heard %d", n)
			}
			u.sends(t, r, 1)
			w.arrived(r.addr, u.name, 6)
		})
	}
}

func TestTwoHeirs(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(3)
		victim := all[2]
		var mu sync.Mutex
		adopts := map[string]int{}
		for _, g := range all[:2] {
			g.mu.Lock()
			g.adopt = func(stage, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if stage == "adopt" {
					adopts[g.id]++
				}
				return nil
			}
			g.mu.Unlock()
		}
		u := w.client("user")
		must(t, u.connect(ctx, victim))
		must(t, victim.j.Settle(ctx))
		victim.kill()
		for _, g := range all[:2] {
			g.node.mu.Lock()
			if m := g.node.members[victim.id]; m != nil && !m.adopting {
				m.adopting = true
				g.node.queueAdoptionLocked(victim.id, m)
			}
			g.node.mu.Unlock()
		}
		w.goneFrom(victim, all[:2]...)
		mu.Lock()
		defer mu.Unlock()
		if len(adopts) != 1 {
			t.Errorf("adopted by %v", adopts)
		}
		if homes := w.homesOf(u.addr); len(homes) != 1 {
			t.Errorf("homes %v", homes)
		}
	})
}

// Whoever could not ask Redis for a moment takes nobody for dead before they had the time to find it again too.
func TestNobodyDiesOfAnOutage(t *testing.T) {
	for name, after := range map[string]string{"nothing more": "7", "a beat of before": "8"} {
		t.Run(name, func(t *testing.T) {
			w := shared(t)
			w.cfg.Beat, w.cfg.Lease = 200*time.Millisecond, 500*time.Millisecond
			g := w.make()
			node, now := g.node, time.Now()
			looks := func(after time.Duration, beat string) bool {
				now = now.Add(after)
				node.look([]string{g.id, "1", "other", beat}, now)
				node.mu.Lock()
				defer node.mu.Unlock()
				return node.members["other"].adopting
			}
			looks(0, "7")
			g.gate.set(func(redis.Cmder) error { return io.ErrUnexpectedEOF }, nil)
			if err := node.beatOnce(bg, 2); err == nil {
				t.Fatal("Redis answers")
			}
			if node.Healthy() == nil {
				t.Error("healthy though Redis is away")
			}
			if looks(550*time.Millisecond, after) {
				t.Error("taken for dead as soon as Redis is back")
			}
			if err := node.Healthy(); err != nil {
				t.Error(err)
			}
			for range 2 {
				if looks(475*time.Millisecond, after) {
					t.Error("taken for dead within two leases")
				}
			}
			if !looks(100*time.Millisecond, after) {
				t.Error("not taken for dead")
			}
		})
	}
}

// A node that was fenced knows it when its journal does, even while nobody is there to work off what it left: as long as
// it shows that it lives, others leave to it what it had set out to adopt.
func TestFencedByItsJournal(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	paused, heir, third := all[0], all[1], all[2]
	stuck := make(chan struct{})
	heir.mu.Lock()
	heir.adopt = func(stage, dead string) error {
		if stage == "adopt" && dead == paused.id {
			select {
			case <-stuck:
			case <-heir.ctx.Done():
			}
		}
		return nil
	}
	heir.mu.Unlock()
	third.mu.Lock()
	third.adopt = func(string, string) error { return io.ErrClosedPipe }
	third.mu.Unlock()
	paused.gate.close()
	w.await("it is fenced", func() bool {
		holder, _ := w.admin.Get(ctx, w.keys.Node(paused.id, "fence")).Result()
		return holder == heir.id
	})
	paused.gate.open(false)
	select {
	case <-paused.node.Fenced():
	case <-ctx.Done():
		t.Error("it did not notice")
	}
	close(stuck)
	w.goneFrom(paused, heir, third)
}

// A node whose process is stopped for longer than the lease finds itself fenced, and writes nothing.
func TestPausedNodeIsFenced(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	paused := all[0]
	s, u, far := w.client("sender"), w.client("user"), w.client("far")
	must(t, s.connect(ctx, paused))
	must(t, u.connect(ctx, paused))
	must(t, far.connect(ctx, all[1]))
	s.sends(t, far, 5)
	w.arrived(far.addr, s.name, 5)
	s.sends(t, u, 2)
	must(t, paused.j.Settle(ctx))
	paused.gate.close()
	s.say(far.addr)
	must(t, s.flush(ctx)) // not settled, so it never was
	must(t, paused.j.Settle(ctx))
	w.goneFrom(paused, all[1:]...)
	s.at, u.at = nil, nil
	must(t, s.connect(ctx, all[2]))
	if s.next != 9 {
		t.Errorf("the session has heard %d", s.next-1)
	}
	s.sends(t, u, 2)
	s.sends(t, far, 2)
	w.arrived(far.addr, s.name, 8)
	paused.gate.open(false)
	select {
	case <-paused.node.Fenced():
	case <-ctx.Done():
		t.Fatal("it did not notice")
	}
	// It may try what it likes.
	if err := paused.say(u.addr, "sender 99", Origin{}); err == nil {
		t.Error("it has written into its journal")
	}
	if err := paused.node.Pin(ctx, u.addr, ""); err == nil && w.home(u.addr) == paused.id {
		t.Error("it has taken the user back")
	}
	if err := paused.node.homes.extend(ctx, []stanza.Addr{u.addr}); err != nil {
		t.Error(err)
	}
	if home := w.home(u.addr); home == paused.id {
		t.Errorf("home %s", home)
	}
	s.sends(t, far, 1)
	w.arrived(far.addr, s.name, 9)
	w.arrived(u.addr, s.name, 4)
}

// Who is not sure that a node is dead waits until it does nothing more, between fence and adoption; once, however often
// the adoption fails.
func TestDoubt(t *testing.T) {
	w := shared(t)
	w.cfg.Doubt = 2 * time.Second // far more than the second try takes
	ctx := within(t)
	all := w.starts(2)
	heir, dead := all[0], all[1]
	u := w.client("user")
	must(t, u.connect(ctx, dead))
	must(t, dead.j.Settle(ctx))
	var fences, adoptions []time.Time
	heir.mu.Lock()
	heir.adopt = func(stage, _ string) error {
		switch stage {
		case "fence":
			fences = append(fences, time.Now())
		case "adopt":
			if adoptions = append(adoptions, time.Now()); len(adoptions) == 1 {
				return errors.New("it fails once")
			}
		}
		return nil
	}
	heir.mu.Unlock()
	dead.kill()
	w.goneFrom(dead, heir)
	if len(fences) != 2 || len(adoptions) != 2 {
		t.Fatalf("%d fences and %d adoptions", len(fences), len(adoptions))
	}
	if doubt := adoptions[0].Sub(fences[0]); doubt < w.cfg.Doubt {
		t.Errorf("it was in doubt for %v", doubt)
	}
	if again := adoptions[1].Sub(fences[1]); again >= w.cfg.Doubt {
		t.Errorf("the second time for %v", again)
	}
}

// beatOf is what a gateway last showed the others.
func (w *world) beatOf(g *gateway) string {
	w.t.Helper()
	beat, err := w.admin.HGet(bg, w.keys.Nodes(), g.id).Result()
	must(w.t, err)
	return beat
}

// subscribed waits until all hold a subscription and have shown that they do.
func (w *world) subscribed(all []*gateway) {
	w.t.Helper()
	for _, g := range all {
		w.await(g.id+" is subscribed", func() bool {
			beat := w.beatOf(g)
			return beat != "0" && !strings.HasSuffix(beat, beatDeaf)
		})
	}
}

// A process that is killed closes its subscription, so that nobody waits for its lease.
func TestSuspect(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		w.cfg.Lease = time.Hour
		all := w.starts(3)
		a, victim := all[0], all[1]
		ctx := within(t)
		u := w.client("user")
		must(t, u.connect(ctx, victim))
		must(t, victim.j.Settle(ctx))
		setSubscribed := func(at time.Time) {
			a.node.mu.Lock()
			defer a.node.mu.Unlock()
			a.node.subscribed = at
		}
		w.subscribed(all)
		setSubscribed(time.Now().Add(-2 * time.Hour))
		// One that lives is not suspected.
		a.node.Suspect(ctx, victim.id)
		a.node.Suspect(ctx, "nobody")
		a.node.Suspect(ctx, a.id)
		adopting := func() bool {
			a.node.mu.Lock()
			defer a.node.mu.Unlock()
			m := a.node.members[victim.id]
			return m == nil || m.adopting
		}
		if adopting() {
			t.Fatal("a living node is adopted")
		}
		victim.kill()
		w.await("Redis knows", func() bool {
			n, err := a.rdb.SPublish(ctx, a.node.channel(victim.id), "?").Result()
			return err == nil && n == 0
		})
		setSubscribed(time.Now())
		a.node.Suspect(ctx, victim.id)
		if adopting() {
			t.Error("suspected though the own subscription is young")
		}
		setSubscribed(time.Now().Add(-2 * time.Hour))
		a.node.Suspect(ctx, victim.id)
		w.goneFrom(victim, a)
		if homes := w.homesOf(u.addr); !slices.Equal(homes, []string{a.id}) {
			t.Errorf("homes %v", homes)
		}
	})
}

// One that is suspected is certainly dead if it was heard of just now, and one that has left.
func TestCertainDeath(t *testing.T) {
	w := shared(t)
	w.cfg.Lease, w.cfg.Doubt = time.Hour, time.Hour
	all := w.starts(4)
	a, fresh, old, left := all[0], all[1], all[2], all[3]
	ctx := within(t)
	w.subscribed(all)
	a.node.mu.Lock()
	a.node.subscribed = time.Now().Add(-2 * time.Hour)
	a.node.mu.Unlock()
	fresh.kill()
	old.kill()
	w.await("Redis knows", func() bool {
		for _, g := range []*gateway{fresh, old} {
			if n, err := a.rdb.SPublish(ctx, a.node.channel(g.id), "?").Result(); err != nil || n > 0 {
				return false
			}
		}
		return true
	})
	last := map[string]string{fresh.id: w.beatOf(fresh), old.id: w.beatOf(old)}
	w.await("their last beats are seen", func() bool {
		a.node.mu.Lock()
		defer a.node.mu.Unlock()
		return a.node.members[fresh.id].beat == last[fresh.id] && a.node.members[old.id].beat == last[old.id]
	})
	a.node.mu.Lock()
	a.node.members[fresh.id].heard = time.Now().Add(time.Minute)
	a.node.members[old.id].heard = time.Now().Add(-time.Minute)
	a.node.members[old.id].left = time.Now() // so that nobody waits for its answers
	a.node.mu.Unlock()
	a.node.Suspect(ctx, fresh.id)
	w.goneFrom(fresh, a)
	left.leaveNow()
	w.goneFrom(left, a)
	a.node.mu.Lock()
	a.node.members[old.id].left = time.Time{}
	a.node.mu.Unlock()
	a.node.Suspect(within(t), old.id)
	a.node.mu.Lock()
	m := a.node.members[old.id]
	doubtful := m != nil && m.adopting && !m.certain
	a.node.mu.Unlock()
	if !doubtful {
		t.Error("one that was silent for a while is not suspected, or certainly dead")
	}
	time.Sleep(100 * time.Millisecond)
	if !a.node.isMember(old.id) {
		t.Error("one that was silent for a while was taken over at once")
	}
}

// A node that has lost its subscription, though nobody else has, is not taken for dead.
func TestSuspectOneThatLostItsSubscription(t *testing.T) {
	_, w := standalone(t, quick())
	ctx := within(t)
	all := w.starts(2)
	a, b := all[0], all[1]
	w.await("the subscriptions are old enough", func() bool { return a.node.stands() && b.node.stands() })
	b.gate.noDials(true)
	w.killSubscriptions()
	w.await("it says so", func() bool {
		beat, err := w.admin.HGet(ctx, w.keys.Nodes(), b.id).Result()
		return err == nil && strings.HasSuffix(beat, beatDeaf)
	})
	a.node.mu.Lock()
	a.node.subscribed = time.Now().Add(-time.Hour) // this one's has nothing to do with it
	a.node.mu.Unlock()
	a.node.Suspect(ctx, b.id)
	a.node.mu.Lock()
	m := a.node.members[b.id]
	adopting := m == nil || m.adopting
	a.node.mu.Unlock()
	if adopting {
		t.Error("a living node is adopted")
	}
	b.gate.noDials(false)
	w.await("it subscribes again", func() bool {
		n, err := w.admin.SPublish(ctx, a.node.channel(b.id), "?").Result()
		return err == nil && n == 1
	})
}

// A slot that moves takes the subscription with it, and the node has it again at the new place.
func TestSubscriptionAfterItsSlotMoved(t *testing.T) {
	c := newCluster(t)
	w := newWorld(t, c.URL(), quick())
	all := w.starts(2)
	ctx := within(t)
	key := all[1].node.channel(all[1].id)
	slot, server := c.Slot(t, key)
	count := func(at int) int64 {
		n, err := c.Servers[at].Admin().PubSubShardNumSub(ctx, key).Result()
		must(t, err)
		return n[key]
	}
	w.await("it is subscribed", func() bool { return count(server) == 1 })
	c.MigrateSlot(t, slot, (server+1)%3)
	w.await("it is subscribed where the slot is", func() bool { return count((server+1)%3) == 1 })
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(ctx, all[0]))
	must(t, u.connect(ctx, all[1]))
	s.sends(t, u, 10)
	w.arrived(u.addr, s.name, 10)
}

func TestRedisPausedLongerThanTheLease(t *testing.T) {
	srv, w := standalone(t, quick())
	ctx := within(t)
	all := w.starts(3)
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(ctx, all[0]))
	must(t, u.connect(ctx, all[1]))
	srv.Pause(t)
	time.Sleep(3 * w.cfg.Lease)
	back := time.Now()
	srv.Resume(t)
	s.sends(t, u, 5)
	w.arrived(u.addr, s.name, 5)
	nobodyDied(t, w, all, back)
}

func TestRedisRestarted(t *testing.T) {
	srv, w := standalone(t, quick(), "--appendonly", "yes", "--appendfsync", "always")
	// A connection pool that was refused often tries once a second, so that one node may be back so much before another.
	w.cfg.Lease = 1500 * time.Millisecond
	ctx := within(t)
	all := w.starts(3)
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(ctx, all[0]))
	must(t, u.connect(ctx, all[1]))
	w.subscribed(all)
	for _, g := range all {
		g.node.mu.Lock()
		g.node.subscribed = time.Now().Add(-time.Hour) // old enough to suspect others, until Redis is away
		g.node.mu.Unlock()
	}
	srv.Kill()
	time.Sleep(w.cfg.Lease + w.cfg.Lease/2)
	back := time.Now()
	srv.Restart(t)
	for range 20 {
		for _, g := range all {
			for _, other := range all {
				g.node.Suspect(ctx, other.id)
			}
		}
	}
	s.sends(t, u, 5)
	w.arrived(u.addr, s.name, 5)
	nobodyDied(t, w, all, back)
}

// nobodyDied waits until all have heard of all since Redis is back, and for another lease, and then finds everybody as
// they were.
func nobodyDied(t *testing.T, w *world, all []*gateway, back time.Time) {
	t.Helper()
	for _, g := range all {
		w.await(g.id+" hears of the others", func() bool {
			g.node.mu.Lock()
			defer g.node.mu.Unlock()
			for _, m := range g.node.members {
				if m.heard.Before(back) {
					return false
				}
			}
			return true
		})
	}
	time.Sleep(w.cfg.Lease)
	for _, g := range all {
		select {
		case <-g.node.Fenced():
			t.Errorf("%s was fenced", g.id)
		default:
		}
		if n := len(g.node.Members()); n != len(all)-1 {
			t.Errorf("%s knows %d others", g.id, n)
		}
		g.node.mu.Lock()
		for name, m := range g.node.members {
			if m.adopting {
				t.Errorf("%s adopts %s", g.id, name)
			}
		}
		g.node.mu.Unlock()
	}
}

func TestLeaving(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		w.cfg.Lease, w.cfg.Doubt = time.Hour, time.Hour // nobody waits for them
		ctx := within(t)
		all := w.starts(2)
		a, b := all[0], all[1]
		idle := addr("idle")
		must(t, b.node.Locate(ctx, idle, true))
		s, u := w.client("sender"), w.client("user")
		must(t, s.connect(ctx, a))
		must(t, u.connect(ctx, b))
		s.sends(t, u, 5)
		w.arrived(u.addr, s.name, 5)
		u.sends(t, s, 3)
		w.arrived(s.addr, u.name, 3)
		changed := a.node.AwaitChange()
		b.leaveNow()
		if w.home(idle) != "" {
			t.Error("a user without sessions is still its own")
		}
		w.goneFrom(b, a)
		<-changed
		s.sends(t, u, 5)
		w.arrived(u.addr, s.name, 10)
		if w.home(u.addr) != a.id {
			t.Errorf("the user's home is %q", w.home(u.addr))
		}
	})
}

// A node that left nothing buries itself; what comes too late for it goes elsewhere.
func TestEnding(t *testing.T) {
	w := shared(t)
	w.cfg.Lease = time.Hour
	ctx := within(t)
	all := w.starts(2)
	a, b := all[0], all[1]
	s, u := w.client("sender"), addr("idle")
	must(t, s.connect(ctx, a))
	must(t, b.node.Locate(ctx, u, true))
	s.say(u)
	must(t, s.flush(ctx))
	w.arrived(u, s.name, 1)
	w.await("its mailbox is empty", func() bool { return w.length(b) == 0 })
	must(t, b.node.Leave(ctx))
	must(t, b.node.Checkpoint(ctx))
	b.node.Close()
	ended, err := b.node.End(ctx)
	if err != nil || !ended {
		t.Fatalf("end: %v %v", ended, err)
	}
	s.say(u)
	must(t, s.flush(ctx))
	w.arrived(u, s.name, 2)
	w.goneFrom(b, a)
	if home := w.home(u); home != a.id {
		t.Errorf("the user's home is %q", home)
	}
}

// What is sent to a node that was buried before, by who has not heard of it, is not taken for what the node had had.
func TestForwardToABuriedNode(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	a, victim := all[0], all[1]
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(ctx, a))
	must(t, u.connect(ctx, victim))
	s.sends(t, u, 10)
	w.arrived(u.addr, s.name, 10)
	must(t, victim.j.Settle(ctx))
	victim.kill()
	w.goneFrom(victim, a, all[2])
	w.await("the link is closed", func() bool { return a.node.link(victim.id).isClosed() })
	// What was learnt of the user before its home died is noted only now.
	a.node.homes.mu.Lock()
	delete(a.node.homes.places, u.addr)
	a.node.homes.mu.Unlock()
	a.node.homes.learn(u.addr, victim.id, TermUnknown, false, time.Now(), a.node.homes.turns)
	s.sends(t, u, 3)
	w.arrived(u.addr, s.name, 13)
}

// A user was handed over, and the next home dies before the key in Redis says so.
func TestNextHomeDiesBeforeItsKeyIsSet(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	a, b, c := all[0], all[1], all[2]
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(ctx, a))
	must(t, u.connect(ctx, a))
	s.sends(t, u, 2)
	a.detach(u.addr)
	b.gate.set(func(cmd redis.Cmder) error {
		if isScript(pinScript)(cmd) {
			return io.ErrUnexpectedEOF
		}
		return nil
	}, nil)
	// The first home does not want the estate.
	a.mu.Lock()
	a.adopt = func(string, string) error { return io.ErrClosedPipe }
	a.mu.Unlock()
	if !a.handOver(b.id, u.addr, false) {
		t.Fatal("not handed over")
	}
	w.await("it has come", func() bool { return b.node.Here(u.addr) })
	s.sends(t, u, 2)
	w.arrived(u.addr, s.name, 4)
	must(t, b.j.Settle(ctx))
	b.kill()
	w.goneFrom(b, a, c)
	s.sends(t, u, 2)
	w.arrived(u.addr, s.name, 6)
	if homes := w.homesOf(u.addr); !slices.Equal(homes, []string{c.id}) || w.home(u.addr) != c.id {
		t.Errorf("homes %v, the key says %s", homes, w.home(u.addr))
	}
	must(t, u.connect(ctx, a))
	s.sends(t, u, 1)
	w.arrived(u.addr, s.name, 7)
}

// A client that comes to the heir itself is not served before what its session had sent is on its way.
func TestNobodyIsServedInTheMiddleOfAnAdoption(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(3)
	heir, victim, far := all[0], all[1], all[2]
	s, u := w.client("sender"), w.client("user")
	must(t, s.connect(ctx, victim))
	must(t, u.connect(ctx, far))
	victim.gate.set(func(cmd redis.Cmder) error {
		if cmd.Name() == "xadd" {
			return io.ErrUnexpectedEOF
		}
		return nil
	}, nil)
	s.sends(t, u, 5)
	must(t, victim.j.Settle(ctx))
	far.mu.Lock()
	far.adopt = func(string, string) error { return io.ErrClosedPipe }
	far.mu.Unlock()
	adopted, goOn := make(chan struct{}), make(chan struct{})
	heir.mu.Lock()
	heir.adopt = func(stage, _ string) error {
		if stage == "adopted" {
			close(adopted)
			<-goOn
		}
		return nil
	}
	heir.mu.Unlock()
	victim.kill()
	<-adopted
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := s.connect(brief, heir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connected: %v", err)
	}
	close(goOn)
	must(t, s.connect(ctx, heir))
	s.sends(t, u, 5)
	w.arrived(u.addr, s.name, 10)
}
