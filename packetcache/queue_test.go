package packetcache

import (
	"testing"

	"pgregory.net/rapid"

	"holdfast/stanza"
)

// Whatever goes in, in whatever order and whichever way, comes out by deadline.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			q  queue
			in []*entry
		)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if q.n != len(in) {
					t.Fatalf("%d entries, want %d", q.n, len(in))
				}
				first := q.first()
				if (first == nil) != (len(in) == 0) {
					t.Fatalf("first is %v of %d", first, len(in))
				}
				for _, e := range in {
					if before(e, first) && (e.at != inList || first.at != inList) || e.deadline < first.deadline {
						t.Fatalf("first has deadline %d, there is %d", first.deadline, e.deadline)
					}
				}
				if len(in) > 0 && q.deadline() != first.deadline || len(in) == 0 && q.deadline() != never {
					t.Fatalf("deadline %d", q.deadline())
				}
			},
			"push": func(t *rapid.T) {
				e := &entry{id: stanza.NewID(), deadline: rapid.Int64Range(0, 20).Draw(t, "deadline")}
				if rapid.Bool().Draw(t, "early") {
					q.pushEarly(e)
				} else {
					q.push(e)
				}
				in = append(in, e)
			},
			"remove": func(t *rapid.T) {
				if len(in) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(in)-1).Draw(t, "which")
				q.remove(in[i])
				in = append(in[:i], in[i+1:]...)
			},
			"pop": func(t *rapid.T) {
				e := q.first()
				if e == nil {
					t.Skip()
				}
				q.remove(e)
				for i := range in {
					if in[i] == e {
						in = append(in[:i], in[i+1:]...)
						break
					}
				}
			},
		})
	})
}
