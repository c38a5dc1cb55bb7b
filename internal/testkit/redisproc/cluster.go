package redisproc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"holdfast/internal/testkit/freeport"
)

const slots = 16384

// Cluster is a Redis Cluster of three servers without replicas.
type Cluster struct {
	Servers []*Server
	ids     []string // by which they know each other
}

// NewCluster runs a Redis Cluster of the test's own until the test ends. args are redis-server's.
func NewCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	c, err := startCluster(args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.discard(t))
	return c
}

func startCluster(args ...string) (*Cluster, error) {
	c := new(Cluster)
	for range 3 {
		s, err := start("cluster", func(*Server) ([]string, error) {
			bus, err := freeport.Take()
			return []string{"--cluster-port", strconv.Itoa(bus)}, err
		}, append([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no",
		}, args...)...)
		if err != nil {
			c.discard(nil)()
			return nil, err
		}
		c.Servers = append(c.Servers, s)
	}
	if err := c.join(); err != nil {
		c.discard(nil)()
		return nil, err
	}
	return c, nil
}

// join makes the servers one cluster, each with a third of the slots.
func (c *Cluster) join() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	first := c.Servers[0]
	for i, s := range c.Servers {
		from, to := i*slots/3, (i+1)*slots/3-1
		if i == 2 {
			to = slots - 1
		}
		id, err := s.admin.Do(ctx, "CLUSTER", "MYID").Text()
		c.ids = append(c.ids, id)
		err = errors.Join(err,
			s.admin.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err(),
			s.admin.ClusterAddSlotsRange(ctx, from, to).Err())
		if i > 0 {
			err = errors.Join(err, s.admin.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", first.port, first.bus()).Err())
		}
		if err != nil {
			return fmt.Errorf("redisproc: %w", err)
		}
	}
	if err := c.settled(); err != nil {
		return err
	}
	// The short time makes them hear of each other soon. From now on one that is late would only be taken for dead, and
	// no other could have its place.
	for _, s := range c.Servers {
		err := s.await("the server takes a setting", func(ctx context.Context) bool {
			return s.admin.ConfigSet(ctx, "cluster-node-timeout", "30000").Err() == nil
		})
		if err != nil {
			return err
		}
	}
	return c.settled()
}

// bus is the port on which a server of a Redis Cluster hears its peers.
func (s *Server) bus() string { return s.args[slices.Index(s.args, "--cluster-port")+1] }

// settled waits until all servers know each other and agree on who has which slot.
func (c *Cluster) settled() error {
	for _, s := range c.Servers {
		err := s.await("the cluster agrees", func(ctx context.Context) bool {
			info, err := s.admin.ClusterInfo(ctx).Result()
			if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") ||
				!strings.Contains(info, "cluster_slots_ok:16384") {
				return false
			}
			mine, err := s.view(ctx)
			if err != nil {
				return false
			}
			theirs, err := c.Servers[0].view(ctx)
			return err == nil && mine == theirs
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// view says who has which slots, in the server's opinion.
func (s *Server) view(ctx context.Context) (string, error) {
	shards, err := s.admin.ClusterShards(ctx).Result()
	if err != nil {
		return "", err
	}
	owners := make([]string, 0, len(shards))
	for _, shard := range shards {
		owners = append(owners, fmt.Sprint(shard.Slots, shard.Nodes[0].ID))
	}
	slices.Sort(owners)
	return strings.Join(owners, " "), nil
}

// URL is what REDIS_URL takes.
func (c *Cluster) URL() string {
	addrs := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		addrs[i] = s.Addr()
	}
	return "redis+cluster://" + strings.Join(addrs, ",")
}

// Slot is the slot of a key, and which of Servers has it.
func (c *Cluster) Slot(t testing.TB, key string) (slot, server int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, err := c.Servers[0].admin.ClusterKeySlot(ctx, key).Result()
	if err != nil {
		t.Fatalf("redisproc: %v", err)
	}
	return int(n), c.owner(ctx, t, int(n))
}

func (c *Cluster) owner(ctx context.Context, t testing.TB, slot int) int {
	t.Helper()
	shards, err := c.Servers[0].admin.ClusterShards(ctx).Result()
	if err != nil {
		t.Fatalf("redisproc: %v", err)
	}
	for _, shard := range shards {
		for _, r := range shard.Slots {
			if r.Start <= int64(slot) && int64(slot) <= r.End {
				return slices.Index(c.ids, shard.Nodes[0].ID)
			}
		}
	}
	t.Fatalf("redisproc: nobody has slot %d", slot)
	return 0
}

// MigrateSlot moves a slot with its keys to another of Servers, as redis-cli does, while clients go on.
func (c *Cluster) MigrateSlot(t testing.TB, slot, to int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	from := c.owner(ctx, t, slot)
	if from == to {
		return
	}
	source, target := c.Servers[from], c.Servers[to]
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("redisproc: %v", err)
		}
	}
	must(target.admin.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", c.ids[from]).Err())
	must(source.admin.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", c.ids[to]).Err())
	for {
		keys, err := source.admin.ClusterGetKeysInSlot(ctx, slot, 10).Result()
		must(err)
		if len(keys) == 0 {
			break
		}
		for _, key := range keys {
			must(source.admin.Migrate(ctx, "127.0.0.1", strconv.Itoa(target.port), key, 0, patience).Err())
		}
	}
	for _, s := range []*Server{target, source, c.Servers[3-from-to]} {
		must(s.admin.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", c.ids[to]).Err())
	}
	must(c.settled())
}

func (c *Cluster) discard(t testing.TB) func() {
	return func() {
		for _, s := range c.Servers {
			s.discard(t)()
		}
	}
}
