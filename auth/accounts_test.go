package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
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
		if err := cli.Remove(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
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
		if err := a.Remove(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
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

func TestWatchWorksOffMoreThanAPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		const users = 250
		for i := range users {
			u := stanza.MustParseAddr(fmt.Sprintf("u%d@localhost", i))
			if _, err := store.Create(t.Context(), []Account{{Addr: u}}); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Remove(t.Context(), u); err != nil {
				t.Fatal(err)
			}
		}
		a := openAccounts(t, store)
		removed := make(map[stanza.Addr]bool)
		a.OnRemoved("roster", func(_ context.Context, user stanza.Addr) error {
			removed[user] = true
			return nil
		})
		stop := watch(t, a)
		synctest.Wait()
		stop()
		if len(removed) != users {
			t.Errorf("%d of %d worked off at once", len(removed), users)
		}
	})
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

func watch(t *testing.T, a *Accounts) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Watch(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// A removal reaches the other rooms: of this process at once, of another within a second, and one that was made while
// no gateway ran, at its next start; until they all succeeded.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		cli := openAccounts(t, store)
		var mu sync.Mutex
		var roster, mailbox []stanza.Addr
		fail := 2
		gateway := func() *Accounts {
			a := openAccounts(t, store)
			a.OnRemoved("roster", func(_ context.Context, user stanza.Addr) error {
				mu.Lock()
				defer mu.Unlock()
				roster = append(roster, user)
				return nil
			})
			a.OnRemoved("offline", func(_ context.Context, user stanza.Addr) error {
				mu.Lock()
				defer mu.Unlock()
				if fail--; fail >= 0 {
					return errors.New("busy")
				}
				mailbox = append(mailbox, user)
				return nil
			})
			return a
		}
		add := func(a *Accounts, users ...stanza.Addr) {
			for _, u := range users {
				if err := a.Create(t.Context(), u, "secret"); err != nil {
					t.Error(err)
				}
			}
		}
		remove := func(a *Accounts, user stanza.Addr) {
			if err := a.Remove(t.Context(), user); err != nil {
				t.Error(err)
			}
		}
		expect := func(users ...stanza.Addr) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(mailbox, users) {
				t.Errorf("mailboxes removed: %v, want %v", mailbox, users)
			}
		}
		add(cli, alice, bob)
		remove(cli, alice)
		a := gateway()
		stop := watch(t, a)
		expect() // fails at first
		time.Sleep(2 * watchEvery)
		expect(alice)
		mu.Lock()
		if len(roster) != 3 {
			t.Errorf("roster asked %d times", len(roster))
		}
		mu.Unlock()
		remove(cli, bob)
		time.Sleep(watchEvery)
		expect(alice, bob)
		add(a, bob)
		remove(a, bob)
		expect(alice, bob, bob)
		stop()
		stop = watch(t, gateway())
		time.Sleep(watchEvery)
		expect(alice, bob, bob)
		stop()
	})
}

// A new account of the same name does not lose what it has to the removal of the old one.
func TestCreateWaitsForRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAccounts(t, newMemStore())
		release := make(chan struct{})
		var done, created time.Time
		a.OnRemoved("roster", func(context.Context, stanza.Addr) error {
			<-release
			done = time.Now()
			return nil
		})
		if err := a.Create(t.Context(), alice, "one"); err != nil {
			t.Fatal(err)
		}
		stop := watch(t, a)
		synctest.Wait()
		if err := a.Remove(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Create(ctx, alice, "two"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while it is removed: %v", err)
		}
		time.AfterFunc(time.Second, func() { close(release) })
		if err := a.Create(t.Context(), alice, "two"); err != nil {
			t.Fatal(err)
		}
		created = time.Now()
		if done.IsZero() || created.Before(done) {
			t.Errorf("created %v, removed %v", created, done)
		}
		stop()
	})
}

func TestWatchPrunes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		a := openAccounts(t, store)
		if err := a.Create(t.Context(), alice, "one"); err != nil {
			t.Fatal(err)
		}
		stop := watch(t, a)
		time.Sleep(changesKept - time.Second)
		if all, _ := store.Changes(t.Context(), 0, 10); len(all) != 1 {
			t.Errorf("pruned too early: %v", all)
		}
		time.Sleep(pruneEvery + time.Minute)
		if all, _ := store.Changes(t.Context(), 0, 10); len(all) != 0 {
			t.Errorf("not pruned: %v", all)
		}
		stop()
	})
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
