package main

import (
	"context"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	"holdfast/auth"
	"holdfast/internal/testkit/xmppclient"
)

// guest logs in by SASL ANONYMOUS with a trace (XEP-0175), and binds.
func (n *node) guest(trace string) *client {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	c := dialed(n)
	if err := c.Open(ctx, "localhost"); err != nil {
		n.t.Fatal(err)
	}
	mechanisms := c.Features.Child(xmppclient.NSSASL, "mechanisms")
	if mechanisms == nil || !slices.ContainsFunc(mechanisms.Children, func(m *xmppclient.Element) bool { return m.Text == auth.Anonymous }) {
		n.t.Fatalf("ANONYMOUS is not offered: %v", c.Features)
	}
	ask := func(frame, want string) *xmppclient.Element {
		if err := c.Write(ctx, frame); err != nil {
			n.t.Fatal(err)
		}
		e, err := c.Read(ctx)
		if err != nil || e.Name.Local != want {
			n.t.Fatalf("%s: %v, %v", frame, e, err)
		}
		return e
	}
	ask("<auth xmlns='"+xmppclient.NSSASL+"' mechanism='ANONYMOUS'>"+base64.StdEncoding.EncodeToString([]byte(trace))+"</auth>", "success")
	if err := c.Open(ctx, "localhost"); err != nil {
		n.t.Fatal(err)
	}
	bound := ask("<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "iq")
	c.JID = bound.Child("urn:ietf:params:xml:ns:xmpp-bind", "bind").Child("", "jid").Text
	return &client{Conn: c, t: n.t}
}

// Guests write to whom the operator named and to nobody else, get what was sent to them while they were away, and are
// the same again when they bring the secret, after a restart of the gateway too.
func TestGuests(t *testing.T) {
	n := startNode(t, t.TempDir(), map[string]string{"GUEST_CONTACTS": "support@localhost"})
	n.addUsers("support", "boss")
	support := n.bound("support")
	support.available()
	secret := "holdfast:" + strings.Repeat("A1", 22)
	g := n.guest(secret)
	if !strings.HasPrefix(g.JID, "guest-") {
		t.Fatalf("the guest is %s", g.JID)
	}
	g.available()
	g.chat("support@localhost", "help")
	if got := support.bodies(1); got[0] != "help" {
		t.Errorf("support got %v", got)
	}
	g.chat("boss@localhost", "help")
	if e := g.next(); e.StanzaError() != "forbidden" {
		t.Errorf("the boss: %v", e)
	}
	g.send("<presence xmlns='jabber:client' type='unavailable'/>")
	g.quiet()
	who := bareOf(g)
	g.Abort()
	support.chat(who, "are you there")
	support.quiet()
	n = n.next(n.image(), nil)
	again := n.guest(secret)
	if bareOf(again) != who {
		t.Errorf("%s came back as %s", who, again.JID)
	}
	again.available()
	if got := again.bodies(1); got[0] != "are you there" {
		t.Errorf("the guest got %v", got)
	}
	if other := n.guest(""); bareOf(other) == who {
		t.Errorf("somebody else is %s too", who)
	}
}

// The web client is on the listener for clients, and the demo only where it is asked for.
func TestWebClientIsServed(t *testing.T) {
	for demo, want := range map[string]int{"false": http.StatusNotFound, "true": http.StatusOK} {
		n := startNode(t, t.TempDir(), map[string]string{"DEMO": demo})
		for path, want := range map[string]int{"/": want, "/widget.js": http.StatusOK, "/nothing": http.StatusNotFound} {
			resp, err := plainHTTP.Get("http://" + n.cfg.Listen + path)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("DEMO=%s, %s: %d", demo, path, resp.StatusCode)
			}
		}
	}
}
