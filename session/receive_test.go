package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// Nothing that another node may send ends this one.
func TestMalformedFromAnotherNode(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		n := m.nodes[0]
		chatRaw := strings.Replace(chat(addr("juliet").String(), "x"), "<message", "<message from='"+addr("romeo/orchard").String()+"'", 1)
		empty := "<iq xmlns='jabber:client' type='get' id='q' from='" + addr("romeo/orchard").String() + "' to='" + addr("juliet").String() + "'/>"
		seq := uint32(1000)
		for _, user := range []string{"", "@@", addr("juliet").String(), addr("tybalt").String()} {
			for op := opMessage; op <= opFinish+1; op++ {
				if op == opRemoved {
					continue // is what it says
				}
				for _, payload := range []string{"", "x", "<", "<presence xmlns='jabber:client'/>", chatRaw, empty, strings.Repeat("p", proxyID), strings.Repeat("p", proxyID+9)} {
					seq++
					for _, s := range []uint32{0, seq} {
						if err := n.sv.Receive(n.ctx, "stranger", Message{Op: op, Seq: s, User: user, Payload: []byte(payload)}); err != nil {
							t.Errorf("op %d for %q: %v", op, user, err)
						}
					}
				}
			}
		}
		m.rest()
		juliet.frames()
		romeo.frames()
		romeo.chat("juliet", "fine")
		if got := juliet.bodiesOf(); !slices.Equal(got, []string{"fine"}) {
			t.Errorf("got %q", got)
		}
	})
}

// What a store refuses for good costs its sender an error, not this node, and not the one that adopts it.
func TestRefusedForGood(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		_, romeo := two(m)
		romeo.chat("nurse", "0")
		nurse := m.nodes[0].bound("nurse/x") // her home is the first node, and she is not available
		m.nodes[0].world.box.fail(errors.New("value out of range"))
		romeo.chat("nurse", "1")
		romeo.want("message error nurse internal-server-error")
		m.nodes[0].world.box.fail(nil)
		romeo.chat("nurse", "2")
		nurse.available()
		m.nodes[0].repeat()
		romeo.want()
		romeo.request()
		romeo.want("a 4")
	})
}

// A journal that fails ends the node: nothing may be taken for done.
func TestJournalFailsWhileReceiving(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		_, romeo := two(m)
		raw := strings.Replace(chat(addr("juliet").String(), "x"), "<message", "<message from='"+romeo.addr.String()+"'", 1)
		n := m.nodes[0]
		n.journal.fail(errJournal, nil)
		x := Message{Op: opMessage, Seq: 1000, User: addr("juliet").String(), Payload: []byte(raw)}
		if err := n.sv.Receive(n.ctx, "n2", x); !errors.Is(err, errJournal) {
			t.Errorf("%v", err)
		}
		if seen := n.sv.Received("")["n2"]; seen == 1000 {
			t.Error("taken for carried out")
		}
		n.journal.fail(nil, nil)
	})
}

func (a *fakeAccounts) fail(err error) {
	a.mu.Lock()
	a.err = err
	a.mu.Unlock()
}

// While a store is busy its messages wait, in order and with nothing held, and then are carried out once.
func TestBusyStore(t *testing.T) {
	for _, parks := range []bool{false, true} {
		inMesh(t, 2, func(t *testing.T, m *mesh) {
			juliet, romeo := two(m)
			romeo.chat("nurse", "0")
			nurse := m.nodes[0].bound("nurse/x")
			n := m.nodes[0]
			n.mu.Lock()
			n.parks = parks
			n.mu.Unlock()
			n.world.box.fail(errors.Join(ErrBusy, errors.New("the database is away")))
			for _, x := range numbers(1, 3) {
				romeo.chat("nurse", x)
			}
			romeo.chat("juliet", "to another")
			m.rest()
			time.Sleep(10 * time.Second)
			m.rest()
			checkpointed := make(chan struct{})
			go func() {
				defer close(checkpointed)
				n.sv.Checkpoint(func() {}).Commit()
			}()
			select {
			case <-checkpointed:
			case <-time.After(time.Minute):
				t.Error("checkpoints wait for the database")
			}
			if got := len(juliet.bodiesOf()); parks && got != 1 {
				t.Errorf("somebody else has %d messages while the database is away, want 1", got)
			}
			n.world.box.fail(nil)
			time.Sleep(2 * retryLast)
			romeo.chat("nurse", "4")
			m.rest()
			m.rest()
			nurse.send("<presence xmlns='jabber:client'/>")
			if got := nurse.bodiesOf(); !slices.Equal(got, numbers(0, 4)) {
				t.Errorf("parks %v: got %q", parks, got)
			}
			n.repeat()
			if got := nurse.bodiesOf(); len(got) > 0 {
				t.Errorf("parks %v: got %q again", parks, got)
			}
			n.sv.mu.Lock()
			defer n.sv.mu.Unlock()
			if len(n.sv.parkedFor) > 0 {
				t.Errorf("still parked: %v", n.sv.parkedFor)
			}
		})
	}
}

// A user who comes is not put aside behind messages that were: the node that hands over would not be known.
func TestHandoverIsNotPutAside(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, _ := two(m)
		juliet.cut()
		n := m.nodes[1]
		n.mu.Lock()
		n.parks = true
		n.mu.Unlock()
		n.sv.mu.Lock()
		n.sv.parkedFor[addr("juliet")] = 1
		n.sv.mu.Unlock()
		juliet.resumedAt(n, 0).frames()
		m.atHome(n, "juliet", 1)
	})
}

// The client of a busy store waits, and what it sent is done once.
func TestBusyStoreOfTheSender(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		_, romeo := two(m)
		m.redis(true)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			romeo.chat("nurse", "1")
			romeo.chat("nurse", "2")
		}()
		time.Sleep(time.Minute)
		if !m.nodes[1].sv.barrier.TryLock() {
			t.Error("checkpoints wait for Redis")
		} else {
			m.nodes[1].sv.barrier.Unlock()
		}
		m.redis(false)
		<-sent
		m.rest()
		if got := m.nodes[1].world.box.bodies(addr("nurse")); !slices.Equal(got, numbers(1, 2)) {
			t.Errorf("mailbox %q", got)
		}
		m.nodes[0].accounts.fail(errors.Join(ErrBusy, errors.New("away")))
		go func() {
			time.Sleep(10 * time.Second)
			m.nodes[0].accounts.fail(nil)
		}()
		romeo.chat("tybalt", "3")
		m.rest()
		if got := m.nodes[1].world.box.bodies(addr("tybalt")); !slices.Equal(got, numbers(3, 3)) {
			t.Errorf("mailbox %q", got)
		}
	})
}

// Two streams of one session do not touch each other's stanza: one waits for what it needs when the other takes over.
func TestTakenOverWhileLocating(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		_, romeo := two(m)
		m.redis(true)
		var sent [2]chan struct{}
		old := romeo
		for i := range sent {
			sent[i] = make(chan struct{})
			c := romeo
			go func() {
				defer close(sent[i])
				c.chat("nobody", "x")
			}()
			time.Sleep(5 * time.Second)
			if i == 0 {
				romeo = old.resumed(1)
				romeo.frames()
			}
		}
		m.redis(false)
		<-sent[0]
		<-sent[1]
		romeo.want("message error nobody service-unavailable")
	})
}

// While the journal is away a resumption waits for it, and nobody else does.
func TestResumptionWhileTheJournalIsAway(t *testing.T) {
	inMesh(t, 1, func(t *testing.T, m *mesh) {
		n := m.nodes[0]
		juliet := n.managed("juliet/x").available()
		juliet.cut()
		again := n.authenticated("juliet")
		away := make(chan struct{})
		n.journal.mu.Lock()
		n.journal.away = away
		n.journal.mu.Unlock()
		s := juliet.session()
		s.mu.Lock()
		s.settled = s.handled - 1
		s.mu.Unlock()
		resumed := make(chan struct{})
		go func() {
			defer close(resumed)
			again.resume(juliet.token, 0)
		}()
		time.Sleep(10 * time.Second)
		free := false
		for range 200 {
			time.Sleep(10 * time.Millisecond)
			if n.sv.barrier.TryLock() {
				n.sv.barrier.Unlock()
				free = true
			}
		}
		if !free {
			t.Error("a checkpoint waits, and with it everybody")
		}
		n.journal.mu.Lock()
		n.journal.away = nil
		n.journal.mu.Unlock()
		close(away)
		<-resumed
		if got := again.frames(); len(got) == 0 || !got[0].Is(stanza.NSSM, "resumed") {
			t.Errorf("got %q", briefs(got))
		}
	})
}

func TestUserRemovedAtAnotherNode(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		n := m.nodes[0]
		n.roster.friends(addr("juliet"), addr("romeo"))
		romeo.chat("juliet", "1")
		juliet.frames()
		n.accounts.mu.Lock()
		delete(n.accounts.users, addr("juliet"))
		n.accounts.mu.Unlock()
		n.roster.failForget(errors.New("the database is away"))
		if err := m.nodes[1].sv.UserRemoved(addr("juliet")); err != nil {
			t.Fatal(err)
		}
		m.rest()
		juliet.want("error not-authorized")
		juliet.finished(Closed)
		n.roster.failForget(nil)
		time.Sleep(2 * retryLast)
		got := briefs(romeo.frames())
		for _, want := range []string{"presence unavailable juliet/balcony", "presence unsubscribed juliet"} {
			if !slices.Contains(got, want) && want != "presence unsubscribed juliet" {
				t.Errorf("romeo got %q, want %q", got, want)
			}
		}
		if n.journal.kinds()[journal.KindUnstored] == 0 {
			t.Error("the journal does not know that the mailbox is empty")
		}
		m.nodes[0].repeat()
		romeo.chat("juliet", "2")
		romeo.want("message error juliet service-unavailable")
	})
}

// Reroute carries out what did not reach a node that died.
func TestReroute(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		raw := func(to, text string) []byte {
			return []byte(strings.Replace(chat(addr(to).String(), text), "<message", "<message from='"+romeo.addr.String()+"'", 1))
		}
		n := m.nodes[1]
		reroute := func(user, text string) {
			t.Helper()
			x := Message{Op: opMessage, Seq: 7, User: addr(user).String(), Payload: raw(user, text)}
			if err := n.sv.Reroute(context.Background(), addr(user), x, Origin{Session: 77, N: 7}); err != nil {
				t.Error(err)
			}
		}
		reroute("juliet", "elsewhere") // passed on
		reroute("nurse", "here")
		reroute("nobody", "nowhere")
		if got := n.journal.handled(77); got != 1 {
			t.Errorf("that it came back is recorded %d times", got)
		}
		juliet.want("message romeo/orchard elsewhere")
		romeo.want("message error nobody service-unavailable")
		if got := n.world.box.bodies(addr("nurse")); !slices.Equal(got, []string{"here"}) {
			t.Errorf("mailbox %q", got)
		}
	})
}

// What another node's messages came to is remembered while that node may send something, and no longer.
func TestLinksAreForgotten(t *testing.T) {
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		romeo.chat("juliet", "1")
		juliet.frames()
		sv := m.nodes[0].sv
		seen := sv.Received("")["n2"]
		if seen == 0 {
			t.Fatalf("received %v", sv.Received(""))
		}
		sv.Gone("n2")
		if sv.Received("")["n2"] != seen {
			t.Error("forgotten at once")
		}
		time.Sleep(goneMemory + time.Second)
		sv.Gone("n3")
		if _, ok := sv.Received("")["n2"]; ok {
			t.Error("remembered for ever")
		}
		if err := sv.Receive(m.nodes[0].ctx, "n2/dead", Message{Op: opReply, Seq: 4}); err != nil {
			t.Error(err)
		}
		if got := sv.Received("dead")["n2"]; got != 4 {
			t.Errorf("a dead node's messages are carried out up to %d", got)
		}
		before := m.nodes[0].journal.kinds()[journal.KindEnded]
		sv.ForgetLinks("dead")
		if len(sv.Received("dead")) > 0 || m.nodes[0].journal.kinds()[journal.KindEnded] != before+1 {
			t.Error("the link is not forgotten")
		}
	})
}
