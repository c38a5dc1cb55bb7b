package resume

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"holdfast/internal/journal"
	"holdfast/internal/redisx"
	"holdfast/internal/testkit/redisproc"
)

// onEachRedis runs a test over one server and over a Redis Cluster.
func onEachRedis(t *testing.T, test func(t *testing.T, r *place)) {
	t.Run("standalone", func(t *testing.T) { test(t, newPlace(t, redisproc.Shared(t).URL())) })
	t.Run("cluster", func(t *testing.T) { test(t, newPlace(t, redisproc.SharedCluster(t).URL())) })
}

// place is where nodes have their state, as one test sees it.
type place struct {
	rdb   redis.UniversalClient
	keys  redisx.Keys
	cfg   RedisConfig
	calls *calls
}

// calls lets a test do something between the commands of a node.
type calls struct {
	beforeScript func(n int)       // before the n-th script of a checkpoint, from 0
	afterScript  func(n int) error // after it, instead of its reply
	scripts      int
	beforeAdd    func() error // before a batch goes out
	afterAdd     func() error // after it, instead of its reply
}

func (c *calls) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *calls) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		if len(args) < 2 || args[0] != "evalsha" || args[1] != checkpointScript.Hash() {
			return next(ctx, cmd)
		}
		n := c.scripts
		c.scripts++
		if c.beforeScript != nil {
			c.beforeScript(n)
		}
		err := next(ctx, cmd)
		if c.afterScript != nil && err == nil {
			if err = c.afterScript(n); err != nil {
				cmd.SetErr(err)
			}
		}
		return err
	}
}

func (c *calls) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if c.beforeAdd != nil && cmds[0].Name() == "xadd" {
			if err := c.beforeAdd(); err != nil {
				for _, cmd := range cmds {
					cmd.SetErr(err)
				}
				return err
			}
		}
		err := next(ctx, cmds)
		if c.afterAdd != nil && cmds[0].Name() == "xadd" && err == nil {
			if err = c.afterAdd(); err != nil {
				for _, cmd := range cmds {
					cmd.SetErr(err)
				}
			}
		}
		return err
	}
}

func newPlace(t testing.TB, url string) *place {
	t.Helper()
	rx := redisx.DefaultConfig()
	rx.URL, rx.Prefix, rx.Timeout = redisx.URL(url), redisproc.Prefix(), 5*time.Second
	return openPlace(t, rx)
}

func openPlace(t testing.TB, rx redisx.Config) *place {
	t.Helper()
	rdb, err := redisx.Open(rx, discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	cfg := DefaultRedisConfig().With(DefaultConfig(), rx)
	// With endless patience a machine that stalls is not taken for a Redis that is away.
	cfg.Window, cfg.WriteRate, cfg.Patience = time.Millisecond, 0, 0
	c := new(calls)
	rdb.AddHook(c)
	return &place{rdb: rdb, keys: rx.Keys(), cfg: cfg, calls: c}
}

// member is one node of a cluster, as far as its state goes.
type member struct {
	*Redis
	place *place
	id    string
}

func (m *member) out() records { return m.Redis }

var nodes atomic.Int64

func (p *place) node(t tester) *member {
	t.Helper()
	id := fmt.Sprint("n", nodes.Add(1))
	s, err := OpenRedis(context.Background(), p.cfg, p.rdb, p.keys, id, discard, prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return &member{s, p, id}
}

// nodeFor is node for tests that don't end it themselves.
func (p *place) nodeFor(t testing.TB) *member {
	t.Helper()
	m := p.node(t)
	t.Cleanup(m.die)
	return m
}

// die is what a kill is for a node: nothing more is written, whatever waits.
func (m *member) die() {
	m.queue.cancel()
	<-m.queue.done
}

func (m *member) settle(t tester) {
	t.Helper()
	must(t, m.Settle(context.Background()))
}

// adopt fences a node and reads its estate.
func (m *member) adopt(t tester, dead *member) (*Recovered, map[string]string) {
	t.Helper()
	holder, err := m.Fence(context.Background(), dead.id, m.id, "")
	if err != nil || holder != m.id {
		t.Fatalf("fence: %q %v", holder, err)
	}
	found, meta, err := m.Load(context.Background(), dead.id)
	must(t, err)
	return found, meta
}

// left lists the keys of a node.
func (p *place) left(t tester, node string, what ...string) (there []string) {
	t.Helper()
	for _, w := range what {
		n, err := p.rdb.Exists(context.Background(), p.keys.Node(node, w)).Result()
		must(t, err)
		if n > 0 {
			there = append(there, w)
		}
	}
	return there
}

var allKeys = []string{
	"journal", "journal:dead", "mailbox", "mailbox:dead", "fence", "sessions", "queues", "meta", "checkpoint", "cache", "deadlines",
}

// wholeSessions is sessions that can be written anew.
type wholeSessions struct {
	*sessions
	touched int
}

func (w *wholeSessions) TouchAll() {
	w.touched++
	for _, s := range w.byOrd {
		s.kept, s.dirty = 0, true
	}
}

func numbered(from uint64, n uint32) *journal.Stanza {
	return &journal.Stanza{Origin: from, N: n, Stanza: chat(fmt.Sprint(n)), Flags: journal.Stored}
}

func sharedURL(t testing.TB) string {
	t.Helper()
	return redisproc.Shared(t).URL()
}
