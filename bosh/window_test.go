package bosh

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// expect checks an answer that is there now.
func expect(t *testing.T, p *pending, want string) {
	t.Helper()
	a := p.now()
	if a == nil {
		t.Fatalf("held, want %s", want)
	}
	if a.err != nil || a.body != want {
		t.Fatalf("got %v, want %s", a, want)
	}
}

func isHeld(t *testing.T, p *pending) {
	t.Helper()
	if a := p.now(); a != nil {
		t.Fatalf("answered: %v", a)
	}
}

func payload(frames ...string) string {
	return `<body xmlns='http://jabber.org/protocol/httpbind'>` + strings.Join(frames, "") + `</body>`
}

func (c *client) handled(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	c.svc.mu.Lock()
	defer c.svc.mu.Unlock()
	if got := c.st.s.handled; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("handled %q, want %q", got, want)
	}
}

func (c *client) lastEvent(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	if got := c.st.seen(); got[len(got)-1] != want {
		t.Fatalf("events %q, want %q last", got, want)
	}
}

// XEP-0124 §14.2: whatever order requests come in, they are handled and answered in that of their ids.
func TestOutOfOrder(t *testing.T) {
	bubble(t, func(c *Config) { c.MaxHold = 4 }, func(t *testing.T, h *harness) {
		c := h.login(strings.Replace(createAttrs, "hold='1'", "hold='4'", 1))
		first := c.rid + 1
		var p [5]*pending
		for _, i := range []int{3, 1, 4, 2} {
			p[i] = c.send(first+uint64(i), "", message(i))
			isHeld(t, p[i])
		}
		c.handled(t)
		p[0] = c.send(first, "", message(0))
		c.handled(t, message(0), message(1), message(2), message(3), message(4))
		expect(t, p[0], emptyBody) // five are one more than may be held
		c.st.send(message(7))
		expect(t, p[1], payload(message(7)))
		isHeld(t, p[2])
		c.st.send(message(8))
		expect(t, p[2], payload(message(8)))
	})
}

// XEP-0124 §14.3.
func TestRepeats(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := c.next("", message(1))
		isHeld(t, p)
		// One that is held goes to the newest connection.
		again := c.send(c.rid, "", message(1))
		isHeld(t, again)
		expect(t, p, `<body xmlns='http://jabber.org/protocol/httpbind' type='error'/>`)
		c.st.send(message(9))
		expect(t, again, payload(message(9)))
		for range 3 {
			expect(t, c.send(c.rid, "", message(1)), payload(message(9)))
		}
		c.handled(t, message(1))
		// The responses to the last two requests are kept, that before them is not.
		held := c.next("", "")
		isHeld(t, held)
		expect(t, c.send(c.rid-1, "", message(1)), payload(message(9)))
		expect(t, c.send(c.rid-2, "", ""), terminated("item-not-found"))
		isHeld(t, held)
	})
}

// A connection that breaks leaves its request to be asked for again.
func TestCutConnection(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := c.next("", message(1))
		isHeld(t, p)
		p.cancel()
		p.wait()
		c.st.send(message(2))
		synctest.Wait()
		time.Sleep(50 * time.Second)
		expect(t, c.send(c.rid, "", message(1)), payload(message(2)))
		c.handled(t, message(1))
		p = c.next("", "")
		isHeld(t, p)
		p.cancel()
		p.wait()
		// The next one comes instead: the lost one is answered with nothing, should it be asked for.
		next := c.next("", "")
		isHeld(t, next)
		c.st.send(message(3))
		expect(t, next, payload(message(3)))
		expect(t, c.send(c.rid-1, "", ""), emptyBody)
		time.Sleep(61 * time.Second)
		c.lastEvent(t, lost(ErrInactive))
	})
}

// A request that was answered long ago may come late, from a balancer that sent it twice or a node that was paused. It is
// refused, and the session goes on: its client has not asked for anything.
func TestOldCopies(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		held := c.next("", "")
		isHeld(t, held)
		for _, by := range []uint64{4, 5, 900} {
			expect(t, c.send(c.rid-by, "", message(7)), terminated("item-not-found"))
		}
		c.st.send(message(1))
		expect(t, held, payload(message(1)))
		isHeld(t, c.next("", message(2)))
		c.handled(t, message(2))
	})
}

// XEP-0124 §14.2: above the window the session ends.
func TestOutsideTheWindow(t *testing.T) {
	for _, tt := range []struct {
		name string
		by   int
		body string
	}{
		{"far ahead", 1000, ""}, {"just ahead", 3, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, h *harness) {
				c := h.login(createAttrs)
				held := c.next("", "")
				isHeld(t, held)
				expect(t, c.send(uint64(int(c.rid)+tt.by), "", ""), terminated("item-not-found"))
				expect(t, held, terminated("other-request"))
				expect(t, c.next("", ""), terminated("item-not-found"))
				c.lastEvent(t, lost(ErrRejected))
			})
		})
	}
}

// XEP-0124 §11: more requests than are allowed, while none is answered.
func TestTooManyRequests(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		block := make(chan struct{})
		c.st.hook = func(string) { <-block }
		a, b := c.next("", message(1)), c.next("", message(2))
		isHeld(t, a)
		isHeld(t, b)
		if a := c.next("", message(3)).wait(); a.body != terminated("policy-violation") {
			t.Fatalf("got %v", a)
		}
		close(block)
		expect(t, a, terminated("other-request"))
		c.lastEvent(t, lost(ErrRejected))
	})
}

// XEP-0124 §11: one more may end the session, or pause it.
func TestOneMoreRequest(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		block := make(chan struct{})
		c.st.hook = func(string) { <-block }
		a, b := c.next("", message(1)), c.next("", message(2))
		isHeld(t, a)
		isHeld(t, b)
		end := c.next(" type='terminate'", message(3))
		isHeld(t, end)
		close(block)
		expect(t, a, emptyBody)
		end.wait()
		c.handled(t, message(1), message(2), message(3))
		c.lastEvent(t, "lost:nil")
	})
}

// XEP-0124 §11: empty requests while another is held, more than once in too short a time.
func TestTooFrequentRequests(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		a := c.next("", "")
		isHeld(t, a)
		b := c.next("", "") // a page that was loaded anew does that
		expect(t, a, emptyBody)
		isHeld(t, b)
		expect(t, c.next("", ""), terminated("policy-violation"))
		expect(t, b, terminated("other-request"))
	})
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		for range 5 {
			p := c.next("", "")
			isHeld(t, p)
			time.Sleep(5 * time.Second)
		}
		for i := range 5 { // and requests that are not empty are as frequent as they like
			isHeld(t, c.next("", message(i)))
		}
	})
}

// XEP-0124 §12.
func TestPolling(t *testing.T) {
	for _, attrs := range []string{
		strings.Replace(createAttrs, "hold='1'", "hold='0'", 1),
		strings.Replace(createAttrs, "wait='60'", "wait='0'", 1),
	} {
		bubble(t, nil, func(t *testing.T, h *harness) {
			a := h.post(wrap(1, attrs, "")).wait()
			if got := attr(a.body, "inactivity"); got != "70" {
				t.Fatalf("inactivity %s", got)
			}
			<-h.svc.streams
			c := h.login(attrs)
			time.Sleep(5 * time.Second)
			expect(t, c.next("", ""), emptyBody)
			c.st.send(message(1))
			time.Sleep(5 * time.Second)
			expect(t, c.next("", ""), payload(message(1)))
			expect(t, c.next("", ""), emptyBody) // the last one had something
			expect(t, c.next("", message(2)), emptyBody)
			expect(t, c.next("", ""), emptyBody)
			time.Sleep(4 * time.Second)
			expect(t, c.next("", ""), terminated("policy-violation"))
			c.lastEvent(t, lost(ErrRejected))
		})
	}
}

// XEP-0124 §10.
func TestPause(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		held := c.next("", "")
		isHeld(t, held)
		p := c.next(" pause='100'", "")
		expect(t, held, emptyBody)
		expect(t, p, emptyBody)
		c.st.send(message(1)) // waits for the next request
		time.Sleep(99 * time.Second)
		expect(t, c.next("", ""), payload(message(1)))
		time.Sleep(61 * time.Second) // as usual again
		c.lastEvent(t, lost(ErrInactive))
	})
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		c.next(" pause='10'", "").wait()
		time.Sleep(11 * time.Second)
		c.lastEvent(t, lost(ErrInactive))
	})
	for pause, cond := range map[string]string{"121": "policy-violation", "-1": "bad-request", "x": "bad-request", "99999999999": "bad-request"} {
		bubble(t, nil, func(t *testing.T, h *harness) {
			c := h.login(createAttrs)
			expect(t, c.next(" pause='"+pause+"'", ""), terminated(cond))
		})
	}
	bubble(t, func(c *Config) { c.MaxPause = 0 }, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		expect(t, c.next(" pause='1'", ""), terminated("bad-request"))
	})
}

// XEP-0124 §9.1: the gateway says what it received.
func TestRequestAcknowledgements(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs + " ack='1'")
		p := c.next("", message(1))
		isHeld(t, p)
		q := c.next("", message(2))
		expect(t, p, fmt.Sprintf(`<body xmlns='http://jabber.org/protocol/httpbind' ack='%d'/>`, c.rid))
		c.st.send(message(3))
		expect(t, q, payload(message(3))) // its own rid goes without saying
	})
}

// XEP-0124 §9.2: the client says what it received.
func TestResponseAcknowledgements(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs + " ack='1'")
		c.st.send(message(1))
		c.next("", "").wait()
		isHeld(t, c.next("", "")) // no ack: it has everything
		c.lastEvent(t, "proved:1")
		c.st.send(message(2))
		synctest.Wait()
		time.Sleep(time.Second)
		lostRID := c.rid
		p := c.next(fmt.Sprintf(" ack='%d'", lostRID-1), "")
		want := fmt.Sprintf(`<body xmlns='http://jabber.org/protocol/httpbind' report='%d' time='1000'/>`, lostRID)
		expect(t, p, want)
		expect(t, c.send(lostRID, "", ""), payload(message(2)))
		c.lastEvent(t, "proved:1")
		isHeld(t, c.next("", ""))
		c.lastEvent(t, "proved:2")
	})
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs + " ack='1'")
		expect(t, c.next(" ack='x'", ""), terminated("bad-request"))
	})
}

// Without acknowledgements a request proves the response to the one that many before it (contract 4).
func TestProof(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := c.next("", "")
		isHeld(t, p)
		c.st.send(message(1))
		expect(t, p, payload(message(1)))
		p = c.next("", "")
		isHeld(t, p)
		if got := c.st.seen(); strings.HasPrefix(got[len(got)-1], "proved:1") {
			t.Fatal("proved by a request that may have been under way")
		}
		// When the session wants to know, the held request is answered, for another one to come.
		c.st.t.Probe()
		expect(t, p, emptyBody)
		p = c.next("", "")
		isHeld(t, p)
		c.lastEvent(t, "proved:1")
		c.st.t.Probe()
		isHeld(t, p)
	})
}

// A request whose predecessor never comes does not wait for ever.
func TestGap(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := c.send(c.rid+2, "", message(1))
		isHeld(t, p)
		time.Sleep(119 * time.Second)
		isHeld(t, p)
		time.Sleep(2 * time.Second)
		expect(t, p, terminated("item-not-found"))
		c.lastEvent(t, lost(ErrInactive))
	})
}

// Contract 1: a response that was not safe is not written; the client asks again.
func TestSettle(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		settled := make(chan struct{})
		h.svc.mu.Lock()
		h.svc.settled = settled
		h.svc.mu.Unlock()
		p := c.next("", message(1))
		c.st.send(message(2))
		isHeld(t, p)
		p.cancel()
		p.wait()
		p = c.send(c.rid, "", message(1))
		isHeld(t, p)
		close(settled)
		expect(t, p, payload(message(2)))
	})
}
