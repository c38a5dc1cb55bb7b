package resume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"holdfast/internal/journal"
)

// childDir tells a run of the test binary that it is the process to be killed, and where.
const childDir = "HOLDFAST_TEST_RESUME_CHILD"

const (
	childSessions = 4
	childWindow   = 20 // stanzas in an outbox before the oldest are acknowledged
)

// panicking is a tester for the child, which has no test to fail.
type panicking struct{}

func (panicking) Helper()                        {}
func (panicking) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
func (panicking) Logf(string, ...any)            {}

// runChild lets sessions send each other numbered messages, while checkpoints run, until it is killed. It prints what
// it has written down, as a gateway acknowledges.
func runChild(dir string) {
	var t panicking
	cfg := testConfig()
	cfg.Segment, cfg.Interval = 16<<10, time.Millisecond
	p := start(t, dir, cfg)
	var mu sync.Mutex // of all sessions
	l := newSessions()
	for range childSessions {
		s := bind(t, p, l, true)
		fmt.Println("bound", s.state.Ord)
	}
	go p.store.Run(context.Background(), lockedLive{&mu, l}, flusher(func(context.Context) error { return nil }))
	ords := l.ords()
	for i, ord := range ords {
		go func() {
			for n := 1; ; n++ {
				mu.Lock()
				s, to := l.byOrd[ord], l.byOrd[ords[(i+1)%len(ords)]]
				deliver(t, p, s, chat(fmt.Sprint(n)), 0, to)
				if len(to.queue) >= childWindow {
					ack(t, p, to, childWindow/2)
				}
				fmt.Println("sent", ord, s.handled, to.state.Ord, to.last())
				mu.Unlock()
			}
		}()
	}
	select {}
}

// Killed at any moment, with appends and checkpoints under way, the stores hold all that was acknowledged.
func TestKill(t *testing.T) {
	lives := 6
	if testing.Short() {
		lives = 2
	}
	for life := range lives {
		dir := freshDir(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		handled, last := map[uint64]uint32{}, map[uint64]uint64{}
		lines := bufio.NewScanner(out)
		for n, killed := 0, false; lines.Scan(); n++ {
			var from, to, place uint64
			var h uint32
			if _, err := fmt.Sscanf(lines.Text(), "sent %d %d %d %d", &from, &h, &to, &place); err == nil {
				handled[from], last[to] = h, place
			}
			if !killed && n >= 500+life*300 && len(handled) == childSessions {
				killed = true
				_ = cmd.Process.Kill() // and read on: what was printed before was written before
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) {
			t.Fatalf("the child ended with %v", err)
		}
		checkKilled(t, startFor(t, dir, testConfig()), handled, last)
	}
}

func checkKilled(t *testing.T, p *process, handled map[uint64]uint32, last map[uint64]uint64) {
	t.Helper()
	if len(p.found.Sessions) != childSessions || len(handled) != childSessions {
		t.Fatalf("%d sessions, of which %d sent", len(p.found.Sessions), len(handled))
	}
	for _, s := range p.found.Sessions {
		ord := s.State.Ord
		if s.Handled < handled[ord] || s.Handled > handled[ord]+1 {
			t.Errorf("%d handled, the client was told %d", s.Handled, handled[ord])
		}
		if end := s.Acked + uint64(len(s.Queue)); end < last[ord] || end > last[ord]+1 {
			t.Errorf("the outbox ends at %d, sent was %d", end, last[ord])
		}
		if len(s.Queue) > childWindow {
			t.Errorf("%d in the outbox", len(s.Queue))
		}
		for i, q := range s.Queue {
			place := s.Acked + uint64(i) + 1
			if body := bodies(&Session{Queue: []*journal.Stanza{q}})[0]; body != fmt.Sprint(place) {
				t.Errorf("place %d holds message %s", place, body)
			}
		}
		if s.State.Token == "" {
			t.Error("the session can't be resumed")
		}
	}
}
