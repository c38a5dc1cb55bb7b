package redisproc

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	p.sentinel, err = start("sentinel", func(dir string, _ int) error {
		return os.WriteFile(filepath.Join(dir, "redis.conf"), fmt.Appendf(nil,
			"sentinel monitor %[1]s 127.0.0.1 %[2]d 1\nsentinel down-after-milliseconds %[1]s 500\nsentinel failover-timeout %[1]s 3000\n",
			master, p.Primary.port), 0o600)
	}, "--sentinel")
	must(t, err)
	t.Cleanup(p.sentinel.discard(t))
	asked := redis.NewSentinelClient(&redis.Options{Addr: p.sentinel.Addr(), DisableIdentity: true})
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

// URL is what REDIS_URL takes.
func (p *Pair) URL() string { return "redis+sentinel://" + p.sentinel.Addr() + "/" + master }

// Rejoin runs the primary that Failover killed as the replica. The Sentinel would do it too, after ten seconds.
func (p *Pair) Rejoin(t testing.TB) {
	t.Helper()
	p.Replica.args = append(slices.Clone(p.Replica.args), "--replicaof", "127.0.0.1 "+fmt.Sprint(p.Primary.port))
	p.Replica.Restart(t)
}

// Failover kills the primary and returns when the replica has taken its place; Primary is the new one then.
func (p *Pair) Failover(t testing.TB) {
	t.Helper()
	p.Primary.Kill()
	must(t, p.Replica.await("the replica is the primary", func(ctx context.Context) bool {
		info, err := p.Replica.admin.Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "role:master")
	}))
	p.Primary, p.Replica = p.Replica, p.Primary
}
