package packetcache

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"holdfast/internal/testkit/redisproc"
	"holdfast/stanza"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(redisproc.M{M: m}) }

func TestActionsInOrder(t *testing.T) {
	const timeout = 30 * time.Second
	for _, tt := range []struct {
		name    string
		actions []Action
		online  bool
		refuse  bool
		want    []string
		after   []time.Duration // of each action, since Open
		mailed  bool
		bounced int
	}{
		{
			name: "resend, then offline", actions: []Action{Resend, Offline}, online: true, mailed: true,
			want: []string{"resend m1", "offline m1"}, after: []time.Duration{timeout, 2 * timeout},
		},
		{
			name: "nobody online: the next action at once", actions: []Action{Resend, Offline}, mailed: true,
			want: []string{"resend m1", "offline m1"}, after: []time.Duration{timeout, timeout},
		},
		{
			name: "several resends", actions: []Action{Resend, Resend, Bounce}, online: true, bounced: 1,
			want:  []string{"resend m1", "resend m1", "bounce m1"},
			after: []time.Duration{timeout, 2 * timeout, 3 * timeout},
		},
		{name: "offline alone", actions: []Action{Offline}, want: []string{"offline m1"}, after: []time.Duration{timeout}, mailed: true},
		{name: "bounce alone", actions: []Action{Bounce}, want: []string{"bounce m1"}, after: []time.Duration{timeout}, bounced: 1},
		{name: "drop alone", actions: []Action{Drop}},
		{
			name: "a full mailbox bounces", actions: []Action{Offline}, refuse: true, bounced: 1,
			want: []string{"offline m1", "bounce m1"}, after: []time.Duration{timeout, timeout},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer()
				p.online, p.refuse = tt.online, tt.refuse
				begin := time.Now()
				var at []time.Duration
				p.before = func(Action, Entry) { at = append(at, time.Since(begin)) }
				cfg := DefaultConfig()
				cfg.Timeout, cfg.Actions = timeout, tt.actions
				c := newCache(t, cfg, NewMemory(), p)
				stop := start(t, c)
				st := message(alice, bob, "m1")
				c.Open(st)
				time.Sleep(time.Hour / 2)
				stop()
				wantLog(t, p, tt.want...)
				if !slices.Equal(at, tt.after) {
					t.Errorf("actions at %v, want %v", at, tt.after)
				}
				if p.has(st.ID) != tt.mailed || p.bounced[st.ID] != tt.bounced {
					t.Errorf("in the mailbox %v, bounced %d times", p.has(st.ID), p.bounced[st.ID])
				}
				if c.Len() != 0 || c.Bytes() != 0 {
					t.Errorf("%d entries, %d bytes left", c.Len(), c.Bytes())
				}
				if _, remembered := c.Get(st.ID); remembered != tt.mailed {
					t.Errorf("remembered for a late receipt: %v", remembered)
				}
				check(t, c)
			})
		})
	}
}

// What is closed before its deadline gets no action; Run wakes for nothing.
func TestReceiptInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer()
		c := newCache(t, DefaultConfig(), NewMemory(), p)
		start(t, c)
		for range 100 {
			c.Open(message(alice, bob, "m1"))
			time.Sleep(29 * time.Second)
			if ids, offline := c.Receipt(bob1, alice, "m1"); len(ids) != 1 || offline {
				t.Fatalf("closed %v, offline %v", ids, offline)
			}
		}
		time.Sleep(time.Hour)
		wantLog(t, p)
	})
}

func TestOrderOfDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer()
		cfg := DefaultConfig()
		cfg.Actions = []Action{Offline}
		c := newCache(t, cfg, NewMemory(), p)
		start(t, c)
		var want []string
		for _, id := range []string{"m1", "m2", "m3", "m4"} {
			c.Open(message(alice, bob, id)) // all within one tick of the virtual clock
			want = append(want, "offline "+id)
		}
		time.Sleep(time.Second)
		early := message(carol, bob, "early")
		c.Restore(Entry{ID: early.ID, From: early.From, To: early.To, MsgID: "early", Stanza: early, Deadline: time.Now().Add(time.Second)})
		synctest.Wait()
		time.Sleep(2 * time.Second)
		wantLog(t, p, "offline early")
		time.Sleep(time.Hour / 2)
		wantLog(t, p, append([]string{"offline early"}, want...)...)
	})
}

func TestFailingActionIsTriedAgain(t *testing.T) {
	for _, action := range []Action{Resend, Offline, Bounce} {
		t.Run(action.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer()
				p.online = true
				p.fail[action] = 12
				cfg := DefaultConfig()
				cfg.Actions = []Action{action}
				if !action.Terminal() {
					cfg.Actions = append(cfg.Actions, Drop)
				}
				var at []time.Time
				p.before = func(Action, Entry) { at = append(at, time.Now()) }
				c := newCache(t, cfg, NewMemory(), p)
				stop := start(t, c)
				c.Open(message(alice, bob, "m1"))
				time.Sleep(cfg.Timeout + 100*time.Millisecond/2)
				c.Open(message(carol, bob, "m2")) // one that fails does not hold up others
				time.Sleep(time.Hour / 2)
				stop()
				if got := p.did(); got[len(got)-1] != action.String()+" m1" || len(got) != 12+2 {
					t.Fatalf("actions %q", got)
				}
				for i := 1; i < 12; i++ {
					if gap := at[i].Sub(at[i-1]); gap <= 0 || gap > backoffLast {
						t.Errorf("try %d after %v", i, gap)
					}
				}
				if c.Len() != 0 {
					t.Errorf("%d entries left", c.Len())
				}
				check(t, c)
			})
		})
	}
}

// A receipt that comes while a failed action waits for its next try closes as any other.
func TestReceiptBetweenTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer()
		p.fail[Offline] = 3
		cfg := DefaultConfig()
		cfg.Actions = []Action{Offline}
		c := newCache(t, cfg, NewMemory(), p)
		start(t, c)
		st := message(alice, bob, "m1")
		c.Open(st)
		time.Sleep(cfg.Timeout + time.Millisecond)
		if ids, offline := c.Receipt(bob1, alice, "m1"); len(ids) != 1 || offline {
			t.Errorf("closed %v, offline %v", ids, offline)
		}
		time.Sleep(time.Minute)
		wantLog(t, p, "offline m1 failed")
	})
}

func TestActionTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Actions, cfg.ActionTimeout = []Action{Offline}, 5*time.Second
		h := &hanging{peer: newPeer(), times: 2}
		c := newCache(t, cfg, NewMemory(), h)
		start(t, c)
		st := message(alice, bob, "m1")
		c.Open(st)
		time.Sleep(cfg.Timeout + 11*time.Second)
		synctest.Wait()
		if !h.has(st.ID) {
			t.Error("not in the mailbox after two abandoned tries")
		}
	})
}

// hanging is a mailbox that does not answer at first.
type hanging struct {
	*peer
	times int
}

func (h *hanging) Offline(ctx context.Context, e Entry) error {
	if h.times--; h.times >= 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return h.peer.Offline(ctx, e)
}

// Contract 2: a receipt that arrives after the fallback finds the offline copy.
func TestLateReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer()
		cfg := DefaultConfig()
		c := newCache(t, cfg, NewMemory(), p)
		start(t, c)
		st := message(alice, bob, "m1")
		forgotten := message(alice, bob, "m2")
		c.Open(st)
		c.Open(forgotten)
		time.Sleep(time.Minute)
		e, ok := c.Get(st.ID)
		if !ok || e.Stanza != nil || c.Late() != 2 || c.Len() != 0 {
			t.Fatalf("after the fallback: %+v, %v; %d late, %d open", e, ok, c.Late(), c.Len())
		}
		if ids, offline := c.Receipt(bob1, alice, "m1"); !slices.Equal(ids, []stanza.ID{st.ID}) || !offline {
			t.Errorf("late receipt: %v, %v", ids, offline)
		}
		time.Sleep(cfg.Late)
		synctest.Wait()
		if ids, _ := c.Receipt(bob1, alice, "m2"); len(ids) != 0 || c.Late() != 0 {
			t.Errorf("a receipt after PACKETCACHE_LATE closed %v; %d late", ids, c.Late())
		}
		check(t, c)
	})
}

// What is in the mailbox is delivered once more, and that delivery has a receipt of its own: it proves nothing of a newer
// message with the same id.
func TestLateReceiptOfAnIDUsedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Actions = []Action{Offline}
		c := newCache(t, cfg, NewMemory(), newPeer())
		start(t, c)
		old, newer := message(alice, bob, "same"), message(alice, bob, "same")
		c.Open(old)
		time.Sleep(cfg.Timeout + time.Second)
		c.Open(newer)
		for i, want := range [][]stanza.ID{nil, {old.ID}, {newer.ID}} { // old may have been received twice
			if ids, offline := c.Receipt(bob1, alice, "same"); !slices.Equal(ids, want) || offline != (i == 1) {
				t.Errorf("receipt %d: %v, %v", i+1, ids, offline)
			}
		}
	})
}

func TestLateEntriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.LateEntries = 3
		c := newCache(t, cfg, NewMemory(), newPeer())
		start(t, c)
		for _, id := range []string{"m1", "m2", "m3", "m4", "m5"} {
			c.Open(message(alice, bob, id))
		}
		time.Sleep(time.Minute)
		if c.Late() != 3 {
			t.Fatalf("%d late entries", c.Late())
		}
		for id, want := range map[string]int{"m1": 0, "m2": 0, "m3": 1, "m4": 1, "m5": 1} {
			if ids, _ := c.Receipt(bob1, alice, id); len(ids) != want {
				t.Errorf("%s: closed %v, want %d", id, ids, want)
			}
		}
		check(t, c)
	})
}

func TestOverTheCaps(t *testing.T) {
	one := int64(len(message(alice, bob, "m1").Raw()) + len("m1") + overhead)
	for name, set := range map[string]func(*Config){
		"PACKETCACHE_ENTRIES": func(c *Config) { c.Entries = 3 },
		"PACKETCACHE_BYTES":   func(c *Config) { c.Bytes = 3*one + one/2 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer()
				p.online = true
				cfg := DefaultConfig()
				set(&cfg)
				c := newCache(t, cfg, NewMemory(), p)
				start(t, c)
				synctest.Wait()
				for _, id := range []string{"m1", "m2", "m3", "m4", "m5"} {
					c.Open(message(alice, bob, id))
				}
				synctest.Wait()
				// The oldest, at once, and with the last action: there is no time for a resend.
				wantLog(t, p, "offline m1", "offline m2")
				if c.Len() != 3 || c.Late() != 2 || c.counts.outcomes[outcomeEvicted] != 2 {
					t.Errorf("%d open, %d late, %d evicted", c.Len(), c.Late(), c.counts.outcomes[outcomeEvicted])
				}
				check(t, c)
			})
		})
	}
	t.Run("0 lifts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer()
			cfg := DefaultConfig()
			cfg.Entries, cfg.Bytes = 0, 0
			c := newCache(t, cfg, NewMemory(), p)
			start(t, c)
			for range 1000 {
				c.Open(message(alice, bob, "m1"))
			}
			synctest.Wait()
			wantLog(t, p)
		})
	})
}

// With the mailbox down and the cache full, those who would add more wait, and nothing is lost.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer()
		p.fail[Offline] = 20
		cfg := DefaultConfig()
		cfg.Entries = 2
		c := newCache(t, cfg, NewMemory(), p)
		start(t, c)
		c.Open(message(alice, bob, "m1"))
		c.Open(message(alice, bob, "m2"))
		if err := c.Room(t.Context()); err != nil {
			t.Fatalf("within the caps: %v", err)
		}
		c.Open(message(alice, bob, "m3"))
		c.Open(message(alice, bob, "m4"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := c.Room(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("over the caps: %v", err)
		}
		if c.Len() != 4 {
			t.Errorf("%d entries", c.Len())
		}
		begin := time.Now()
		if err := c.Room(t.Context()); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) == 0 || c.Len() > 2 {
			t.Errorf("room after %v with %d entries", time.Since(begin), c.Len())
		}
		check(t, c)
	})
}

// A session's end of life for Run: what is under way is finished, or put back, and the next Run goes on with it.
func TestStopInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Actions = []Action{Offline}
		h := &hanging{peer: newPeer(), times: 1}
		c := newCache(t, cfg, NewMemory(), h)
		stop := start(t, c)
		st := message(alice, bob, "m1")
		c.Open(st)
		time.Sleep(cfg.Timeout + time.Second)
		stop()
		if _, open := c.Get(st.ID); !open || c.Len() != 1 {
			t.Fatal("lost")
		}
		check(t, c)
		start(t, c)
		synctest.Wait()
		if !h.has(st.ID) {
			t.Error("not in the mailbox")
		}
	})
}
