package route

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/stanza"
)

// strict is a backend that two calls for one user must not be in at the same time, and that fails when a session gets
// something that is not in the table.
type strict struct {
	*backend
	t      *testing.T
	inside sync.Map // by bare address: *atomic.Bool
	bound  sync.Map // *device
	sent   atomic.Int64
	stored atomic.Int64
}

func (s *strict) alone(user stanza.Addr) func() {
	v, _ := s.inside.LoadOrStore(user, new(atomic.Bool))
	busy := v.(*atomic.Bool)
	if busy.Swap(true) {
		s.t.Error("two at a time for one user")
	}
	return func() { busy.Store(false) }
}

func (s *strict) Deliver(_ *device, st *stanza.Stanza, to []*device) (int, error) {
	defer s.alone(st.To.Bare())()
	for _, d := range to {
		if _, ok := s.bound.Load(d); !ok {
			s.t.Error("something for a session that is not in the table")
		}
	}
	s.sent.Add(1)
	return len(to), nil
}

func (s *strict) Store(_ *device, user stanza.Addr, _ *stanza.Stanza) (verdict, bool, error) {
	defer s.alone(user)()
	s.stored.Add(1)
	return kept, true, nil
}

func TestConcurrency(t *testing.T) {
	// Sessions come and go while messages are routed: each message is delivered or stored, once, and in the end nothing
	// is left in the table.
	const people, rounds = 8, 200
	s := &strict{backend: newBackend(), t: t}
	var addrs [people]stanza.Addr
	for i := range addrs {
		addrs[i] = stanza.MustParseAddr(fmt.Sprintf("u%d@capulet.example", i))
		s.known[addrs[i]] = true
	}
	h := New[*device, verdict](s)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() { // sessions
			for i := range rounds {
				bare := addrs[(i+worker)%people]
				full, err := stanza.NewAddr(bare.Local(), bare.Domain(), fmt.Sprint(worker))
				if err != nil {
					t.Error(err)
					return
				}
				d := &device{full}
				h.Locked(bare, func(tb Table[*device]) {
					s.bound.Store(d, true)
					tb.Add(d)
					tb.SetPriority(d, true, 0)
					if tb.Draining() == nil && i%3 == 0 {
						tb.SetDraining(d)
					}
				})
				h.Each(bare, func(*device) {})
				h.Locked(bare, func(tb Table[*device]) {
					tb.Remove(d)
					if tb.Draining() == d {
						tb.SetDraining(nil)
					}
					s.bound.Delete(d)
				})
			}
		})
		wg.Go(func() { // messages
			for i := range rounds {
				st := stanza.New(stanza.Message, "chat", "1", romeo.addr, addrs[(i*3+worker)%people], []byte("<body>x</body>"))
				if err := h.Message(romeo, st); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.sent.Load() + s.stored.Load(); n != 4*rounds || len(s.did) > 0 {
		t.Errorf("%d delivered, %d stored of %d; %q", s.sent.Load(), s.stored.Load(), 4*rounds, s.did)
	}
	if n := users(h); n != 0 {
		t.Errorf("%d users are left in the table", n)
	}
}

func TestOneUserDoesNotWaitForAnother(t *testing.T) {
	h := New[*device, verdict](newBackend())
	done := make(chan struct{})
	h.Locked(juliet, func(Table[*device]) {
		go func() {
			defer close(done)
			// Enough of them to share juliet's shard too.
			for i := range 1000 {
				h.Locked(stanza.MustParseAddr(fmt.Sprintf("u%d@capulet.example", i)), func(Table[*device]) {})
			}
		}()
		<-done
	})
	if n := users(h); n != 0 {
		t.Errorf("%d users are left in the table", n)
	}
}
