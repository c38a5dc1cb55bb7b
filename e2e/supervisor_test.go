package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
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
	wg    sync.WaitGroup // of who watches

	pauses sync.WaitGroup // of who lets go on what stands still

	mu    sync.Mutex
	away  []time.Duration // how long each gateway is to stay away when it ends next
	left  []bool          // which are to stay away for good
	ends  map[int]int     // ends of processes by exit code, -1 for those killed
	diary []string
}

func supervise(t *testing.T, nodes []*gatewayproc.Gateway, redis *redisproc.Server) *supervisor {
	t.Helper()
	s := &supervisor{t: t, nodes: nodes, redis: redis, ends: map[int]int{}}
	s.away, s.left = make([]time.Duration, len(nodes)), make([]bool, len(nodes))
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
	s.pauses.Wait()
	s.wg.Wait()
}

// calm waits until nobody stands still any more, who was fenced is there again, and all see all.
func (s *supervisor) calm() {
	s.pauses.Wait()
	for i := range s.nodes {
		s.awaitReady(i)
	}
	awaitMembers(s.t, s.nodes, len(s.nodes))
}

func (s *supervisor) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.diary = append(s.diary, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// watch starts one gateway again whenever it ends.
func (s *supervisor) watch(i int) {
	for {
		p := s.nodes[i].Process()
		select {
		case <-p.Exited():
		case <-s.ctx.Done():
			return
		}
		s.note("gateway %d has ended with %d", i, p.ExitCode())
		s.mu.Lock()
		away := s.away[i]
		s.ends[p.ExitCode()]++
		s.mu.Unlock()
		select {
		case <-time.After(away):
		case <-s.ctx.Done():
			return
		}
		if !s.launch(i) {
			return
		}
		s.note("gateway %d is started", i)
	}
}

// launch starts a gateway again, if it has not left for good.
func (s *supervisor) launch(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left[i] {
		return false
	}
	if err := s.nodes[i].Launch(); err != nil {
		s.t.Errorf("gateway %d is not started again: %v", i, err)
		return false
	}
	return true
}

// ended returns how many processes ended, by exit code.
func (s *supervisor) ended() map[int]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.ends)
}

// awaitReady waits until a gateway serves; one that never does again is a failure.
func (s *supervisor) awaitReady(i int) {
	if !await(within(s.t, 30*time.Second), s.nodes[i].Ready) {
		s.t.Errorf("gateway %d is not ready after 30 s: %s", i, s.nodes[i].Readiness())
	}
}

// awaitNext waits until a gateway serves in another process than p.
func (s *supervisor) awaitNext(i int, p gatewayproc.Process) {
	if !await(within(s.t, 30*time.Second), func() bool { return s.nodes[i].Process() != p }) {
		s.t.Errorf("gateway %d is not started again", i)
		return
	}
	s.awaitReady(i)
}

// signal sends a signal to the process of a gateway, which it returns. One that stood still until a moment ago may
// have answered, and ended since because it was fenced: then the next one gets the signal.
func (s *supervisor) signal(i int, sig syscall.Signal) gatewayproc.Process {
	for {
		p := s.nodes[i].Process()
		err := p.Signal(sig)
		switch {
		case errors.Is(err, os.ErrProcessDone):
			s.awaitNext(i, p)
		case err != nil:
			s.t.Errorf("%v to gateway %d: %v", sig, i, err)
		}
		if err == nil || s.t.Failed() {
			return p
		}
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
		p := s.signal(e.Target, syscall.SIGSTOP)
		s.pauses.Go(func() {
			time.Sleep(e.For) // for as long as the plan says
			if err := p.Signal(syscall.SIGCONT); err == nil {
				s.note("gateway %d goes on", e.Target)
			}
		})
	}
}

// rollingRestart asks one gateway after the other to go, each when the one before is ready again.
func (s *supervisor) rollingRestart(away time.Duration) {
	for i := range s.nodes {
		s.awaitReady(i)
		s.mu.Lock()
		s.away[i] = away / 3
		s.mu.Unlock()
		start := time.Now()
		p := s.signal(i, syscall.SIGTERM)
		select {
		case <-p.Exited():
			s.note("gateway %d drained in %v", i, time.Since(start).Round(time.Millisecond))
			// One that stood still until a moment ago may be fenced before it hears that it is to go.
			if code := p.ExitCode(); code != 0 && code != 3 {
				s.t.Errorf("gateway %d ended with %d after SIGTERM", i, code)
			}
		case <-time.After(25 * time.Second):
			s.t.Errorf("gateway %d has not ended 25 s after SIGTERM", i)
			return
		}
		s.awaitNext(i, p)
	}
}

// leave ends all gateways in order, and sees what stays in Redis.
func (s *supervisor) leave(prefix string) {
	s.t.Helper()
	s.calm()
	for i, g := range s.nodes {
		s.awaitReady(i)
		s.mu.Lock()
		s.left[i] = true
		p := g.Process()
		s.mu.Unlock()
		start := time.Now()
		// One that the machine kept waiting for a lease was fenced and has ended; the supervisor would start it again.
		fenced := errors.Is(p.Signal(syscall.SIGTERM), os.ErrProcessDone)
		select {
		case <-p.Exited():
		case <-time.After(30 * time.Second):
			s.t.Fatalf("gateway %d has not ended 30 s after SIGTERM", i)
		}
		if code := p.ExitCode(); code != 0 && !(fenced && code == 3) {
			s.t.Errorf("gateway %d ended with %d, %v after SIGTERM", i, code, time.Since(start))
		}
		// What one that goes is about to take over stays for the next that comes, and here none does.
		awaitMembers(s.t, s.nodes[i+1:], len(s.nodes)-1-i)
	}
	s.end()
	if left := leftovers(s.t, s.redis, prefix); len(left) > 0 {
		s.t.Errorf("%d keys are left in Redis:\n%s", len(left), strings.Join(left, "\n"))
	}
}
