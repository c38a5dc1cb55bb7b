package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// resumedAt is the client on a new transport to another node, on which its session goes on.
func (c *client) resumedAt(n *node, h uint32) *client {
	c.t.Helper()
	moved := *c
	moved.w = n.world
	return moved.resumed(h)
}

// count is what the client has to say it got of its session.
func (c *client) count() uint32 {
	s := c.session()
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint32(s.out.sent - s.base)
}

func TestSessionMovesWithItsClient(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.send("<presence xmlns='jabber:client' to='" + romeo.addr.String() + "'/>")
		romeo.want("presence juliet/balcony")
		for _, n := range numbers(1, 3) {
			romeo.send(asking("juliet", n))
		}
		juliet.chat("romeo", "a")
		juliet.frames()
		had := juliet.count()
		juliet.cut()
		romeo.chat("juliet", "4")
		m.rest()

		moved := juliet.resumedAt(m.nodes[2], had-1) // it has 1 and 2
		m.atHome(m.nodes[2], "juliet", 1)
		if got := moved.bodiesOf(); !slices.Equal(got, numbers(3, 4)) {
			t.Errorf("got %q", got)
		}
		if n := len(m.nodes[2].receipts.waiting()); n != 1 {
			t.Errorf("%d receipts awaited at the new home, want that for 3", n)
		}
		if n := len(m.nodes[0].receipts.waiting()); n != 0 {
			t.Errorf("%d receipts awaited at the old home", n)
		}
		moved.ack(had + 1)
		if n := len(m.nodes[2].receipts.waiting()); n != 0 {
			t.Errorf("%d receipts awaited after the acknowledgement", n)
		}
		// The outbox goes on where it was, both ways, and so does what it remembers.
		moved.request()
		moved.want("a 3")
		romeo.chat("juliet", "5")
		moved.want("message romeo/orchard 5")
		moved.ack(had + 2)
		moved.close()
		if got := briefs(romeo.frames()); !slices.Contains(got, "presence unavailable juliet/balcony") {
			t.Errorf("romeo was shown %q, not that juliet is gone", got)
		}
		for _, n := range m.nodes {
			n.repeat()
		}
		romeo.want()
		if left := m.nodes[0].world.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
	})
}

// What <resume/> answers says how far the old node was, also when it has only just got there.
func TestMovedCounter(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		for _, n := range numbers(1, 7) {
			juliet.chat("romeo", n)
		}
		m.rest()
		juliet.cut()
		n := m.nodes[1]
		again := n.authenticated("juliet")
		again.resume(juliet.token, 0)
		var h string
		for _, e := range again.frames() {
			if e.Is(stanza.NSSM, "resumed") {
				h = e.Attr("h")
			}
		}
		if h != "8" {
			t.Errorf("resumed with h=%q", h)
		}
		if got := romeo.bodiesOf(); !slices.Equal(got, numbers(1, 7)) {
			t.Errorf("romeo got %q", got)
		}
	})
}

func TestHalfOpenConnectionIsTakenFrom(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.frames()
		romeo.chat("juliet", "1")
		m.rest()
		moved := juliet.resumedAt(m.nodes[1], 1)
		moved.want("resumed 1", "message romeo/orchard 1")
		m.atHome(m.nodes[1], "juliet", 1)
		juliet.want("error conflict")
		juliet.finished(Closed)
		juliet.chat("romeo", "ghost")
		juliet.cut()
		romeo.want()
		moved.chat("romeo", "alive")
		romeo.want("message juliet/balcony alive")
	})
}

// When the user does not leave after all, the connection that was taken for dead ends all the same: its client comes back.
func TestHalfOpenConnectionEndsWhateverComes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, _ := two(m)
		juliet.frames()
		m.nodes[0].mu.Lock()
		m.nodes[0].release = func(context.Context) error { return errors.New("the database is away") }
		m.nodes[0].mu.Unlock()
		_, err := m.nodes[0].sv.handOver(t.Context(), "n2", addr("juliet"), juliet.token)
		if err == nil {
			t.Fatal("handed over")
		}
		juliet.want("error conflict")
		juliet.finished(Closed)
	})
}

func TestUserStaysWhereAnotherClientIs(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		a := m.nodes[0].managed("juliet/a").available()
		b := m.nodes[0].managed("juliet/b").available()
		a.frames()
		b.cut()
		through := m.nodes[1].authenticated("juliet")
		through.addr = b.addr
		through.resume(b.token, 0)
		m.rest()
		m.atHome(m.nodes[0], "juliet", 2)
		if got := through.frames(); len(got) == 0 || !got[0].Is(stanza.NSSM, "resumed") {
			t.Errorf("served through with %q", briefs(got))
		}
		a.open()
		// Once both have gone, it moves.
		a.cut()
		through.cut()
		m.rest()
		a.resumedAt(m.nodes[1], 0).frames()
		m.atHome(m.nodes[1], "juliet", 2)
	})
}

// Two clients of one user come to two nodes at the same moment: one of the nodes is the home, and both are served.
func TestTwoNodesWantTheSameUser(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprint("with a home before: ", before), func(t *testing.T) {
			inMesh(t, 3, func(t *testing.T, m *mesh) {
				m.delay = 3 * time.Millisecond
				if before {
					m.nodes[0].managed("juliet/old").available().cut()
				}
				var both []*client
				var wg sync.WaitGroup
				for i, n := range m.nodes[1:] {
					c := n.authenticated("juliet")
					c.addr, _ = addr("juliet").WithResource(fmt.Sprint("r", i))
					both = append(both, c)
				}
				for _, c := range both {
					wg.Go(func() { c.stream.Handle(scanned(t, bindTo("<resource>"+c.addr.Resource()+"</resource>"))) })
				}
				wg.Wait()
				m.rest()
				for _, c := range both {
					if got := briefs(c.frames()); !slices.Equal(got, []string{"iq result b'1 bind"}) && !slices.Equal(got, []string{"iq result b'1"}) {
						t.Errorf("%s got %q", c.addr, got)
					}
					c.open()
				}
				home := m.node(m.home("juliet"))
				want := 2
				if before {
					want = 3
				}
				m.atHome(home, "juliet", want)
				both[0].available()
				both[1].available()
				both[0].chat("juliet/r1", "hello")
				if got := both[1].bodiesOf(); !slices.Equal(got, []string{"hello"}) {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func scanned(t tester, raw string) *stanza.Element {
	var e stanza.Element
	if err := e.Scan([]byte(raw), stanza.Limits{}); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return &e
}

// What arrives while a user moves is passed on, and comes after what was handed over.
func TestMessagesDuringAMove(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.frames()
		had := juliet.count()
		juliet.cut()
		romeo.chat("juliet", "1")
		m.rest()
		// The old home hears late of what romeo sends from now on.
		m.partition(m.nodes[1], m.nodes[0], true)
		for _, n := range numbers(2, 4) {
			romeo.chat("juliet", n)
		}
		moved := juliet.resumedAt(m.nodes[2], had)
		romeo.chat("juliet", "5")
		if got := moved.bodiesOf(); !slices.Equal(got, numbers(1, 1)) {
			t.Errorf("got %q before the old home had the others", got)
		}
		m.partition(m.nodes[1], m.nodes[0], false)
		m.rest()
		romeo.chat("juliet", "6") // this one may take the direct way
		if got := moved.bodiesOf(); !slices.Equal(got, numbers(2, 6)) {
			t.Errorf("got %q", got)
		}
		if node, _ := m.nodes[1].Where(addr("juliet")); node != "n3" {
			t.Errorf("romeo's node sends to %q", node)
		}
		for _, n := range m.nodes {
			n.repeat()
		}
		moved.want()
	})
}

// The same when the node whose client sends becomes the home itself.
func TestMessagesDuringAMoveToTheSender(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.frames()
		had := juliet.count()
		juliet.cut()
		for _, n := range numbers(1, 3) {
			romeo.chat("juliet", n)
		}
		m.partition(m.nodes[1], m.nodes[0], true)
		for _, n := range numbers(4, 5) {
			romeo.chat("juliet", n)
		}
		var moved *client
		done := make(chan struct{})
		go func() {
			defer close(done)
			moved = juliet.resumedAt(m.nodes[1], had)
		}()
		time.Sleep(time.Second)
		m.partition(m.nodes[1], m.nodes[0], false)
		<-done
		romeo.chat("juliet", "6")
		m.rest()
		romeo.chat("juliet", "7")
		if got := moved.bodiesOf(); !slices.Equal(got, numbers(1, 7)) {
			t.Errorf("got %q", got)
		}
	})
}

// Tells may be lost: the request for a user is made again, and a Moved that never came costs a detour only.
func TestLostTells(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		juliet.frames()
		had := juliet.count()
		juliet.cut()
		lost := 0
		m.lose = func(_, _ string, x Message) bool {
			lost++
			return x.Op == opMoved || x.Op == opWant && lost%3 != 0
		}
		moved := juliet.resumedAt(m.nodes[2], had)
		for _, n := range numbers(1, 5) {
			romeo.chat("juliet", n)
			m.rest()
		}
		if got := moved.bodiesOf(); !slices.Equal(got, numbers(1, 5)) {
			t.Errorf("got %q", got)
		}
		m.nodes[2].mu.Lock()
		defer m.nodes[2].mu.Unlock()
		if len(m.nodes[2].suspected) == 0 {
			t.Error("a home that did not answer was not suspected")
		}
	})
}

// A home that never answers costs the connection, not the gateway.
func TestHomeDoesNotAnswer(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, _ := two(m)
		juliet.cut()
		m.partition(m.nodes[1], m.nodes[0], true)
		c := m.nodes[1].authenticated("juliet")
		start := time.Now()
		c.resume(juliet.token, 0)
		if took := time.Since(start); took < wantTimeout || took > wantTimeout+time.Minute {
			t.Errorf("given up after %v", took)
		}
		c.finished(Broken)
		c.cut()
		m.nodes[1].sv.wants.mu.Lock()
		defer m.nodes[1].sv.wants.mu.Unlock()
		if len(m.nodes[1].sv.wants.waiting)+len(m.nodes[1].sv.wants.coming) > 0 {
			t.Error("the request is remembered")
		}
	})
}

// The mailbox's turn goes along, and what was given of it is not given again.
func TestMailboxMoves(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		_, romeo := two(m)
		romeo.chat("nurse", "0") // she is at romeo's node
		for _, n := range numbers(1, 9) {
			romeo.chat("nurse", n)
		}
		nurse := m.nodes[0].managed("nurse/x").available()
		had := nurse.count()
		if had < 2 || had > 6 {
			t.Fatalf("%d stanzas at once", had)
		}
		nurse.cut()
		c := nurse.resumedAt(m.nodes[1], had)
		var got []string
		for range 10 {
			got = append(got, c.bodiesOf()...)
			c.ack(c.count())
		}
		if want := numbers(int(had)-1, 9); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if left := m.nodes[0].world.box.bodies(addr("nurse")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
	}, pages)
}

// What a session remembers of messages out of turn goes along.
func TestPassedAndHadMove(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, _ := two(m)
		a, b := stanza.NewID(), stanza.NewID()
		s := juliet.session()
		s.mu.Lock()
		s.passed, s.had = []stanza.ID{a}, []stanza.ID{b}
		s.mu.Unlock()
		juliet.cut()
		moved := juliet.resumedAt(m.nodes[1], 0).session()
		moved.mu.Lock()
		defer moved.mu.Unlock()
		if !slices.Equal(moved.passed, []stanza.ID{a}) || !slices.Equal(moved.had, []stanza.ID{b}) {
			t.Errorf("passed %v, had %v", moved.passed, moved.had)
		}
		if !moved.rebuilt || moved.ord == s.ord {
			t.Error("it is the other node's session")
		}
	})
}

// A user who is not known to the old home any more is asked for anew.
func TestUserIsNobodysMeanwhile(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		_, romeo := two(m)
		romeo.chat("nurse", "1")
		m.rest()
		n := m.nodes[1]
		n.mu.Lock()
		delete(n.places, addr("nurse")) // given up, and the key is about to go
		n.mu.Unlock()
		time.AfterFunc(300*time.Millisecond, func() {
			m.mu.Lock()
			delete(m.keys, addr("nurse"))
			m.mu.Unlock()
		})
		nurse := m.nodes[0].bound("nurse/x")
		nurse.send("<presence xmlns='jabber:client'/>")
		if got := nurse.bodiesOf(); !slices.Equal(got, numbers(1, 1)) {
			t.Errorf("got %q", got)
		}
	})
}

func TestVacate(t *testing.T) {
	inMesh(t, 1, func(t *testing.T, m *mesh) {
		n := m.nodes[0]
		left := 0
		vacate := func(want bool) {
			t.Helper()
			if got := n.sv.Vacate(addr("juliet"), func() { left++ }); got != want {
				t.Errorf("vacated: %v, want %v", got, want)
			}
		}
		juliet := n.managed("juliet/x").available()
		vacate(false)
		juliet.close()
		m.rest()
		vacate(true)
		n.sv.wants.begin(addr("juliet"))
		vacate(false)
		n.sv.wants.end(addr("juliet"))
		st := stanza.New(stanza.Message, "chat", "x", addr("romeo/x"), addr("juliet"), nil)
		st = st.Rewrite(stanza.Edit{From: st.From, To: st.To, ID: stanza.NewID(), IDBy: addr("juliet")})
		n.receipts.Open(st)
		vacate(false)
		n.receipts.Proved(st.ID)
		vacate(true)
		if left != 2 {
			t.Errorf("left %d times", left)
		}
		before := n.journal.kinds()[journal.KindForward]
		if err := n.sv.Release(t.Context(), addr("juliet")); err != nil {
			t.Error(err)
		}
		if n.journal.kinds()[journal.KindForward] != before+1 {
			t.Error("the journal does not know that the user has left")
		}
	})
}

// Who waits for the database to have all of a user, keeps nobody else from the user's roster, nor a checkpoint.
func TestReleaseHoldsNobodyUp(t *testing.T) {
	inMesh(t, 1, func(t *testing.T, m *mesh) {
		n := m.nodes[0]
		let := make(chan struct{})
		n.mu.Lock()
		n.release = func(ctx context.Context) error {
			select {
			case <-let:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		n.mu.Unlock()
		released := make(chan error, 1)
		go func() { released <- n.sv.Release(context.Background(), addr("juliet")) }()
		m.rest()
		for i := range n.sv.turns {
			if !n.sv.turns[i].TryLock() {
				t.Error("changes of rosters wait for the database")
				break
			}
			n.sv.turns[i].Unlock()
		}
		if !n.sv.barrier.TryLock() {
			t.Error("checkpoints wait for the database")
		} else {
			n.sv.barrier.Unlock()
		}
		close(let)
		if err := <-released; err != nil {
			t.Error(err)
		}
	})
}
