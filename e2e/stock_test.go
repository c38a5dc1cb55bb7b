package e2e

import (
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// pairs are the libraries against each other.
var pairs = [][2]string{{strophe, xmppjs}, {xmppjs, strophe}, {strophe, strophe}, {xmppjs, xmppjs}}

// TestStockClients is what two people do with stock clients: they meet, see each other and talk.
func TestStockClients(t *testing.T) {
	long(t)
	needClients(t)
	g := gatewayproc.Start(t, nil)
	for _, p := range pairs {
		t.Run(p[0]+" and "+p[1], func(t *testing.T) {
			romeo, juliet := "romeo-"+p[0]+"-"+p[1], "juliet-"+p[0]+"-"+p[1]
			g.AddUsers(romeo, juliet)
			meet(t, at(g), p, romeo, juliet)
		})
	}
}

// starter runs a client of that name.
type starter func(t *testing.T, library, name string) *nodeClient

// at starts clients of one gateway.
func at(g *gatewayproc.Gateway) starter {
	return func(t *testing.T, library, name string) *nodeClient {
		t.Helper()
		return startStock(t, g, library, name)
	}
}

func meet(t *testing.T, start starter, libraries [2]string, romeo, juliet string) {
	r := start(t, libraries[0], romeo)
	j := start(t, libraries[1], juliet)
	for _, c := range []*nodeClient{r, j} {
		c.awaitOnline()
		if want := bare(c.name) + "/" + c.library; c.jid != want {
			t.Errorf("bound %q, want %q", c.jid, want)
		}
	}
	askTheServer(t, r)
	askTheServer(t, j)

	// RFC 6121 §2: the roster.
	if items := r.iq("get", "", "<query xmlns='jabber:iq:roster'/>").Child("jabber:iq:roster", "query"); items == nil || len(items.Children) > 0 {
		t.Errorf("a new user's roster is %v", items)
	}
	if e := j.iq("get", "", "<query xmlns='jabber:iq:roster'/>"); e.Attr("type") != "result" {
		t.Errorf("roster: %v", e)
	}
	set := "<query xmlns='jabber:iq:roster'><item jid='" + bare(juliet) + "' name='Juliet'><group>Capulets</group></item></query>"
	if e := r.iq("set", "", set); e.Attr("type") != "result" {
		t.Errorf("roster set: %v", e)
	}
	push := r.expect("the roster push", isPush(juliet, "none"))
	item := push.Child("jabber:iq:roster", "query").Child("", "item")
	if item.Attr("name") != "Juliet" || item.Child("", "group") == nil || item.Child("", "group").Text != "Capulets" {
		t.Errorf("pushed %v", push)
	}

	// RFC 6121 §3: both subscribe, and §4: they see each other's presence.
	subscribe(t, r, j)
	subscribe(t, j, r)
	r.expect("the pushed state both", isPush(juliet, "both"))
	r.send("<presence xmlns='jabber:client'><show>away</show><status>on the balcony</status></presence>")
	away := j.expect("the change of presence", func(e *xmppclient.Element) bool {
		return presence(e, r.jid, "") && e.Child("", "show") != nil
	})
	if away.Child("", "show").Text != "away" || away.Child("", "status").Text != "on the balcony" {
		t.Errorf("presence: %v", away)
	}

	// RFC 6121 §5 and XEP-0184: a message and its receipt, each way.
	for _, w := range [][2]*nodeClient{{r, j}, {j, r}} {
		from, to := w[0], w[1]
		from.send("<message xmlns='jabber:client' type='chat' id='m-1' to='%s'><body>Wherefore &lt;art&gt; thou? \u2764</body>"+
			"<request xmlns='urn:xmpp:receipts'/></message>", bare(to.name))
		m := to.expect("the message", func(e *xmppclient.Element) bool { return e.Name.Local == "message" && e.Attr("id") == "m-1" })
		if m.Attr("from") != from.jid || m.Child("", "body").Text != "Wherefore <art> thou? \u2764" || m.Child("urn:xmpp:receipts", "request") == nil {
			t.Errorf("message: %v", m)
		}
		if id := m.Child("urn:xmpp:sid:0", "stanza-id"); id.Attr("id") == "" || id.Attr("by") != bare(to.name) {
			t.Errorf("the stanza id (XEP-0359) of %v is %v", m, id)
		}
		to.send("<message xmlns='jabber:client' id='r-1' to='%s'><received xmlns='urn:xmpp:receipts' id='m-1'/></message>", m.Attr("from"))
		from.expect("the receipt", func(e *xmppclient.Element) bool {
			return e.Name.Local == "message" && e.Child("urn:xmpp:receipts", "received").Attr("id") == "m-1"
		})
	}

	// XEP-0199 §4.4: client to client.
	if e := r.iq("get", j.jid, "<ping xmlns='urn:xmpp:ping'/>"); e.Attr("type") != "result" {
		t.Errorf("a ping of the other client: %v", e)
	}

	// RFC 6121 §4.5, and XEP-0160 for what comes while nobody is there.
	j.stop()
	r.expect("the other's leaving", func(e *xmppclient.Element) bool { return presence(e, j.jid, "unavailable") })
	r.send("<message xmlns='jabber:client' type='chat' id='m-2' to='%s'><body>Good night, good night</body></message>", bare(juliet))
	if e := r.iq("get", j.jid, "<ping xmlns='urn:xmpp:ping'/>"); e.StanzaError() != "service-unavailable" {
		t.Errorf("a ping of a client that left (RFC 6121 §8.5.3.2.3): %v", e)
	}
	j = start(t, libraries[1], juliet)
	late := j.expect("the message that came meanwhile", func(e *xmppclient.Element) bool { return e.Name.Local == "message" && e.Attr("id") == "m-2" })
	if late.Child("urn:xmpp:delay", "delay") == nil {
		t.Errorf("%v has no delay stamp (XEP-0203)", late)
	}
	r.expect("the other's return", func(e *xmppclient.Element) bool { return presence(e, j.jid, "") })
	j.stop()
	r.stop()
}

// askTheServer is what the server itself answers.
func askTheServer(t *testing.T, c *nodeClient) {
	t.Helper()
	info := c.iq("get", gatewayproc.Domain, "<query xmlns='http://jabber.org/protocol/disco#info'/>").
		Child("http://jabber.org/protocol/disco#info", "query")
	var features []string
	if info != nil {
		for _, f := range info.Children {
			features = append(features, f.Attr("var"))
		}
	}
	if id := info.Child("", "identity"); id.Attr("category") != "server" || id.Attr("type") != "im" {
		t.Errorf("identity (XEP-0030 §3.1): %v", id)
	}
	for _, want := range []string{"http://jabber.org/protocol/disco#info", "msgoffline", "urn:xmpp:ping", "jabber:iq:version", "urn:xmpp:time"} {
		if !strings.Contains(" "+strings.Join(features, " ")+" ", " "+want+" ") {
			t.Errorf("disco#info lacks %s; it has %q", want, features)
		}
	}
	for _, q := range []struct{ payload, space, child string }{
		{"<query xmlns='http://jabber.org/protocol/disco#items'/>", "http://jabber.org/protocol/disco#items", "query"},
		{"<query xmlns='jabber:iq:version'/>", "jabber:iq:version", "query"},
		{"<time xmlns='urn:xmpp:time'/>", "urn:xmpp:time", "time"},
	} {
		if e := c.iq("get", gatewayproc.Domain, q.payload); e.Attr("type") != "result" || e.Child(q.space, q.child) == nil {
			t.Errorf("%s is answered with %v", q.payload, e)
		}
	}
	if e := c.iq("get", gatewayproc.Domain, "<ping xmlns='urn:xmpp:ping'/>"); e.Attr("type") != "result" {
		t.Errorf("a ping of the server: %v", e)
	}
	if e := c.iq("get", gatewayproc.Domain, "<query xmlns='urn:example:unheard-of'/>"); e.StanzaError() != "service-unavailable" {
		t.Errorf("an unknown request: %v", e)
	}
}

// subscribe lets one ask for the other's presence and get it (RFC 6121 §3.1).
func subscribe(t *testing.T, from, to *nodeClient) {
	t.Helper()
	from.send("<presence xmlns='jabber:client' type='subscribe' to='%s'/>", bare(to.name))
	to.expect("the request to subscribe", func(e *xmppclient.Element) bool { return presence(e, bare(from.name), "subscribe") })
	to.send("<presence xmlns='jabber:client' type='subscribed' to='%s'/>", bare(from.name))
	from.expect("the approval", func(e *xmppclient.Element) bool { return presence(e, bare(to.name), "subscribed") })
	from.expect("the other's presence", func(e *xmppclient.Element) bool { return presence(e, to.jid, "") })
}

func presence(e *xmppclient.Element, from, kind string) bool {
	return e.Name.Local == "presence" && e.Attr("from") == from && e.Attr("type") == kind
}

func isPush(contact, subscription string) func(*xmppclient.Element) bool {
	return func(e *xmppclient.Element) bool {
		item := e.Child("jabber:iq:roster", "query").Child("", "item")
		return e.Name.Local == "iq" && e.Attr("type") == "set" && item.Attr("jid") == bare(contact) && item.Attr("subscription") == subscription
	}
}

// TestStockReceiptThatNeverComes is TestReceiptThatNeverComes and TestLateReceipt with stock clients.
func TestStockReceiptThatNeverComes(t *testing.T) {
	long(t)
	needClients(t)
	for _, p := range append(pairs[:2:2], [2]string{stropheBOSH, stropheBOSH}) {
		t.Run(p[0]+" to "+p[1], func(t *testing.T) {
			g := gatewayproc.Start(t, receiptSettings(receiptTime))
			g.AddUsers("sender", "taker")
			s := startStock(t, g, p[0], "sender")
			r := startStock(t, g, p[1], "taker")
			s.awaitOnline()
			r.awaitOnline()
			got := func(c *nodeClient, id string) *xmppclient.Element {
				return c.expect("message "+id, func(e *xmppclient.Element) bool { return e.Name.Local == "message" && e.Attr("id") == id })
			}
			// No receipt: it is in offline storage after the timeout, although the client acknowledged the stanza.
			sent := time.Now()
			s.send("%s", requesting(bare("taker"), "m1", "no receipt for this"))
			got(r, "m1")
			awaitFallback(t, g, sent)
			r.stop()
			r = startStock(t, g, p[1], "taker")
			if m := got(r, "m1"); m.Child("urn:xmpp:delay", "delay") == nil {
				t.Errorf("%v has no delay stamp (XEP-0203)", m)
			}
			// A late receipt takes it away.
			r.send("%s", receipt(s.jid, "m1"))
			s.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m1" })
			if !await(within(t, 10*time.Second), func() bool { return offlineCopies(g) == 0 }) {
				t.Error("the message is in offline storage still")
			}
			sent = time.Now()
			s.send("%s", requesting(bare("taker"), "m2", "the receipt will be late"))
			got(r, "m2")
			awaitFallback(t, g, sent)
			r.send("%s", receipt(s.jid, "m2"))
			s.expect("the late receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m2" })
			r.stop()
			nothingWaits(t, g, "taker")
			s.stop()
		})
	}
}
