package packetcache

import (
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/stanza"
)

// A receipt that comes while an action runs: one outcome, and no copy stays in the mailbox.
func TestReceiptWhileActionRuns(t *testing.T) {
	for _, tt := range []struct {
		name    string
		action  Action
		refuse  bool
		fails   int
		want    outcome
		offline bool // what the receipt reports
		bounced int
	}{
		{name: "resend", action: Resend, want: outcomeReceipt},
		{name: "resend that fails", action: Resend, fails: 1, want: outcomeReceipt},
		{name: "offline", action: Offline, want: outcomeReceipt, offline: true},
		{name: "offline that fails", action: Offline, fails: 1, want: outcomeReceipt, offline: true},
		{name: "offline that is refused", action: Offline, refuse: true, want: outcomeReceipt, offline: true},
		{name: "bounce", action: Bounce, want: outcomeBounce, bounced: 1},
		{name: "bounce that fails", action: Bounce, fails: 1, want: outcomeReceipt},
	} {
		for _, when := range []string{"before its effect", "after its effect"} {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := newPeer()
					p.online, p.refuse = true, tt.refuse
					p.fail[tt.action] = tt.fails
					p.fail[withdraw] = 3 // and it is not given up either
					cfg := DefaultConfig()
					cfg.Actions = []Action{tt.action}
					if !tt.action.Terminal() {
						cfg.Actions = append(cfg.Actions, Drop)
					}
					c := newCache(t, cfg, NewMemory(), p)
					st := message(alice, bob, "m1")
					once := sync.OnceFunc(func() {
						ids, offline := c.Receipt(bob1, alice, "m1")
						if len(ids) != 1 || ids[0] != st.ID || offline != tt.offline {
							t.Errorf("receipt: %v, %v", ids, offline)
						}
						if _, open := c.Get(st.ID); open || c.Len() != 0 || c.Bytes() != 0 {
							t.Errorf("open %v, %d entries, %d bytes", open, c.Len(), c.Bytes())
						}
						check(t, c)
					})
					hook := func(Action, Entry) { once() }
					if when == "before its effect" {
						p.before = hook
					} else {
						p.after = hook
					}
					start(t, c)
					c.Open(st)
					time.Sleep(cfg.Timeout + 10*time.Minute)
					if p.has(st.ID) {
						t.Error("the offline copy stayed")
					}
					if p.bounced[st.ID] != tt.bounced {
						t.Errorf("bounced %d times", p.bounced[st.ID])
					}
					c.mu.Lock()
					defer c.mu.Unlock()
					for o := outcomeReceipt; o < outcomes; o++ {
						want := uint64(0)
						if o == tt.want {
							want = 1
						}
						if got := c.counts.outcomes[o]; got != want {
							t.Errorf("outcome %s counted %d times, want %d", outcomeNames[o], got, want)
						}
					}
				})
			})
		}
	}
}

// Senders, recipients, acknowledgements, checkpoints and Run all at once: each message ends exactly one way.
func TestConcurrent(t *testing.T) {
	const senders, each = 8, 500
	p := newPeer()
	cfg := DefaultConfig()
	cfg.Timeout, cfg.Entries = time.Millisecond, 200
	cfg.Actions = []Action{Offline}
	c := newCache(t, cfg, NewMemory(), p)
	stop := start(t, c)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		proven = map[stanza.ID]int{}
		all    []stanza.ID
	)
	prove := func(ids []stanza.ID, offline bool) {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			proven[id]++
		}
		if offline {
			p.mu.Lock()
			for _, id := range ids {
				delete(p.mailbox, id)
			}
			p.mu.Unlock()
		}
	}
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				st := message(alice, bob, strconv.Itoa(s)+"-"+strconv.Itoa(i))
				mu.Lock()
				all = append(all, st.ID)
				mu.Unlock()
				c.Open(st)
				var inner sync.WaitGroup
				switch i % 4 {
				case 0:
					inner.Go(func() { prove(c.Receipt(bob1, alice, st.Attr("id"))) })
					inner.Go(func() { prove(c.Receipt(bob2, alice, st.Attr("id"))) })
				case 1:
					inner.Go(func() {
						if closed, offline := c.Proved(st.ID); closed {
							prove([]stanza.ID{st.ID}, offline)
						}
					})
				case 2:
					time.Sleep(time.Millisecond)
					prove(c.Receipt(bob1, alice, st.Attr("id")))
				}
				inner.Wait()
				if i%100 == 0 {
					if err := c.Checkpoint(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	fence := message(carol, bob, "fence")
	c.Open(fence)
	for fallen := false; !fallen; time.Sleep(time.Millisecond) { // for Run, which is on real time here
		e, _ := c.Get(fence.ID)
		fallen = e.Stanza == nil
	}
	stop()
	check(t, c)
	for _, id := range all {
		mailed := 0
		if p.mailbox[id] {
			mailed = 1
		}
		if proven[id]+mailed != 1 {
			t.Errorf("message %v proven %d times, %d copies in the mailbox", id, proven[id], mailed)
		}
	}
}
