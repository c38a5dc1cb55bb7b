package postgresproc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"holdfast/internal/testkit/freeport"
	"holdfast/internal/testkit/pidstate"
)

// startTime is how long the server may take to answer after its start, recovery included.
const startTime = 60 * time.Second

// Server is the server of this test process, however often its process is started.
type Server struct {
	// static
	bin      string
	dir      string // data, socket and log
	port     int
	password string
	user     *syscall.Credential // whom it runs as; nil for whom the test does

	mu     sync.Mutex // guards what follows; held while the server starts or ends
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

var shared struct {
	mu     sync.Mutex
	server *Server
	err    error
}

// Get returns the server, started on the first call.
func Get(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = create()
	}
	if shared.err != nil {
		t.Fatalf("PostgreSQL is needed and does not run: %v", shared.err)
	}
	return shared.server
}

// Remove ends the server and deletes its data.
func Remove() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server != nil {
		_ = shared.server.end(syscall.SIGQUIT) // its data go anyway
		_ = os.RemoveAll(shared.server.dir)
		shared.server = nil
	}
}

// TestMain is a testing.M with Remove behind it.
type TestMain struct{ m *testing.M }

// Main makes a TestMain of m: goleak.VerifyTestMain(postgresproc.Main(m)). settings are further ones of the server,
// for example "fsync=off" where nothing that is tested depends on the disk.
func Main(m *testing.M, settings ...string) TestMain {
	extra = settings
	return TestMain{m}
}

var extra []string // static once tests run

// Run runs the tests and removes the server.
func (m TestMain) Run() int {
	defer Remove()
	return m.m.Run()
}

func create() (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, password: rand.Text()}
	if s.user, err = account(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "holdfast-postgres-"); err != nil {
		return nil, err
	}
	if err := s.init(); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	// Another process may take the port between the search and the start.
	for range 5 {
		if s.port, err = freeport.Take(); err != nil {
			break
		}
		if err = s.start(); err == nil {
			return s, nil
		}
	}
	_ = os.RemoveAll(s.dir)
	return nil, err
}

// binaries finds the directory of initdb and postgres: Debian keeps them off the PATH.
func binaries() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, newest := "", 0
	all, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	for _, path := range all {
		dir := filepath.Dir(path)
		if v, err := strconv.Atoi(filepath.Base(filepath.Dir(dir))); err == nil && v > newest {
			found, newest = dir, v
		}
	}
	if found == "" {
		return "", errors.New("initdb is neither in PATH nor in /usr/lib/postgresql (scripts/install.sh installs it)")
	}
	return found, nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) init() error {
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(s.password), 0o600); err != nil {
		return err
	}
	if s.user != nil {
		for _, path := range []string{s.dir, secret} {
			if err := os.Chown(path, int(s.user.Uid), int(s.user.Gid)); err != nil {
				return err
			}
		}
	}
	cmd := s.command("initdb", "--pgdata="+s.data(), "--username=holdfast", "--pwfile="+secret, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...) //nolint:noctx // ended by Remove
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	// SIGQUIT is PostgreSQL's immediate shutdown: it takes the processes of the connections along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user, Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	return cmd
}

// start runs the server and returns when it answers. The caller has s.mu, or s to itself.
func (s *Server) start() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	args := []string{"-D", s.data()}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(s.port), "unix_socket_directories=" + s.dir,
		"max_connections=200", "shared_buffers=32MB", "max_wal_size=256MB",
	}, extra...) {
		args = append(args, "-c", setting)
	}
	cmd := s.command("postgres", args...)
	cmd.Stdout, cmd.Stderr = log, log
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		// Pdeathsig is sent when the thread ends that started the process, so that thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the state tells
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.cmd, s.exited = cmd, exited
	deadline := time.Now().Add(startTime)
	for {
		err := s.try()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("the server ended: %v\n%s", cmd.ProcessState, s.Log())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not answer: %w\n%s", errors.Join(err, s.end(syscall.SIGQUIT)), s.Log())
		}
	}
}

func (s *Server) try() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	return errors.Join(conn.Ping(ctx), conn.Close(ctx))
}

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://holdfast:%s@127.0.0.1:%d/%s?sslmode=disable", s.password, s.port, database)
}

// end sends the signal and waits until the server is gone, and its connections' processes with it. The caller has
// s.mu, or s to itself.
func (s *Server) end(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	pid := s.cmd.Process.Pid
	if sig == syscall.SIGKILL {
		// The connections' processes would notice a little later; until then the data count as in use. The server is
		// stopped while they are listed, so that it makes no others.
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		defer func(left []int) {
			for _, child := range left {
				_ = syscall.Kill(child, syscall.SIGKILL)
			}
			for _, child := range left {
				for pidstate.Lives(child) {
					time.Sleep(time.Millisecond)
				}
			}
		}(children(pid))
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	if sig != syscall.SIGKILL {
		for _, frozen := range append(children(pid), pid) {
			_ = syscall.Kill(frozen, syscall.SIGCONT)
		}
	}
	<-s.exited
	s.cmd = nil
	return nil
}

// children lists the processes that the server made: they lead groups of their own.
func children(pid int) (all []int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	for _, field := range strings.Fields(string(b)) {
		if child, err := strconv.Atoi(field); err == nil {
			all = append(all, child)
		}
	}
	return all
}

// Log returns what the server has written.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}
