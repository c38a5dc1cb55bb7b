package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"holdfast/stanza"
)

func TestClaimAndLocate(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(2)
		a, b := all[0].node, all[1].node
		user := addr("user")
		if err := a.Locate(ctx, user, false); !errors.Is(err, ErrNowhere) {
			t.Errorf("locate: %v", err)
		}
		if _, known := a.Where(user); known {
			t.Error("a user whom nobody serves is known")
		}
		must(t, a.Locate(ctx, user, true))
		if node, known := a.Where(user); !known || node != a.id || !a.Here(user) {
			t.Errorf("where: %s %v", node, known)
		}
		must(t, b.Locate(ctx, user, true))
		if node, known := b.Where(user); !known || node != a.id || b.Here(user) {
			t.Errorf("where: %s %v", node, known)
		}
		for _, n := range []*Node{a, b} {
			if node, err := n.Claim(ctx, user); err != nil || node != a.id {
				t.Errorf("claim: %s %v", node, err)
			}
		}
		here, idle, away := b.homes.Counts()
		if here != 0 || idle != 0 || away != 1 {
			t.Errorf("counts %d %d %d", here, idle, away)
		}
		if here, idle, away = a.homes.Counts(); here != 1 || idle != 1 || away != 0 {
			t.Errorf("counts %d %d %d", here, idle, away)
		}

		var many []stanza.Addr
		for i := range 50 {
			u := addr(fmt.Sprint("u", i))
			many = append(many, u)
			if i%2 == 0 {
				must(t, a.Locate(ctx, u, true))
			}
		}
		nowhere, err := b.LocateAll(ctx, many)
		if err != nil || len(nowhere) != 25 || !slices.Contains(nowhere, addr("u1")) {
			t.Errorf("%v %v", nowhere, err)
		}
		if node, known := b.Where(addr("u0")); node != a.id || !known {
			t.Errorf("where: %s %v", node, known)
		}
		if nowhere, err = a.LocateAll(ctx, many); err != nil || len(nowhere) != 25 {
			t.Errorf("%v %v", nowhere, err)
		}
	})
}

func TestOneOfTwoClaims(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(3)
		for i := range 50 {
			user := addr(fmt.Sprint("user", i))
			var wg sync.WaitGroup
			got := make([]string, len(all))
			for j, g := range all {
				wg.Go(func() {
					var err error
					if got[j], err = g.node.Claim(ctx, user); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got[0] != got[1] || got[0] != got[2] {
				t.Fatalf("they say %v", got)
			}
			if homes := w.homesOf(user); len(homes) != 1 || homes[0] != got[0] {
				t.Fatalf("homes %v, claimed by %s", homes, got[0])
			}
		}
	})
}

// Redis fails: what is known stays, what is not is an error.
func TestLocateWithoutRedis(t *testing.T) {
	w := shared(t)
	g := w.start()
	ctx := within(t)
	must(t, g.node.Locate(ctx, addr("known"), true))
	fail := func(cmd redis.Cmder) error {
		switch cmd.Name() {
		case "get", "set", "eval", "evalsha":
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	g.gate.set(fail, nil)
	must(t, g.node.Locate(ctx, addr("known"), true))
	for _, claim := range []bool{true, false} {
		if err := g.node.Locate(ctx, addr("other"), claim); err == nil || errors.Is(err, ErrNowhere) {
			t.Errorf("locate: %v", err)
		}
	}
	if _, err := g.node.LocateAll(ctx, []stanza.Addr{addr("other")}); err == nil {
		t.Error("located without Redis")
	}
	if err := g.node.Pin(ctx, addr("known"), ""); err == nil {
		t.Error("pinned without Redis")
	}
	g.gate.set(nil, nil)
	must(t, g.node.Pin(ctx, addr("known"), ""))
}

func TestClaimFromANodeThatIsGone(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(2)
		user := addr("user")
		must(t, w.admin.Set(bg, w.keys.Home(user.String()), "nobody", 0).Err())
		if err := all[0].node.Locate(ctx, user, false); !errors.Is(err, ErrNowhere) {
			t.Errorf("locate: %v", err)
		}
		if nowhere, err := all[0].node.LocateAll(ctx, []stanza.Addr{user}); err != nil || len(nowhere) != 1 {
			t.Errorf("locate all: %v %v", nowhere, err)
		}
		var wg sync.WaitGroup
		for _, g := range all {
			wg.Go(func() {
				if err := g.node.Locate(ctx, user, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if homes := w.homesOf(user); len(homes) != 1 || homes[0] != w.home(user) {
			t.Errorf("homes %v, the key says %s", homes, w.home(user))
		}
	})
}

// short is a configuration in which homes of idle users pass quickly.
func short() Config {
	cfg := quick()
	cfg.HomeTime = 120 * time.Millisecond
	return cfg
}

// claims makes a gateway the home of a user who was last in use at that time, as far as it knows.
func (w *world) claims(g *gateway, user stanza.Addr, used time.Time) {
	w.t.Helper()
	w.await(g.id+" is the home", func() bool {
		must(w.t, g.node.Locate(bg, user, true))
		g.node.homes.mu.Lock()
		defer g.node.homes.mu.Unlock()
		p := g.node.homes.places[user]
		if p == nil || p.node != g.id || p.leaving != nil {
			return false // given up in that moment
		}
		p.used.Store(used.UnixNano())
		return true
	})
}

func (w *world) ttl(user stanza.Addr) time.Duration {
	w.t.Helper()
	d, err := w.admin.PTTL(bg, w.keys.Home(user.String())).Result()
	must(w.t, err)
	return d
}

func TestIdleUsersAreGivenUp(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		w.cfg.HomeTime = 300 * time.Millisecond // a key that nobody extends for three times that is gone
		ctx := within(t)
		g := w.start()
		for i := range 20 {
			must(t, g.node.Locate(ctx, addr(fmt.Sprint("idle", i)), true))
		}
		used, pinned, loose := addr("used"), addr("pinned"), addr("loose")
		w.claims(g, used, time.Now().Add(time.Hour))
		for _, user := range []stanza.Addr{pinned, loose} {
			w.await("it is pinned", func() bool {
				must(t, g.node.Locate(ctx, user, true))
				return g.node.Pin(ctx, user, "") == nil
			})
		}
		if w.ttl(pinned) != -1 {
			t.Error("a pinned user's key expires")
		}
		g.mu.Lock()
		g.node.Unpin(loose)
		g.mu.Unlock()
		w.await("the key of a user without sessions expires", func() bool { return w.ttl(loose) != -1 })
		w.await("idle users are nobody's", func() bool {
			here, _, _ := g.node.homes.Counts()
			return here <= 2
		})
		w.await("those who are in use are still here", func() bool { return g.node.Here(used) && g.node.Here(pinned) })
		if n := w.home(addr("idle3")); n != "" {
			t.Errorf("the key names %s", n)
		}
		if w.home(used) != g.id || w.home(pinned) != g.id || w.ttl(pinned) != -1 {
			t.Error("the keys of those who stay are gone")
		}
	})
}

// Who takes a user whom the former home has given up is the home, whatever it knew before.
func TestClaimOfAUserWhoWasGivenUp(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := within(t)
		all := w.starts(2)
		a, b := all[0], all[1]
		u := w.client("user")
		for _, sends := range []int{0, 3} {
			must(t, a.node.Locate(ctx, u.addr, true))
			must(t, b.node.Locate(ctx, u.addr, false))
			s := w.client(fmt.Sprint("sender", sends))
			must(t, s.connect(ctx, b))
			s.sends(t, u, sends)
			w.arrived(u.addr, s.name, uint32(sends))
			must(t, a.node.homes.giveUp(ctx, u.addr, a))
			home, err := b.node.Claim(ctx, u.addr)
			must(t, err)
			if home != b.id || !b.node.Here(u.addr) {
				t.Fatalf("after %d messages: the home is %s, here %v", sends, home, b.node.Here(u.addr))
			}
			s.sends(t, u, 2)
			w.arrived(u.addr, s.name, uint32(sends)+2)
			must(t, b.node.homes.giveUp(ctx, u.addr, b))
		}
	})
}

// A key that expires behind its node's back is not relied on, and what the node says ends before the key does.
func TestHereOnlyWhileTheKeyLives(t *testing.T) {
	w := shared(t)
	w.cfg.HomeTime = time.Second
	ctx := within(t)
	all := w.starts(2)
	a, b := all[0], all[1]
	user := addr("user")
	w.claims(a, user, time.Now().Add(time.Hour)) // so that it is not given up
	a.gate.set(func(cmd redis.Cmder) error {
		if isScript(expireScript)(cmd) {
			return io.ErrUnexpectedEOF // nothing is extended
		}
		return nil
	}, nil)
	w.await("the home lapses", func() bool { return !a.node.Here(user) })
	if w.home(user) != a.id {
		t.Error("the key was gone before")
	}
	must(t, w.admin.PExpire(ctx, w.keys.Home(user.String()), 50*time.Millisecond).Err()) // no need to wait for the rest
	w.await("the other takes the user", func() bool {
		if a.node.Here(user) && w.home(user) != a.id {
			t.Fatal("home without a key")
		}
		must(t, b.node.Locate(ctx, user, true))
		if node, _ := b.node.Where(user); node != b.id {
			// Not yet: it has to ask again.
			b.node.homes.mu.Lock()
			delete(b.node.homes.places, user)
			b.node.homes.away = 0
			b.node.homes.mu.Unlock()
			return false
		}
		return true
	})
	if a.node.Here(user) {
		t.Error("two homes")
	}
}

// A key that is about to expire is made to last before it is relied on.
func TestAKeyThatIsFoundLasts(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	g := w.start()
	for name, find := range map[string]func(stanza.Addr) error{
		"claim":  func(u stanza.Addr) error { return g.node.Locate(ctx, u, true) },
		"locate": func(u stanza.Addr) error { return g.node.Locate(ctx, u, false) },
		"all":    func(u stanza.Addr) error { _, err := g.node.LocateAll(ctx, []stanza.Addr{u}); return err },
	} {
		user := addr("found-by-" + name)
		must(t, w.admin.Set(bg, w.keys.Home(user.String()), g.id, 2*time.Second).Err())
		must(t, find(user))
		if !g.node.Here(user) {
			t.Errorf("%s: not here", name)
		}
		if left := w.ttl(user); left < w.cfg.HomeTime {
			t.Errorf("%s: the key expires in %v, before this node stops relying on it", name, left)
		}
	}
}

// between lets a test act when a gateway has sent a command, before it hears the reply.
func (g *gate) between(is func(redis.Cmder) bool, act func()) {
	var once sync.Once
	g.set(nil, func(cmd redis.Cmder) error {
		if is(cmd) {
			once.Do(act)
		}
		return nil
	})
}

func isScript(s *redis.Script) func(redis.Cmder) bool {
	return func(cmd redis.Cmder) bool {
		args := cmd.Args()
		return len(args) > 1 && (args[1] == s.Hash() || cmd.Name() == "eval")
	}
}

// A user is extended by the keeper while a client comes: the key must not expire then.
func TestPinWhileExtended(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	g := w.start()
	for i := range 50 {
		user := addr(fmt.Sprint("user", i))
		must(t, g.node.Locate(ctx, user, true))
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := g.node.homes.extend(ctx, []stanza.Addr{user}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := g.node.Pin(ctx, user, ""); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if d := w.ttl(user); d != -1 {
			t.Fatalf("after %d tries the key of a pinned user expires in %v", i+1, d)
		}
	}
	// The same in the one order that is the worst.
	user := addr("last")
	must(t, g.node.Locate(ctx, user, true))
	extended := make(chan struct{})
	g.gate.between(isScript(pinScript), func() {
		go func() {
			defer close(extended)
			if err := g.node.homes.extend(ctx, []stanza.Addr{user}); err != nil {
				t.Error(err)
			}
		}()
		select {
		case <-extended:
		case <-time.After(100 * time.Millisecond): // it waits for the pin
		}
	})
	must(t, g.node.Pin(ctx, user, ""))
	<-extended
	if d := w.ttl(user); d != -1 {
		t.Errorf("the key of a pinned user expires in %v", d)
	}
}

func TestPinOfAnothersUser(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(2)
	user := addr("user")
	must(t, all[1].node.Locate(ctx, user, true))
	must(t, all[1].node.Pin(ctx, user, ""))
	must(t, all[0].node.Locate(ctx, user, true))
	if err := all[0].node.Pin(ctx, user, ""); !errors.Is(err, ErrLost) && !errors.Is(err, ErrUnlocated) {
		t.Errorf("pin: %v", err)
	}
	if w.home(user) != all[1].id {
		t.Error("it was taken away")
	}
	all[1].node.Unpin(addr("nobody"))
	all[0].node.Unpin(user)
	if w.ttl(user) != -1 {
		t.Error("unpinned by another node")
	}
}

func TestReleaseFailing(t *testing.T) {
	w := shared(t)
	w.cfg.HomeTime = time.Second // the key lasts three times that
	ctx := within(t)
	g := w.start()
	fails := make(chan struct{}, 1)
	g.mu.Lock()
	g.release = func(stanza.Addr) error {
		select {
		case fails <- struct{}{}:
		default:
		}
		return io.ErrClosedPipe
	}
	g.mu.Unlock()
	user := addr("user")
	w.claims(g, user, time.Now().Add(-time.Hour))
	for range 3 {
		<-fails
	}
	if w.home(user) != g.id {
		t.Error("given up though not released")
	}
	// While the keeper is at the user it is left to it.
	w.await("leaving fails too", func() bool { return errors.Is(g.node.Leave(ctx), io.ErrClosedPipe) })
	g.mu.Lock()
	g.release = nil
	g.mu.Unlock()
	w.await("it is given up", func() bool { return w.home(user) == "" && len(w.homesOf(user)) == 0 })
}

// The key may be gone when the reply to its deletion is lost.
func TestGivingUpWithoutAReply(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(2)
	a, b := all[0], all[1]
	user := addr("user")
	must(t, a.node.Locate(ctx, user, true))
	must(t, expireScript.Load(ctx, a.rdb).Err()) // so that it is called by its hash
	a.gate.set(nil, func(cmd redis.Cmder) error {
		if args := cmd.Args(); len(args) > 1 && args[1] == expireScript.Hash() {
			return io.EOF
		}
		return nil
	})
	if err := a.node.Leave(ctx); !errors.Is(err, io.EOF) {
		t.Fatalf("leave: %v", err)
	}
	a.gate.set(nil, nil)
	if w.home(user) != "" {
		t.Fatal("the key is still there")
	}
	must(t, b.node.Locate(ctx, user, true))
	if homes := w.homesOf(user); !slices.Equal(homes, []string{b.id}) {
		t.Errorf("homes %v", homes)
	}
	must(t, a.node.Locate(ctx, user, true))
	if node, _ := a.node.Where(user); node != b.id {
		t.Errorf("where: %s", node)
	}
}

// A node asks Redis for a user while it gives the user up: what it hears is old news.
func TestClaimWhileGivenUp(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	all := w.starts(2)
	a, b := all[0], all[1]
	user := addr("user")
	must(t, a.node.Locate(ctx, user, true))
	a.gate.between(func(cmd redis.Cmder) bool {
		return cmd.Name() == "set" || cmd.Name() == "get" || cmd.Name() == "evalsha" && cmd.Args()[1] != expireScript.Hash() && cmd.Args()[1] != beatScript.Hash()
	}, func() {
		must(t, a.node.Leave(ctx))
		must(t, b.node.Locate(ctx, user, true))
	})
	node, err := a.node.Claim(ctx, user)
	if err != nil || node != b.id {
		t.Errorf("claim: %s %v", node, err)
	}
	if homes := w.homesOf(user); !slices.Equal(homes, []string{b.id}) {
		t.Errorf("homes %v", homes)
	}
}

// Who locates a user that is being given up waits for it.
func TestLocateWhileGivenUp(t *testing.T) {
	w := shared(t)
	ctx := within(t)
	g := w.start()
	user := addr("user")
	must(t, g.node.Locate(ctx, user, true))
	releasing, go_ := make(chan struct{}), make(chan struct{})
	g.mu.Lock()
	g.release = func(stanza.Addr) error { close(releasing); <-go_; return nil }
	g.mu.Unlock()
	left := make(chan error, 1)
	go func() { left <- g.node.Leave(ctx) }()
	<-releasing
	if g.node.Here(user) {
		t.Error("here while it is given up")
	}
	if err := g.node.Pin(ctx, user, ""); !errors.Is(err, ErrUnlocated) {
		t.Errorf("pin: %v", err)
	}
	brief, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := g.node.Locate(brief, user, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("locate: %v", err)
	}
	located := make(chan error, 1)
	go func() { located <- g.node.Locate(ctx, user, true) }()
	close(go_)
	must(t, <-left)
	must(t, <-located)
	if !g.node.Here(user) || w.home(user) != g.id {
		t.Error("not here again")
	}
}

// One user whose release takes long does not keep the others' homes from being extended.
func TestSlowReleaseHoldsNobodyUp(t *testing.T) {
	w := shared(t)
	w.cfg.HomeTime = time.Second
	g := w.start()
	releasing, go_ := make(chan struct{}), make(chan struct{})
	began := sync.OnceFunc(func() { close(releasing) })
	slow, used := addr("slow"), addr("used")
	g.mu.Lock()
	g.release = func(u stanza.Addr) error {
		if u == slow {
			began()
			<-go_
		}
		return nil
	}
	g.mu.Unlock()
	defer close(go_)
	w.claims(g, used, time.Now().Add(time.Hour))
	w.claims(g, slow, time.Now().Add(-time.Hour))
	<-releasing
	since := time.Now()
	w.await("a user in use is extended again and again", func() bool {
		g.node.homes.mu.RLock()
		defer g.node.homes.mu.RUnlock()
		p := g.node.homes.places[used]
		return p != nil && p.until.After(since.Add(w.cfg.HomeTime+w.cfg.HomeTime/2))
	})
	w.await("it is here", func() bool { return g.node.Here(used) })
	if w.home(used) != g.id {
		t.Error("the key of a user in use is gone")
	}
}

func TestEviction(t *testing.T) {
	w := shared(t)
	w.cfg.Locations = 10
	ctx := within(t)
	all := w.starts(2)
	h := all[1].node.homes
	for i := range 60 {
		user := addr(fmt.Sprint("user", i))
		must(t, all[0].node.Locate(ctx, user, true))
		must(t, all[1].node.Locate(ctx, user, false))
		h.mu.Lock()
		if i%2 == 0 {
			h.places[user].used.Store(time.Now().Add(-time.Hour).UnixNano())
		}
		h.mu.Unlock()
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	if len(h.places) != h.away || h.away < 30 || h.away > 40 {
		t.Errorf("%d places, %d away", len(h.places), h.away)
	}
	for i := range 30 {
		if h.places[addr(fmt.Sprint("user", 2*i+1))] == nil {
			t.Error("one that was used lately is forgotten")
		}
	}
}

func TestConfig(t *testing.T) {
	must(t, DefaultConfig().Validate())
	for name, change := range map[string]func(*Config){
		"CLUSTER_BEAT":       func(c *Config) { c.Beat = time.Millisecond },
		"CLUSTER_LEASE":      func(c *Config) { c.Lease = 2 * c.Beat },
		"CLUSTER_HOME_TIME":  func(c *Config) { c.HomeTime = time.Second },
		"CLUSTER_LINK_BYTES": func(c *Config) { c.LinkBytes = -1 },
		"CLUSTER_LOCATIONS":  func(c *Config) { c.Locations = -1 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || err.Error()[:len(name)] != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}
