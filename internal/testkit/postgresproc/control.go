package postgresproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"holdfast/internal/testkit/pidstate"
)

// account is whom the server runs as: PostgreSQL refuses root.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // nil is how os/exec calls the same user
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and there is no user for it: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(err1, err2)
}

var databases atomic.Int64

// New makes a database for the test and returns its URL. It goes with the test.
func New(t testing.TB) string {
	t.Helper()
	s := Get(t)
	name := fmt.Sprintf("test_%d", databases.Add(1))
	// Where it can, the database sorts as people do, so that a test notices what relies on the order of bytes.
	people := "CREATE DATABASE " + name + " TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'"
	if err := s.run(people); err != nil {
		if err := s.run("CREATE DATABASE " + name); err != nil {
			t.Fatalf("database for a test: %v", err)
		}
	}
	t.Cleanup(func() {
		s.mu.Lock()
		runs := s.cmd != nil
		s.mu.Unlock()
		if !runs {
			return // it goes with the directory
		}
		if err := s.run("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("removing the database of a test: %v", err)
		}
	})
	return s.url(name)
}

func (s *Server) run(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, statement)
	return errors.Join(err, conn.Close(ctx))
}

// Start runs the server again on the same port and data, and returns when it answers. It does nothing when it runs.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return
	}
	if err := s.start(); err != nil {
		t.Fatalf("starting PostgreSQL again: %v", err)
	}
}

// Stop asks the server to go, connections or not, and waits until it is gone. It runs again when the test ends.
func (s *Server) Stop(t testing.TB) { t.Helper(); s.leave(t, syscall.SIGINT) }

// Kill ends the server as a crash would, and waits until it is gone. It runs again when the test ends.
func (s *Server) Kill(t testing.TB) { t.Helper(); s.leave(t, syscall.SIGKILL) }

func (s *Server) leave(t testing.TB, sig syscall.Signal) {
	t.Helper()
	t.Cleanup(func() { s.Start(t) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.end(sig); err != nil {
		t.Fatalf("ending PostgreSQL: %v", err)
	}
}

// Freeze stops the server and its connections where they are: they take what is sent and answer nothing, until Thaw
// or the test's end.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { s.Thaw(t) })
	s.signal(t, syscall.SIGSTOP)
}

// Thaw lets go on what Freeze stopped.
func (s *Server) Thaw(t testing.TB) { t.Helper(); s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	send := func(pids ...int) {
		t.Helper()
		for _, pid := range pids {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatalf("signal %v to PostgreSQL: %v", sig, err)
			}
		}
		if sig != syscall.SIGSTOP {
			return
		}
		for _, pid := range pids {
			if err := pidstate.AwaitStopped(pid, startTime); err != nil {
				t.Fatalf("PostgreSQL: %v", err)
			}
		}
	}
	// The processes of the connections lead groups of their own. The first one makes no others once it is stopped.
	first := s.cmd.Process.Pid
	send(first)
	send(children(first)...)
}
