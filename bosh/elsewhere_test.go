package bosh

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// neighbour is another node, by its Server.
type neighbour struct {
	to  *Server
	err error
}

func (n *neighbour) Forward(ctx context.Context, _, node string, request []byte) ([]byte, error) {
	if n.err != nil {
		return nil, n.err
	}
	if node != "a" {
		return nil, errors.New("no such node")
	}
	return n.to.Serve(ctx, request), nil
}

// A request that lands on another node is served where the session is, and answered where it landed.
func TestElsewhere(t *testing.T) {
	bubble(t, func(c *Config) { c.Node, c.MaxHold = "a", 2 }, func(t *testing.T, h *harness) {
		c := h.login(createAttrs + " content='text/html'")
		if !strings.HasPrefix(c.sid, "a.") {
			t.Fatalf("sid %q", c.sid)
		}
		other := &harness{t: t, svc: newFakeService(), cfg: config(func(c *Config) { c.Node = "b" })}
		link := &neighbour{to: h.Server}
		other.elsewhere = link
		other.start()
		defer other.stop()
		there := &client{harness: other, sid: c.sid, rid: c.rid}
		p := there.next("", message(1))
		isHeld(t, p)
		c.handled(t, message(1))
		c.st.send(message(2))
		expect(t, p, payload(message(2)))
		if got := p.wait().header.Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Fatalf("Content-Type %q", got)
		}
		// Its connection breaks, and the client asks here.
		p = there.next("", message(3))
		isHeld(t, p)
		p.cancel()
		p.wait()
		synctest.Wait()
		here := c.send(there.rid, "", message(3))
		isHeld(t, here)
		c.st.send(message(4))
		expect(t, here, payload(message(4)))
		c.handled(t, message(1), message(3))

		link.err = errors.New("not now")
		if a := there.next("", "").wait(); a.status != 503 {
			t.Fatalf("got %v", a)
		}
		// Nobody has it: this node goes on with it.
		h.svc.kill()
		other.svc.sids = h.svc.sids
		link.err = ErrHere
		isHeld(t, there.send(there.rid, "", message(5)))
		if got := other.svc.sids[c.sid].handled; len(got) != 3 {
			t.Fatalf("handled %q", got)
		}
		if a := other.post(wrap(1, " sid='a.nobody'", "")).wait(); a.body != terminated("item-not-found") {
			t.Fatalf("got %v", a)
		}
	})
}

func TestForwardedRequests(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		for _, b := range []string{"", "x", "\x01", "\x01\x00\xff", "\x01\x00\x03abc<body/>", "\x02\x00\x00<body/>"} {
			c := newCall()
			if !c.readResponse(h.Serve(context.Background(), []byte(b))) || !strings.Contains(string(c.out.b), "bad-request") {
				t.Errorf("%q: got %q", b, c.out.b)
			}
			c.free()
		}
		c := newCall()
		defer c.free()
		for _, b := range []string{"", "\x01\x00\x00\xc8", "\x01\x00\x00\xc8\x10a", "\x01\x00\x00\x01\x00", "\x02\x00\x00\xc8\x00"} {
			if c.readResponse([]byte(b)) {
				t.Errorf("%q was accepted", b)
			}
		}
	})
}
