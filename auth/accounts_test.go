package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/stanza"
)

func openAccounts(t testing.TB, store Store, change ...func(*Config)) *Accounts {
	t.Helper()
	cfg := testConfig()
	for _, f := range change {
		f(&cfg)
	}
	a, err := OpenAccounts(t.Context(), cfg, store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// remove removes an account and what other rooms have of it, as Watch would.
func remove(t *testing.T, a *Accounts, user stanza.Addr) {
	t.Helper()
	err := a.Remove(t.Context(), user)
	if err == nil {
		err = a.workOff(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func exists(t *testing.T, a *Accounts, user stanza.Addr) bool {
	t.Helper()
	ok, err := a.Exists(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestAccounts(t *testing.T) {
	a := openAccounts(t, openSQLite(t, sqlxtest.Open(t)))
	ctx := t.Context()
	if exists(t, a, alice) {
		t.Error("alice exists already")
	}
	full, _ := alice.WithResource("phone")
	for name, err := range map[string]error{
		"domain":         a.Create(ctx, alice.Server(), "secret"),
		"full address":   a.Create(ctx, full, "secret"),
		"zero":           a.Create(ctx, stanza.Addr{}, "secret"),
		"empty password": a.Create(ctx, alice, ""),
		"SetPassword":    a.SetPassword(ctx, alice, "secret"),
		"SetDisabled":    a.SetDisabled(ctx, alice, true),
		"Remove":         a.Remove(ctx, alice),
	} {
		if err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := a.Create(ctx, alice, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := a.Create(ctx, alice, "secret"); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	if !exists(t, a, alice) || !exists(t, a, full) || exists(t, a, bob) || exists(t, a, alice.Server()) {
		t.Error("Exists is wrong")
	}
	if err := a.Remove(ctx, alice); err != nil {
		t.Fatal(err)
	}
	if exists(t, a, alice) {
		t.Error("alice is still there")
	}
}

func TestSaltsDiffer(t *testing.T) {
	a := openAccounts(t, newMemStore())
	seen := map[string]bool{}
	for _, user := range []stanza.Addr{alice, bob} {
		if err := a.Create(t.Context(), user, "secret"); err != nil {
			t.Fatal(err)
		}
		acct, err := a.store.Load(t.Context(), user, ScramSHA512, ScramSHA256, ScramSHA1)
		if err != nil || len(acct.Credentials) != 3 {
			t.Fatalf("%+v, %v", acct, err)
		}
		for _, c := range acct.Credentials {
			if len(c.Salt) != saltLen || seen[string(c.Salt)] || seen[string(c.StoredKey)] {
				t.Errorf("%v %s: salt or key used before", user, c.Mechanism)
			}
			seen[string(c.Salt)], seen[string(c.StoredKey)] = true, true
		}
	}
}

// A change by `gateway user` counts in a running gateway after CacheAge, and no query is asked before.
func TestOtherProcess(t *testing.T) {
	dir := t.TempDir()
	cli := openAccounts(t, openSQLite(t, sqlxtest.OpenDir(t, dir)))
	for _, age := range []time.Duration{0, time.Hour} {
		s := newService(t, openSQLite(t, sqlxtest.OpenDir(t, dir)), func(c *Config) { c.CacheAge = age })
		a := s.Accounts()
		later := func() { a.looked.Store(a.looked.Load() - int64(changesKept/4)) } // less than what makes it start over
		if age > 0 {
			a.cacheAge = changesKept / 8
		}
		if exists(t, a, alice) {
			t.Fatal("alice exists already")
		}
		if err := cli.Create(t.Context(), alice, "one"); err != nil {
			t.Fatal(err)
		}
		if age > 0 {
			if exists(t, a, alice) {
				t.Error("the cache was not used")
			}
			later()
		}
		for i, password := range []string{"one", "two", "three"} {
			if i > 0 {
				if err := cli.SetPassword(t.Context(), alice, password); err != nil {
					t.Fatal(err)
				}
				later()
			}
			for _, m := range mechanismNames {
				for range 2 {
					if _, err := login(t, s, m, "alice", password, "", home); err != nil {
						t.Errorf("%s with password %s: %v", m, password, err)
					}
				}
			}
		}
		remove(t, cli, alice)
		later()
		if exists(t, a, alice) {
			t.Error("alice is still there")
		}
		for _, m := range mechanismNames {
			if _, err := login(t, s, m, "alice", "three", "", home); !errors.Is(err, NotAuthorized) {
				t.Errorf("%s of a removed user: %v", m, err)
			}
		}
	}
}

// What was not looked at for so long that the log may have been pruned is forgotten as a whole.
func TestOtherProcessLongAgo(t *testing.T) {
	store := newMemStore()
	a, cli := openAccounts(t, store), openAccounts(t, store)
	_ = exists(t, a, alice)
	if err := cli.Create(t.Context(), alice, "secret"); err != nil {
		t.Fatal(err)
	}
	if err := store.Prune(t.Context(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	a.looked.Store(a.looked.Load() - int64(changesKept))
	if !exists(t, a, alice) {
		t.Error("a pruned change was missed")
	}
}

func TestMoreChangesThanAPage(t *testing.T) {
	store := newMemStore()
	a := openAccounts(t, store, func(c *Config) { c.CacheAge = 0 })
	last := stanza.MustParseAddr(fmt.Sprintf("u%d@localhost", changesPage+9))
	_ = exists(t, a, last)
	var many []Account
	for i := range changesPage + 10 {
		many = append(many, Account{Addr: stanza.MustParseAddr(fmt.Sprintf("u%d@localhost", i))})
	}
	if _, err := store.Create(t.Context(), many); err != nil {
		t.Fatal(err)
	}
	if !exists(t, a, last) {
		t.Error("the last of many changes was missed")
	}
}

func TestExistsAsksOnce(t *testing.T) {
	store := newMemStore()
	a := openAccounts(t, store, func(c *Config) { c.CacheAge = time.Hour })
	for range 10 {
		_ = exists(t, a, alice)
		_ = exists(t, a, bob)
	}
	if n := store.loaded(); n != 2 {
		t.Errorf("%d queries", n)
	}
}

// Readers and writers at once: once a change has returned, nobody reads what was before.
func TestCacheIsNeverBehindItsOwnProcess(t *testing.T) {
	a := openAccounts(t, openSQLite(t, sqlxtest.Open(t)), func(c *Config) {
		c.CacheAge, c.Mechanisms = time.Hour, []string{ScramSHA256}
	})
	f := a.hasher.families[0]
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = a.Exists(context.Background(), alice)
					_, _ = a.load(context.Background(), alice, f)
				}
			}
		})
	}
	for range 20 {
		if err := a.Create(t.Context(), alice, "secret"); err != nil {
			t.Fatal(err)
		}
		if r, err := a.load(t.Context(), alice, f); !exists(t, a, alice) || !r.known() || err != nil {
			t.Errorf("not there after Create: %v", err)
		}
		remove(t, a, alice)
		if r, err := a.load(t.Context(), alice, f); exists(t, a, alice) || r.known() || err != nil {
			t.Errorf("still there after Remove: %v", err)
		}
	}
	close(stop)
	wg.Wait()
}

// What was read before a change is not cached after it.
func TestChangeWhileItIsRead(t *testing.T) {
	store := newMemStore()
	a := openAccounts(t, store, func(c *Config) { c.CacheAge = time.Hour })
	f := a.hasher.forPlain()
	change := func(f func() error) {
		store.mu.Lock()
		defer store.mu.Unlock()
		store.read = func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
	change(func() error { return a.Create(t.Context(), alice, "one") })
	if exists(t, a, alice) || !exists(t, a, alice) {
		t.Error("Exists: want what was read, then what is")
	}
	old, err := a.load(t.Context(), alice, f)
	if err != nil {
		t.Fatal(err)
	}
	a.forget(alice)
	// SetPassword loads too: it is the second to read.
	change(func() error { return a.SetPassword(t.Context(), alice, "two") })
	if r, err := a.load(t.Context(), alice, f); r.version != old.version || err != nil {
		t.Errorf("version %d, want %d; %v", r.version, old.version, err)
	}
	if r, err := a.load(t.Context(), alice, f); r.version == old.version || err != nil {
		t.Errorf("the old credentials are still used; %v", err)
	}
}

func TestImport(t *testing.T) {
	s := newService(t, openSQLite(t, sqlxtest.Open(t)))
	if err := s.Accounts().Create(t.Context(), bob, "before"); err != nil {
		t.Fatal(err)
	}
	var many []NewAccount
	for i := range 50 {
		many = append(many, NewAccount{stanza.MustParseAddr(fmt.Sprintf("u%d@localhost", i)), fmt.Sprintf("password %d", i)})
	}
	many = append(many, NewAccount{bob, "after"}, NewAccount{alice, ""}, NewAccount{alice.Server(), "x"}, many[7])
	errs, err := s.Accounts().Import(t.Context(), many)
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		if (err == nil) != (i < 50) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if !errors.Is(errs[50], ErrExists) || !errors.Is(errs[51], ErrPassword) || !errors.Is(errs[53], ErrExists) {
		t.Errorf("%v", errs[50:])
	}
	for name, password := range map[string]string{"u0": "password 0", "u49": "password 49", "bob": "before"} {
		if _, err := login(t, s, ScramSHA256, name, password, "", home); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Accounts().Import(ctx, many[:5]); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestHashParallel(t *testing.T) {
	cfg := testConfig()
	cfg.HashParallel = 1
	h := newHasher(cfg)
	if err := h.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := h.credentials(ctx, "secret"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no slot: %v", err)
	}
	h.leave()
	if _, err := h.credentials(t.Context(), "secret"); err != nil {
		t.Error(err)
	}
}

func BenchmarkExists(b *testing.B) {
	a := openAccounts(b, openSQLite(b, sqlxtest.Open(b)))
	for b.Loop() {
		_, _ = a.Exists(b.Context(), alice)
	}
}

func BenchmarkLoadUncached(b *testing.B) {
	a := openAccounts(b, openSQLite(b, sqlxtest.Open(b)))
	if err := a.Create(b.Context(), alice, "secret"); err != nil {
		b.Fatal(err)
	}
	f := a.hasher.forPlain()
	for b.Loop() {
		a.creds.clear()
		_, _ = a.load(b.Context(), alice, f)
	}
}

func BenchmarkCreate(b *testing.B) {
	a := openAccounts(b, newMemStore(), func(c *Config) { c.Iterations = DefaultConfig().Iterations })
	for b.Loop() {
		if _, err := a.hasher.credentials(b.Context(), "secret"); err != nil {
			b.Fatal(err)
		}
	}
}
