package bosh

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/session"
	"holdfast/stanza"
)

// XEP-0124 §13: the client ends the session. What it said is handled, what waits for it is given to it, all requests are
// answered.
func TestClientTerminates(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		held := c.next("", "")
		isHeld(t, held)
		bye := `<presence xmlns='jabber:client' type='unavailable'/>`
		end := c.next(" type='terminate'", bye)
		expect(t, held, terminated("")) // the oldest
		expect(t, end, emptyBody)
		c.handled(t, bye)
		c.lastEvent(t, "lost:nil")
		expect(t, c.next("", ""), terminated("item-not-found"))
	})
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		c.st.send(message(1))
		end := c.next(" type='terminate'", "")
		expect(t, end, strings.Replace(payload(message(1)), ">", " type='terminate'>", 1))
		c.lastEvent(t, "lost:nil")
	})
}

// The gateway ends it: a stream error is told with what came before it (XEP-0206 §6).
func TestStreamError(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxHold = 2 }, func(t *testing.T, h *harness) {
		c := h.login(strings.Replace(createAttrs, "hold='1'", "hold='2'", 1))
		a, b := c.next("", message(1)), c.next("", message(2))
		isHeld(t, a)
		isHeld(t, b)
		c.st.send(message(3))
		expect(t, a, payload(message(3)))
		a = c.next("", message(4))
		isHeld(t, a)
		c.st.Fail(stanza.Conflict)
		want := `<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' condition='remote-stream-error' xmlns:stream='http://etherx.jabber.org/streams'>` +
			string(stanza.Conflict.Raw()) + `</body>`
		expect(t, b, want)
		expect(t, a, emptyBody)
		c.lastEvent(t, "lost:nil")
	})
	// Nobody is there to hear of it: the next request does.
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		c.st.Fail(stanza.Conflict)
		time.Sleep(50 * time.Second)
		if a := c.next("", "").wait(); !strings.Contains(a.body, "<conflict") || attr(a.body, "condition") != "remote-stream-error" {
			t.Fatalf("got %v", a)
		}
		c.lastEvent(t, "lost:nil")
	})
	bubble(t, func(c *Config) { c.Inactivity = 0 }, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		c.st.Fail(stanza.Conflict)
		time.Sleep(61 * time.Second)
		c.lastEvent(t, "lost:nil")
	})
}

// The stream ends without an error.
func TestStreamCloses(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := c.next("", "")
		isHeld(t, p)
		c.st.t.Finish(session.Closed)
		expect(t, p, terminated(""))
		c.lastEvent(t, "lost:nil")
	})
}

// A service that goes away leaves the session to the next one.
func TestRestart(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		idle := h.login(createAttrs)
		held := c.next("", message(1))
		isHeld(t, held)
		h.svc.draining = true
		if err := h.Drain(context.Background()); err != nil {
			t.Fatal(err)
		}
		expect(t, held, emptyBody)
		c.lastEvent(t, lost(ErrRestarting))
		idle.lastEvent(t, lost(ErrRestarting))
		p := c.next("", message(2))
		if a := p.wait(); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "10" {
			t.Fatalf("got %v", a)
		}
		if a := h.post(wrap(1, createAttrs, "")).wait(); a.status != http.StatusServiceUnavailable || attr(a.body, "condition") != "system-shutdown" {
			t.Fatalf("got %v", a)
		}
		h.svc.draining = false
		h.restart()
		isHeld(t, c.send(c.rid, "", message(2)))
		if got := h.svc.sids[c.sid].handled; len(got) != 2 || got[1] != message(2) {
			t.Fatalf("handled %q", got)
		}
		isHeld(t, idle.next("", ""))
	})
}

// A request that is being handled while the service goes away is not answered as if it had been.
func TestRestartWithinARequest(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		held := c.next("", message(0))
		isHeld(t, held)
		h.svc.draining = true
		n := 0
		c.st.hook = func(string) {
			if n++; n == 2 {
				c.st.t.Finish(session.Restarting)
			}
		}
		p := c.next("", message(1)+message(2)+message(3))
		expect(t, held, emptyBody)
		if a := p.wait(); a.status != http.StatusServiceUnavailable {
			t.Fatalf("got %v", a)
		}
		c.handled(t, message(0), message(1), message(2))
		h.restart()
		isHeld(t, c.send(c.rid, "", message(1)+message(2)+message(3)))
		if got := h.svc.sids[c.sid].handled; len(got) != 4 || got[3] != message(3) {
			t.Fatalf("handled %q", got)
		}
	})
}

// The service goes away in the moment in which the held request gets its answer.
func TestRestartWithinAnAnswer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		held := c.next("", "")
		isHeld(t, held)
		h.svc.draining = true
		c.st.pull = func() { c.st.t.Finish(session.Restarting) }
		c.st.send(message(1))
		expect(t, held, payload(message(1)))
		c.lastEvent(t, lost(ErrRestarting))
		h.restart()
		isHeld(t, c.next("", ""))
	})
}

func TestBroken(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := c.next("", "")
		isHeld(t, p)
		c.st.t.Finish(session.Broken)
		if a := p.wait(); a.status != http.StatusServiceUnavailable {
			t.Fatalf("got %v", a)
		}
		c.lastEvent(t, lost(ErrBroken))
		d := h.login(createAttrs)
		d.st.t.Finish(session.Broken)
		d.lastEvent(t, lost(ErrBroken))
	})
}

// A fault of ours ends one session and no other.
func TestPanic(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c, other := h.login(createAttrs), h.login(createAttrs)
		c.st.hook = func(string) {
			c.st.mu.Lock()
			c.st.handling = false
			c.st.mu.Unlock()
			panic("fault")
		}
		expect(t, c.next("", message(1)), terminated("internal-server-error"))
		c.lastEvent(t, lost(errPanic))
		isHeld(t, other.next("", ""))
	})
}

// XEP-0206: time to authenticate.
func TestAuthTimeout(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.create(createAttrs)
		p := c.next("", "")
		isHeld(t, p)
		time.Sleep(31 * time.Second)
		if a := p.now(); a == nil || !strings.Contains(a.body, "<connection-timeout") || attr(a.body, "type") != "terminate" {
			t.Fatalf("got %v", a)
		}
		c.lastEvent(t, "lost:nil")
		if open, authed := h.gate.Counts(); open != 0 || authed != 0 {
			t.Fatalf("%d, %d sessions", open, authed)
		}
	})
}

func TestClose(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := c.next("", "")
		isHeld(t, p)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if a := p.wait(); a.status != http.StatusServiceUnavailable {
			t.Fatalf("got %v", a)
		}
		c.lastEvent(t, lost(ErrServerClosed))
		synctest.Wait()
	})
}
