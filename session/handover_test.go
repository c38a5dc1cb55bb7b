package session

import (
	"slices"
	"testing"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

func TestMailboxTurnPasses(t *testing.T) {
	// XEP-0160 §3: a client that goes away in the middle of the mailbox leaves the rest to another one; what it was given
	// is its own until it comes back or its session ends.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 10) {
			romeo.chat("juliet", n)
		}
		a := w.managed("juliet/a")
		a.send("<presence xmlns='jabber:client'/>")
		var gotA, gotB []string
		gotA = append(gotA, a.bodiesOf()...)
		b := w.managed("juliet/b").available()
		a.frames()
		b.ack(2) // presence
		a.cut()
		all := func(c *client, got *[]string) {
			t.Helper()
			for range 10 {
				more := c.bodiesOf()
				*got = append(*got, more...)
				c.ack(uint32(c.session().out.sent - c.session().base))
			}
		}
		all(b, &gotB)
		a = a.resumed(0)
		gotA = gotA[:0]
		all(a, &gotA)
		if both := append(slices.Clone(gotA), gotB...); len(gotA) == 0 || len(gotB) == 0 || !slices.Equal(both, numbers(1, 10)) {
			t.Errorf("the first got %q, the other %q", gotA, gotB)
		}
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
		romeo.chat("juliet", "11")
		if got := append(a.bodiesOf(), b.bodiesOf()...); !slices.Equal(got, []string{"11", "11"}) {
			t.Errorf("then %q", got)
		}
	}, pages)
}

func TestMailboxOfASessionThatNeverCameBack(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 6) {
			romeo.chat("juliet", n)
		}
		a := w.managed("juliet/a")
		a.send("<presence xmlns='jabber:client'/>")
		a.frames()
		b := w.managed("juliet/b")
		b.send("<presence xmlns='jabber:client'/>")
		a.cut()
		var got []string
		for range 6 {
			got = append(got, b.bodiesOf()...)
			b.ack(uint32(b.session().out.sent - b.session().base))
		}
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		for range 6 {
			got = append(got, b.bodiesOf()...)
			b.ack(uint32(b.session().out.sent - b.session().base))
		}
		if slices.Sort(got); !slices.Equal(got, numbers(1, 6)) {
			t.Errorf("online it got %q", got)
		}
		b.close()
		b = w.managed("juliet/b")
		b.send("<presence xmlns='jabber:client'/>")
		for range 6 {
			got = append(got, b.bodiesOf()...) // and nothing of it again
			b.ack(uint32(b.session().out.sent - b.session().base))
		}
		slices.Sort(got)
		if left := w.box.bodies(addr("juliet")); !slices.Equal(got, numbers(1, 6)) || len(left) > 0 {
			t.Errorf("got %q, the mailbox has %q", got, left)
		}
	}, pages)
}

func TestCheckpointWaits(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.sv.enter()
		start := time.Now()
		time.AfterFunc(10*time.Millisecond, w.sv.leave)
		w.sv.Checkpoint(func() {}).Commit()
		if d := time.Since(start); d < 10*time.Millisecond {
			t.Errorf("looked after %v, in the middle of something", d)
		}
	})
}

func TestErrorsReachTheSender(t *testing.T) {
	// A message that cannot be kept is answered at whichever client the sender has left.
	inTime(t, func(_ *testing.T, w *world) {
		orchard, phone := w.bound("romeo/orchard"), w.bound("romeo/phone")
		juliet := w.managed("juliet/balcony").available()
		orchard.send(asking("juliet", "1"))
		juliet.frames()
		st := w.receipts.waiting()[0]
		orchard.close()
		if err := w.sv.Bounce(st); err != nil {
			phone.t.Errorf("%v", err)
		}
		phone.want("message error juliet recipient-unavailable")
		phone.close()
		if err := w.sv.Bounce(st); err != nil {
			phone.t.Errorf("%v", err)
		}
	})
}

func TestRosterRefusals(t *testing.T) {
	// What a roster refuses is told as a stanza error.
	inWorld(t, func(_ *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		w.roster.err = mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.PolicyViolation}
		c.send(sub("subscribe", "romeo"))
		c.want("presence error romeo policy-violation")
		c.send(rosterGet(""))
		c.want("iq error g policy-violation")
		c.open()
	})
}

func TestRosterDown(t *testing.T) {
	// Contract 5: what needs the roster waits for it: it is not counted, and works when it is sent again.
	for name, raw := range map[string]string{
		"presence":  "<presence xmlns='jabber:client'/>",
		"probe":     sub("probe", "romeo"),
		"subscribe": sub("subscribe", "romeo"),
		"disco":     "<iq xmlns='jabber:client' type='get' id='d' to='" + addr("romeo").String() + "'><query xmlns='" + nsDiscoInfo + "'/></iq>",
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, w *world) {
				w.roster.friends(addr("juliet"), addr("romeo"))
				c := w.managed("juliet/balcony")
				w.roster.err = errJournal
				c.send(raw)
				if h := c.session().handled; h != 0 {
					t.Errorf("%d stanzas are handled", h)
				}
				c.frames()
				c.cut()
				w.roster.err = nil
				c = c.resumed(0)
				c.want("resumed 0")
				c.send(raw)
				if h := c.session().handled; h != 1 {
					t.Errorf("%d stanzas are handled", h)
				}
				if got := c.frames(); len(got) == 0 && name != "subscribe" {
					t.Error("nothing came of it")
				}
			})
		})
	}
}

func TestPresenceTypes(t *testing.T) {
	// RFC 6121 §4.7.1, §8.5.
	inWorld(t, func(_ *testing.T, w *world) {
		c, romeo := w.bound("juliet/balcony"), w.bound("romeo/orchard").available()
		for raw, want := range map[string]string{
			"<presence xmlns='jabber:client' type='invisible'/>":                             "presence error " + testDomain + " bad-request",
			"<presence xmlns='jabber:client'><priority>128</priority></presence>":            "presence error " + testDomain + " bad-request",
			"<presence xmlns='jabber:client' to='x@elsewhere.example'/>":                     "presence error x@elsewhere.example remote-server-not-found",
			"<presence xmlns='jabber:client' type='probe'/>":                                 "",
			"<presence xmlns='jabber:client' type='error'/>":                                 "",
			"<presence xmlns='jabber:client' type='probe' to='x@elsewhere.example'/>":        "",
			"<presence xmlns='jabber:client' type='error' to='x@elsewhere.example'/>":        "",
			"<presence xmlns='jabber:client' to='" + testDomain + "'/>":                      "",
			"<presence xmlns='jabber:client' type='unavailable' to='a@" + testDomain + "'/>": "",
		} {
			c.send(raw)
			if want == "" {
				c.want()
			} else {
				c.want(want)
			}
		}
		c.send("<presence xmlns='jabber:client' type='error' to='" + addr("romeo/orchard").String() + "'><error type='cancel'><gone xmlns='" + stanza.NSStanzaErrors + "'/></error></presence>")
		romeo.want("presence error juliet/balcony gone")
	})
}
