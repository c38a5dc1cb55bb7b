package session

import (
	"slices"
	"testing"
	"time"

	"holdfast/stanza"
)

// A connection that waited does not take the session from one that the client made later.
func TestOlderConnectionDoesNotTakeOver(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		c := w.managed("juliet/x").available()
		c.frames()
		older := w.authenticated("juliet")
		time.Sleep(time.Second)
		newer := c.resumed(1)
		newer.want("resumed 1")
		older.resume(c.token, 1)
		older.finished(Broken)
		newer.open()
		newer.request()
		newer.want("a 1")
	})
}

// A client may have what an earlier connection brought, also when the one after it was lost before anything was sent.
func TestCountUpToWhatWasEverSent(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		juliet, romeo := w.managed("juliet/x").available(), w.bound("romeo/y")
		for _, n := range numbers(1, 3) {
			romeo.chat("juliet", n)
		}
		juliet.frames()
		juliet.cut()
		second := w.authenticated("juliet")
		second.resume(juliet.token, 1) // nothing is read of what it is sent
		second.cut()
		third := juliet.resumed(4)
		third.want("resumed 1")
		third.ack(4)
		third.open()
	})
}

// A session of another process whose client knows more of it than the stores ends, with the count that is known.
func TestRebuiltSessionThatKnowsTooLittle(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, _ := two(m)
		juliet.frames()
		juliet.cut()
		c := juliet.resumedAt(m.nodes[1], 50)
		c.want("failed item-not-found 1")
		c.open()
		c.send(bindTo("<resource>balcony</resource>"))
		c.want("iq result b'1")
	})
}

// Receipts that came with a dead node's estate go to the recipient's home.
func TestPassOn(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		st := stanza.New(stanza.Message, "chat", "x", romeo.addr, addr("juliet"), []byte("<body>x</body><request xmlns='urn:xmpp:receipts'/>"))
		st = st.Rewrite(stanza.Edit{From: st.From, To: st.To, ID: stanza.NewID(), IDBy: addr("juliet")})
		m.nodes[1].receipts.Open(st)
		if err := m.nodes[1].sv.PassOn(t.Context(), addr("juliet")); err != nil {
			t.Fatal(err)
		}
		m.rest()
		if n := len(m.nodes[1].receipts.waiting()); n != 0 {
			t.Errorf("%d stay", n)
		}
		if got := m.nodes[0].receipts.waiting(); len(got) != 1 || got[0].ID != st.ID {
			t.Errorf("%d came", len(got))
		}
		m.nodes[0].repeat()
		juliet.send(receiptFor("romeo/orchard", "x"))
		if n := len(m.nodes[0].receipts.waiting()); n != 0 {
			t.Errorf("%d are awaited after the receipt", n)
		}
		// Those for whom this is the home stay.
		m.nodes[0].receipts.Open(st)
		if err := m.nodes[0].sv.PassOn(t.Context(), addr("juliet")); err != nil || len(m.nodes[0].receipts.waiting()) != 1 {
			t.Errorf("%v", err)
		}
	})
}

// Clients are told to come back one after the other.
func TestDrainIsSpread(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		var all []*client
		for _, n := range numbers(1, 20) {
			all = append(all, w.managed("juliet/"+n))
		}
		start := time.Now()
		go w.sv.Drain(t.Context())
		var told []int
		for time.Since(start) < time.Second {
			n := 0
			for _, c := range all {
				c.wire.mu.Lock()
				n += len(c.wire.finished)
				c.wire.mu.Unlock()
			}
			told = append(told, n)
			time.Sleep(5 * time.Millisecond)
		}
		if !slices.IsSorted(told) || told[1] == 20 || told[len(told)-1] != 20 {
			t.Errorf("told %v", told[:20])
		}
	}, func(c *Config, _ *Parts) { c.SessionsPerUser = 0 })
}
