package redisproc

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(M{m}) }

func set(t *testing.T, c redis.UniversalClient, key, value string) {
	t.Helper()
	if err := c.Set(t.Context(), key, value, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, c redis.UniversalClient, key, value string) {
	t.Helper()
	if got, err := c.Get(t.Context(), key).Result(); err != nil || got != value {
		t.Fatalf("%s is %q %v, want %q", key, got, err, value)
	}
}

func TestStandalone(t *testing.T) {
	s := Standalone(t, Durable...)
	set(t, s.Admin(), "a", "1")
	s.Kill()
	if err := s.Admin().Ping(t.Context()).Err(); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart(t)
	want(t, s.Admin(), "a", "1")
	s.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	answered := make(chan error, 1)
	go func() { answered <- s.Admin().Ping(context.Background()).Err() }()
	select {
	case err := <-answered:
		t.Errorf("a paused server answers: %v", err)
	case <-ctx.Done():
	}
	s.Resume(t)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// Somebody may take a port between the search and the start.
func TestPortTaken(t *testing.T) {
	tries := 0
	s, err := start("redis", func(s *Server) ([]string, error) {
		if tries++; tries > 1 {
			return nil, nil
		}
		l, err := net.Listen("tcp", s.Addr())
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				_ = c.Close()
			}
		}()
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.discard(t))
	set(t, s.Admin(), "a", "1")
	if tries != 2 {
		t.Errorf("%d ports were tried", tries)
	}
}

func TestShared(t *testing.T) {
	first, second := Shared(t), Shared(t)
	if one, other := Prefix(), Prefix(); first != second || one == other {
		t.Error("not shared, or not apart")
	}
	set(t, Shared(t).Admin(), Prefix()+"a", "1")
}

func TestCluster(t *testing.T) {
	c := SharedCluster(t)
	addrs := []string{c.Servers[0].Addr()}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	defer client.Close()
	for _, key := range []string{"{a}x", "{b}x", "{c}x", "{d}x", "{e}x"} {
		set(t, client, key, key)
		want(t, client, key, key)
	}
	slot, server := c.Slot(t, "{a}x")
	to := (server + 1) % 3
	c.MigrateSlot(t, slot, to)
	if _, now := c.Slot(t, "{a}x"); now != to {
		t.Errorf("server %d has the slot, want %d", now, to)
	}
	want(t, client, "{a}x", "{a}x")
}

func TestPair(t *testing.T) {
	p := NewPair(t)
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		SentinelAddrs: []string{p.sentinel.Addr()}, MasterName: master, ReadTimeout: patience + 10*time.Second,
	})
	defer client.Close()
	pipe := client.Pipeline()
	pipe.Set(t.Context(), "a", "1", 0)
	n := pipe.Do(t.Context(), "WAIT", 1, patience.Milliseconds())
	if _, err := pipe.Exec(t.Context()); err != nil || n.Val() != int64(1) {
		t.Fatalf("%v replicas, %v", n.Val(), err)
	}
	p.Failover(t)
	want(t, client, "a", "1")
}
