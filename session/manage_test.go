package session

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// inTime runs f in virtual time with a world of its own.
func inTime(t *testing.T, f func(t *testing.T, w *world), edit ...func(*Config, *Parts)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { inWorld(t, f, edit...) })
}

func TestEnable(t *testing.T) {
	for _, tt := range []struct {
		name, attrs string
		timeout     time.Duration
		resumable   bool
		max         string
	}{
		{"XEP-0198 §3: without resumption", "", time.Minute, false, ""},
		{"resume true", " resume='true'", time.Minute, true, "60"},
		{"resume 1", " resume='1'", time.Minute, true, "60"},
		{"resume false", " resume='false'", time.Minute, false, ""},
		{"§5: less than we would allow", " resume='true' max='5'", time.Minute, true, "5"},
		{"more than we allow", " resume='true' max='3600'", time.Minute, true, "60"},
		{"max 0", " resume='true' max='0'", time.Minute, false, ""},
		{"max that is no number", " resume='true' max='x'", time.Minute, true, "60"},
		{"resumption off", " resume='true'", 0, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.bound("juliet/balcony")
				c.send("<enable xmlns='urn:xmpp:sm:3'" + tt.attrs + "/>")
				got := c.frames()
				if len(got) != 1 || brief(got[0]) != "enabled" {
					t.Fatalf("got %q", briefs(got))
				}
				if (got[0].Attr("resume") == "true") != tt.resumable || (len(got[0].Attr("id")) >= 20) != tt.resumable || got[0].Attr("max") != tt.max {
					t.Errorf("got %s", got[0].Raw())
				}
				c.send("<enable xmlns='urn:xmpp:sm:3'/>")
				c.want("failed unexpected-request")
				c.open()
				c.cut()
				if detached := len(w.sv.all()) == 1; detached != tt.resumable {
					t.Errorf("detached: %v", detached)
				}
			}, func(c *Config, _ *Parts) { c.ResumeTimeout = tt.timeout })
		})
	}
}

func TestEnableFirst(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		c.request()
		c.want("failed unexpected-request")
		c.ack(0)
		c.want("failed unexpected-request")
		c.resume("x", 0)
		c.want("failed unexpected-request")
		c.open()
	})
}

// ping is a request that the gateway answers, for counting.
const pingIQ = "<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"

func TestEnableCountsFromThere(t *testing.T) {
	// XEP-0198 §4: the counts begin with enable; what was sent before goes out before <enabled/>.
	inTime(t, func(t *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		c.send(pingIQ)
		c.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
		c.send(pingIQ)
		c.want("iq result p", "enabled", "iq result p")
		time.Sleep(settleTime)
		c.request()
		c.want("a 1")
		c.ack(1)
		c.open()
		if s := c.session(); s.out.n != 0 {
			t.Errorf("%d in the outbox", s.out.n)
		}
		c.ack(2)
		c.want("error undefined-condition handled-count-too-high")
	})
}

func TestAcknowledgementsWaitForTheJournal(t *testing.T) {
	// Contract 1: <a h/> covers only what is safe, and what settles later is said without another request.
	inTime(t, func(_ *testing.T, w *world) {
		c := w.managed("juliet/balcony")
		c.chat("romeo", "1")
		c.request()
		c.want("a 0")
		c.chat("romeo", "2")
		time.Sleep(settleTime)
		c.want("a 2")
		c.chat("romeo", "3")
		time.Sleep(settleTime)
		c.want() // nobody asked
		c.request()
		c.want("a 3")

		w.journal.fail(nil, errJournal)
		c.chat("romeo", "4")
		c.request()
		time.Sleep(10 * settleTime)
		c.want("a 3")
		w.journal.fail(nil, nil)
		time.Sleep(settleTime)
		c.want("a 4")
	})
}

func TestRequests(t *testing.T) {
	// XEP-0198 §4: the client is asked after RequestEvery stanzas, and soon after the last one.
	inTime(t, func(t *testing.T, w *world) {
		c := w.managed("juliet/balcony")
		asked := func() (n int) {
			for _, b := range briefs(c.frames()) {
				if b == "r" {
					n++
				}
			}
			return n
		}
		time.Sleep(settleTime)
		if n := asked(); n != 0 {
			t.Errorf("asked %d times about nothing", n)
		}
		for i := range 12 {
			c.send(pingIQ)
			if n, want := asked(), map[bool]int{true: 1}[i == 4 || i == 9]; n != want {
				t.Errorf("asked %d times after %d stanzas, want %d", n, i+1, want)
			}
		}
		time.Sleep(settleTime)
		if n := asked(); n != 1 {
			t.Errorf("asked %d times soon after the last stanza", n)
		}
		time.Sleep(settleTime)
		if n := asked(); n != 0 {
			t.Errorf("asked %d times again", n)
		}
	}, func(c *Config, _ *Parts) { c.RequestEvery = 5 })
}

func TestProbes(t *testing.T) {
	// Contract 4: a client without XEP-0198 is asked for a sign of life, and then what it was sent is proved.
	inTime(t, func(t *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		c.send(pingIQ)
		c.want("iq result p")
		mark := c.wire.mark
		c.send(pingIQ)
		time.Sleep(settleTime)
		if c.probes() != 1 {
			t.Errorf("probed %d times", c.probes())
		}
		c.stream.Proved(mark)
		if n := c.session().queued(); n != 1 {
			t.Errorf("%d in the outbox, want the unsent one", n)
		}
		c.want("iq result p")
		time.Sleep(settleTime)
		if c.probes() < 2 {
			t.Error("not probed again")
		}
		c.stream.Proved(c.wire.mark)
		if n := c.session().queued(); n != 0 {
			t.Errorf("%d in the outbox", n)
		}
		before := c.probes()
		time.Sleep(10 * settleTime)
		if c.probes() != before {
			t.Error("probed about nothing")
		}
	})
}

func TestCountsWrap(t *testing.T) {
	// XEP-0198 §4: h wraps at 2^32, in both directions.
	inTime(t, func(t *testing.T, w *world) {
		c := w.managed("juliet/balcony").available()
		s := c.session()
		c.ack(uint32(s.out.last() - s.base))
		const near = math.MaxUint32 - 1
		s.mu.Lock()
		s.in, s.handled, s.settled = near, near, near
		s.out.acked = s.base + 1<<32 - 3 // as if 2^32-3 had been sent and acknowledged
		s.out.sent, s.asked = s.out.acked, s.out.acked
		s.mu.Unlock()
		romeo := w.bound("romeo/orchard")
		for i := range 6 {
			c.chat("romeo", fmt.Sprint("out", i))
			romeo.chat("juliet", fmt.Sprint("in", i))
		}
		time.Sleep(settleTime)
		if n := len(c.frames()); n < 6 {
			t.Fatalf("%d frames", n)
		}
		c.request()
		c.want("a 4")
		c.ack(math.MaxUint32 - 1) // one of six
		if n := s.queued(); n != 5 {
			t.Errorf("%d queued, want 5", n)
		}
		c.ack(1) // three more, past the wrap
		if n := s.queued(); n != 2 {
			t.Errorf("%d queued, want 2", n)
		}
		c.ack(math.MaxUint32) // old news
		if n := s.queued(); n != 2 {
			t.Errorf("%d queued, want 2", n)
		}
		c.cut()
		n := c.resumed(2)
		n.want("resumed 4", "message romeo/orchard in5")
		n.ack(4)
		n.want("error undefined-condition handled-count-too-high")
	})
}

func TestAcknowledgementOfTooMuch(t *testing.T) {
	// XEP-0198 §4: the stream ends, the session can still be resumed.
	for _, h := range []uint32{2, 100, math.MaxUint32} {
		t.Run(fmt.Sprint(h), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.managed("juliet/balcony")
				c.send(pingIQ)
				c.want("iq result p")
				c.ack(h)
				got := c.frames()
				if len(got) != 1 || brief(got[0]) != "error undefined-condition handled-count-too-high" {
					t.Fatalf("got %q", briefs(got))
				}
				if raw, want := string(got[0].Raw()), fmt.Sprintf("h='%d' send-count='1'", h); !strings.Contains(raw, want) {
					t.Errorf("%s has no %s", raw, want)
				}
				c.finished(Closed)
				c.stream.Lost(nil)
				n := w.authenticated("juliet")
				n.resume(c.token, h)
				n.want("error undefined-condition handled-count-too-high")
				n.finished(Closed)
				n = c.resumed(0)
				n.want("resumed 1", "iq result p")
			})
		})
	}
}

func TestAcknowledgementOfNoCount(t *testing.T) {
	for _, h := range []string{"", " h=''", " h='-1'", " h='x'", " h='4294967296'"} {
		inWorld(t, func(_ *testing.T, w *world) {
			c := w.managed("juliet/balcony")
			c.send("<a xmlns='urn:xmpp:sm:3'" + h + "/>")
			c.want("error bad-format")
			n := w.authenticated("juliet")
			n.send("<resume xmlns='urn:xmpp:sm:3' previd='" + c.token + "'" + h + "/>")
			n.want("error bad-format")
		})
	}
}

func TestResume(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.managed("romeo/orchard").available()
		c := w.managed("juliet/balcony").available()
		c.ack(1)
		romeo.chat("juliet", "1")
		romeo.chat("juliet", "2")
		c.want("message romeo/orchard 1", "message romeo/orchard 2")
		romeo.chat("juliet", "3")
		c.cut()
		romeo.chat("juliet", "4")
		time.Sleep(time.Minute)

		// §5: replay in order; what came meanwhile says when (XEP-0203).
		n := c.resumed(2)
		got := n.frames()
		want := []string{"resumed 1", "message romeo/orchard 2", "message romeo/orchard 3", "message romeo/orchard 4 delayed"}
		if b := slices.DeleteFunc(briefs(got), func(s string) bool { return s == "r" }); !slices.Equal(b, want) {
			t.Fatalf("got %q, want %q", b, want)
		}
		if got[0].Attr("previd") != c.token {
			t.Errorf("got %s", got[0].Raw())
		}
		d, _ := got[3].Find(stanza.NSDelay, "delay")
		queue := c.session().out
		if at, err := time.Parse(time.RFC3339, d.Attr("stamp")); err != nil || !at.Equal(queue.at(queue.last()).st.ID.Time()) {
			t.Errorf("stamp %s (%v)", d.Raw(), err)
		}
	})
}

func TestResumeGoesOn(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		w.roster.friends(addr("juliet"), addr("romeo"))
		romeo := w.managed("romeo/orchard").available()
		c := w.managed("juliet/balcony").available()
		romeo.want("presence juliet/balcony")
		c.chat("romeo", "before")
		h := uint32(c.session().out.last())
		c.cut()
		for range 3 {
			c = c.resumed(h - 1)
			c.frames()
			c.cut()
		}
		c = c.resumed(h)
		c.want("resumed 2")
		romeo.want("message juliet/balcony before") // and no presence: nobody noticed
		c.chat("romeo", "after")
		romeo.chat("juliet", "back")
		c.want("message romeo/orchard back")
		time.Sleep(settleTime)
		c.frames()
		c.request()
		c.want("a 3")
		// The same id is good again, and the time to resume begins again.
		c.cut()
		time.Sleep(w.cfg.ResumeTimeout - time.Second)
		c = c.resumed(h)
		c.want("resumed 3", "message romeo/orchard back")
		if w.sv.sessions[c.session().ord] == nil || len(w.sv.all()) != 2 {
			t.Errorf("%d sessions", len(w.sv.all()))
		}
	})
}

func TestResumeSaysNoLessLater(t *testing.T) {
	// What <resumed h/> covered, a later <a h/> covers too, though the journal is settled later.
	inTime(t, func(_ *testing.T, w *world) {
		c := w.managed("juliet/balcony")
		c.chat("romeo", "1")
		c.chat("romeo", "2")
		c.cut()
		n := c.resumed(0)
		n.want("resumed 2")
		n.request()
		n.want("a 2")
		time.Sleep(settleTime)
		n.request()
		n.want("a 2")
	})
}

func TestResumeRefused(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		c := w.managed("juliet/balcony")
		c.chat("romeo", "1")
		c.cut()

		// Another user's session is as unknown as none.
		for _, token := range []string{c.token, "", "x", strings.Repeat("x", 5000)} {
			n := w.authenticated("romeo")
			n.resume(token, 0)
			n.want("failed item-not-found")
			n.send(bindTo("")) // §5: the stream is still good
			n.want("iq result b'1")
			n.close()
		}
		n := w.authenticated("juliet")
		n.resume("", 0)
		n.want("failed item-not-found")
		n.resume(c.token, 0)
		n.want("resumed 1")

		// §5: a session that is over says what it had, to its user alone.
		n.chat("romeo", "2")
		n.cut()
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		n = w.authenticated("juliet")
		n.resume(c.token, 0)
		n.want("failed item-not-found 2")
		n = w.authenticated("romeo")
		n.resume(c.token, 0)
		n.want("failed item-not-found")
		if got := w.box.bodies(addr("romeo")); !slices.Equal(got, []string{"1", "2"}) {
			t.Errorf("mailbox %q", got)
		}
	})
}

func TestResumeOfAUserWhoIsComing(t *testing.T) {
	// A user comes to a node home first and then session by session, all under the user's lock.
	inWorld(t, func(t *testing.T, w *world) {
		c := w.managed("juliet/balcony").available()
		s := c.session()
		c.cut()
		put := func(known *Session) {
			w.sv.mu.Lock()
			defer w.sv.mu.Unlock()
			if w.sv.tokens[c.token] = known; known == nil {
				delete(w.sv.tokens, c.token)
			}
		}
		comes := make(chan struct{})
		go w.sv.router.Locked(addr("juliet"), func(Table) {
			put(nil)
			close(comes)
			time.Sleep(20 * time.Millisecond) // others get to look
			put(s)
		})
		<-comes
		c = c.resumed(0)
		if c.session() != s {
			t.Errorf("not resumed: %q", briefs(c.frames()))
		}
	})
}

func TestMaxIsHonoured(t *testing.T) {
	inTime(t, func(_ *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		c.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='5'/>")
		c.token = c.frames()[0].Attr("id")
		c.cut()
		time.Sleep(5*time.Second - time.Millisecond)
		c = c.resumed(0)
		c.want("resumed 0")
		c.cut()
		time.Sleep(5*time.Second + time.Millisecond)
		c = c.resumed(0)
		c.want("failed item-not-found 0")
	})
}

func TestCleanCloseEndsTheSession(t *testing.T) {
	// XEP-0198 §5: a client that closes its stream does not come back.
	inTime(t, func(t *testing.T, w *world) {
		w.roster.friends(addr("juliet"), addr("romeo"))
		romeo := w.bound("romeo/orchard").available()
		c := w.managed("juliet/balcony").available()
		romeo.want("presence juliet/balcony")
		c.stream.PeerClosed()
		c.finished(Closed)
		romeo.want("presence unavailable juliet/balcony")
		romeo.chat("juliet", "1")
		c.stream.Lost(nil)
		if got := w.box.bodies(addr("juliet")); !slices.Equal(got, []string{"1"}) {
			t.Errorf("mailbox %q", got)
		}
		c = c.resumed(0)
		c.want("failed item-not-found 1")
	})
}

func TestWhatWasSentBeforeTheClose(t *testing.T) {
	// Contract 4: what the transport proved up to its closing is not given to anybody again, the rest is.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, managed := range []bool{true, false} {
			c := w.bound("juliet/balcony")
			if managed {
				c = w.managed("juliet/balcony")
			}
			c.available()
			romeo.chat("juliet", "proved")
			c.frames()
			romeo.chat("juliet", "sent at the end")
			c.close()
			if got := w.box.bodies(addr("juliet")); len(got) != 0 {
				t.Errorf("managed %v: mailbox %q", managed, got)
			}
		}
		c := w.managed("juliet/balcony").available()
		romeo.chat("juliet", "lost")
		c.stream.PeerClosed()
		c.cut()
		if got := w.box.bodies(addr("juliet")); !slices.Equal(got, []string{"lost"}) {
			t.Errorf("mailbox %q", got)
		}
	})
}

func TestTakeOver(t *testing.T) {
	// XEP-0198 §5, RFC 6120 §4.9.3.3: of two streams for one session the later one has it.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard").available()
		old := w.managed("juliet/balcony").available()
		old.ack(1)
		old.chat("romeo", "1")
		romeo.chat("juliet", "a")
		old.want("message romeo/orchard a")
		n := old.resumed(1)
		n.want("resumed 2", "message romeo/orchard a")
		old.want("error conflict")
		old.finished(Closed)

		// What the old connection still says or loses changes nothing.
		old.chat("romeo", "late")
		old.ack(2)
		old.stream.PeerClosed()
		old.stream.Proved(100)
		old.stream.Lost(errCut)
		romeo.want("message juliet/balcony 1")
		if n.session().queued() != 1 {
			t.Errorf("%d queued", n.session().queued())
		}
		time.Sleep(2 * w.cfg.ResumeTimeout)
		romeo.chat("juliet", "b")
		n.want("message romeo/orchard b")
	})
}

func TestTakeOverWithTooMuch(t *testing.T) {
	inTime(t, func(_ *testing.T, w *world) {
		old := w.managed("juliet/balcony")
		old.send(pingIQ)
		n := old.resumed(7)
		n.want("error undefined-condition handled-count-too-high")
		old.want("error conflict")
		old.finished(Closed)
		old.stream.Lost(nil)
		n.stream.Lost(nil)
		n = old.resumed(0)
		n.want("resumed 1", "iq result p")
		n.cut()
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		n = old.resumed(0)
		n.want("failed item-not-found 1")
	})
}

func TestTakeOverWaitsForWhatIsHandled(t *testing.T) {
	// A stanza that the old stream is handling is counted before the client hears the count, so that it is neither
	// lost nor handled twice.
	inWorld(t, func(t *testing.T, w *world) {
		old := w.managed("juliet/balcony")
		w.accounts.asked, w.accounts.let = make(chan struct{}), make(chan struct{})
		go old.chat("romeo", "1") // nobody is there, so it asks whether romeo exists
		<-w.accounts.asked
		n := w.authenticated("juliet")
		done := make(chan struct{})
		go func() {
			n.resume(old.token, 0)
			close(done)
		}()
		time.Sleep(20 * time.Millisecond) // a goroutine that waits for a mutex is no event
		select {
		case <-done:
			t.Fatal("resumed while a stanza was being handled")
		default:
		}
		n.want()
		w.accounts.let <- struct{}{}
		<-done
		n.want("resumed 1")
		if got := w.box.bodies(addr("romeo")); !slices.Equal(got, []string{"1"}) {
			t.Errorf("mailbox %q", got)
		}
		old.stream.Lost(nil)
	})
}

func TestLostWhileResumed(t *testing.T) {
	// The old connection breaks just when the client is back: that is no conflict.
	inWorld(t, func(t *testing.T, w *world) {
		old := w.managed("juliet/balcony")
		w.accounts.asked, w.accounts.let = make(chan struct{}), make(chan struct{})
		go func() {
			old.chat("romeo", "1")
			old.cut()
		}()
		<-w.accounts.asked
		n := w.authenticated("juliet")
		done := make(chan struct{})
		go func() {
			n.resume(old.token, 0)
			close(done)
		}()
		time.Sleep(20 * time.Millisecond) // a goroutine that waits for a mutex is no event
		w.accounts.let <- struct{}{}
		<-done
		n.want("resumed 1")
		n.open()
		n.send(pingIQ)
		n.want("iq result p")
	})
}

// What a node that was fenced says counts for nothing: it says nothing, and the client looks for one that has the session.
func TestFencedNodeIsSilent(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		for _, act := range []func(c *client) *client{
			func(c *client) *client { c.send(pingIQ); return c },
			func(c *client) *client { c.send(chat(addr("romeo").String(), "x")); return c },
			func(c *client) *client { return c.resumed(0) },
		} {
			c := w.managed("juliet/balcony")
			w.journal.fail(journal.ErrFenced, journal.ErrFenced)
			c = act(c)
			c.finished(Broken)
			c.want()
			c.stream.Lost(nil)
			w.journal.fail(nil, nil)
		}
	})
}

func TestJournalDown(t *testing.T) {
	// What can't be recorded is not counted: the stream ends and the client sends it again.
	inTime(t, func(t *testing.T, w *world) {
		for _, raw := range []string{chat(addr("romeo").String(), "x"), pingIQ, "<presence xmlns='jabber:client'/>"} {
			c := w.managed("juliet/balcony")
			w.journal.fail(errJournal, nil)
			c.send(raw)
			c.want("error internal-server-error")
			c.finished(Closed)
			c.stream.Lost(nil)
			w.journal.fail(nil, nil)
			n := c.resumed(0)
			n.want("resumed 0")
			n.send(raw)
			n.open()
			n.frames()
			time.Sleep(settleTime)
			n.frames()
			n.request()
			n.want("a 1")
			n.close()
		}
		// A resumption that can't be recorded fails, and the next one does not.
		c := w.managed("juliet/balcony")
		c.chat("romeo", "y")
		w.journal.fail(errJournal, errJournal)
		n := c.resumed(0)
		n.want("error internal-server-error")
		n.stream.Lost(nil)
		w.journal.fail(nil, nil)
		n = c.resumed(0)
		n.want("resumed 1")
		n.send(pingIQ)
		n.want("iq result p")
		if got := len(w.box.bodies(addr("romeo"))); got < 2 {
			t.Errorf("%d in the mailbox", got)
		}
	})
}

func TestExpiry(t *testing.T) {
	// The issue, point 5: unavailable presence, and the queue to offline storage in order.
	inTime(t, func(t *testing.T, w *world) {
		w.roster.friends(addr("juliet"), addr("romeo"))
		romeo := w.bound("romeo/orchard").available()
		c := w.managed("juliet/balcony").available()
		romeo.frames()
		romeo.chat("juliet", "1")
		romeo.chat("juliet", "2")
		c.frames()
		c.ack(uint32(c.session().out.sent) - 1)
		c.cut()
		romeo.chat("juliet", "3")
		romeo.send("<iq xmlns='jabber:client' type='get' id='q' to='" + addr("juliet/balcony").String() + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		romeo.send("<message xmlns='jabber:client' type='headline' to='" + addr("juliet").String() + "'><body>news</body></message>")
		romeo.want()
		time.Sleep(w.cfg.ResumeTimeout - time.Second)
		romeo.want()
		time.Sleep(2 * time.Second)
		romeo.want("presence unavailable juliet/balcony", "iq error q service-unavailable")
		if got := w.box.bodies(addr("juliet")); !slices.Equal(got, []string{"2", "3"}) {
			t.Errorf("mailbox %q", got)
		}
		romeo.chat("juliet", "4")
		n := w.bound("juliet/balcony")
		n.send("<presence xmlns='jabber:client'/>")
		n.want("message romeo/orchard 2 delayed", "message romeo/orchard 3 delayed", "message romeo/orchard 4 delayed",
			"presence juliet/balcony", "presence romeo/orchard")
	})
}

func TestSpill(t *testing.T) {
	// Contract 5: a full outbox ends the session, not the messages.
	small := func(c *Config, _ *Parts) { c.OutboxStanzas = 4; c.PageMessages = 2 }
	bytes := func(c *Config, _ *Parts) { c.OutboxBytes = 1500 }
	for name, edit := range map[string]func(*Config, *Parts){"stanzas": small, "bytes": bytes} {
		for _, detached := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " detached ", detached), func(t *testing.T) {
				inTime(t, func(t *testing.T, w *world) {
					romeo := w.managed("romeo/orchard")
					c := w.managed("juliet/balcony").available()
					c.ack(1)
					if detached {
						c.cut()
					}
					var want []string
					for i := range 10 {
						romeo.chat("juliet", fmt.Sprint(i))
						want = append(want, fmt.Sprint(i))
					}
					romeo.want()
					synctest.Wait()
					if !detached {
						c.want("error resource-constraint")
						c.finished(Closed)
						c.stream.Lost(nil)
					}
					if got := w.box.bodies(addr("juliet")); !slices.Equal(got, want) {
						t.Errorf("mailbox %q", got)
					}
					n := c.resumed(0)
					n.want("failed item-not-found 1")
				}, edit)
			})
		}
	}
}

func TestSpillOfASessionThatMoved(t *testing.T) {
	// What overflowed while it waited can't be resumed any more, even before it has ended.
	inTime(t, func(t *testing.T, w *world) {
		c := w.managed("juliet/balcony").available()
		c.cut()
		s := w.sv.byToken(c.token)
		s.mu.Lock()
		s.spilling = true // as deliver leaves it
		s.mu.Unlock()
		n := c.resumed(0)
		n.want("failed item-not-found 1")
		n.open()
		w.sv.spill(s)
		if len(w.sv.all()) != 0 {
			t.Error("the session lives on")
		}
	})
}
