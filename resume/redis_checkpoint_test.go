package resume

import (
	"errors"
	"strings"
	"testing"
)

// A checkpoint that is larger than Redis should take at once goes in parts.
func TestRedisLargeCheckpoint(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.nodeFor(t), newSessions()
		body := strings.Repeat("x", 100_000)
		for range 10 {
			s := bind(t, m, l, true)
			for range 20 {
				deliver(t, m, nil, chat(body), 0, s)
			}
		}
		r.calls.beforeScript = func(int) {}
		r.calls.scripts = 0
		must(t, m.Checkpoint(t.Context(), l))
		r.calls.beforeScript = nil
		if r.calls.scripts < 3 {
			t.Errorf("%d scripts", r.calls.scripts)
		}
		deliver(t, m, nil, chat("after"), 0, l.byOrd[l.ords()[0]])
		m.settle(t)
		found, _ := r.nodeFor(t).adopt(t, m)
		if err := same(found, l); err != nil {
			t.Error(err)
		}
	})
}

// A script of a checkpoint that is late finds that a later one was there.
func TestRedisLateScript(t *testing.T) {
	onEachRedis(t, func(t *testing.T, r *place) {
		m, l := r.nodeFor(t), newSessions()
		s := bind(t, m, l, true)
		must(t, m.Checkpoint(t.Context(), l))
		s.state.Priority, s.dirty = 1, true
		must(t, m.Session(s.state))
		must(t, m.Checkpoint(t.Context(), l))
		s.state.Priority, s.dirty = 2, true
		m.writes -= 2
		if err := m.Checkpoint(t.Context(), l); err == nil || errors.Is(err, ErrFenced) {
			t.Errorf("checkpoint says %v", err)
		}
		found, _ := r.nodeFor(t).adopt(t, m)
		if got := found.Sessions[0].State.Priority; got != 1 {
			t.Errorf("priority is %d", got)
		}
	})
}
