package session

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/stanza"
)

// carriedBound is bound over a transport that outlives the process.
func (w *world) carriedBound(name string) *client {
	w.t.Helper()
	c := w.bound(name)
	c.stream.(*stream).carried = true
	return c
}

// carrier is a client whose transport outlives the process.
func (c *client) carrier() CarriedStream { return c.stream.(CarriedStream) }

// goesOn continues a transport; it fails the test when there is none.
func (w *world) goesOn(sid, state string, sent uint64) (*client, uint64) {
	w.t.Helper()
	c := &client{t: w.t, w: w, wire: new(wire)}
	st, handled, ok := w.sv.Continue(sid, func(found []byte) (Transport, Peer, uint64, error) {
		if string(found) != state {
			w.t.Errorf("kept %q, want %q", found, state)
		}
		return c.wire, Peer{Addr: netip.MustParseAddr("127.0.0.1"), Kind: "bosh"}, sent, nil
	})
	if !ok {
		w.t.Fatalf("there is nothing to continue")
	}
	c.stream, c.wire.stream = st, st
	return c, handled
}

func (w *world) gone(sid string) {
	w.t.Helper()
	_, _, ok := w.sv.Continue(sid, func([]byte) (Transport, Peer, uint64, error) { return nil, Peer{}, 0, errors.New("nobody should ask") })
	if ok {
		w.t.Errorf("it goes on")
	}
}

func bodies(frames [][]byte) (all []string) {
	for _, f := range frames {
		_, after, _ := strings.Cut(string(f), "<body>")
		text, _, _ := strings.Cut(after, "</body>")
		all = append(all, text)
	}
	return all
}

// A transport that is kept goes on in the next process, with and without a checkpoint between: what it had sent is not
// sent again but on request, and what was handled is known.
func TestContinueAfterKill(t *testing.T) {
	for _, managed := range []bool{false, true} {
		for _, checkpointed := range []bool{false, true} {
			w := newWorld(t)
			defer w.stop()
			d := newDisk()
			juliet, romeo := w.bound("juliet/a"), w.carriedBound("romeo/b")
			romeo.carrier().Keep("sid", []byte("zero"), time.Minute)
			if managed {
				romeo.send(chat("juliet@capulet.example/a", "early"))
				juliet.wire.pull(t)
				romeo.send("<enable xmlns='" + stanza.NSSM + "'/>")
				romeo.wire.pull(t)
			}
			for _, text := range []string{"one", "two", "three"} {
				juliet.send(chat("romeo@capulet.example/b", text))
			}
			romeo.send(chat("juliet@capulet.example/a", "hello"))
			romeo.carrier().Keep("sid", []byte("first"), time.Minute)
			if checkpointed {
				w.checkpoint(d)
			}
			got := bodies(romeo.wire.pull(t))
			sent := romeo.wire.mark
			romeo.carrier().Keep("sid", []byte("second"), time.Minute)
			if err := romeo.carrier().Settle(t.Context(), 1<<40); err != nil {
				t.Fatal(err)
			}
			juliet.send(chat("romeo@capulet.example/b", "four"))
			romeo.send(chat("juliet@capulet.example/a", "again"))
			handled := romeo.carrier().Handled()
			w.kill(d)
			if carried, free := w.sv.Carries("sid"); !carried || !free {
				t.Error("it does not know what it carries")
			}
			if carried, _ := w.sv.Carries("dis"); carried {
				t.Error("it carries what it has not heard of")
			}
			again, h := w.goesOn("sid", "second", sent)
			if h != handled || managed && h != 3 || !managed && h != 2 {
				t.Errorf("%d handled, before it were %d", h, handled)
			}
			w.gone("sid") // it has a connection
			if rest := bodies(again.wire.pull(t)); !slices.Equal(rest, []string{"four"}) {
				t.Errorf("after %q comes %q", got, rest)
			}
			if repeated := bodies(again.carrier().Again(nil, sent-2, sent)); !slices.Equal(repeated, []string{"two", "three"}) {
				t.Errorf("repeated %q", repeated)
			}
			if !managed {
				again.stream.Proved(sent)
				if repeated := again.carrier().Again(nil, sent-2, sent); len(repeated) != 0 {
					t.Errorf("repeated what was proved: %q", repeated)
				}
			}
			again.stream.Lost(errors.New("inactive"))
			w.gone("sid")
		}
	}
}

// A checkpoint is written with nothing locked, and what is noted meanwhile is none of its business.
func TestKeepWhileCheckpointIsWritten(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	romeo := w.carriedBound("romeo/b")
	romeo.carrier().Keep("sid", []byte("before"), time.Minute)
	c := w.sv.Checkpoint(func() {})
	romeo.carrier().Keep("sid", []byte("behind"), time.Minute)
	for _, ch := range c.Changed {
		if ch.State.Addr == romeo.addr && string(ch.State.Carried[beforeSize:]) != "before" {
			t.Errorf("the checkpoint has %q", ch.State.Carried)
		}
	}
	c.Commit()
}

// A kept transport is waited for as long as it asked for; then the session ends, and what it did not get is stored.
func TestContinueTooLate(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	d := newDisk()
	juliet, romeo := w.bound("juliet/a"), w.bound("romeo/b")
	romeo.carrier().Keep("sid", []byte("x"), time.Nanosecond)
	juliet.send(chat("romeo@capulet.example/b", "late"))
	w.kill(d)
	w.gone("sid")
	if box := w.box.boxes[addr("romeo").Bare()]; len(box) != 1 {
		t.Errorf("%d messages are stored", len(box))
	}
}

// Who resumes on another connection has left the kept transport.
func TestResumedElsewhere(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	romeo := w.managed("romeo/b")
	romeo.carrier().Keep("sid", []byte("x"), time.Minute)
	d := newDisk()
	w.kill(d)
	other := w.authenticated("romeo")
	other.send("<resume xmlns='" + stanza.NSSM + "' previd='" + romeo.token + "' h='0'/>")
	other.wire.pull(t)
	other.stream.Lost(errors.New("lost"))
	w.gone("sid")
}

// A client that did not hear that XEP-0198 is on, since the process was killed, asks again and gets the same answer.
func TestEnableAgainAfterKill(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	d := newDisk()
	romeo := w.carriedBound("romeo/b")
	romeo.send(chat("juliet@capulet.example", "before"))
	romeo.carrier().Keep("sid", []byte("x"), time.Minute)
	enable := "<enable xmlns='" + stanza.NSSM + "' resume='true'/>"
	romeo.send(enable)
	first := romeo.wire.pull(t)
	w.kill(d)
	again, handled := w.goesOn("sid", "x", 0)
	if handled != 1 {
		t.Errorf("%d handled", handled)
	}
	again.send(enable)
	if second := again.wire.pull(t); string(second[len(second)-1]) != string(first[len(first)-1]) || !strings.Contains(string(second[len(second)-1]), "enabled") {
		t.Errorf("first %q, then %q", first, second)
	}
	again.send(chat("juliet@capulet.example", "after"))
	again.send(enable)
	if third := again.wire.pull(t); !strings.Contains(string(third[len(third)-1]), "unexpected-request") {
		t.Errorf("in the middle: %q", third)
	}
}

// At the end of the process a kept transport is asked to leave its session to the next one.
func TestDrainLeavesKept(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	w.cfg.DrainSpread = 0
	romeo, juliet := w.bound("romeo/b"), w.bound("juliet/a")
	romeo.carrier().Keep("sid", []byte("x"), time.Minute)
	w.sv.Drain(t.Context())
	if !slices.Equal(romeo.wire.finished, []Finish{Restarting}) || !slices.Equal(juliet.wire.finished, []Finish{Closed}) {
		t.Errorf("finished with %v and %v", romeo.wire.finished, juliet.wire.finished)
	}
	romeo.stream.Lost(errors.New("restarting"))
	d := newDisk()
	w.kill(d)
	w.goesOn("sid", "x", 0)
}

// Nothing is kept before binding, nor for a stream that has lost its session.
func TestKeepWithoutSession(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	c := w.authenticated("juliet")
	c.carrier().Keep("sid", []byte("x"), time.Minute)
	if n := c.carrier().Handled(); n != 0 {
		t.Errorf("%d handled", n)
	}
	if err := c.carrier().Settle(t.Context(), 1<<40); err != nil {
		t.Error(err)
	}
	w.gone("sid")
	old := w.managed("romeo/b")
	next := w.authenticated("romeo")
	next.send("<resume xmlns='" + stanza.NSSM + "' previd='" + old.token + "' h='0'/>")
	next.wire.pull(t)
	old.carrier().Keep("old", []byte("x"), time.Minute)
	w.gone("old")
}
