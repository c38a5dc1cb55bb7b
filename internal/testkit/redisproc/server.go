package redisproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"holdfast/internal/testkit/freeport"
	"holdfast/internal/testkit/pidstate"
)

// What the client library prints while a server starts or is dead says nothing.
func init() { logging.Disable() }

// patience is how long anything that a test waits for here may take.
const patience = 30 * time.Second

// Server is one redis-server on one port and one directory, however often its process is started. Its methods are for
// one goroutine, but for those that ask only for its address.
type Server struct {
	name string
	dir  string
	port int
	args []string
	log  *output

	proc   *os.Process
	exited chan struct{} // closed when proc has ended
	admin  *redis.Client
}

// Durable makes the server write every command to its append-only file before it answers, so that a kill loses none.
// With everysec, which is usual, it answers first while the disk is busy, and a kill may lose the last two seconds.
var Durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// EverySecond is the usual way, for measurements.
var EverySecond = []string{"--appendonly", "yes", "--appendfsync", "everysec"}

// Standalone runs a server of the test's own until the test ends. args are redis-server's.
func Standalone(t testing.TB, args ...string) *Server {
	t.Helper()
	s, err := start("redis", nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.discard(t))
	return s
}

// start runs a server in a new directory on a free port. prepare, which is called for each port that is tried, may write
// files into the directory and return further args.
func start(name string, prepare func(*Server) ([]string, error), args ...string) (*Server, error) {
	dir, err := os.MkdirTemp("", "holdfast-"+name+"-")
	if err != nil {
		return nil, fmt.Errorf("redisproc: %w", err)
	}
	s := &Server{name: name, dir: dir, log: &output{}}
	for tries := 0; ; tries++ {
		if err = s.tryPort(prepare, args); err == nil {
			return s, nil
		}
		s.giveUp()
		if tries == 3 {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
}

func (s *Server) tryPort(prepare func(*Server) ([]string, error), args []string) (err error) {
	if s.port, err = freeport.Take(); err != nil {
		return err
	}
	s.args = args
	if prepare != nil {
		more, err := prepare(s)
		if err != nil {
			return fmt.Errorf("redisproc: %w", err)
		}
		s.args = slices.Concat(more, args)
	}
	return s.run()
}

// giveUp ends what run has begun, so that nothing of it is taken for another port's.
func (s *Server) giveUp() {
	if s.proc != nil {
		s.Kill()
	}
	if s.admin != nil {
		_ = s.admin.Close()
		s.admin = nil
	}
}

func (s *Server) run() error {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("redisproc: redis-server is needed for this test: %w (scripts/install.sh installs it)", err)
	}
	var args []string
	if _, err := os.Stat(s.configFile()); err == nil {
		args = append(args, s.configFile()) // has to come first
	}
	args = append(args, "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--daemonize", "no",
		"--save", "", "--protected-mode", "no")
	cmd := exec.Command(binary, append(args, s.args...)...) //nolint:noctx // ended by Kill
	cmd.Stdout, cmd.Stderr, cmd.Dir = s.log, s.log, s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	exited := make(chan struct{})
	go func() {
		// The signal comes when the thread that started the process ends, so this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the state tells
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("redisproc: %w", err)
	}
	s.proc, s.exited = cmd.Process, exited
	if s.admin == nil {
		s.admin = redis.NewClient(&redis.Options{Addr: s.Addr(), MaxRetries: -1, DialerRetries: 1, PoolSize: 4, DisableIdentity: true})
	}
	return s.await("the server answers", func(ctx context.Context) bool {
		return s.admin.Ping(ctx).Err() == nil
	})
}

func (s *Server) configFile() string { return filepath.Join(s.dir, "redis.conf") }

// await asks until the answer is yes.
func (s *Server) await(what string, yes func(context.Context) bool) error {
	return s.awaitFor(patience, what, yes)
}

func (s *Server) awaitFor(most time.Duration, what string, yes func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	for !yes(ctx) {
		select {
		case <-s.exited:
			return fmt.Errorf("redisproc: the server ended\n%s", s.log)
		case <-ctx.Done():
			return fmt.Errorf("redisproc: not after %v: %s\n%s", most, what, s.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// Addr is host:port.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// URL is what REDIS_URL takes.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Admin is a client of this very server, for the test's own commands.
func (s *Server) Admin() *redis.Client { return s.admin }

// Kill ends the process with SIGKILL and returns when it is gone.
func (s *Server) Kill() {
	select {
	case <-s.exited:
		return
	default:
	}
	_ = s.proc.Kill()
	<-s.exited
}

// Restart runs the server again after a Kill, on the same port and directory, and returns when it answers.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

// Pause stops the process where it is: connections stay, nothing is answered.
func (s *Server) Pause(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
	if err := pidstate.AwaitStopped(s.proc.Pid, patience); err != nil {
		t.Fatalf("redisproc: %v", err)
	}
}

// Resume lets a paused process go on.
func (s *Server) Resume(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := s.proc.Signal(sig); err != nil {
		t.Fatalf("redisproc: %v", err)
	}
}

// discard ends the server and removes what it left.
func (s *Server) discard(t testing.TB) func() {
	return func() {
		if t != nil && t.Failed() {
			t.Logf("the end of the log of %s:\n%s", s.Addr(), s.log)
		}
		s.giveUp()
		_ = os.RemoveAll(s.dir)
	}
}

// output keeps the end of what a server says.
type output struct {
	mu sync.Mutex
	b  []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	if most := 16 << 10; len(o.b) > most {
		o.b = append(o.b[:0], o.b[len(o.b)-most/2:]...)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(o.b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-20):], []byte("\n")))
}
