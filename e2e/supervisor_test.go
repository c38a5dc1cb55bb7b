package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/redisproc"
)

// supervisor runs the gateways of a cluster as an operator's would: what ends is started again. It carries out the
// events of a plan that are about servers.
type supervisor struct {
	t     *testing.T
	nodes []*gatewayproc.Gateway
	redis *redisproc.Server
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu    sync.Mutex
	away  []time.Duration // how long each gateway is to stay away when it ends next
	ends  map[int]int     // ends of processes by exit code, -1 for those killed
	diary []string
}

func supervise(t *testing.T, nodes []*gatewayproc.Gateway, redis *redisproc.Server) *supervisor {
	t.Helper()
	s := &supervisor{t: t, nodes: nodes, redis: redis, away: make([]time.Duration, len(nodes)), ends: map[int]int{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	for i := range nodes {
		s.wg.Go(func() { s.watch(i) })
	}
	t.Cleanup(s.end)
	return s
}

// end lets no gateway be started any more.
func (s *supervisor) end() {
	s.stop()
	s.wg.Wait()
}

func (s *supervisor) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diary = append(s.diary, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// watch starts one gateway again whenever it ends.
func (s *supervisor) watch(i int) {
	for {
		exited, code := s.nodes[i].Exited()
		select {
		case <-exited:
		case <-s.ctx.Done():
			return
		}
		s.note("gateway %d has ended with %d", i, code())
		s.mu.Lock()
		away := s.away[i]
		s.ends[code()]++
		s.mu.Unlock()
		select {
		case <-time.After(away):
		case <-s.ctx.Done():
			return
		}
		if err := s.nodes[i].Launch(); err != nil {
			s.t.Errorf("gateway %d is not started again: %v", i, err)
			return
		}
		s.note("gateway %d is started", i)
	}
}

// awaitReady waits until a gateway serves; one that never does again is a failure.
func (s *supervisor) awaitReady(i int) {
	if !await(within(s.t, 30*time.Second), s.nodes[i].Ready) {
		s.t.Errorf("gateway %d is not ready after 30 s: %s", i, s.nodes[i].Readiness())
	}
}

func (s *supervisor) signal(i int, sig syscall.Signal) {
	if err := s.nodes[i].Signal(sig); err != nil {
		s.t.Errorf("%v to gateway %d: %v", sig, i, err)
	}
}

func (s *supervisor) happen(e cutproxy.Event) {
	if e.Kind == cutproxy.StoreKill {
		s.redis.Kill()
		s.note("Redis is killed")
		time.Sleep(e.For) // for as long as the plan says
		s.redis.Restart(s.t)
		s.note("Redis is there again")
		return
	}
	if e.Kind == cutproxy.Drain {
		s.rollingRestart(e.For)
		return
	}
	s.awaitReady(e.Target) // what is down already cannot fail
	s.mu.Lock()
	s.away[e.Target] = e.For
	s.mu.Unlock()
	switch e.Kind {
	case cutproxy.Kill:
		s.signal(e.Target, syscall.SIGKILL)
	case cutproxy.Pause:
		s.mu.Lock()
		s.away[e.Target] = 0
		s.mu.Unlock()
		g := s.nodes[e.Target]
		s.signal(e.Target, syscall.SIGSTOP)
		s.wg.Go(func() {
			time.Sleep(e.For) // for as long as the plan says
			if err := g.Signal(syscall.SIGCONT); err == nil {
				s.note("gateway %d goes on", e.Target)
			}
		})
	}
}

// rollingRestart asks one gateway after the other to go, each when the one before is ready again.
func (s *supervisor) rollingRestart(away time.Duration) {
	for i, g := range s.nodes {
		s.awaitReady(i)
		s.mu.Lock()
		s.away[i] = away / 3
		s.mu.Unlock()
		exited, code := g.Exited()
		start := time.Now()
		s.signal(i, syscall.SIGTERM)
		select {
		case <-exited:
			s.note("gateway %d drained in %v", i, time.Since(start).Round(time.Millisecond))
			// One that stood still until a moment ago may be fenced before it hears that it is to go.
			if code() != 0 && code() != 3 {
				s.t.Errorf("gateway %d ended with %d after SIGTERM", i, code())
			}
		case <-time.After(25 * time.Second):
			s.t.Errorf("gateway %d has not ended 25 s after SIGTERM", i)
			return
		}
		// Started anew, not the one before.
		await(within(s.t, 10*time.Second), func() bool { now, _ := g.Exited(); return now != exited })
		s.awaitReady(i)
	}
}

// leave ends all gateways in order, and sees what stays in Redis.
func (s *supervisor) leave(prefix string) {
	s.t.Helper()
	s.end()
	for i, g := range s.nodes {
		if code, took := g.Term(30 * time.Second); code != 0 {
			s.t.Errorf("gateway %d ended with %d, %v after SIGTERM", i, code, took)
		}
		// What one that goes is about to take over stays for the next that comes, and here none does.
		awaitMembers(s.t, s.nodes[i+1:], len(s.nodes)-1-i)
	}
	if left := leftovers(s.t, s.redis, prefix); len(left) > 0 {
		s.t.Errorf("%d keys are left in Redis:\n%s", len(left), strings.Join(left, "\n"))
	}
}
