package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast/stanza"
)

// through is juliet with a connection at the first node, which is her home, and another one, served through, at the
// second; romeo is at the third one.
func through(m *mesh, managed bool) (home, far, romeo *client) {
	m.t.Helper()
	home = m.nodes[0].managed("juliet/home").available()
	romeo = m.nodes[2].managed("romeo/orchard").available()
	if managed {
		far = m.nodes[1].managed("juliet/far").available()
	} else {
		far = m.nodes[1].bound("juliet/far").available()
	}
	m.atHome(m.nodes[0], "juliet", 2)
	home.frames()
	return home, far, romeo
}

// resourceOf is the session of a user's resource at a node.
func (n *node) resourceOf(name string) *Session {
	for _, s := range n.sessionsOf(addr(name).Local()) {
		if s.addr == addr(name) {
			return s
		}
	}
	n.t.Fatalf("no session %s at %s", name, n.id)
	return nil
}

// noConnections checks that neither end remembers a connection that was served through.
func (m *mesh) noConnections() {
	m.t.Helper()
	m.rest()
	for _, n := range m.nodes {
		n.sv.mu.Lock()
		if len(n.sv.proxies)+len(n.sv.relays) > 0 {
			m.t.Errorf("%s still has %d near and %d far ends", n.id, len(n.sv.proxies), len(n.sv.relays))
		}
		n.sv.mu.Unlock()
	}
}

func TestServedThrough(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		home, far, romeo := through(m, true)
		romeo.chat("juliet", "1")
		romeo.chat("juliet/far", "2")
		far.want("message romeo/orchard 1", "message romeo/orchard 2")
		home.want("message romeo/orchard 1")
		far.chat("romeo", "3")
		romeo.want("message juliet/far 3")
		far.request()
		far.want("a 2")
		s := m.nodes[0].resourceOf("juliet/far")
		far.ack(s.hLocked(s.out.last()))
		m.rest()
		if s.queued() != 0 {
			t.Errorf("%d stanzas wait for an acknowledgement that came", s.queued())
		}
		// It breaks, and goes on where it was.
		romeo.chat("juliet/far", "4")
		m.rest()
		h := s.hLocked(s.out.acked)
		far.cut()
		m.noConnections()
		romeo.chat("juliet/far", "5")
		again := far.resumed(h)
		if got := again.bodiesOf(); !slices.Equal(got, numbers(4, 5)) {
			t.Errorf("got %q", got)
		}
		m.atHome(m.nodes[0], "juliet", 2)
		again.stream.PeerClosed()
		m.rest()
		again.frames()
		again.finished(Closed)
		again.stream.Lost(nil)
		m.atHome(m.nodes[0], "juliet", 1)
		m.noConnections()
	})
}

// XEP-0198 errors go the same way.
func TestServedThroughErrors(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, _ := through(m, true)
		far.resume("none", 0)
		far.want("failed unexpected-request")
		far.ack(99)
		far.want("error undefined-condition handled-count-too-high")
		far.finished(Closed)
		far.stream.Lost(nil)
		m.noConnections()
		c := m.nodes[1].authenticated("juliet")
		c.resume("none", 0)
		c.want("failed item-not-found")
		c.open()
	})
}

// Whoever does not count stanzas proves by signs of life that it has them.
func TestServedThroughWithoutXEP0198(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, romeo := through(m, false)
		s := m.nodes[0].resourceOf("juliet/far")
		romeo.chat("juliet/far", "1")
		if got := far.bodiesOf(); !slices.Equal(got, numbers(1, 1)) {
			t.Errorf("got %q", got)
		}
		for range 20 {
			m.rest()
		}
		if far.probes() == 0 {
			t.Fatal("its connection was not asked for a sign of life")
		}
		if s.queued() == 0 {
			t.Error("taken for proved without one")
		}
		far.stream.Proved(far.wire.mark)
		m.rest()
		if s.queued() != 0 {
			t.Errorf("%d stanzas are not proved", s.queued())
		}
		// What was not proved goes to the others when the connection breaks.
		romeo.chat("juliet/far", "2")
		m.rest()
		far.cut()
		m.noConnections()
		m.atHome(m.nodes[0], "juliet", 1)
	})
}

// The home sends no more than a window ahead of what the connection takes.
func TestWindow(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, romeo := through(m, true)
		text := strings.Repeat("x", 10_000)
		const n = 100
		for i := range n {
			romeo.chat("juliet/far", fmt.Sprint(i, " ", text))
		}
		m.rest()
		p := far.stream.(*stream).through.Load()
		p.mu.Lock()
		ahead := p.bytes
		p.mu.Unlock()
		if ahead < proxyWindow || ahead > proxyWindow+2*maxBatchBytes {
			t.Errorf("%d bytes wait for the connection, the window is %d", ahead, proxyWindow)
		}
		got := 0
		for range 20 {
			got += len(far.bodiesOf())
		}
		if got != n {
			t.Errorf("%d messages of %d", got, n)
		}
		far.open()
	})
}

func TestLossOfTheHome(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, _ := through(m, true)
		m.nodes[1].sv.Gone("n1")
		far.finished(Restarting)
		far.cut()
		m.rest()
		if s := m.nodes[0].resourceOf("juliet/far"); s.attached() != nil {
			t.Error("the session does not wait for its client")
		}
		m.noConnections()
	})
}

func TestLossOfTheNearNode(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		home, _, _ := through(m, true)
		m.nodes[0].sv.Gone("n2")
		m.rest()
		if s := m.nodes[0].resourceOf("juliet/far"); s.attached() != nil {
			t.Error("the session does not wait for its client")
		}
		home.open()
		m.nodes[0].sv.mu.Lock()
		defer m.nodes[0].sv.mu.Unlock()
		if len(m.nodes[0].sv.relays) > 0 {
			t.Error("the far end stays")
		}
	})
}

// Too much on the way to the home breaks that connection and nothing else; what was handled is all that came up to
// some point, so that the client's count is right.
func TestOverloadBreaksTheConnection(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		home, far, romeo := through(m, true)
		busy := make(chan struct{})
		n := m.nodes[0]
		n.mu.Lock()
		n.full = busy
		n.mu.Unlock()
		const sent = relayQueue + 50
		for i := range sent {
			far.chat("romeo", fmt.Sprint(i+1))
			if i == relayQueue+20 {
				m.rest() // the rest comes when the queue has room again
				n.mu.Lock()
				n.full = nil
				n.mu.Unlock()
				close(busy)
				m.rest()
			}
		}
		m.rest()
		far.finished(Broken)
		far.cut()
		m.noConnections()
		s := n.resourceOf("juliet/far")
		handled := int(s.handled) - 1 // its presence was the first
		if got := romeo.bodiesOf(); !slices.Equal(got, numbers(1, handled)) {
			t.Errorf("%d handled, and romeo got %q", handled, got)
		}
		home.open()
		home.chat("romeo", "still here")
		romeo.want("message juliet/home still here")
	})
}

// An element that could not be sent to the home is not followed by others.
func TestNothingIsLeftOutOnTheWayToTheHome(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, romeo := through(m, true)
		n := m.nodes[1]
		elements := 0
		n.mu.Lock()
		n.refuse = func(x Message) bool {
			if x.Op == opElement {
				elements++
			}
			return x.Op == opElement && elements == 2
		}
		n.mu.Unlock()
		for _, x := range numbers(1, 4) {
			far.chat("romeo", x)
		}
		far.finished(Broken)
		if got := romeo.bodiesOf(); !slices.Equal(got, numbers(1, 1)) {
			t.Errorf("got %q", got)
		}
	})
}

// The end of a connection reaches the home, whatever waits on the way.
func TestEndReachesTheHome(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, _ := through(m, true)
		n := m.nodes[1]
		refused := 0
		n.mu.Lock()
		n.refuse = func(x Message) bool {
			if x.Op == opLost {
				refused++
			}
			return x.Op == opLost && refused < 5
		}
		n.mu.Unlock()
		far.cut()
		for range 20 {
			m.rest()
		}
		m.noConnections()
		if s := m.nodes[0].resourceOf("juliet/far"); s.attached() != nil {
			t.Error("the session does not wait for its client")
		}
	})
}

// The last word comes before the end.
func TestLastWordsAreServedThrough(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, _ := through(m, true)
		s := m.nodes[0].resourceOf("juliet/far")
		var order []uint8
		m.nodes[0].mu.Lock()
		m.nodes[0].refuse = func(x Message) bool {
			if x.Op == opFrames || x.Op == opFinish {
				order = append(order, x.Op)
			}
			return false
		}
		m.nodes[0].mu.Unlock()
		for range 50 {
			order = order[:0]
			r := &relay{sv: m.nodes[0].sv, node: "n2", id: strings.Repeat("x", proxyID), user: addr("juliet")}
			r.st = &stream{sv: r.sv, transport: r, log: r.sv.log}
			r.st.conflict("another one")
			m.rest()
			if !slices.Equal(order, []uint8{opFrames, opFinish}) {
				t.Fatalf("sent %v", order)
			}
		}
		m.nodes[0].sv.enter()
		m.nodes[0].sv.terminate(s, stanza.NotAuthorized)
		m.nodes[0].sv.leave()
		far.want("error not-authorized")
		far.finished(Closed)
	})
}

// A node that ends sends the clients of its sessions away, and takes no new ones.
func TestDrainOfServedConnections(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, _ := through(m, true)
		m.nodes[0].sv.Drain(t.Context())
		m.rest()
		far.finished(Restarting)
		far.cut()
		c := m.nodes[1].authenticated("juliet")
		m.nodes[0].sv.router.Each(addr("juliet"), func(*Session) {})
		c.send(bindTo("<resource>more</resource>"))
		m.rest()
		c.finished(Broken)
		m.rest()
	})
}

// What a connection at another node sent counts as settled when the home's journal has it.
func TestSettleServedThrough(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		_, far, romeo := through(m, false)
		far.chat("romeo", "1")
		done := make(chan error, 1)
		go func() { done <- far.carrier().Settle(t.Context(), 1<<40) }()
		m.rest()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		default:
			t.Error("not settled when all is at rest")
		}
		romeo.want("message juliet/far 1")
		// Without an answer it is not.
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- far.carrier().Settle(ctx, 1<<40) }()
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		far.cut()
		m.noConnections()
	})
}
