package packetcache

import (
	"slices"
	"testing"

	"holdfast/stanza"
)

func TestOpen(t *testing.T) {
	c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
	st := message(alice, bob, "m1")
	unstamped := message(alice, bob, "m2")
	unstamped.ID = stanza.ID{}
	presence := stanza.New(stanza.Presence, "", "p1", alice, bob, nil)
	presence.ID = stanza.NewID()
	for _, tt := range []struct {
		name string
		st   *stanza.Stanza
		want bool
		n    int
	}{
		{"a message", st, true, 1},
		{"the same again", st, true, 1},
		{"without a stanza id", unstamped, false, 1},
		{"without an id attribute (XEP-0184 §4)", message(alice, bob, ""), false, 1},
		{"not a message", presence, false, 1},
	} {
		if got := c.Open(tt.st); got != tt.want || c.Len() != tt.n {
			t.Errorf("%s: Open = %v with %d entries, want %v with %d", tt.name, got, c.Len(), tt.want, tt.n)
		}
	}
	e, ok := c.Get(st.ID)
	if !ok || e.Stanza != st || e.From != alice || e.To != bob || e.MsgID != "m1" || e.Step != 0 {
		t.Errorf("Get = %+v, %v", e, ok)
	}
	if got, want := c.Bytes(), int64(len(st.Raw())+len("m1")+overhead); got != want {
		t.Errorf("Bytes = %d, want %d", got, want)
	}
	check(t, c)
}

// A receipt closes by recipient, sender and message id, each by its bare address.
func TestReceiptMatching(t *testing.T) {
	self := stanza.MustParseAddr("alice@x.example")
	for _, tt := range []struct {
		name     string
		from, to stanza.Addr // of the message
		rf, rt   stanza.Addr // of the receipt
		id       string
		closes   bool
	}{
		{"XEP-0184 §4 resource to resource", alice, bob1, bob1, alice, "m1", true},
		{"XEP-0184 §5.1 to the bare address, any resource answers", alice, bob, bob2, alice, "m1", true},
		{"to one resource, another answers", alice, bob1, bob2, alice, "m1", true},
		{"to another resource of the sender", alice, bob, bob1, alice2, "m1", true},
		{"to the sender's bare address", alice, bob, bob1, alice.Bare(), "m1", true},
		{"message to the account itself", alice, self, alice2, alice, "m1", true},
		{"message without 'to', RFC 6120 §10.3", alice, stanza.Addr{}, alice2, alice, "m1", true},
		{"receipt without 'to'", alice, self, alice2, stanza.Addr{}, "m1", true},
		{"another id", alice, bob, bob1, alice, "m2", false},
		{"id in another case", alice, bob, bob1, alice, "M1", false},
		{"from somebody else", alice, bob, carol, alice, "m1", false},
		{"to somebody else", alice, bob, bob1, carol, "m1", false},
		{"by the sender", alice, bob, alice, bob, "m1", false},
		{"without 'to' from the recipient", alice, bob, bob1, stanza.Addr{}, "m1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
			st := message(tt.from, tt.to, "m1")
			c.Open(st)
			closed, offline := c.Receipt(tt.rf, tt.rt, tt.id)
			if got := slices.Equal(closed, []stanza.ID{st.ID}); got != tt.closes || offline || !tt.closes && len(closed) > 0 {
				t.Errorf("closed %v, offline %v", closed, offline)
			}
			if _, open := c.Get(st.ID); open == tt.closes {
				t.Errorf("open afterwards: %v", open)
			}
			if again, _ := c.Receipt(tt.rf, tt.rt, tt.id); len(again) != 0 {
				t.Errorf("a second receipt closed %v", again)
			}
			check(t, c)
		})
	}
}

func TestProvedAndClose(t *testing.T) {
	c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
	for name, end := range map[string]func(stanza.ID) (bool, bool){"Proved": c.Proved, "Close": c.Close} {
		st := message(alice, bob, "m1")
		c.Open(st)
		if closed, offline := end(st.ID); !closed || offline {
			t.Errorf("%s = %v, %v", name, closed, offline)
		}
		if closed, _ := end(st.ID); closed {
			t.Errorf("%s twice", name)
		}
		if ids, _ := c.Receipt(bob1, alice, "m1"); len(ids) != 0 {
			t.Errorf("%s, then a receipt closed %v", name, ids)
		}
	}
	check(t, c)
}

// A client that uses an id for two messages (RFC 6120 §8.1.3): a receipt for it does not say which one arrived.
func TestIDUsedTwice(t *testing.T) {
	open := func(c *Cache, n int) (ids []stanza.ID) {
		for range n {
			st := message(alice, bob, "same")
			c.Open(st)
			ids = append(ids, st.ID)
		}
		return ids
	}
	receipts := func(c *Cache, from stanza.Addr, n int) (closed []stanza.ID) {
		for range n {
			ids, _ := c.Receipt(from, alice, "same")
			closed = append(closed, ids...)
		}
		return closed
	}

	t.Run("one receipt proves neither of two", func(t *testing.T) {
		c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
		open(c, 2)
		if got := receipts(c, bob1, 1); len(got) != 0 {
			t.Errorf("closed %v", got)
		}
		check(t, c)
	})
	t.Run("as many receipts as messages prove all", func(t *testing.T) {
		c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
		ids := open(c, 3)
		if got := receipts(c, bob1, 3); !slices.Equal(got, ids) {
			t.Errorf("closed %v, want %v", got, ids)
		}
		if c.Len() != 0 || c.byKey.n != 0 {
			t.Errorf("%d entries, %d keys left", c.Len(), c.byKey.n)
		}
		check(t, c)
	})
	t.Run("two resources that both got the first prove nothing of the second", func(t *testing.T) {
		c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
		open(c, 2)
		if got := append(receipts(c, bob1, 1), receipts(c, bob2, 1)...); len(got) != 0 {
			t.Errorf("closed %v", got)
		}
	})
	t.Run("one after the other is no doubt", func(t *testing.T) {
		c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
		for range 3 {
			ids := open(c, 1)
			if got := receipts(c, bob1, 1); !slices.Equal(got, ids) {
				t.Errorf("closed %v, want %v", got, ids)
			}
		}
	})
	t.Run("what was resent may have been received twice", func(t *testing.T) {
		c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
		ids := open(c, 2)
		c.mu.Lock()
		c.byID[ids[0]].sent()
		c.mu.Unlock()
		if got := receipts(c, bob1, 1); len(got) != 0 {
			t.Errorf("first receipt closed %v", got)
		}
		if got := receipts(c, bob1, 1); !slices.Equal(got, ids[:1]) {
			t.Errorf("second receipt closed %v, want the resent %v", got, ids[:1])
		}
		if got := receipts(c, bob1, 1); !slices.Equal(got, ids[1:]) {
			t.Errorf("third receipt closed %v, want %v", got, ids[1:])
		}
		check(t, c)
	})
	t.Run("receipts of a flood of resources are bounded", func(t *testing.T) {
		c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
		ids := open(c, 2)
		for i := range 100 {
			from, err := bob.WithResource(string(rune('A'+i%26)) + string(rune('a'+i/26)))
			if err != nil {
				t.Fatal(err)
			}
			c.Receipt(from, alice, "same")
		}
		c.mu.Lock()
		n := len(c.byID[ids[0]].group.receipts)
		c.mu.Unlock()
		if n != maxResources || c.Len() != 2 {
			t.Errorf("%d resources remembered, %d entries", n, c.Len())
		}
	})
}

func TestTimeoutZeroWaitsForEver(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Timeout = 0
	c := newCache(t, cfg, NewMemory(), newPeer())
	st := message(alice, bob, "m1")
	c.Open(st)
	if e, _ := c.Get(st.ID); !e.Deadline.IsZero() {
		t.Errorf("deadline %v", e.Deadline)
	}
	if got := c.runDue(t.Context()); got != never {
		t.Errorf("next deadline %d", got)
	}
}

func TestOpenAndReceiptAllocate(t *testing.T) {
	c := newCache(t, DefaultConfig(), NewMemory(), newPeer())
	msgs := make([]*stanza.Stanza, 1001)
	for i := range msgs {
		msgs[i] = message(alice, bob, "m1")
	}
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		c.Open(msgs[i])
		if ids, _ := c.Receipt(bob1, alice, "m1"); len(ids) != 1 {
			t.Fatal("not closed")
		}
		i++
	}); n > 2 {
		t.Errorf("%v allocations, want at most 2", n)
	}
}
