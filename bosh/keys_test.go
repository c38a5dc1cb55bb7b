package bosh

import (
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"testing"
)

// sequence makes the keys of a sequence, the last one first (XEP-0124 §15.2).
func sequence(seed string, n int) []string {
	keys := make([]string, n)
	k := seed
	for i := n - 1; i >= 0; i-- {
		sum := sha1.Sum([]byte(k))
		k = hex.EncodeToString(sum[:])
		keys[i] = k
	}
	return keys
}

func keyed(k string) string { return " key='" + k + "'" }

func (h *harness) loginKeyed(keys []string) *client {
	h.t.Helper()
	c := h.create(createAttrs + " newkey='" + keys[0] + "'")
	for i, inner := range []string{
		`<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>x</auth>`,
		`<iq type='set' id='b' xmlns='jabber:client'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>`,
	} {
		if a := c.next(keyed(keys[i+1]), inner).wait(); a.body == "" || attr(a.body, "type") != "" {
			h.t.Fatalf("got %v", a)
		}
	}
	return c
}

// XEP-0124 §15.
func TestKeys(t *testing.T) {
	keys := sequence("seed", 8)
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.loginKeyed(keys)
		// Out of order, in capitals, and switching to another sequence.
		second := c.send(c.rid+2, keyed(keys[4]), message(2))
		isHeld(t, second)
		first := c.send(c.rid+1, keyed(keys[3]), message(1))
		expect(t, first, emptyBody)
		c.rid += 2
		more := sequence("another", 3)
		isHeld(t, c.next(keyed(keys[5])+" newkey='"+strings.ToUpper(more[0])+"'", message(3)))
		expect(t, second, emptyBody)
		isHeld(t, c.next(keyed(more[1]), message(4)))
		// Sent again, it must be the same.
		expect(t, c.send(c.rid-1, keyed(keys[5])+" newkey='"+more[0]+"'", message(3)), emptyBody)
		c.handled(t, message(1), message(2), message(3), message(4))
		h.restart()
		isHeld(t, c.send(c.rid, keyed(more[1]), message(4)))
		p := c.next(keyed(more[2]), message(5))
		isHeld(t, p)
		if got := h.svc.sids[c.sid].handled; len(got) != 5 {
			t.Fatalf("handled %q", got)
		}
		expect(t, c.send(c.rid, keyed(keys[0]), message(5)), terminated("item-not-found"))
	})
}

// XEP-0124 §15.4: who has the sid and the rid but not the key gets nothing, and nothing is handled.
func TestWrongKeys(t *testing.T) {
	keys := sequence("seed", 8)
	for name, attrs := range map[string]string{
		"none": "", "empty": " key=''", "short": " key='ab'", "the same again": keyed(keys[2]), "one further": keyed(keys[4]),
		"newkey only": " newkey='" + keys[3] + "'", "bad newkey": keyed(keys[3]) + " newkey='x'",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, h *harness) {
				c := h.loginKeyed(keys)
				expect(t, c.next(attrs, message(1)), terminated("item-not-found"))
				c.handled(t)
				c.lastEvent(t, lost(ErrRejected))
			})
		})
	}
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.loginKeyed(keys)
		isHeld(t, c.next(keyed(keys[3]), message(1)))
		expect(t, c.send(c.rid, keyed(keys[4]), message(1)), terminated("item-not-found"))
	})
	bubble(t, nil, func(t *testing.T, h *harness) {
		if a := h.post(wrap(1, createAttrs+" newkey='x'", "")).wait(); a.body != terminated("bad-request") {
			t.Fatalf("got %v", a)
		}
	})
}
