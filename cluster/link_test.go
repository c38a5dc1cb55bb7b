package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// pair is a sender at one gateway and a recipient at another.
func pair(t *testing.T, w *world) (a, b *gateway, s *client, u *client) {
	t.Helper()
	all, s, u := w.between(2)
	return all[0], all[1], s, u
}

// between starts n gateways, the first of which has a sender, and the second a user.
func (w *world) between(n int) (all []*gateway, sender, user *client) {
	w.t.Helper()
	all = w.starts(n)
	sender, user = w.client("sender"), w.client("user")
	must(w.t, sender.connect(within(w.t), all[0]))
	must(w.t, user.connect(within(w.t), all[1]))
	return all, sender, user
}

func (c *client) sends(t testing.TB, to *client, n int) {
	t.Helper()
	for range n {
		c.say(to.addr)
	}
	must(t, c.flush(within(t)))
}

func TestForwardInOrderAndOnce(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		all := w.starts(2)
		ctx := within(t)
		const senders, users, each = 8, 3, 150
		var to []*client
		for i := range users {
			u := w.client(fmt.Sprint("user", i))
			must(t, u.connect(ctx, all[1]))
			to = append(to, u)
		}
		var wg sync.WaitGroup
		var from []*client
		for i := range senders {
			s := w.client(fmt.Sprint("sender", i))
			from = append(from, s)
			must(t, s.connect(ctx, all[0]))
			wg.Go(func() {
				for j := range each {
					s.say(to[j%users].addr)
				}
				if err := s.flush(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, s := range from {
			for _, u := range to {
				w.arrived(u.addr, s.name, each/users)
			}
		}
		w.await("the mailbox is empty", func() bool { return w.length(all[1]) == 0 })
		for i, f := range all[0].j.forwards() {
			if f.Seq != uint32(i+1) {
				t.Fatalf("message %d has the number %d", i, f.Seq)
			}
		}
	})
}

func TestJournalBeforeMailbox(t *testing.T) {
	w := shared(t)
	a, b, s, u := pair(t, w)
	hold := make(chan struct{})
	a.j.set(func(j *memJournal) { j.hold, j.settles = hold, 0 })
	s.sends(t, u, 5)
	w.await("the link waits for the journal", func() bool {
		a.j.mu.Lock()
		defer a.j.mu.Unlock()
		return a.j.settles > 0
	})
	if n := w.length(b); n != 0 {
		t.Errorf("%d entries in the mailbox before the journal has them", n)
	}
	a.j.set(func(j *memJournal) { j.hold = nil })
	close(hold)
	w.arrived(u.addr, s.name, 5)

	a.j.set(func(j *memJournal) { j.fail, j.settles = io.ErrClosedPipe, 0 })
	s.sends(t, u, 5)
	w.await("the link tries again", func() bool {
		a.j.mu.Lock()
		defer a.j.mu.Unlock()
		return a.j.settles > 2
	})
	if n, _ := w.got(u.addr, s.name); n != 5 {
		t.Errorf("%d came without a journal", n)
	}
	a.j.set(func(j *memJournal) { j.fail = nil })
	w.arrived(u.addr, s.name, 10)
}

// xadds makes two of so many appends fail: one is not sent at all, and the reply to the next is lost.
func xadds(g *gate, of int) {
	var mu sync.Mutex
	n := 0
	is := func(cmd redis.Cmder) bool { return cmd.Name() == "xadd" }
	g.set(func(cmd redis.Cmder) error {
		mu.Lock()
		defer mu.Unlock()
		if !is(cmd) {
			return nil
		}
		if n++; n%of == 1 {
			return io.ErrUnexpectedEOF
		}
		return nil
	}, func(cmd redis.Cmder) error {
		mu.Lock()
		defer mu.Unlock()
		if is(cmd) && n%of == 2 {
			return io.EOF
		}
		return nil
	})
}

func TestAppendsThatFailAreTriedAgain(t *testing.T) {
	w := shared(t)
	a, _, s, u := pair(t, w)
	xadds(a.gate, 4)
	for i := range 40 {
		s.sends(t, u, 1)
		w.arrived(u.addr, s.name, uint32(i+1))
	}
}

func TestTellIsNotRepeated(t *testing.T) {
	w := shared(t)
	a, b, _, _ := pair(t, w)
	xadds(a.gate, 4)
	heard := func() []string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.Clone(b.heard)
	}
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprint(a.id, " ", i))
		if !a.node.Tell(b.id, Message{Op: opHello, Payload: fmt.Append(nil, i)}) {
			t.Fatal("not told")
		}
		w.await("it is heard", func() bool { return slices.Contains(heard(), want[i]) })
	}
	a.node.Sync(within(t), b.id)
	if got := heard(); !slices.Equal(got, want) {
		t.Errorf("heard %v", got)
	}
}

func TestRedisPausedWhileSending(t *testing.T) {
	srv, w := standalone(t, quick())
	_, b, s, u := pair(t, w)
	s.sends(t, u, 3)
	w.arrived(u.addr, s.name, 3)
	srv.Pause(t)
	s.sends(t, u, 200)
	time.Sleep(50 * time.Millisecond) // some are on their way into a server that does not read
	srv.Resume(t)
	w.arrived(u.addr, s.name, 203)
	w.await("the mailbox is empty", func() bool { return w.length(b) == 0 })
}

func TestMailboxTrimmedWhenSettled(t *testing.T) {
	w := shared(t)
	_, b, s, u := pair(t, w)
	hold := make(chan struct{})
	b.j.set(func(j *memJournal) { j.hold, j.settles = hold, 0 })
	s.sends(t, u, 10)
	w.arrived(u.addr, s.name, 10)
	w.await("the journal is asked", func() bool {
		b.j.mu.Lock()
		defer b.j.mu.Unlock()
		return b.j.settles > 0
	})
	if w.length(b) == 0 {
		t.Error("the mailbox was trimmed before what came out of it was safe")
	}
	b.j.set(func(j *memJournal) { j.hold = nil })
	close(hold)
	w.await("the mailbox is empty", func() bool { return w.length(b) == 0 })
}

func TestMailboxTrimmedAfterAFailure(t *testing.T) {
	w := shared(t)
	_, b, s, u := pair(t, w)
	b.j.set(func(j *memJournal) { j.fail, j.settles = io.ErrClosedPipe, 0 })
	s.sends(t, u, 1)
	w.await("the journal failed", func() bool {
		b.j.mu.Lock()
		defer b.j.mu.Unlock()
		return b.j.settles > 0
	})
	b.j.set(func(j *memJournal) { j.fail = nil })
	w.await("the mailbox is empty though nothing more came", func() bool { return w.length(b) == 0 })
}

func TestCheckpointWaits(t *testing.T) {
	w := shared(t)
	a, b, s, u := pair(t, w)
	hold := make(chan struct{})
	a.j.set(func(j *memJournal) { j.hold = hold })
	s.sends(t, u, 5)
	done := make(chan error, 1)
	go func() { done <- a.node.Checkpoint(bg) }()
	ctx, cancel := context.WithTimeout(bg, 20*time.Millisecond)
	defer cancel()
	if err := a.node.Checkpoint(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("checkpoint: %v", err)
	}
	b.gate.close() // what is in the mailbox stays there
	a.j.set(func(j *memJournal) { j.hold = nil })
	close(hold)
	must(t, <-done)
	if w.length(b) == 0 {
		t.Error("nothing is in the mailbox")
	}
	b.gate.open(false)
	w.arrived(u.addr, s.name, 5)
	must(t, a.node.Checkpoint(within(t))) // with nothing to wait for
}

func TestRoomAndBoundedTell(t *testing.T) {
	cfg := quick()
	cfg.LinkBytes = 10_000
	w := newWorld(t, sharedURL(t), cfg)
	a, b, s, u := pair(t, w)
	hold := make(chan struct{})
	a.j.set(func(j *memJournal) { j.hold = hold })
	for a.node.queued.Load() <= cfg.LinkBytes {
		s.sends(t, u, 1)
	}
	ctx, cancel := context.WithTimeout(bg, 20*time.Millisecond)
	defer cancel()
	if err := a.node.Room(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("room: %v", err)
	}
	waits := make(chan error, 3)
	for range cap(waits) {
		go func() { waits <- a.node.Room(bg) }()
	}
	told := 0
	for a.node.Tell(b.id, Message{Op: opHello, Payload: []byte(strings.Repeat("x", 1000))}) {
		if told++; told > 100 {
			t.Fatal("telling has no bound")
		}
	}
	if told == 0 {
		t.Error("nothing could be told")
	}
	a.j.set(func(j *memJournal) { j.hold = nil })
	close(hold)
	for range cap(waits) {
		must(t, <-waits)
	}
	w.arrived(u.addr, s.name, s.count[u.addr.String()])
	w.await("nothing is counted any more", func() bool { return a.node.queued.Load() == 0 })
	if a.node.Tell(a.id, Message{Op: opHello}) {
		t.Error("told itself")
	}
}

func TestNumbersWrap(t *testing.T) {
	w := shared(t)
	a, b, s, u := pair(t, w)
	s.sends(t, u, 1)
	w.arrived(u.addr, s.name, 1)
	l := a.node.link(b.id)
	w.await("both ends have counted it", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		b.mu.Lock()
		defer b.mu.Unlock()
		return l.done == l.seq && b.peers[a.id].handled == l.seq
	})
	last := ^uint32(0) - 3
	l.mu.Lock()
	l.seq, l.done = last, last
	l.mu.Unlock()
	b.mu.Lock()
	b.peers[a.id].handled = last
	b.mu.Unlock()
	for i := range 10 {
		s.sends(t, u, 1)
		w.arrived(u.addr, s.name, uint32(2+i))
	}
	for _, f := range a.j.forwards() {
		if f.Seq == 0 {
			t.Error("a message has the number of those that may be lost")
		}
	}
}

func TestWhenSent(t *testing.T) {
	w := shared(t)
	a, b, s, u := pair(t, w)
	hold := make(chan struct{})
	a.j.set(func(j *memJournal) { j.hold = hold })
	called := make(chan int, 4)
	a.node.WhenSent(b.id, func() { called <- 0 })
	if len(called) != 1 {
		t.Error("there was nothing to wait for")
	}
	<-called
	s.sends(t, u, 1)
	a.node.WhenSent(b.id, func() { called <- 1 })
	s.sends(t, u, 1)
	a.node.WhenSent(b.id, func() { called <- 2 })
	if len(called) != 0 {
		t.Error("called before the mailbox has it")
	}
	a.j.set(func(j *memJournal) { j.hold = nil })
	close(hold)
	if first, second := <-called, <-called; first != 1 || second != 2 {
		t.Errorf("called %d, %d", first, second)
	}
}

func TestEntriesThatCannotBeRead(t *testing.T) {
	w := shared(t)
	_, b, s, u := pair(t, w)
	for _, values := range [][]any{{"x", "y"}, {"f", "n9", "d", "\xff"}, {"f", "n9", "d", ""}, {"f", "n9", "d", "\x03\x20\x00\x09"}} {
		must(t, w.admin.XAdd(bg, &redis.XAddArgs{Stream: w.keys.Node(b.id, "mailbox"), Values: values}).Err())
	}
	s.sends(t, u, 2)
	w.arrived(u.addr, s.name, 2)
}

// What comes after the end of a node is in its journal, for others to find.
func TestForwardAfterClose(t *testing.T) {
	w := shared(t)
	a, b, s, u := pair(t, w)
	s.sends(t, u, 1)
	w.arrived(u.addr, s.name, 1)
	must(t, a.node.Checkpoint(within(t)))
	a.node.Close()
	must(t, a.j.Settle(bg))
	s.sends(t, u, 3)
	if a.node.Tell(b.id, Message{Op: opHello}) {
		a.node.Tell(b.id, Message{Op: opHello})
	}
	if n := len(a.j.replay().unsent); n != 0 {
		t.Errorf("%d unsettled messages are found", n)
	}
	must(t, a.j.Settle(bg))
	if n := len(a.j.replay().unsent); n != 3 {
		t.Errorf("%d messages are found", n)
	}
	must(t, a.node.Left(bg))
	w.arrived(u.addr, s.name, 4)
	w.goneFrom(a, b)
}
