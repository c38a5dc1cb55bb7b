package ws

import (
	"sync"
	"sync/atomic"
	"time"
)

// watch is the clock and the conscience of all connections: one goroutine that looks at each of them once in a
// period. A connection costs no timer, and reading the time costs one atomic load. The price is that a deadline may
// come late by up to a period, an eighth of the shortest timeout and never more than a second.
type watch struct {
	begin  time.Time
	tick   time.Duration
	nowIs  atomic.Int64 // nanoseconds since begin, as of the last tick
	joined atomic.Uint32
	slots  [slots]slot
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once
}

// slots spreads the connections over the period, one slot a tick.
const slots = 8

type slot struct {
	mu   sync.Mutex
	head *transport // guarded by mu, the links too
}

func newWatch(cfg Config) *watch {
	period := time.Second
	for _, d := range [...]time.Duration{
		cfg.HandshakeTimeout, cfg.AuthTimeout, cfg.WriteTimeout, cfg.CloseTimeout, cfg.PingInterval, cfg.PingTimeout,
	} {
		if d > 0 {
			period = min(period, d/8)
		}
	}
	w := &watch{
		begin: time.Now().Add(-1), // so that no time is 0, which stands for none
		tick:  max(period/slots, time.Millisecond),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	w.nowIs.Store(1)
	return w
}

func (w *watch) now() int64 { return w.nowIs.Load() }

// run ticks until close.
func (w *watch) run() {
	defer close(w.done)
	ticker := time.NewTicker(w.tick)
	defer ticker.Stop()
	var due []*transport
	for n := 0; ; n++ {
		select {
		case <-w.stop:
			return
		case <-ticker.C:
		}
		now := int64(time.Since(w.begin))
		w.nowIs.Store(now)
		due = w.slots[n%slots].list(due[:0])
		for i, t := range due {
			t.check(now)
			due[i] = nil
		}
	}
}

func (w *watch) close() {
	w.once.Do(func() { close(w.stop) })
	<-w.done
}

// list collects a slot's connections, so that they are looked at without its lock.
func (s *slot) list(to []*transport) []*transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := s.head; t != nil; t = t.next {
		to = append(to, t)
	}
	return to
}

func (w *watch) add(t *transport) {
	t.slot = w.joined.Add(1) % slots
	s := &w.slots[t.slot]
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.next = s.head; t.next != nil {
		t.next.prev = t
	}
	s.head = t
}

func (w *watch) remove(t *transport) {
	s := &w.slots[t.slot]
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		s.head = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

// each calls f for all connections, without a lock.
func (w *watch) each(f func(*transport)) {
	for i := range w.slots {
		for _, t := range w.slots[i].list(nil) {
			f(t)
		}
	}
}
