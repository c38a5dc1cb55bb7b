package bosh

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// XEP-0124 §7, XEP-0206 §3, §4.
func TestCreation(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		a := h.post(wrap(1000, createAttrs+" ack='1' content='text/html' route='xmpp:example.com:9999'", "")).wait()
		for name, want := range map[string]string{
			"wait": "60", "requests": "2", "hold": "1", "inactivity": "60", "maxpause": "120", "polling": "5", "ver": "1.6",
			"from": "localhost", "ack": "1000", "authid": "stream1", "xmpp:restartlogic": "true", "xmpp:version": "1.0",
			"charsets": "UTF-8", "xml:lang": "en",
		} {
			if got := attr(a.body, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if sid := attr(a.body, "sid"); len(sid) != 32 {
			t.Errorf("sid %q", sid)
		}
		if !strings.HasSuffix(a.body, ">"+features+"</body>") {
			t.Errorf("no features: %s", a.body)
		}
		if got := a.header.Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Errorf("Content-Type %q", got)
		}
		if _, err := testScan(a.body); err != nil {
			t.Errorf("not well-formed: %v", err)
		}
	})
}

// XEP-0206 §5, XEP-0124 §8: log in, chat, wait.
func TestChat(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		begin := time.Now()
		held := c.next("", "")
		if a := held.now(); a != nil {
			t.Fatalf("an empty request was answered: %v", a)
		}
		// A request with a stanza takes the held one's place.
		second := c.next("", message(1))
		if a := held.now(); a == nil || a.body != emptyBody {
			t.Fatalf("got %v", a)
		}
		if a := second.now(); a != nil {
			t.Fatalf("answered: %v", a)
		}
		c.st.send(message(2), message(3))
		if a := second.now(); a == nil || a.body != `<body xmlns='http://jabber.org/protocol/httpbind'>`+message(2)+message(3)+`</body>` {
			t.Fatalf("got %v", a)
		}
		if got := c.st.s.handled; len(got) != 1 || got[0] != message(1) {
			t.Fatalf("handled %q", got)
		}
		third := c.next("", "")
		a := third.wait()
		if took := a.at.Sub(begin); a.body != emptyBody || took < 59*time.Second || took > 60*time.Second {
			t.Fatalf("got %v after %v", a, took)
		}
	})
}

// XEP-0124 §10.
func TestInactivity(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if got := c.st.seen(); strings.HasPrefix(got[len(got)-1], "lost") {
			t.Fatal("ended too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := c.st.seen(); got[len(got)-1] != lost(ErrInactive) {
			t.Fatalf("events %q", got)
		}
		if a := c.next("", "").wait(); a.body != terminated("item-not-found") {
			t.Fatalf("got %v", a)
		}
	})
}
