package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast/stanza"
)

// bodiesOf reads messages off the wire.
func (c *client) bodiesOf() (all []string) {
	c.t.Helper()
	for _, e := range c.frames() {
		if e.Kind() == stanza.Message {
			all = append(all, body(e))
		}
	}
	return all
}

func numbers(from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func pages(c *Config, _ *Parts) { c.PageMessages, c.RequestEvery = 4, 0 }

func TestMailboxComesFirst(t *testing.T) {
	// XEP-0160 §3, contract 3: the mailbox comes page by page, before anything newer, and leaves on proof.
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprint("newer to the full address: ", full), func(t *testing.T) {
			inTime(t, func(t *testing.T, w *world) {
				romeo := w.bound("romeo/orchard")
				for _, n := range numbers(1, 10) {
					romeo.chat("juliet", n)
				}
				c := w.managed("juliet/balcony")
				c.send("<presence xmlns='jabber:client'/>")
				to := "juliet"
				if full {
					to = "juliet/balcony"
				}
				var got []string
				for i := range 8 {
					got = append(got, c.bodiesOf()...)
					if i < 4 {
						romeo.chat(to, fmt.Sprint(11+i))
					}
					c.ack(uint32(c.session().out.sent - c.session().base))
				}
				if want := numbers(1, 14); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
				if left := w.box.bodies(addr("juliet")); len(left) > 0 {
					t.Errorf("mailbox %q", left)
				}
				romeo.chat("juliet", "15")
				if left := w.box.bodies(addr("juliet")); len(left) > 0 || !slices.Equal(c.bodiesOf(), numbers(15, 15)) {
					t.Errorf("not delivered directly; mailbox %q", left)
				}
			}, pages)
		})
	}
}

func TestMailboxStaysUntilProved(t *testing.T) {
	// Contract 4: nothing leaves the mailbox for having been written to a socket.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 3) {
			romeo.chat("juliet", n)
		}
		c := w.managed("juliet/balcony").available()
		c.ack(2) // of three messages and a presence
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, numbers(3, 3)) {
			t.Errorf("mailbox %q", left)
		}
		c.cut()
		c = c.resumed(2)
		if got := c.bodiesOf(); !slices.Equal(got, numbers(3, 3)) {
			t.Errorf("replayed %q", got)
		}
		// Whoever takes its place gets what it did not acknowledge.
		c = w.bound("juliet/balcony").available()
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, numbers(3, 3)) {
			t.Errorf("mailbox %q", left)
		}
		c.close()
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
	})
}

func TestMailboxAndPriority(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		romeo.chat("juliet", "1")
		c := w.managed("juliet/balcony")
		priority := func(p string) []string {
			c.send("<presence xmlns='jabber:client'><priority>" + p + "</priority></presence>")
			return c.bodiesOf()
		}
		if got := priority("-1"); len(got) > 0 {
			t.Errorf("negative priority got %q", got)
		}
		romeo.chat("juliet", "2")
		if got := priority("0"); !slices.Equal(got, numbers(1, 2)) {
			t.Errorf("got %q", got)
		}
		if got := priority("1"); len(got) > 0 {
			t.Errorf("got %q again", got)
		}
		if got := priority("-1"); len(got) > 0 {
			t.Errorf("got %q again", got)
		}
		romeo.chat("juliet", "3")
		if got := priority("5"); !slices.Equal(got, numbers(3, 3)) {
			t.Errorf("got %q", got)
		}
	})
}

func TestNoStoreWhileDraining(t *testing.T) {
	// XEP-0334 §5: what may not be stored still reaches a client that is there.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 10) {
			romeo.chat("juliet", n)
		}
		c := w.managed("juliet/balcony").available()
		for _, to := range []string{"juliet", "juliet/balcony"} {
			romeo.send("<message xmlns='jabber:client' type='chat' to='" + addr(to).String() + "'><body>secret</body><no-store xmlns='urn:xmpp:hints'/></message>")
		}
		romeo.want()
		if got := c.bodiesOf(); !slices.Equal(got, []string{"secret", "secret"}) {
			t.Errorf("got %q", got)
		}
	}, pages)
}

func TestTwoDevices(t *testing.T) {
	// Contract 2: a copy that one device acknowledged is nobody else's when the other device's session ends.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		a, b := w.managed("juliet/a").available(), w.managed("juliet/b").available()
		ackAll := func(c *client) { c.frames(); c.ack(uint32(c.session().out.sent - c.session().base)) }
		ackAll(a)
		ackAll(b)
		romeo.chat("juliet", "1")
		ackAll(a)
		b.stream.PeerClosed()
		b.cut()
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
		// What nobody acknowledged is kept when the last one ends, once.
		b = w.managed("juliet/b").available()
		ackAll(a)
		ackAll(b)
		romeo.chat("juliet", "2")
		for _, c := range []*client{b, a} {
			c.stream.PeerClosed()
			c.cut()
		}
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, numbers(2, 2)) {
			t.Errorf("mailbox %q", left)
		}
	})
}

func receiptFor(to, id string) string {
	return "<message xmlns='jabber:client' to='" + addr(to).String() + "'><received xmlns='urn:xmpp:receipts' id='" + id + "'/></message>"
}

func asking(to, text string) string {
	return strings.Replace(chat(addr(to).String(), text), "<body>", "<request xmlns='urn:xmpp:receipts'/><body>", 1)
}

func TestReceipts(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo, c := w.managed("romeo/orchard").available(), w.managed("juliet/balcony").available()
		c.ack(1)
		waiting := func(want ...string) {
			t.Helper()
			var got []string
			for _, st := range w.receipts.waiting() {
				got = append(got, body(&st.Element))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%q await a receipt, want %q", got, want)
			}
		}
		// A client that says nothing of receipts: the acknowledgement proves.
		romeo.send(asking("juliet", "1"))
		waiting("1")
		c.frames()
		c.ack(2)
		waiting()
		// One that sends them: only the receipt does (XEP-0184 §3).
		romeo.send(asking("juliet", "2"))
		c.frames()
		c.send(receiptFor("romeo/orchard", "2"))
		waiting()
		romeo.want("message juliet/balcony")
		romeo.send(asking("juliet", "3"))
		c.frames()
		c.ack(4)
		waiting("3")
		// A receipt for what was never sent is passed on and closes nothing.
		c.send(receiptFor("romeo/orchard", "none"))
		waiting("3")
		romeo.want("message juliet/balcony")

		// The receipt is overdue: the message goes to the mailbox, and a late one takes it out.
		st := w.receipts.waiting()[0]
		if n, err := w.sv.Resend(st); n != 0 || err != nil {
			t.Errorf("resent to %d that had it (%v)", n, err)
		}
		if kept, err := w.sv.Fallback(st); !kept || err != nil {
			t.Errorf("fallback: %v, %v", kept, err)
		}
		w.receipts.stored[st.ID] = true
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, numbers(3, 3)) {
			t.Errorf("mailbox %q", left)
		}
		c.send(receiptFor("romeo/orchard", "3"))
		waiting()
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q after the late receipt", left)
		}
		romeo.frames()
		if err := w.sv.Bounce(st); err != nil {
			t.Error(err)
		}
		romeo.want("message error juliet recipient-unavailable")
	})
}

func TestWhetherAClientSendsReceipts(t *testing.T) {
	// XEP-0115, XEP-0184 §6: it is asked once for each hash; until it answers, its acknowledgements wait.
	answer := func(c *client, id, feature string) {
		c.send("<iq xmlns='jabber:client' type='result' id='" + id + "' to='" + testDomain + "'><query xmlns='" + nsDiscoInfo + "'><identity category='client' type='pc'/><feature var='" + feature + "'/></query></iq>")
	}
	for feature, proved := range map[string]bool{stanza.NSReceipts: false, "urn:example:none": true} {
		inTime(t, func(t *testing.T, w *world) {
			romeo, c := w.bound("romeo/orchard"), w.managed("juliet/balcony")
			c.send("<presence xmlns='jabber:client'><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/></presence>")
			var id string
			for _, e := range c.frames() {
				if e.Kind() == stanza.IQ {
					id = e.Attr("id")
				}
			}
			romeo.send(asking("juliet", "1"))
			c.frames()
			c.ack(3)
			if n := len(w.receipts.waiting()); n != 1 {
				t.Fatalf("%d await a receipt before the client has answered", n)
			}
			answer(c, "wrong", "urn:example:none")
			if n := len(w.receipts.waiting()); n != 1 {
				t.Fatalf("%d await a receipt after an answer to nothing", n)
			}
			answer(c, id, feature)
			if n := len(w.receipts.waiting()); (n == 0) != proved {
				t.Errorf("%s: %d await a receipt", feature, n)
			}
		})
	}
}
