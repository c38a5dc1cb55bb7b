package bosh

import (
	"testing"
)

// A process dies with a request held, one whose response was lost and one that was handled in part.
func TestContinue(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		first := c.next("", message(1))
		first.now()
		c.st.send(message(10), message(11))
		want := first.wait().body
		held := c.next("", message(2)+message(3))
		if a := held.now(); a != nil {
			t.Fatalf("answered: %v", a)
		}
		h.restart()
		if a := held.wait(); a.err == nil && a.status == 200 {
			t.Fatalf("got %v from a dead process", a)
		}
		// The same bytes again, though the response was another process's.
		if a := c.send(c.rid-1, "", message(1)).wait(); a.body != want {
			t.Fatalf("got %v, want %s", a, want)
		}
		// What was handled is not handled again, what was not is.
		again := c.send(c.rid, "", message(2)+message(3)+message(4))
		if a := again.now(); a != nil {
			t.Fatalf("answered: %v", a)
		}
		s := h.svc.sids[c.sid]
		if got := s.handled; len(got) != 4 || got[1] != message(2) || got[2] != message(3) || got[3] != message(4) {
			t.Fatalf("handled %q", got)
		}
		s.stream.send(message(12))
		if a := again.wait(); a.body != `<body xmlns='http://jabber.org/protocol/httpbind'>`+message(12)+`</body>` {
			t.Fatalf("got %v", a)
		}
		next := c.next("", message(5))
		if a := next.now(); a != nil || len(s.handled) != 5 {
			t.Fatalf("got %v, handled %q", a, s.handled)
		}
		if a := c.send(c.rid+1, "", message(6)).now(); a != nil {
			t.Fatalf("got %v", a)
		}
		if a := next.wait(); a.body != emptyBody {
			t.Fatalf("got %v", a)
		}
	})
}
