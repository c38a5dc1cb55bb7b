package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"holdfast/internal/sqlx"
	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/stanza"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgresproc.Main(m)) }

func openSQLite(t testing.TB, db *sqlx.DB) *SQLite {
	t.Helper()
	s, err := OpenSQLite(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openPostgres(t testing.TB, url string) *Postgres {
	t.Helper()
	s, err := OpenPostgres(t.Context(), sqlxtest.OpenPostgres(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every backend passes the same suite. open returns the same data each time within one test.
func TestStores(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		contract(t, func(t *testing.T) func() Store {
			s := newMemStore()
			return func() Store { return s }
		})
	})
	t.Run("sqlite", func(t *testing.T) {
		contract(t, func(t *testing.T) func() Store {
			dir := t.TempDir()
			return func() Store { return openSQLite(t, sqlxtest.OpenDir(t, dir)) }
		})
	})
	t.Run("postgres", func(t *testing.T) {
		contract(t, func(t *testing.T) func() Store {
			url := postgresproc.New(t)
			return func() Store { return openPostgres(t, url) }
		})
	})
}

func account(name string) Account {
	c := func(mechanism string, size int) Credential {
		return Credential{
			Mechanism: mechanism, Iterations: 4096, Salt: []byte("salt of " + name),
			StoredKey: bytes.Repeat([]byte{1}, size), ServerKey: bytes.Repeat([]byte{2}, size),
		}
	}
	return Account{
		Addr:        stanza.MustParseAddr(name + "@localhost"),
		Credentials: []Credential{c(ScramSHA256, 32), c(ScramSHA1, 20)},
	}
}

func create(t *testing.T, s Store, names ...string) {
	t.Helper()
	var accounts []Account
	for _, n := range names {
		accounts = append(accounts, account(n))
	}
	errs, err := s.Create(t.Context(), accounts)
	if err = errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, s Store, name string, mechanisms ...string) Account {
	t.Helper()
	a, err := s.Load(t.Context(), account(name).Addr, mechanisms...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func contract(t *testing.T, open func(*testing.T) func() Store) {
	ctx := context.Background()
	run := func(name string, f func(t *testing.T, s Store, reopen func() Store)) {
		t.Run(name, func(t *testing.T) {
			reopen := open(t)
			f(t, reopen(), reopen)
		})
	}
	guestContract(run)
	addrs := cmp.Comparer(func(a, b stanza.Addr) bool { return a == b })

	run("create and load", func(t *testing.T, s Store, reopen func() Store) {
		create(t, s, "alice")
		for _, s := range []Store{s, reopen()} {
			got := load(t, s, "alice", ScramSHA1, ScramSHA256, ScramSHA512)
			if got.Version == 0 || time.Since(got.Created) > time.Minute {
				t.Errorf("version %d, created %v", got.Version, got.Created)
			}
			want := account("alice")
			want.Version, want.Created = got.Version, got.Created
			slices.Reverse(want.Credentials)
			slices.SortFunc(got.Credentials, func(a, b Credential) int { return len(a.StoredKey) - len(b.StoredKey) })
			if d := cmp.Diff(want, got, addrs); d != "" {
				t.Error(d)
			}
			if got := load(t, s, "alice"); got.Credentials != nil || got.Version != want.Version {
				t.Errorf("no mechanism asked for: %+v", got)
			}
			if got := load(t, s, "alice", ScramSHA512); got.Credentials != nil || got.Version != want.Version {
				t.Errorf("a mechanism that it has not: %+v", got)
			}
			if _, err := s.Load(ctx, account("bob").Addr, ScramSHA1); !errors.Is(err, ErrNotFound) {
				t.Errorf("unknown: %v", err)
			}
		}
	})

	run("create what exists", func(t *testing.T, s Store, _ func() Store) {
		create(t, s, "alice")
		before := load(t, s, "alice", ScramSHA256)
		again := account("alice")
		again.Credentials[0].Salt = []byte("another")
		errs, err := s.Create(ctx, []Account{account("bob"), again, account("carol"), account("bob")})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{nil, ErrExists, nil, ErrExists} {
			if !errors.Is(errs[i], want) {
				t.Errorf("%d: %v, want %v", i, errs[i], want)
			}
		}
		if d := cmp.Diff(before, load(t, s, "alice", ScramSHA256), addrs); d != "" {
			t.Errorf("the account that existed was changed: %s", d)
		}
		load(t, s, "carol")
	})

	run("update", func(t *testing.T, s Store, reopen func() Store) {
		create(t, s, "alice")
		a := load(t, s, "alice")
		a.Disabled = true
		if err := s.Update(ctx, a); err != nil {
			t.Fatal(err)
		}
		b := load(t, reopen(), "alice", ScramSHA1)
		if !b.Disabled || b.Version <= a.Version || len(b.Credentials) != 1 {
			t.Errorf("disabled: %+v", b)
		}
		b.Credentials = account("bob").Credentials[:1]
		if err := s.Update(ctx, b); err != nil {
			t.Fatal(err)
		}
		c := load(t, reopen(), "alice", ScramSHA1, ScramSHA256)
		if len(c.Credentials) != 1 || string(c.Credentials[0].Salt) != "salt of bob" || c.Version <= b.Version {
			t.Errorf("new credentials: %+v", c)
		}
		if err := s.Update(ctx, account("nobody")); !errors.Is(err, ErrNotFound) {
			t.Errorf("unknown: %v", err)
		}
	})

	run("remove", func(t *testing.T, s Store, reopen func() Store) {
		create(t, s, "alice", "bob")
		old := load(t, s, "alice").Version
		seq, err := s.Remove(ctx, account("alice").Addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Remove(ctx, account("alice").Addr); !errors.Is(err, ErrNotFound) {
			t.Errorf("twice: %v", err)
		}
		pending, err := reopen().Pending(ctx, 10)
		if d := cmp.Diff([]Change{{seq, account("alice").Addr}}, pending, addrs); d != "" || err != nil {
			t.Errorf("pending: %v %s", err, d)
		}
		for range 2 { // the same process may claim again
			if ok, err := s.Claim(ctx, seq, "me", time.Hour); !ok || err != nil {
				t.Errorf("claim: %v %v", ok, err)
			}
		}
		create(t, s, "alice") // its credentials went too, or this would fail
		again := load(t, s, "alice", ScramSHA256)
		if again.Version <= old || !again.Removing || !load(t, s, "alice").Removing {
			t.Errorf("the second alice is %+v, version of the first %d", again, old)
		}
		last, err := s.Last(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Handled(ctx, seq); err != nil {
			t.Fatal(err)
		}
		if load(t, s, "alice").Removing || load(t, s, "alice", ScramSHA256).Removing {
			t.Error("the removal goes on after Handled")
		}
		if next, err := reopen().Changes(ctx, last, 10); len(next) != 1 || next[0].Addr != account("alice").Addr || err != nil {
			t.Errorf("logged with Handled: %v %v", next, err)
		}
		if pending, err := s.Pending(ctx, 10); len(pending) != 0 || err != nil {
			t.Errorf("pending after Handled: %v %v", pending, err)
		}
	})

	run("list in pages", func(t *testing.T, s Store, _ func() Store) {
		var want, got []string
		for i := range 25 {
			// In byte order '-' comes before the digits, elsewhere it may count for nothing.
			name := fmt.Sprintf("user-%02d", i)
			if i >= 12 {
				name = fmt.Sprintf("user%02d", i)
			}
			create(t, s, name)
			want = append(want, name+"@localhost")
		}
		var after stanza.Addr
		for {
			page, err := s.List(ctx, after, 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, a := range page {
				got = append(got, a.Addr.String())
				if a.Version == 0 || a.Credentials != nil {
					t.Errorf("%+v", a)
				}
			}
			after = page[len(page)-1].Addr
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})

	run("log of changes", func(t *testing.T, s Store, reopen func() Store) {
		if last, err := s.Last(ctx); last != 0 || err != nil {
			t.Errorf("Last of a new store: %d %v", last, err)
		}
		create(t, s, "alice", "bob")
		if err := s.Update(ctx, account("alice")); err != nil {
			t.Fatal(err)
		}
		seq, err := s.Remove(ctx, account("bob").Addr)
		if err != nil {
			t.Fatal(err)
		}
		all, err := reopen().Changes(ctx, 0, 100)
		if err != nil || len(all) != 4 || all[3].Seq != seq {
			t.Fatalf("changes: %v %v", all, err)
		}
		for i, name := range []string{"alice", "bob", "alice", "bob"} {
			if all[i].Addr != account(name).Addr || i > 0 && all[i].Seq <= all[i-1].Seq {
				t.Errorf("%d: %v", i, all)
			}
		}
		page, err := s.Changes(ctx, all[0].Seq, 2)
		if d := cmp.Diff(all[1:3], page, addrs); d != "" || err != nil {
			t.Errorf("page: %v %s", err, d)
		}
		if err := s.Prune(ctx, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		left, err := s.Changes(ctx, 0, 100)
		if len(left) != 1 || left[0].Seq != seq || err != nil {
			t.Errorf("pruned, all but the pending removal: %v %v", left, err)
		}
		if err := s.Handled(ctx, seq); err != nil {
			t.Fatal(err)
		}
		if err := s.Prune(ctx, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if last, err := reopen().Last(ctx); last != seq || err != nil {
			t.Errorf("Last of a pruned log: %d %v, want %d", last, err, seq)
		}
		create(t, s, "carol")
		if next, err := s.Changes(ctx, seq, 10); len(next) != 1 || err != nil {
			t.Errorf("after pruning: %v %v", next, err)
		}
	})

	run("secret", func(t *testing.T, s Store, reopen func() Store) {
		one, err := s.Secret(ctx)
		if err != nil || len(one) < 16 {
			t.Fatalf("%d bytes, %v", len(one), err)
		}
		two, err := reopen().Secret(ctx)
		if !bytes.Equal(one, two) || err != nil {
			t.Error("another secret the second time")
		}
	})

	run("one winner", func(t *testing.T, s Store, _ func() Store) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		wins := 0
		for range 8 {
			wg.Go(func() {
				errs, err := s.Create(ctx, []Account{account("alice")})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					t.Error(err)
				case errs[0] == nil:
					wins++
				}
			})
		}
		wg.Wait()
		if wins != 1 {
			t.Errorf("%d created the same account", wins)
		}
	})
}
