package stanza

import (
	"errors"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"
)

func TestIDOrder(t *testing.T) {
	const workers, each = 4, 5000
	var (
		wg  sync.WaitGroup
		all [workers][]ID
	)
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			for range each {
				all[w] = append(all[w], NewID())
			}
		})
	}
	wg.Wait()
	seen := make(map[ID]bool)
	for _, ids := range all {
		if !sort.SliceIsSorted(ids, func(i, j int) bool { return ids[i].Compare(ids[j]) < 0 }) {
			t.Error("ids of one goroutine are not increasing")
		}
		for _, id := range ids {
			seen[id] = true
			if id[6]>>4 != 7 || id[8]>>6 != 2 {
				t.Fatalf("%v is not a UUIDv7", id)
			}
		}
	}
	if len(seen) != workers*each {
		t.Errorf("%d different ids of %d", len(seen), workers*each)
	}
	id := NewID()
	if d := id.Time().Sub(start); d < -time.Millisecond || d > time.Minute {
		t.Errorf("Time is off by %v", d)
	}
	// Ids sort by their ticks alone: no two share one.
	var ticks []string
	for id := range seen {
		ticks = append(ticks, string(id[:8]))
	}
	slices.Sort(ticks)
	if n := len(slices.Compact(ticks)); n != workers*each {
		t.Errorf("%d different ticks of %d", n, workers*each)
	}
}

func TestIDClockStepsBack(t *testing.T) {
	before := NewID()
	lastTick.Add(1 << 22) // as if the clock had been about a second ahead
	ahead := NewID()
	after := NewID()
	if before.Compare(ahead) >= 0 || ahead.Compare(after) >= 0 {
		t.Errorf("%v, %v, %v", before, ahead, after)
	}
}

func TestIDText(t *testing.T) {
	const text = "019a0000-0000-7000-8000-000000000001"
	if got := stampID.String(); got != text {
		t.Errorf("String() = %s", got)
	}
	for _, s := range []string{text, "019A0000-0000-7000-8000-000000000001"} {
		if id, err := ParseID(s); err != nil || id != stampID {
			t.Errorf("ParseID(%q) = %v, %v", s, id, err)
		}
	}
	for range 100 {
		id := NewID()
		if got, err := ParseID(id.String()); err != nil || got != id {
			t.Errorf("ParseID(%v) = %v, %v", id, got, err)
		}
		if got, err := IDFromBytes(id[:]); err != nil || got != id {
			t.Errorf("IDFromBytes(%v) = %v, %v", id, got, err)
		}
	}
	for _, s := range []string{
		"", "019a0000", text + "0", "019a0000-0000-7000-8000-00000000000", "019a0000-0000-7000-8000-00000000000g",
		"019a0000-0000-4000-8000-000000000001", "019a0000-0000-7000-0000-000000000001", "019a0000+0000-7000-8000-000000000001",
		"019a-0000000-7000-8000-000000000001", "00000000-0000-0000-0000-000000000000", "019a0000-0000-7000-8000-0000000000\xff1",
		"-19a0000-0000-7000-8000-000000000001", "019a000--0000-7000-8000-000000000001",
	} {
		if id, err := ParseID(s); !errors.Is(err, ErrID) || !id.IsZero() {
			t.Errorf("ParseID(%q) = %v, %v", s, id, err)
		}
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, 16), make([]byte, 17)} {
		if _, err := IDFromBytes(b); !errors.Is(err, ErrID) {
			t.Errorf("IDFromBytes(%v): %v", b, err)
		}
	}
	if !(ID{}).IsZero() || stampID.IsZero() {
		t.Error("IsZero")
	}
}
