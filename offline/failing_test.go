package offline_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/offline"
)

// TestRejected: a write that the store refuses for good stays in the mailbox, and Checkpoint does not lie about it.
func TestRejected(t *testing.T) {
	s := newMemory()
	var refuse atomic.Bool
	refuse.Store(true)
	s.fail = func(batch []offline.Change) error {
		for _, c := range batch {
			if refuse.Load() && (c.ID == id(2) || c.ID == id(4)) {
				return errors.New("constraint")
			}
		}
		return nil
	}
	m := open(t, lifted(), s)
	for n := 1; n <= 4; n++ {
		mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
	}
	for range 3 {
		if err := m.Checkpoint(t.Context()); err == nil {
			t.Fatal("Checkpoint passed over a refused write")
		}
		holds(t, m, julietAddr(), id(1), id(2), id(3), id(4))
		want(t, s, juliet, 1, 3)
	}
	if err := m.Remove(t.Context(), julietAddr(), id(4)); err != nil {
		t.Fatal(err)
	}
	refuse.Store(false)
	checkpoint(t, m)
	holds(t, m, julietAddr(), id(1), id(2), id(3))
	want(t, s, juliet, 1, 2, 3)
}

// TestBackPressure: a store that does not keep up makes senders wait; nothing is dropped.
func TestBackPressure(t *testing.T) {
	cfg, s := lifted(), newMemory()
	cfg.PendingBytes, cfg.Window = 2000, time.Hour
	m := open(t, cfg, s)
	n := 0
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := m.Put(ctx, julietAddr(), from(t, romeo, id(n+1), "x"))
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
		n++
	}
	if n < 2 || n > 8 {
		t.Errorf("%d messages fitted into 2000 bytes", n)
	}
	done := make(chan error)
	go func() {
		_, err := m.Put(context.Background(), julietAddr(), from(t, romeo, id(n+1), "x"))
		done <- err
	}()
	checkpoint(t, m)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if count, err := m.Count(t.Context(), julietAddr()); err != nil || count != n+1 {
		t.Errorf("%d messages, %v, want %d", count, err, n+1)
	}
}
