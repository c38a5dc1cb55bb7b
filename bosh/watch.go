package bosh

import (
	"sync"
	"sync/atomic"
	"time"
)

// watch is all deadlines of all sessions: one goroutine that looks at each of them once in a period, which costs a load
// or two. A session has no timer. The price is that a deadline may come late by up to a period.
type watch struct {
	begin  time.Time
	joined atomic.Uint32
	slots  [slots]shelf
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once
}

const (
	period = 400 * time.Millisecond
	slots  = 8 // spread the sessions over the period, one slot a tick
)

type shelf struct {
	mu   sync.Mutex
	head *transport // guarded by mu, the links too
}

func newWatch() *watch {
	return &watch{
		begin: time.Now().Add(-1), // so that no time is 0, which stands for none
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
}

// time is in nanoseconds since the beginning.
func (w *watch) time() int64 { return int64(time.Since(w.begin)) }

// run ticks until close.
func (w *watch) run() {
	defer close(w.done)
	ticker := time.NewTicker(period / slots)
	defer ticker.Stop()
	var list []*transport
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
		}
		now := w.time()
		list = w.slots[n%slots].list(list[:0])
		for i, t := range list {
			t.timeouts(now)
			list[i] = nil
		}
	}
}

func (w *watch) close() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}

// list collects a slot's sessions, so that they are looked at without its lock.
func (s *shelf) list(to []*transport) []*transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := s.head; t != nil; t = t.later {
		to = append(to, t)
	}
	return to
}

func (w *watch) add(t *transport) {
	t.shelf = w.joined.Add(1) % slots
	s := &w.slots[t.shelf]
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.later = s.head; t.later != nil {
		t.later.prev = t
	}
	s.head = t
}

func (w *watch) remove(t *transport) {
	s := &w.slots[t.shelf]
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.prev != nil {
		t.prev.later = t.later
	} else {
		s.head = t.later
	}
	if t.later != nil {
		t.later.prev = t.prev
	}
	t.prev, t.later = nil, nil
}

// each calls f for all sessions, without a lock.
func (w *watch) each(f func(*transport)) {
	for i := range w.slots {
		for _, t := range w.slots[i].list(nil) {
			f(t)
		}
	}
}
