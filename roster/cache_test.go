package roster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/stanza"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgresproc.Main(m)) }

func user(i int) stanza.Addr { return stanza.MustParseAddr(fmt.Sprintf("user%d@localhost", i)) }

func TestLoginReadsTheStoreOnce(t *testing.T) {
	store := newMemory()
	s := newService(t, DefaultConfig(), store)
	for range 3 {
		if _, _, err := s.Get(t.Context(), romeo); err != nil {
			t.Fatal(err)
		}
		must(s.Subscribers(t.Context(), must(romeo.WithResource("phone"))(t)))(t)
		must(s.Subscriptions(t.Context(), romeo))(t)
		must(s.PendingRequests(t.Context(), romeo))(t)
		must(s.IsSubscriber(t.Context(), romeo, juliet))(t)
	}
	if store.loads != 1 {
		t.Errorf("%d loads", store.loads)
	}
	must(s.Set(t.Context(), romeo, Item{Contact: juliet}))(t)
	if items, _, _ := s.Get(t.Context(), romeo); len(items) != 1 || store.loads != 1 {
		t.Errorf("%d items after %d loads", len(items), store.loads)
	}
}

func TestCacheIsBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Cache = 10 * (overhead + len("user0@localhost"))
	store := newMemory()
	s := newService(t, cfg, store)
	for i := range 10 {
		must(s.Subscribers(t.Context(), user(i)))(t)
	}
	if n, _, bytes := s.cache.sizes(); n != 10 || bytes != cfg.Cache {
		t.Fatalf("%d rosters in %d bytes", n, bytes)
	}
	// The one used longest ago goes.
	must(s.Subscribers(t.Context(), user(0)))(t)
	must(s.Subscribers(t.Context(), stanza.MustParseAddr("userx@localhost")))(t)
	store.loads = 0
	must(s.Subscribers(t.Context(), user(0)))(t)
	must(s.Subscribers(t.Context(), user(2)))(t)
	if store.loads != 0 {
		t.Error("what was used lately is gone")
	}
	must(s.Subscribers(t.Context(), user(1)))(t)
	if store.loads != 1 {
		t.Error("what was used longest ago is still there")
	}

	// Rosters that grow count as what they are, and those that do not fit at all push nobody out.
	for i := range 5 {
		must(s.Set(t.Context(), user(0), Item{Contact: user(i + 1), Name: strings.Repeat("x", 200)}))(t)
		if n, items, bytes := s.cache.sizes(); bytes > cfg.Cache || items > i+1 {
			t.Errorf("%d rosters, %d items in %d bytes", n, items, bytes)
		}
	}
	for i := 5; i < 50; i++ {
		must(s.Set(t.Context(), user(0), Item{Contact: user(i + 1)}))(t)
	}
	must(s.Subscribers(t.Context(), user(1)))(t)
	must(s.Set(t.Context(), user(0), Item{Contact: juliet}))(t)
	if n, items, _ := s.cache.sizes(); n == 0 || items != 0 {
		t.Errorf("%d rosters with %d items", n, items)
	}
	if items, _, _ := s.Get(t.Context(), user(0)); len(items) != 51 {
		t.Errorf("%d items", len(items))
	}
}

// TestStoreFailures: an error changes nothing, and when it is not known what was stored the store is asked.
func TestStoreFailures(t *testing.T) {
	store := newMemory()
	s := newService(t, DefaultConfig(), store)
	fail := func(torn bool) { store.fail, store.torn = errDisk, torn }

	fail(false)
	if _, _, err := s.Get(t.Context(), romeo); !errors.Is(err, errDisk) {
		t.Errorf("get: %v", err)
	}
	must(s.Set(t.Context(), romeo, Item{Contact: juliet}))(t)
	fail(false)
	if _, err := s.Set(t.Context(), romeo, Item{Contact: juliet, Name: "J"}); !errors.Is(err, errDisk) {
		t.Errorf("set: %v", err)
	}
	if items, _, _ := s.Get(t.Context(), romeo); items[0].Name != "" {
		t.Errorf("a failed change shows: %+v", items)
	}
	fail(true)
	if _, err := s.Outbound(t.Context(), romeo, juliet, Subscribe); !errors.Is(err, errDisk) {
		t.Errorf("outbound: %v", err)
	}
	if items, _, _ := s.Get(t.Context(), romeo); !items[0].Ask {
		t.Errorf("a stored change does not show: %+v", items)
	}
	fail(false)
	if _, _, err := s.Remove(t.Context(), romeo, juliet); !errors.Is(err, errDisk) {
		t.Errorf("remove: %v", err)
	}
	fail(false)
	if _, err := s.RemoveUser(t.Context(), romeo); !errors.Is(err, errDisk) {
		t.Errorf("remove user: %v", err)
	}
	if items, _, _ := s.Get(t.Context(), romeo); len(items) != 1 {
		t.Errorf("items %+v", items)
	}
}

// TestNoUpdateIsLost has many callers change one user's roster, and others read it meanwhile.
func TestNoUpdateIsLost(t *testing.T) {
	eachBackend(t, func(t *testing.T, b backend) {
		cfg := DefaultConfig()
		cfg.Cache = 4000 // so that the store is asked again and again
		store := b.open(t, b.place(t))
		s := newService(t, cfg, store)
		const callers, each = 8, 5
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				seen := ""
				for j := range each {
					c, err := s.Set(context.Background(), romeo, Item{Contact: user(i*each + j)})
					if err != nil {
						t.Error(err)
					}
					changed, _, ok, err := s.Since(context.Background(), romeo, c.Version)
					if err != nil || !ok {
						t.Errorf("since %s: %v %v", c.Version, ok, err)
					}
					for _, other := range changed {
						if other.Version <= c.Version {
							t.Errorf("%s is not after %s", other.Version, c.Version)
						}
					}
					if c.Version <= seen {
						t.Errorf("%s follows %s", c.Version, seen)
					}
					seen = c.Version
					if _, err := s.Subscribers(context.Background(), user(i)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if items, _, err := s.Get(t.Context(), romeo); err != nil || len(items) != callers*each {
			t.Errorf("%d items: %v", len(items), err)
		}
		if rec := must(store.Load(t.Context(), romeo.String()))(t); len(rec.Rows) != callers*each {
			t.Errorf("%d rows", len(rec.Rows))
		}
		if len(s.turns.users) != 0 {
			t.Errorf("%d turns are left", len(s.turns.users))
		}
	})
}

// slow is a Store whose Load waits.
type slow struct {
	*memory
	gate chan struct{}
}

func (s slow) Load(ctx context.Context, user string) (Record, error) {
	<-s.gate
	return s.memory.Load(ctx, user)
}

func TestCallersOfOneUserShareALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := slow{newMemory(), make(chan struct{})}
		s := newService(t, DefaultConfig(), store)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, _, err := s.Get(context.Background(), romeo); err != nil {
					t.Error(err)
				}
			})
		}
		// One who does not want to wait any more goes, and the others go on.
		ctx, cancel := context.WithCancelCause(context.Background())
		impatient := errors.New("impatient")
		synctest.Wait()
		wg.Go(func() {
			if _, _, err := s.Get(ctx, romeo); !errors.Is(err, impatient) {
				t.Errorf("error %v", err)
			}
		})
		synctest.Wait()
		cancel(impatient)
		synctest.Wait()

		store.gate <- struct{}{}
		wg.Wait()
		if store.loads != 1 {
			t.Errorf("%d loads", store.loads)
		}
		if len(s.turns.users) != 0 {
			t.Errorf("%d turns are left", len(s.turns.users))
		}
	})
}

// A user goes from one process to another and back: each reads what the other wrote.
func TestForget(t *testing.T) {
	url := postgresproc.New(t)
	process := func() *Service {
		store := must(OpenPostgres(t.Context(), sqlxtest.OpenPostgres(t, url)))(t)
		return newService(t, DefaultConfig(), store)
	}
	one, two := process(), process()
	for i, s := range []*Service{one, two, one, two} {
		one.Forget(romeo)
		two.Forget(romeo)
		must(s.Set(t.Context(), romeo, Item{Contact: user(i)}))(t)
		items, _, err := s.Get(t.Context(), romeo)
		if err != nil || len(items) != i+1 {
			t.Errorf("%d contacts, %v, want %d", len(items), err, i+1)
		}
	}
}

// What was read before it was forgotten is not kept after it.
func TestForgetWhileItIsRead(t *testing.T) {
	c := newCache(0)
	mark := c.mark()
	c.forget(romeo)
	c.put(romeo, empty, mark)
	if _, ok := c.get(romeo); ok {
		t.Error("it was kept")
	}
	c.put(romeo, empty, c.mark())
	if _, ok := c.get(romeo); !ok {
		t.Error("the next one was not")
	}
}
