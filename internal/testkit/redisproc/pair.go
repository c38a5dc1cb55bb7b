package redisproc

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// master is the name that the Sentinel of a Pair knows the primary by.
const master = "main"

// Pair is a primary, its replica, and a Sentinel that makes the replica the primary when that one is gone.
type Pair struct {
	Primary, Replica *Server
	sentinel         *Server
}

// NewPair runs the three until the test ends. args are those of both redis-servers.
func NewPair(t testing.TB, args ...string) *Pair {
	t.Helper()
	args = append([]string{"--repl-diskless-sync-delay", "0"}, args...)
	p := &Pair{Primary: Standalone(t, args...)}
	p.Replica = Standalone(t, append([]string{"--replicaof", "127.0.0.1 " + fmt.Sprint(p.Primary.port)}, args...)...)
	must(t, p.Primary.await("the replica is there", func(ctx context.Context) bool {
		info, err := p.Primary.admin.Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "state=online")
	}))
	var err error
	p.sentinel, err = start("sentinel", func(s *Server) ([]string, error) {
		// A primary that is only late stays one: Failover asks for the change.
		return nil, os.WriteFile(s.configFile(), fmt.Appendf(nil,
			"sentinel monitor %[1]s 127.0.0.1 %[2]d 1\nsentinel down-after-milliseconds %[1]s 60000\nsentinel failover-timeout %[1]s 30000\n",
			master, p.Primary.port), 0o600)
	}, "--sentinel")
	must(t, err)
	t.Cleanup(p.sentinel.discard(t))
	asked := p.ask()
	defer func() { _ = asked.Close() }()
	must(t, p.sentinel.await("the Sentinel knows the replica", func(ctx context.Context) bool {
		replicas, err := asked.Replicas(ctx, master).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	}))
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask makes a client of the Sentinel.
func (p *Pair) ask() *redis.SentinelClient {
	return redis.NewSentinelClient(&redis.Options{Addr: p.sentinel.Addr(), DisableIdentity: true})
}

// URL is what REDIS_URL takes.
func (p *Pair) URL() string { return "redis+sentinel://" + p.sentinel.Addr() + "/" + master }

// Rejoin runs the primary that Failover killed as the replica. The Sentinel would do it too, after ten seconds.
func (p *Pair) Rejoin(t testing.TB) {
	t.Helper()
	p.Replica.args = append(slices.Clone(p.Replica.args), "--replicaof", "127.0.0.1 "+fmt.Sprint(p.Primary.port))
	p.Replica.Restart(t)
}

// failoverTime is how long a Sentinel may take. One that was held up for two seconds does nothing for thirty.
const failoverTime = 75 * time.Second

// Failover kills the primary and returns when the replica has taken its place and the Sentinel says so; Primary is the
// new one then.
func (p *Pair) Failover(t testing.TB) {
	t.Helper()
	p.Primary.Kill()
	asked := p.ask()
	defer func() { _ = asked.Close() }()
	must(t, p.sentinel.awaitFor(failoverTime, "the Sentinel gives out the replica's address", func(ctx context.Context) bool {
		addr, err := asked.GetMasterAddrByName(ctx, master).Result()
		if err == nil && strings.Join(addr, ":") == p.Replica.Addr() {
			return true
		}
		_ = asked.Failover(ctx, master).Err() // an error while it is at it, or has not heard of the replica for a while
		return false
	}))
	must(t, p.Replica.await("the replica is the primary", func(ctx context.Context) bool {
		info, err := p.Replica.admin.Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "role:master")
	}))
	p.Primary, p.Replica = p.Replica, p.Primary
}
