package offline_test

import (
	"context"
	"errors"
	"log/slog"
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

// TestBackPressure: a store that does not keep up makes senders wait, in Room and nowhere else; nothing is dropped.
func TestBackPressure(t *testing.T) {
	cfg, s := lifted(), newMemory()
	cfg.PendingBytes, cfg.Window = 2000, time.Hour
	m := open(t, cfg, s)
	if err := m.Room(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		if _, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(n+1), "x")); err != nil {
			if !errors.Is(err, offline.ErrBusy) {
				t.Fatal(err)
			}
			break
		}
		n++
	}
	if n < 2 || n > 8 {
		t.Errorf("%d messages fitted into 2000 bytes", n)
	}
	if count, err := m.Count(t.Context(), julietAddr()); err != nil || count != n {
		t.Errorf("%d messages, %v, want %d: one that was refused counts", count, err, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := m.Room(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Room while there is none: %v", err)
	}
	// What was admitted before, and what makes room, passes.
	if err := m.Force(t.Context(), julietAddr(), from(t, romeo, id(100), "x")); err != nil {
		t.Error(err)
	}
	if err := m.Remove(t.Context(), julietAddr(), id(100)); err != nil {
		t.Error(err)
	}
	if err := m.Purge(t.Context(), nurseAddr()); err != nil {
		t.Error(err)
	}
	done := make(chan error)
	go func() {
		if err := m.Room(context.Background()); err != nil {
			done <- err
			return
		}
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

// TestRoomEndsWithClose: nobody waits for room that never comes.
func TestRoomEndsWithClose(t *testing.T) {
	cfg, s := lifted(), newMemory()
	cfg.PendingBytes, cfg.Window = 1, time.Hour
	m, err := offline.New(t.Context(), cfg, s, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, m, julietAddr(), from(t, romeo, id(1), "x"))
	s.hold()
	done := make(chan error)
	go func() { done <- m.Room(context.Background()) }()
	closed := make(chan error)
	go func() { closed <- m.Close(context.Background()) }()
	if err := <-done; !errors.Is(err, offline.ErrClosed) {
		t.Errorf("Room: %v", err)
	}
	s.letGo()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
