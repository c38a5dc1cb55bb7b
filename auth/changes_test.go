package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/stanza"
)

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

// An account that was made anew by a process that does not watch, like `gateway user`, is there for nobody until what the
// one before had is gone; then all gateways see it.
func TestAccountWaitsForRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemStore()
		cli, one, two := openAccounts(t, store), openAccounts(t, store), openAccounts(t, store)
		release := make(chan struct{})
		one.OnRemoved("roster", func(context.Context, stanza.Addr) error {
			<-release
			return nil
		})
		if err := cli.Create(t.Context(), alice, "one"); err != nil {
			t.Fatal(err)
		}
		if err := cli.Remove(t.Context(), alice); err != nil {
			t.Fatal(err)
		}
		if err := cli.Create(t.Context(), alice, "two"); err != nil {
			t.Fatal(err)
		}
		there := func(want bool) {
			t.Helper()
			time.Sleep(time.Second) // caches may be that old
			for i, a := range []*Accounts{cli, one, two} {
				r, err := a.load(t.Context(), alice, a.hasher.families[0])
				if exists(t, a, alice) != want || r.known() != want || err != nil {
					t.Errorf("process %d: there %v, want %v; %v", i, !want, want, err)
				}
			}
		}
		there(false)
		defer watch(t, one)()
		there(false)
		close(release)
		there(true)
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
