package packetcache

import (
	"testing"
	"time"

	"holdfast/stanza"
)

// TestTakeOut moves what awaits one recipient's receipts from one cache to another, and nothing else.
func TestTakeOut(t *testing.T) {
	from, to := newMoving(t), newMoving(t)
	juliet, nurse := stanza.MustParseAddr("juliet@capulet.example/balcony"), stanza.MustParseAddr("nurse@capulet.example/hall")
	romeo := stanza.MustParseAddr("romeo@montague.example/orchard")
	var moved []stanza.ID
	for i, recipient := range []stanza.Addr{juliet, nurse, juliet.Bare(), juliet} {
		st := message(romeo, recipient, "m"+string(rune('0'+i)))
		if !from.Open(st) {
			t.Fatalf("message %d has no entry", i)
		}
		if recipient.Bare() == juliet.Bare() {
			moved = append(moved, st.ID)
		}
	}
	if !from.Holds(juliet) || to.Holds(juliet) {
		t.Fatal("held by the wrong cache")
	}
	out := from.TakeOut(juliet)
	if len(out) != len(moved) {
		t.Fatalf("%d entries came out, want %d", len(out), len(moved))
	}
	for i, e := range out {
		if e.ID != moved[i] {
			t.Errorf("entry %d is %v, want %v", i, e.ID, moved[i])
		}
		to.Restore(e)
	}
	if from.Holds(juliet) || !from.Holds(nurse) || from.Len() != 1 || to.Len() != len(moved) {
		t.Errorf("after the move: %d stay, %d came", from.Len(), to.Len())
	}
	if closed, _ := from.Receipt(juliet, romeo, "m0"); len(closed) != 0 {
		t.Error("a receipt closed what had moved away")
	}
	if closed, _ := to.Receipt(juliet, romeo, "m0"); len(closed) != 1 || closed[0] != moved[0] {
		t.Errorf("a receipt closed %v at the new place, want %v", closed, moved[0])
	}
	if again := from.TakeOut(juliet); len(again) != 0 {
		t.Errorf("%d entries came out twice", len(again))
	}
}

func newMoving(t *testing.T) *Cache {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Moves, cfg.Timeout = true, time.Hour
	return newCache(t, cfg, NewMemory(), newPeer())
}
