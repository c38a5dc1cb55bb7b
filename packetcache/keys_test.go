package packetcache

import (
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// The table against a map, with few hashes, so that keys collide.
func TestKeyTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newKeyTable()
		in := map[string]*entry{}
		newEntry := func(msgID string) *entry {
			n, _ := strconv.Atoi(msgID)
			return &entry{from: alice, to: bob, msgID: msgID, hash: uint64(n % 7 * 64)}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if table.n != len(in) {
					t.Fatalf("%d entries, want %d", table.n, len(in))
				}
				for i := range 150 {
					e := newEntry(strconv.Itoa(i))
					if got := table.find(e.key(), e.hash); got != in[e.msgID] {
						t.Fatalf("%d: found %p, want %p", i, got, in[e.msgID])
					}
				}
			},
			"change": func(t *rapid.T) {
				first := rapid.IntRange(0, 150).Draw(t, "first")
				for i := first; i < min(first+100, 150); i++ {
					e := newEntry(strconv.Itoa(i))
					old := in[e.msgID]
					switch {
					case old == nil:
						table.add(e)
						in[e.msgID] = e
					case rapid.Bool().Draw(t, "remove"):
						table.remove(old)
						delete(in, e.msgID)
					default:
						table.replace(old, e)
						in[e.msgID] = e
					}
				}
			},
		})
	})
}
