package offline_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/offline"
)

// TestOverLimitDrop: OFFLINE_OVER_LIMIT=drop changes what the sender hears and nothing else.
func TestOverLimitDrop(t *testing.T) {
	cfg := lifted()
	cfg.Limit, cfg.OverLimit = 1, offline.LimitDrop
	m := open(t, cfg, newMemory())
	if _, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(1), "x")); err != nil {
		t.Fatal(err)
	}
	v, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(2), "x"))
	if want := (offline.Verdict{Action: offline.Drop, Reason: offline.PairFull}); v != want || !errors.Is(err, offline.ErrFull) {
		t.Errorf("%v for %v, %v", v.Action, v.Reason, err)
	}
	if n, err := m.Count(t.Context(), julietAddr()); n != 1 || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
}

// TestLimitOfManyWriters: 32 writers at once leave exactly as many as the limit allows, and all others hear of it.
func TestLimitOfManyWriters(t *testing.T) {
	const limit, writers, each = 100, 32, 10
	cfg := lifted()
	cfg.Limit = limit
	m := open(t, cfg, newMemory())
	var full atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				_, err := m.Put(t.Context(), julietAddr(), from(t, romeo, id(1+w*each+n), "x"))
				if errors.Is(err, offline.ErrFull) {
					full.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := m.Count(t.Context(), julietAddr()); n != limit || err != nil || full.Load() != writers*each-limit {
		t.Errorf("%d stored, %d refused, %v", n, full.Load(), err)
	}
}
