package cluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestMessagesOnTheWire(t *testing.T) {
	messages := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Message {
		m := Message{
			Op: rapid.ByteRange(1, termBit-1).Draw(t, "op"), Seq: rapid.Uint32().Draw(t, "seq"),
			Term: rapid.OneOf(rapid.Just(TermUnknown), rapid.Just(TermHome), rapid.Uint64()).Draw(t, "term"),
			User: rapid.StringN(0, 200, -1).Draw(t, "user"), Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
		}
		if len(m.Payload) == 0 {
			m.Payload = []byte{}
		}
		return m
	}), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		want := messages.Draw(t, "messages")
		var blob []byte
		for i := range want {
			blob = want[i].append(blob)
		}
		for cutAt := range blob {
			for b := blob[:cutAt]; len(b) > 0; { // whatever is cut short ends in an error
				var err error
				if _, b, err = cut(b); err != nil {
					break
				}
			}
		}
		got := want[:0:0]
		for b := blob; len(b) > 0; {
			m, rest, err := cut(b)
			if err != nil {
				t.Fatal(err)
			}
			got, b = append(got, m), rest
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}
