package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/sqlx"
)

// SIGTERM: not ready first; clients that can come back are told so (1012, service restart), the others that the system
// goes down; what was not acknowledged is there when the next process resumes the sessions.
func TestDrainAndResume(t *testing.T) {
	n := startNode(t, t.TempDir(), map[string]string{"READY_DELAY": "3s"})
	n.addUsers("alice", "bob", "carol")
	alice, bob, carol := n.managed("alice", ""), n.managed("bob", ""), n.bound("carol")
	bob.available()
	alice.chat("bob@localhost", "1", "2", "3")
	if got := bob.bodies(3); !slices.Equal(got, []string{"1", "2", "3"}) {
		t.Fatalf("bob got %v", got)
	}
	alice.acked(3)
	bob.in-- // what the client says it has: 3 was lost on its way

	n.cancel()
	n.await("draining", func() bool {
		code, why := n.body("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(why, "draining")
	})
	if n.get("/healthz") != http.StatusOK {
		t.Error("not alive while draining")
	}
	alice.chat("bob@localhost", "4") // still served until the delay is over
	if conditions, status := alice.end(); status != 1012 || len(conditions) > 0 {
		t.Errorf("alice was sent away with %d %v", status, conditions)
	}
	start := time.Now()
	if conditions, _ := carol.end(); !slices.Equal(conditions, []string{"system-shutdown"}) {
		t.Errorf("carol was sent away with %v", conditions)
	}
	seen := bob.in
	if _, status := bob.end(); status != 1012 {
		t.Errorf("bob was sent away with %d", status)
	}
	bob.in = seen
	n.stop()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}

	m := n.next(n.dir(), nil)
	bob = m.resumed("bob", bob, 1)
	alice = m.resumed("alice", alice, 4)
	if got := bob.bodies(2); !slices.Equal(got, []string{"3", "4"}) {
		t.Errorf("bob got %v after the resumption", got)
	}
	bob.quiet()
	alice.chat("bob@localhost", "5")
	if got := bob.bodies(1); got[0] != "5" {
		t.Errorf("bob got %v", got)
	}
	alice.acked(5)
}

// A gateway that is killed loses nothing that it acknowledged, whether a checkpoint was made before or not; and a
// second kill, before the next process made a checkpoint of its own, changes nothing.
func TestKillAndResume(t *testing.T) {
	for _, interval := range []string{"1h", "20ms"} {
		t.Run("checkpoint every "+interval, func(t *testing.T) {
			n := startNode(t, t.TempDir(), map[string]string{"CHECKPOINT_INTERVAL": interval})
			n.addUsers("alice", "bob", "carol")
			alice, bob := n.managed("alice", ""), n.managed("bob", "")
			bob.available()
			alice.chat("bob@localhost", "1", "2")
			bob.bodies(2)
			bob.ack()
			bob.acked(1)
			if interval != "1h" {
				time.Sleep(100 * time.Millisecond) // so that some of it is in the database; any amount will do
			}
			bob.Abort()
			alice.chat("bob@localhost", "3", "4")
			alice.chat("carol@localhost", "offline")
			alice.acked(5)
			n = n.next(quietImage(n), map[string]string{"CHECKPOINT_INTERVAL": "1h"})
			n = n.next(n.image(), nil)
			alice = n.resumed("alice", alice, 5)
			bob = n.resumed("bob", bob, 1)
			if got := bob.bodies(2); !slices.Equal(got, []string{"3", "4"}) {
				t.Errorf("bob got %v", got)
			}
			bob.quiet()
			carol := n.bound("carol")
			carol.available()
			if got := carol.bodies(1); got[0] != "offline" {
				t.Errorf("carol got %v", got)
			}
			carol.quiet()
			alice.chat("bob@localhost", "5")
			bob.bodies(1)
		})
	}
}

// quietImage is an image of a gateway that makes checkpoints: of a moment when the database is not written.
func quietImage(n *node) string {
	n.t.Helper()
	end := func() string { _, m := n.body("/metrics"); return line(m, "holdfast_resume_checkpoint_seconds_count") }
	for range 20 {
		before := end()
		time.Sleep(60 * time.Millisecond)
		if end() != before {
			continue
		}
		dir := n.image()
		if end() == before {
			return dir
		}
	}
	n.t.Fatal("the gateway makes checkpoints without end")
	return ""
}

func line(text, name string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, name) {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// A session whose time runs out while the gateway is down ends when it is up again: what it was sent goes offline, once,
// however often the gateway is started afterwards; its client hears <failed h='…'/>.
func TestSessionExpiresWhileDown(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice, bob := n.managed("alice", ""), n.managed("bob", "max='1'")
	bob.available()
	alice.chat("bob@localhost", "1", "2")
	alice.acked(2)
	n.stop()
	time.Sleep(1100 * time.Millisecond)

	n = n.next(n.dir(), nil)
	_, e := n.resume("bob", bob)
	if e.Name.Local != "failed" || e.Attr("h") != "1" || e.Condition() != "item-not-found" {
		t.Errorf("the answer to <resume/> is %v", e)
	}
	n.stop()

	n = n.next(n.dir(), nil)
	bob = n.managed("bob", "")
	bob.available()
	if got := bob.bodies(2); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("bob got %v", got)
	}
	bob.quiet()
	bob.ack()
	bob.acked(2)
	n.stop()

	n = n.next(n.dir(), nil)
	bob = n.bound("bob")
	bob.available()
	bob.quiet()
}

// What could not be brought back must not be forgotten: a gateway that fails while it starts leaves the journal alone.
func TestFailedStartForgetsNothing(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice, bob := n.managed("alice", ""), n.managed("bob", "")
	bob.available()
	bob.Abort()
	alice.chat("bob@localhost", "1")
	alice.acked(1)
	dir := n.image()
	n.stop()

	// A session that an earlier process stored and that makes no sense to this one.
	db := openDB(t, dir)
	state := badSession()
	if _, err := db.Write.Exec(`INSERT INTO resume_sessions (ord, handled, acked, state) VALUES (1, 0, 0, ?)`, state); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := configure(t, dir, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := serve(ctx, &cfg, slog.New(slog.DiscardHandler))
	t.Logf("serve: %v", err)

	db = openDB(t, dir)
	if _, err := db.Write.Exec(`DELETE FROM resume_sessions WHERE ord = 1`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	n = n.next(dir, nil)
	bob = n.resumed("bob", bob, 1)
	if got := bob.bodies(1); got[0] != "1" {
		t.Errorf("bob got %v", got)
	}
}

func TestPortInUse(t *testing.T) {
	for _, name := range []string{"LISTEN", "ADMIN_LISTEN"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := configure(t, t.TempDir(), map[string]string{name: l.Addr().String()})
		err = serve(t.Context(), &cfg, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), prefix+name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice")
	cfg := configure(t, n.dir(), nil)
	start := time.Now()
	if err := serve(t.Context(), &cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, sqlx.ErrLocked) {
		t.Errorf("serve says %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	n.bound("alice").quiet() // the first one goes on
}

func TestTwoDomains(t *testing.T) {
	n := startNode(t, t.TempDir(), map[string]string{"DOMAINS": "one.example,two.example"})
	n.addUsers("alice@one.example", "alice@two.example", "bob@two.example")
	one, two, bob := n.bound("alice@one.example"), n.bound("alice@two.example"), n.bound("bob@two.example")
	for _, c := range []*client{one, two, bob} {
		c.available()
	}
	one.chat("bob@two.example", "from one")
	if got := bob.bodies(1); got[0] != "from one" {
		t.Errorf("bob got %v", got)
	}
	bob.chat("alice@one.example", "to one")
	if got := one.bodies(1); got[0] != "to one" {
		t.Errorf("alice got %v", got)
	}
	two.quiet()
	bob.chat("alice@three.example", "to nowhere")
	if e := bob.next(); e.StanzaError() != "remote-server-not-found" {
		t.Errorf("bob got %v", e)
	}
}

func TestManyRestarts(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice, bob := n.managed("alice", ""), n.managed("bob", "")
	bob.available()
	for round := range 6 {
		text := fmt.Sprint(round)
		alice.chat("bob@localhost", text)
		alice.acked(round + 1)
		if round%2 == 0 {
			n = n.next(n.image(), nil)
		} else {
			n.stop()
			n = n.next(n.dir(), nil)
		}
		alice, bob = n.resumed("alice", alice, round+1), n.resumed("bob", bob, 1)
		if got := bob.bodies(1); got[0] != text {
			t.Fatalf("bob got %v, want %s", got, text)
		}
	}
	bob.quiet()
}
