package session

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/stanza"
)

// carriedThrough is a user with one connection at the home and one at another node, whose transport outlives processes, and
// who has got a message.
func carriedThrough(m *mesh, managed bool) (far, romeo *client) {
	m.t.Helper()
	m.nodes[0].managed("juliet/home").available()
	romeo = m.nodes[2].managed("romeo/orchard").available()
	far = m.nodes[1].authenticated("juliet")
	far.stream.(*stream).carried = true
	far.addr = addr("juliet/far")
	far.send("<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='" + stanza.NSBind + "'><resource>far</resource></bind></iq>")
	far.want("iq result bind")
	far.carrier().Keep("sid", []byte("bound"), time.Minute)
	if managed {
		far.send("<enable xmlns='" + stanza.NSSM + "'/>")
		far.frames()
	}
	far.available()
	m.atHome(m.nodes[0], "juliet", 2)
	romeo.chat("juliet/far", "1")
	if got := far.bodiesOf(); !slices.Equal(got, numbers(1, 1)) {
		m.t.Fatalf("got %q", got)
	}
	return far, romeo
}

func (n *node) carries(sid string, carried, free bool) {
	n.t.Helper()
	if c, f := n.sv.Carries(sid); c != carried || f != free {
		n.t.Errorf("%s: carried %v, free %v; want %v, %v", n.id, c, f, carried, free)
	}
}

// What a transport notes that is served through is with its session, and when its node dies, or leaves, the session goes on
// at the home.
func TestNotedServedThrough(t *testing.T) {
	for _, managed := range []bool{false, true} {
		for _, leaves := range []bool{false, true} {
			inMesh(t, 3, func(t *testing.T, m *mesh) {
				far, romeo := carriedThrough(m, managed)
				home := m.nodes[0]
				far.chat("romeo", "a")
				told := far.carrier().Handled()
				far.carrier().Keep("sid", []byte("state"), time.Minute)
				if err := far.carrier().Settle(t.Context(), told); err != nil {
					t.Fatal(err)
				}
				sent := far.wire.mark
				romeo.chat("juliet/far", "2")
				far.chat("romeo", "b") // handled, but its answer does not come
				m.rest()
				romeo.want("message juliet/far a", "message juliet/far b")
				home.carries("sid", true, false)
				m.nodes[1].carries("sid", false, false)
				home.gone("sid") // it has a connection
				if leaves {
					m.nodes[1].sv.Drain(t.Context())
					far.cut()
					m.rest()
				}
				home.sv.Gone("n2")
				m.rest()
				home.carries("sid", true, true)

				again, handled := home.goesOn("sid", "state", sent)
				if handled != told+1 {
					t.Errorf("%d handled, %d were when it was noted", handled, told)
				}
				home.carries("sid", true, false)
				if rest := bodies(again.wire.pull(t)); !slices.Equal(rest, numbers(2, 2)) {
					t.Errorf("got %q", rest)
				}
				if repeated := bodies(again.carrier().Again(nil, sent-1, sent)); !slices.Equal(repeated, numbers(1, 1)) {
					t.Errorf("repeated %q", repeated)
				}
				again.addr = far.addr
				again.chat("romeo", "c")
				romeo.want("message juliet/far c")
				if h := again.carrier().Handled(); h != told+2 {
					t.Errorf("%d handled after one more than %d", h, told+1)
				}
				// And once more, here.
				home.sv.enter() // the mesh is stricter than a note has to be
				again.carrier().Keep("sid", []byte("again"), time.Minute)
				home.sv.leave()
				if err := again.carrier().Settle(t.Context(), told+2); err != nil {
					t.Fatal(err)
				}
				again.stream.Lost(nil)
				home.gone("sid") // for good
				home.carries("sid", false, false)
			})
		}
	}
}

// A connection that ends for good takes its note with it.
func TestNoteEndsServedThrough(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		far, romeo := carriedThrough(m, false)
		far.carrier().Keep("sid", []byte("state"), time.Minute)
		romeo.chat("juliet/far", "2")
		m.rest()
		m.nodes[0].carries("sid", true, false)
		far.cut()
		m.noConnections()
		m.nodes[0].carries("sid", false, false)
		m.nodes[0].gone("sid")
		m.atHome(m.nodes[0], "juliet", 1)
	})
}

// The home breaks the connection off while something of it waits to be handled: nothing is noted behind that.
func TestNothingIsNotedBehindABreak(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		far, _ := carriedThrough(m, false)
		far.carrier().Keep("sid", []byte("one"), time.Minute)
		m.rest()
		home := m.nodes[0]
		home.sv.mu.Lock()
		for _, r := range home.sv.relays {
			r.broken.Store(true)
		}
		home.sv.mu.Unlock()
		far.chat("romeo", "a")
		far.carrier().Keep("sid", []byte("two"), time.Minute)
		m.rest()
		home.carries("sid", true, true)
		home.goesOn("sid", "one", far.wire.mark)
	})
}

// What the home gave in one go is given on in one go: its mark is for all of it.
func TestBatchesServedThroughAreNotCut(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, _ := through(m, false)
		p := far.stream.(*stream).through.Load()
		var place uint64
		give := func(n int) {
			place += uint64(n)
			var b []byte
			for range n {
				b = binary.LittleEndian.AppendUint64(b, place)
				b = binary.LittleEndian.AppendUint32(b, 1)
				b = append(b, 'x')
			}
			p.take(b)
		}
		for range 10 {
			give(1)
		}
		give(maxBatchFrames)
		give(3)
		var got []uint64
		var all int
		for b := new(Batch); p.pull(b); b.Reset() {
			if all += len(b.Frames); b.Mark != uint64(all) {
				t.Errorf("marked %d behind %d frames", b.Mark, all)
			}
			got = append(got, b.Mark)
		}
		if all != maxBatchFrames+13 || len(got) != 2 {
			t.Errorf("%d frames, marks %d", all, got)
		}
	})
}

// Who waits for the home's word hears that it is dead.
func TestSettleWhenTheHomeDies(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, _ := through(m, false)
		m.partition(m.nodes[1], m.nodes[0], true)
		done := make(chan error, 1)
		go func() { done <- far.carrier().Settle(t.Context(), 1<<40) }()
		synctest.Wait()
		m.nodes[1].sv.Gone("n1")
		far.finished(Restarting)
		far.cut()
		if err := <-done; !errors.Is(err, errProxyLost) {
			t.Error(err)
		}
		m.partition(m.nodes[1], m.nodes[0], false)
	})
}
