package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"holdfast/internal/redisx"
	"holdfast/internal/testkit/redisproc"
	"holdfast/stanza"
)

// world is the cluster of one test.
type world struct {
	t     testing.TB
	rx    redisx.Config
	keys  redisx.Keys
	cfg   Config
	admin redis.UniversalClient

	mu     sync.Mutex
	rand   *rand.Rand
	all    map[string]*gateway // dead ones too
	kept   map[stanza.Addr]*person
	events []string
	before []string // events before the first fault
	faults []string
}

// quick is a configuration in which little time passes. A machine that stands still for three beats puts off that
// anybody is found dead, so they are not too short.
func quick() Config {
	cfg := DefaultConfig()
	cfg.Beat, cfg.Lease, cfg.HomeTime = 50*time.Millisecond, 300*time.Millisecond, 30*time.Second
	return cfg
}

func newWorld(t testing.TB, url string, cfg Config) *world {
	t.Helper()
	rx := redisx.DefaultConfig()
	rx.URL, rx.Prefix, rx.Timeout = redisx.URL(url), redisproc.Prefix(), 2*time.Second
	w := &world{
		t: t, rx: rx, keys: rx.Keys(), cfg: cfg, rand: rand.New(rand.NewPCG(1, 2)),
		all: make(map[string]*gateway), kept: make(map[stanza.Addr]*person),
	}
	w.admin = w.open()
	t.Cleanup(func() {
		w.mu.Lock()
		faults, before := slices.Clone(w.faults), w.before
		if before == nil && t.Failed() {
			before = w.events
		}
		w.mu.Unlock()
		for _, e := range before[max(0, len(before)-tracedAtMost):] {
			t.Log(e)
		}
		for i, f := range faults {
			if i == 10 {
				t.Errorf("and %d more", len(faults)-i)
				break
			}
			t.Error(f)
		}
		_ = w.admin.Close()
	})
	return w
}

// shared is a world over the one server that tests share.
func shared(t testing.TB) *world {
	t.Helper()
	return newWorld(t, redisproc.Shared(t).URL(), quick())
}

// onEach runs a test over one server and over a Redis Cluster.
func onEach(t *testing.T, test func(t *testing.T, w *world)) {
	t.Run("standalone", func(t *testing.T) { test(t, shared(t)) })
	t.Run("cluster", func(t *testing.T) { test(t, newWorld(t, redisproc.SharedCluster(t).URL(), quick())) })
}

func (w *world) open() redis.UniversalClient {
	w.t.Helper()
	rdb, err := redisx.Open(w.rx, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	return rdb
}

func (w *world) fault(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) == 0 {
		w.before = w.events // what led to it
	}
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

func (w *world) faulty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.faults) > 0
}

// pick chooses from 0 to n.
func (w *world) pick(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n + 1)
}

func (w *world) gateway(id string) *gateway {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all[id]
}

// keep is the kept store: what comes late is no news.
func (w *world) keep(user stanza.Addr, p *person) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.kept[user]
	if k == nil {
		k = newPerson()
		w.kept[user] = k
	}
	k.In = max(k.In, p.In)
	for from, n := range p.Last {
		k.Last[from] = max(k.Last[from], n)
	}
}

func (w *world) load(user stanza.Addr) *person {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.kept[user]; k != nil {
		return k.clone()
	}
	return newPerson()
}

// make is a gateway that has not entered the cluster yet.
func (w *world) make() *gateway {
	w.t.Helper()
	w.mu.Lock()
	id := fmt.Sprint("n", len(w.all)+1)
	w.mu.Unlock()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("CLUSTER_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	g := &gateway{
		w: w, id: id, rdb: w.open(), gate: newGate(), j: newJournal(),
		users: make(map[stanza.Addr]*person), coming: make(map[stanza.Addr]int), peers: make(map[string]*peer), taken: make(map[string]bool),
	}
	g.rdb.AddHook(g.gate)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.node = New(w.cfg, id, g.rdb, w.keys, log, prometheus.NewRegistry())
	for _, what := range []string{"journal", "mailbox"} {
		key := w.keys.Node(id, what)
		must(w.t, w.admin.XGroupCreateMkStream(bg, key, "none", "$").Err())
		must(w.t, w.admin.XGroupDestroy(bg, key, "none").Err())
		must(w.t, w.admin.Expire(bg, key, time.Minute).Err())
	}
	w.mu.Lock()
	w.all[id] = g
	w.mu.Unlock()
	w.t.Cleanup(g.kill)
	return g
}

// start makes a gateway and has it enter the cluster.
func (w *world) start() *gateway {
	w.t.Helper()
	g := w.make()
	g.enter()
	return g
}

func (g *gateway) enter() {
	g.w.t.Helper()
	must(g.w.t, g.node.Start(bg, Parts{Journal: g.j, Receiver: g, Heir: g, Ords: func() uint64 { return g.ords.Add(1) }, Callee: &g.names}))
}

// starts makes n gateways that know each other.
func (w *world) starts(n int) []*gateway {
	w.t.Helper()
	all := make([]*gateway, n)
	for i := range all {
		all[i] = w.start()
	}
	for _, g := range all {
		w.await("all members are known", func() bool { return len(g.node.Members()) >= n-1 })
	}
	return all
}

// kill ends a gateway as kill -9 does: nothing of it reaches a store any more, and its connections close.
func (g *gateway) kill() {
	if g.dead.Swap(true) {
		return
	}
	g.w.trace("%s: killed", g.id)
	g.j.end(errKilled, g.w.pick)
	g.gate.open(true)
	_ = g.rdb.Close()
	g.cancel()
	g.node.Close()
	g.loops.Wait()
}

var bg = context.Background()

const patience = 20 * time.Second

// await waits until something that no channel tells is so.
func (w *world) await(what string, yes func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for !yes() {
		if time.Now().After(deadline) {
			w.t.Fatalf("not after %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// goneFrom waits until nobody has the dead gateway as a member.
func (w *world) goneFrom(dead *gateway, rest ...*gateway) {
	w.t.Helper()
	for _, g := range rest {
		w.await(g.id+" knows that "+dead.id+" is gone", func() bool { return !slices.Contains(g.node.Members(), dead.id) })
	}
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addr(name string) stanza.Addr { return stanza.MustParseAddr(name + "@example.org") }

// home is the key that names a user's home.
func (w *world) home(user stanza.Addr) string {
	w.t.Helper()
	node, err := w.admin.Get(bg, w.keys.Home(user.String())).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		w.t.Fatal(err)
	}
	node, _ = cutHome(node)
	return node
}

// length is how many entries a mailbox has.
func (w *world) length(g *gateway) int {
	w.t.Helper()
	n, err := w.admin.XLen(bg, w.keys.Node(g.id, "mailbox")).Result()
	must(w.t, err)
	return int(n)
}

// gate stands between a gateway and Redis: closed, it is as if the process was stopped.
type gate struct {
	mu     sync.Mutex
	ch     chan struct{} // closed while the gate is open
	killed bool
	alone  bool
	before func(cmd redis.Cmder) error // may refuse a command
	after  func(cmd redis.Cmder) error // may lose its reply
}

func newGate() *gate {
	g := &gate{ch: make(chan struct{})}
	close(g.ch)
	return g
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ch = make(chan struct{})
}

func (g *gate) open(killed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.killed = g.killed || killed
	select {
	case <-g.ch:
	default:
		close(g.ch)
	}
}

func (g *gate) set(before, after func(cmd redis.Cmder) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.before, g.after = before, after
}

func (g *gate) pass() error {
	g.mu.Lock()
	ch := g.ch
	g.mu.Unlock()
	<-ch
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.killed {
		return errKilled
	}
	return nil
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		g.mu.Lock()
		alone := g.alone
		g.mu.Unlock()
		if alone {
			return nil, io.ErrClosedPipe
		}
		return next(ctx, network, addr)
	}
}

// noDials lets no new connection come about.
func (g *gate) noDials(no bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alone = no
}

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := g.pass(); err != nil {
			cmd.SetErr(err)
			return err
		}
		g.mu.Lock()
		before, after := g.before, g.after
		g.mu.Unlock()
		if before != nil {
			if err := before(cmd); err != nil {
				cmd.SetErr(err)
				return err
			}
		}
		err := next(ctx, cmd)
		if after != nil && err == nil {
			if err = after(cmd); err != nil {
				cmd.SetErr(err)
			}
		}
		if g.pass() != nil && err == nil {
			err = errKilled
			cmd.SetErr(err)
		}
		return err
	}
}

func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := g.pass(); err != nil {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
			return err
		}
		g.mu.Lock()
		before := g.before
		g.mu.Unlock()
		if before != nil {
			if err := before(cmds[0]); err != nil {
				for _, cmd := range cmds {
					cmd.SetErr(err)
				}
				return err
			}
		}
		return next(ctx, cmds)
	}
}

// client is somebody whose connection may go to any gateway.
type client struct {
	w     *world
	name  string
	addr  stanza.Addr
	at    *gateway
	next  uint32            // the next stanza that was not heard yet, as far as it knows
	said  []string          // all stanzas, by number - 1: what each says
	to    []stanza.Addr     // and to whom
	count map[string]uint32 // by recipient
}

func (w *world) client(name string) *client {
	return &client{w: w, name: name, addr: addr(name), next: 1, count: make(map[string]uint32)}
}

// connect brings the client to a gateway; what was not heard is to be sent again.
func (c *client) connect(ctx context.Context, g *gateway) error {
	if c.at != nil {
		c.at.detach(c.addr)
		c.at = nil
	}
	if err := g.bring(ctx, c.addr); err != nil {
		return err
	}
	c.at = g
	c.next = g.heardOf(c.addr) + 1
	return nil
}

// say puts something on the list of what the client sends.
func (c *client) say(to stanza.Addr) {
	c.count[to.String()]++
	c.said = append(c.said, fmt.Sprint(c.name, " ", c.count[to.String()]))
	c.to = append(c.to, to)
}

// flush sends what was not heard yet.
func (c *client) flush(ctx context.Context) error {
	for int(c.next) <= len(c.said) {
		err := c.at.send(ctx, c.addr, c.to[c.next-1], c.next, c.said[c.next-1])
		if err != nil {
			return err
		}
		c.next++
	}
	return nil
}

// got is how far a user has got with a sender, wherever the user is; ok is false while nobody serves it.
func (w *world) got(user stanza.Addr, from string) (n uint32, at string) {
	w.mu.Lock()
	all := make([]*gateway, 0, len(w.all))
	for _, g := range w.all {
		if !g.dead.Load() {
			all = append(all, g)
		}
	}
	kept := w.kept[user]
	if kept != nil {
		n = kept.Last[from]
	}
	w.mu.Unlock()
	for _, g := range all {
		g.mu.Lock()
		if p := g.users[user]; p != nil && g.node.Here(user) {
			n, at = p.Last[from], g.id
		}
		g.mu.Unlock()
	}
	return n, at
}

// homes lists the gateways that take themselves for a user's home.
func (w *world) homesOf(user stanza.Addr) (ids []string) {
	w.mu.Lock()
	all := make([]*gateway, 0, len(w.all))
	for _, g := range w.all {
		all = append(all, g)
	}
	w.mu.Unlock()
	for _, g := range all {
		if !g.dead.Load() && g.node.Here(user) {
			ids = append(ids, g.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// arrived waits until a user has got everything of a sender.
func (w *world) arrived(user stanza.Addr, from string, n uint32) {
	w.t.Helper()
	w.await(fmt.Sprintf("%s has %d of %s", user, n, from), func() bool {
		got, _ := w.got(user, from)
		return got >= n || w.faulty()
	})
}

func sharedURL(t testing.TB) string {
	t.Helper()
	return redisproc.Shared(t).URL()
}

// standalone is a world over a server of its own, which may be paused and killed.
func standalone(t testing.TB, cfg Config, args ...string) (*redisproc.Server, *world) {
	t.Helper()
	srv := redisproc.Standalone(t, args...)
	return srv, newWorld(t, srv.URL(), cfg)
}

func onCluster(t testing.TB) *world {
	t.Helper()
	return newWorld(t, redisproc.SharedCluster(t).URL(), quick())
}

// arrive has everything that is under way arrive where it is to be, over however many gateways. It reports false when
// that takes long.
func (w *world) arrive(g *gateway) bool {
	ctx, cancel := context.WithTimeout(g.ctx, 2*time.Second)
	defer cancel()
	living := w.living()
	for range living {
		var all sync.WaitGroup
		for _, from := range living {
			var others []string
			for _, to := range living {
				if to != from {
					others = append(others, to.id)
				}
			}
			all.Go(func() { from.node.Sync(ctx, others...) })
		}
		all.Wait()
	}
	return ctx.Err() == nil
}

// tracedAtMost is how many of the last events are told when something goes wrong.
const tracedAtMost = 600

func (w *world) trace(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) >= 2*tracedAtMost {
		w.events = append([]string(nil), w.events[tracedAtMost:]...)
	}
	w.events = append(w.events, text)
}

func newCluster(t testing.TB) *redisproc.Cluster { return redisproc.NewCluster(t) }

// stands reports whether the subscription is old enough to suspect others.
func (n *Node) stands() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.subscribed.IsZero() && time.Since(n.subscribed) > n.cfg.Lease
}

// killSubscriptions closes the connections of all subscriptions, as a network may.
func (w *world) killSubscriptions() {
	w.t.Helper()
	must(w.t, w.admin.Do(bg, "CLIENT", "KILL", "TYPE", "pubsub").Err())
}

func (w *world) living() (all []*gateway) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.all {
		if !g.dead.Load() {
			all = append(all, g)
		}
	}
	return all
}
