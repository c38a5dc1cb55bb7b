package session

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
)

// hold makes records sendable only as a test says; free lets everything go at once, as a journal does that has waited
// long enough for its store.
func (j *fakeJournal) hold() {
	j.mu.Lock()
	j.ahead, j.sendable = true, uint64(len(j.records))
	j.mu.Unlock()
}

func (j *fakeJournal) free() { j.arrive(^uint64(0)) }

func TestNothingIsSentBeforeItsRecord(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		juliet, romeo := w.managed("juliet/x").available(), w.bound("romeo/y")
		w.journal.hold()
		romeo.chat("juliet", "1")
		first := w.journal.Appended()
		romeo.chat("juliet", "2")
		juliet.want()
		w.journal.arrive(first - 1)
		juliet.want()
		w.journal.arrive(first)
		juliet.want("message romeo/y 1")
		juliet.want()
		w.journal.arrive(w.journal.Appended())
		juliet.want("message romeo/y 2")
		w.sv.parked.mu.Lock()
		if n := len(w.sv.parked.list); n > 0 {
			t.Errorf("%d transports wait for nothing", n)
		}
		w.sv.parked.mu.Unlock()
		// A journal whose store is away for long sends all the same.
		romeo.chat("juliet", "3")
		juliet.want()
		w.journal.free()
		juliet.want("message romeo/y 3")
		romeo.chat("juliet", "4")
		juliet.want("message romeo/y 4")
	})
}

// A binding, XEP-0198 and a resumption are promises: they go out when what they promise is recorded.
func TestPromisesWaitForTheirRecord(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		c := w.authenticated("juliet")
		w.journal.hold()
		let := func(want ...string) {
			t.Helper()
			c.want()
			w.journal.arrive(w.journal.Appended())
			c.want(want...)
		}
		c.send(bindTo("<resource>x</resource>"))
		let("iq result b'1")
		c.addr = addr("juliet/x")
		c.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
		c.want()
		w.journal.arrive(w.journal.Appended())
		got := c.frames()
		if len(got) != 1 {
			t.Fatalf("got %q", briefs(got))
		}
		c.token = got[0].Attr("id")
		c.request()
		c.want("a 0") // says nothing new
		c.cut()
		old := c
		c = w.authenticated("juliet")
		w.journal.hold()
		c.resume(old.token, 0)
		let("resumed 0")
		// What the stream says for itself waits for nothing.
		w.journal.hold()
		c.resume("none", 0)
		c.want("failed unexpected-request")
		// What is bound away is told to go at once.
		n := w.authenticated("juliet")
		n.resume(old.token, 0)
		c.want("error conflict")
		n.want()
		w.journal.free()
		n.want("resumed 0")
	})
}

// Whatever the order in which records arrive and transports ask, a message is sent when its record is there, and then
// it is.
func TestSendableAtRandom(t *testing.T) {
	for seed := range uint64(30) {
		inTime(t, func(t *testing.T, w *world) {
			r := rand.New(rand.NewPCG(seed, 0))
			juliet, romeo := w.managed("juliet/x").available(), w.bound("romeo/y")
			juliet.frames()
			w.journal.hold()
			var at []uint64 // position of each message's record
			sent := 0
			look := func() {
				t.Helper()
				for _, b := range juliet.bodiesOf() {
					if n, _ := strconv.Atoi(b); n != sent {
						t.Fatalf("seed %d: got %s, want %d", seed, b, sent)
					}
					if at[sent] > w.journal.Sendable() {
						t.Fatalf("seed %d: %d was sent before its record", seed, sent)
					}
					sent++
				}
				if sent < len(at) && at[sent] <= w.journal.Sendable() {
					t.Fatalf("seed %d: %d was not sent", seed, sent)
				}
			}
			for range 60 {
				switch r.IntN(4) {
				case 0, 1:
					romeo.chat("juliet", strconv.Itoa(len(at)))
					at = append(at, w.journal.Appended())
				case 2:
					w.journal.arrive(w.journal.Sendable() + uint64(r.IntN(3)))
				case 3:
					look()
				}
			}
			w.journal.free()
			look()
			if sent != len(at) {
				t.Errorf("seed %d: %d of %d", seed, sent, len(at))
			}
		})
	}
}

// What was handed over waits for the record of it at the new home.
func TestHandedOverWaitsForItsRecord(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.frames()
		had := juliet.count()
		romeo.chat("juliet", "1")
		m.rest()
		juliet.cut()
		n := m.nodes[1]
		c := n.authenticated("juliet")
		n.journal.hold()
		c.resume(juliet.token, had)
		c.want()
		n.journal.free()
		if got := briefs(c.frames()); !slices.Equal(got, []string{"resumed 1", "message romeo/orchard 1 delayed"}) && !slices.Equal(got, []string{"resumed 1", "message romeo/orchard 1", "r"}) && !slices.Equal(got, []string{"resumed 1", "message romeo/orchard 1"}) {
			t.Errorf("got %q", got)
		}
	})
}
