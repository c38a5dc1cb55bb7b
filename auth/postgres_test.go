package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/stanza"
)

// Several processes write at once, each account its own way, while one reads the log as Accounts does: it sees every
// change, though transactions do not end in the order in which they began.
func TestPostgresLogSkipsNothing(t *testing.T) {
	url := postgresproc.New(t)
	const processes, each = 4, 25
	var writers sync.WaitGroup
	for p := range processes {
		s := openPostgres(t, url)
		writers.Go(func() {
			for i := range each {
				// Pairs in an order of their own, so that locks would be taken crosswise.
				pair := []Account{account(fmt.Sprintf("shared%d", i)), account(fmt.Sprintf("own%d.%d", p, i))}
				if p%2 == 1 {
					pair[0], pair[1] = pair[1], pair[0]
				}
				if _, err := s.Create(context.Background(), pair); err != nil {
					t.Error(err)
				}
			}
		})
	}
	reader := openPostgres(t, url)
	done := make(chan struct{})
	go func() { defer close(done); writers.Wait() }()
	seen := map[stanza.Addr]bool{}
	after, last := int64(0), false
	for {
		changes, err := reader.Changes(t.Context(), after, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Seq <= after {
				t.Fatalf("seq %d after %d", c.Seq, after)
			}
			after, seen[c.Addr] = c.Seq, true
		}
		if len(changes) == 0 && last {
			break
		}
		select {
		case <-done:
			last = true
		default:
		}
	}
	if want := processes*each + each; len(seen) != want {
		t.Errorf("the reader saw %d accounts, want %d", len(seen), want)
	}
}

func TestPostgresSecretOfGatewaysThatStartTogether(t *testing.T) {
	url := postgresproc.New(t)
	secrets := make([][]byte, 6)
	var wg sync.WaitGroup
	for i := range secrets {
		s := openPostgres(t, url)
		wg.Go(func() {
			var err error
			if secrets[i], err = s.Secret(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range secrets[1:] {
		if !bytes.Equal(s, secrets[0]) {
			t.Fatal("they do not have the same")
		}
	}
}

// One process has a removal until its lease is over.
func TestPostgresClaim(t *testing.T) {
	s := openPostgres(t, postgresproc.New(t))
	create(t, s, "alice")
	seq, err := s.Remove(t.Context(), account("alice").Addr)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(who string, lease time.Duration) bool {
		t.Helper()
		ok, err := s.Claim(t.Context(), seq, who, lease)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !claim("a", time.Hour) || claim("b", time.Hour) || !claim("a", time.Millisecond) {
		t.Error("not the first one's alone")
	}
	time.Sleep(20 * time.Millisecond)
	if !claim("b", time.Hour) || claim("a", time.Hour) {
		t.Error("not the second one's after the first one's time")
	}
	if err := s.Handled(t.Context(), seq); err != nil {
		t.Fatal(err)
	}
	if claim("b", time.Hour) {
		t.Error("claimed what is handled")
	}
}

// Two gateways watch: each removal is worked off by one of them, and what one fails at the other does not begin.
func TestPostgresWatchOfTwoGateways(t *testing.T) {
	url := postgresproc.New(t)
	const users = 40
	var mu sync.Mutex
	handled := map[stanza.Addr]int{}
	running := map[stanza.Addr]bool{}
	failed := false
	worked := make(chan struct{}, users+1)
	for range 2 {
		a := openAccounts(t, openPostgres(t, url))
		a.OnRemoved("roster", func(_ context.Context, user stanza.Addr) error {
			mu.Lock()
			if running[user] {
				t.Errorf("%v is worked on twice at once", user)
			}
			running[user] = true
			mu.Unlock()
			time.Sleep(time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			running[user] = false
			if !failed {
				failed = true
				return errors.New("busy")
			}
			handled[user]++
			worked <- struct{}{}
			return nil
		})
		defer watch(t, a)()
	}
	cli := openPostgres(t, url)
	for i := range users {
		name := fmt.Sprintf("user%d", i)
		create(t, cli, name)
		if _, err := cli.Remove(t.Context(), account(name).Addr); err != nil {
			t.Fatal(err)
		}
	}
	for range users {
		select {
		case <-worked:
		case <-time.After(20 * time.Second):
			t.Fatal("not all were worked off")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for user, n := range handled {
		if n != 1 {
			t.Errorf("%v was worked off %d times", user, n)
		}
	}
	if len(handled) != users {
		t.Errorf("%d of %d users were worked off", len(handled), users)
	}
}

// What one process changes counts in another as soon as its cache is older than Config.CacheAge.
func TestPostgresOtherProcessesHear(t *testing.T) {
	url := postgresproc.New(t)
	always := func(c *Config) { c.CacheAge = 0 }
	one, two := openAccounts(t, openPostgres(t, url), always), openAccounts(t, openPostgres(t, url), always)
	for range 3 {
		if err := one.Create(t.Context(), alice, "secret"); err != nil {
			t.Fatal(err)
		}
		if !exists(t, two, alice) {
			t.Error("not there")
		}
		remove(t, one, alice)
		if exists(t, two, alice) {
			t.Error("still there")
		}
	}
}

// A server that restarts takes nothing with it.
func TestPostgresRestarted(t *testing.T) {
	s := openPostgres(t, postgresproc.New(t))
	create(t, s, "alice")
	server := postgresproc.Get(t)
	for _, end := range []func(testing.TB){server.Kill, server.Stop} {
		end(t)
		if _, err := s.Load(t.Context(), account("alice").Addr); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("while the server is away: %v", err)
		}
		server.Start(t)
		if a := load(t, s, "alice", ScramSHA256); len(a.Credentials) != 1 {
			t.Errorf("%+v", a)
		}
	}
}
