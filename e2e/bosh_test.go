package e2e

import (
	"strings"
	"testing"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// TestBOSHStockClients is TestStockClients over BOSH, under Node and in a page of another origin, and across transports.
func TestBOSHStockClients(t *testing.T) {
	long(t)
	needClients(t)
	g := gatewayproc.Start(t, forPages())
	for _, p := range [][2]string{
		{stropheBOSH, xmppjs}, {xmppjs, stropheBOSH}, {stropheBOSH, stropheBOSH}, {chromium, strophe}, {stropheBOSH, chromium},
	} {
		t.Run(p[0]+" and "+p[1], func(t *testing.T) {
			romeo, juliet := "romeo-"+p[0]+"-"+p[1], "juliet-"+p[0]+"-"+p[1]
			g.AddUsers(romeo, juliet)
			meet(t, at(g), p, romeo, juliet)
		})
	}
}

// attachable tells what attaches to a client's session.
func (c *nodeClient) attachable() map[string]any {
	c.t.Helper()
	c.command(map[string]any{"cmd": "session"})
	var e *nodeEvent
	c.wait("what attaches to the session", func() bool {
		e = c.session
		return e != nil
	})
	return map[string]any{"jid": e.JID, "sid": e.SID, "rid": e.RID}
}

// interested asks for the clients' rosters, so that they are told of subscriptions (RFC 6121 §2.2).
func interested(clients ...*nodeClient) {
	for _, c := range clients {
		c.iq("get", "", "<query xmlns='jabber:iq:roster'/>")
	}
}

func withID(id string) func(*xmppclient.Element) bool {
	return func(e *xmppclient.Element) bool { return e.Name.Local == "message" && e.Attr("id") == id }
}

// TestBOSHAttach: a process is gone without a word, another one attaches to the session with sid and rid, gets what came
// meanwhile, and the contacts notice nothing.
func TestBOSHAttach(t *testing.T) {
	long(t)
	needClients(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("romeo", "juliet")
	r, j := startStock(t, g, stropheBOSH, "romeo"), startStock(t, g, xmppjs, "juliet")
	r.awaitOnline()
	j.awaitOnline()
	interested(r, j)
	subscribe(t, j, r)
	j.send("%s", requesting(r.jid, "m1", "are you there"))
	r.expect("m1", withID("m1"))
	jid, session := r.jid, r.attachable()
	r.end()
	j.send("%s", requesting(jid, "m2", "and now"))
	j.send("%s", requesting(jid, "m3", "and then"))
	r = launch(t, stropheBOSH, "romeo", map[string]any{"service": g.BOSHURL(), "attach": session}, nil, nil)
	r.expect("m2", withID("m2"))
	r.expect("m3", withID("m3"))
	if r.jid != jid {
		t.Errorf("attached as %q, was %q", r.jid, jid)
	}
	r.send("%s", receipt(j.jid, "m3"))
	j.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m3" })
	if e := r.iq("get", gatewayproc.Domain, "<ping xmlns='urn:xmpp:ping'/>"); e.Attr("type") != "result" {
		t.Errorf("a ping of the server: %v", e)
	}
	r.nothingMore("message")
	j.nothingMore("presence")
	r.stop()
	j.expect("the other's leaving", func(e *xmppclient.Element) bool { return presence(e, jid, "unavailable") })
	j.stop()
}

// nothingMore sees that no stanza of that name has come that nobody took.
func (c *nodeClient) nothingMore(name string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.stanzas {
		if e.Name.Local == name && e.Attr("from") != c.jid {
			c.t.Errorf("%s (%s) got %v as well", c.name, c.library, e)
		}
	}
}

// TestBOSHReload: a page in Chromium is reloaded and goes on with its session, with attach and with strophe's own restore.
func TestBOSHReload(t *testing.T) {
	long(t)
	needClients(t)
	g := gatewayproc.Start(t, forPages())
	g.AddUsers("romeo", "juliet")
	r, j := startStock(t, g, chromium, "romeo"), startStock(t, g, strophe, "juliet")
	r.awaitOnline()
	j.awaitOnline()
	interested(r, j)
	subscribe(t, j, r)
	jid := r.jid
	for i, how := range []string{"attach", "restore", "attach"} {
		id := how + string(rune('0'+i))
		r.command(map[string]any{"cmd": "reload", "how": how})
		r.wait("the session again", func() bool { return r.resumed == i+1 })
		j.send("%s", requesting(jid, id, "you after "+how))
		r.expect(id, withID(id))
		r.send("%s", receipt(j.jid, id))
		j.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == id })
		r.screenshot("chromium-" + id)
	}
	if r.jid != jid || r.fresh != 1 {
		t.Errorf("%d sessions, now as %q, began as %q", r.fresh, r.jid, jid)
	}
	r.nothingMore("message")
	j.nothingMore("presence")
	r.stop()
	j.expect("the other's leaving", func(e *xmppclient.Element) bool { return presence(e, jid, "unavailable") })
	j.stop()
}

// TestBOSHForeignOrigin: a page that is not allowed to connect does not.
func TestBOSHForeignOrigin(t *testing.T) {
	long(t)
	needClients(t)
	g := gatewayproc.Start(t, map[string]string{"HOLDFAST_ORIGINS": "https://elsewhere.example"})
	g.AddUsers("romeo")
	r := startStock(t, g, chromium, "romeo")
	r.wait("the browser to refuse", func() bool {
		return strings.Contains(strings.Join(r.logs, "\n"), "blocked by CORS policy")
	})
	if r.online || r.fresh > 0 {
		t.Error("the page is online")
	}
}

// TestConverse: converse.js logs in over BOSH with its own form, chats and gets receipts, and goes on after a reload.
func TestConverse(t *testing.T) {
	long(t)
	needClients(t)
	g := gatewayproc.Start(t, forPages())
	g.AddUsers("romeo", "juliet")
	j := startStock(t, g, xmppjs, "juliet")
	before := startStock(t, g, strophe, "romeo")
	before.awaitOnline()
	j.awaitOnline()
	interested(j, before)
	subscribe(t, j, before)
	subscribe(t, before, j)
	before.stop()

	r := startConverse(t, g, "romeo")
	r.awaitOnline()
	if !strings.HasPrefix(r.jid, bare("romeo")+"/") {
		t.Errorf("converse.js is online as %q", r.jid)
	}
	j.expect("the other's presence", func(e *xmppclient.Element) bool { return presence(e, r.jid, "") })
	j.send("%s", requesting(bare("romeo"), "m1", "But soft, what light"))
	r.command(map[string]any{"cmd": "open", "jid": bare("juliet")})
	r.read("But soft, what light")
	j.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m1" })
	r.command(map[string]any{"cmd": "say", "text": "through yonder window breaks?"})
	m := j.expect("the answer", func(e *xmppclient.Element) bool { return e.Name.Local == "message" && e.Child("", "body") != nil })
	if m.Attr("from") != r.jid || m.Child("", "body").Text != "through yonder window breaks?" || m.Child("urn:xmpp:receipts", "request") == nil {
		t.Errorf("the answer is %v", m)
	}
	j.send("%s", receipt(m.Attr("from"), m.Attr("id")))
	r.screenshot("converse-chat")

	r.command(map[string]any{"cmd": "reload"})
	r.wait("the session again", func() bool { return r.resumed == 1 })
	j.send("%s", requesting(r.jid, "m2", "It is the east"))
	r.read("It is the east")
	j.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m2" })
	r.screenshot("converse-reloaded")
	if r.fresh != 1 {
		t.Errorf("%d sessions", r.fresh)
	}
	r.stop()
	j.stop()
}
