package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// simulation is what happens at random, by a seed.
type simulation struct {
	seed           uint64
	nodes, senders int
	users, idle    int // users with sessions, which move; users without
	kills          int
	sendersMove    bool
	lasts          time.Duration
	slow           time.Duration // how long a message may take at most
	losesReplies   bool
	minHome        time.Duration
	leaves         bool
}

// run has senders send to users all the time while clients move and gateways die. Everything has to arrive once and in
// order.
func (x simulation) run(t *testing.T, w *world) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(x.seed, 7))
	w.rand = rand.New(rand.NewPCG(x.seed, 8))
	if x.minHome > 0 {
		w.cfg.HomeTime = x.minHome
	}
	var mu sync.Mutex
	living := w.starts(x.nodes)
	ctx, cancel := context.WithTimeout(bg, x.lasts+60*time.Second)
	defer cancel()
	random := func(n int) int { mu.Lock(); defer mu.Unlock(); return rnd.IntN(n) }
	any := func() *gateway {
		mu.Lock()
		defer mu.Unlock()
		return living[rnd.IntN(len(living))]
	}
	prepare := func(g *gateway) {
		if x.slow > 0 {
			g.mu.Lock()
			g.receive = func(string, Message) (bool, error) {
				if random(20) == 0 {
					g.pause(time.Duration(random(int(x.slow))))
				}
				return false, nil
			}
			g.mu.Unlock()
		}
		if x.losesReplies {
			xadds(g.gate, 12)
		}
	}
	for _, g := range living {
		prepare(g)
	}
	// Who has said everything still has to notice that the last of it was lost with a gateway.
	var over, killed atomic.Bool
	time.AfterFunc(x.lasts, func() { over.Store(true) })
	ended := func() bool { return over.Load() && killed.Load() }
	// connected tries until a gateway that lives has the client.
	connected := func(c *client) bool {
		for ctx.Err() == nil && !w.faulty() {
			if c.connect(ctx, any()) == nil {
				return true
			}
		}
		return false
	}
	var users, senders []*client
	for i := range x.users + x.idle {
		u := w.client(fmt.Sprint("u", i))
		users = append(users, u)
		if i < x.users && !connected(u) {
			t.Fatal("not connected")
		}
	}
	for i := range x.senders {
		s := w.client(fmt.Sprint("s", i))
		senders = append(senders, s)
		if !connected(s) {
			t.Fatal("not connected")
		}
	}
	var sending, moving sync.WaitGroup
	var done atomic.Bool
	for _, s := range senders {
		sending.Go(func() {
			for !ended() || int(s.next) <= len(s.said) || s.at.dead.Load() {
				if ctx.Err() != nil || w.faulty() || s.at.dead.Load() && !connected(s) {
					return
				}
				if !ended() && (int(s.next) > len(s.said) || random(3) > 0) {
					s.say(users[random(len(users))].addr)
				}
				if x.sendersMove && random(60) == 0 && !connected(s) {
					return
				}
				if s.flush(ctx) != nil && !connected(s) {
					return
				}
				time.Sleep(time.Duration(random(2_000_000)))
			}
		})
	}
	for _, u := range users[:x.users] {
		moving.Go(func() {
			for !done.Load() && ctx.Err() == nil && !w.faulty() {
				if (u.at == nil || u.at.dead.Load() || !ended()) && !connected(u) {
					return
				}
				if random(2) == 0 && u.at != nil {
					u.at.detach(u.addr)
				}
				time.Sleep(time.Duration(random(60_000_000)))
			}
		})
	}
	for i := range x.kills {
		select {
		case <-time.After(x.lasts / time.Duration(x.kills+1)):
		case <-ctx.Done():
		}
		mu.Lock()
		at := rnd.IntN(len(living))
		victim := living[at]
		mu.Unlock()
		fresh := w.make()
		prepare(fresh)
		fresh.enter()
		mu.Lock()
		living[at] = fresh
		mu.Unlock()
		if x.leaves && i%2 == 1 {
			victim.leaveNow()
		} else {
			victim.kill()
		}
	}
	killed.Store(true)
	sending.Wait()
	if ctx.Err() != nil {
		t.Fatal("senders are stuck")
	}
	total := 0
	for _, s := range senders {
		total += len(s.said)
		for _, u := range users {
			w.arrived(u.addr, s.name, s.count[u.addr.String()])
		}
	}
	done.Store(true)
	moving.Wait()
	for _, u := range users {
		for _, s := range senders {
			// While a user is given up nobody has what is not kept yet.
			want := s.count[u.addr.String()]
			w.await(fmt.Sprintf("%s has %d of %s, and no more", u.name, want, s.name), func() bool {
				got, _ := w.got(u.addr, s.name)
				return got == want || w.faulty()
			})
		}
		if homes := w.homesOf(u.addr); len(homes) > 1 {
			t.Errorf("%s has the homes %v", u.name, homes)
		}
	}
	t.Logf("seed %d: %d messages", x.seed, total)
}

// leaveNow is leave while clients are connected: they find out.
func (g *gateway) leaveNow() {
	_ = g.node.Leave(bg) // what was not given up is adopted
	g.node.Close()
	_ = g.j.Settle(bg)
	_, _ = g.fence(bg, g.id, "", "")
	_ = g.node.Left(bg)
	g.kill()
}

// seeds are a few in each run, and as many as HOLDFAST_TEST_SEEDS says for a longer search.
func seeds(t *testing.T) []uint64 {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_TEST_SEEDS")); err == nil {
		all := make([]uint64, n)
		now := uint64(time.Now().Unix())
		for i := range all {
			all[i] = now*1000 + uint64(i)
		}
		return all
	}
	return []uint64{1, 2}
}

func TestRandomMoves(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simulation{seed: seed, nodes: 4, senders: 6, users: 3, lasts: 1500 * time.Millisecond, slow: 5 * time.Millisecond}.run(t, shared(t))
		})
	}
}

func TestRandomIdleUsers(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simulation{seed: seed, nodes: 3, senders: 4, users: 1, idle: 6, lasts: 1500 * time.Millisecond, minHome: 60 * time.Millisecond, losesReplies: true}.run(t, shared(t))
		})
	}
}

func TestRandomKills(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simulation{seed: seed, nodes: 4, senders: 5, users: 3, idle: 2, kills: 3, lasts: 2 * time.Second, slow: 5 * time.Millisecond, leaves: true}.run(t, shared(t))
		})
	}
}

func TestRandomKillsOverACluster(t *testing.T) {
	w := func(t *testing.T) *world { return onCluster(t) }
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simulation{seed: seed, nodes: 3, senders: 4, users: 3, idle: 1, kills: 2, lasts: 2 * time.Second, sendersMove: true, losesReplies: true}.run(t, w(t))
		})
	}
}
