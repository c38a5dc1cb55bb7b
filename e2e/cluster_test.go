package e2e

import (
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
	"holdfast/internal/testkit/xmppclient"
)

// basics is what two people do whose clients are on two nodes.
func basics(t *testing.T, one, other *gatewayproc.Gateway) {
	t.Helper()
	one.AddUsers("anna", "bert", "cleo")
	a, b := available(t, one, "anna", ""), available(t, other, "bert", "")

	// A message and its receipt (XEP-0184), each way.
	for _, w := range [][2]*user{{a, b}, {b, a}} {
		from, to := w[0], w[1]
		from.send(requesting(strings.Split(to.JID, "/")[0], "m1", "hello across"))
		m := to.message("hello across")
		if m.Attr("from") != from.JID || m.Child("urn:xmpp:sid:0", "stanza-id").Attr("id") == "" {
			t.Errorf("from %s: %v", from.JID, m)
		}
		to.send(receipt(m.Attr("from"), m.Attr("id")))
		from.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m1" })
	}

	// A request and its answer (RFC 6120 §8.2.3), and one to a client that is not there (RFC 6121 §8.5.3.2.3).
	a.send("<iq xmlns='jabber:client' type='get' id='q1' to='" + b.JID + "'><query xmlns='jabber:iq:version'/></iq>")
	q := b.expect("the request", func(e *xmppclient.Element) bool { return e.Name.Local == "iq" && e.Attr("id") == "q1" })
	b.send("<iq xmlns='jabber:client' type='result' id='q1' to='" + q.Attr("from") + "'><query xmlns='jabber:iq:version'><name>test</name></query></iq>")
	answer := a.expect("the answer", func(e *xmppclient.Element) bool { return e.Name.Local == "iq" && e.Attr("id") == "q1" })
	if answer.Attr("from") != b.JID || answer.Child("jabber:iq:version", "query").Child("", "name") == nil {
		t.Errorf("answered with %v", answer)
	}
	a.send("<iq xmlns='jabber:client' type='get' id='q2' to='" + bare("bert") + "/nobody'><ping xmlns='urn:xmpp:ping'/></iq>")
	if e := a.expect("an error", func(e *xmppclient.Element) bool { return e.Attr("id") == "q2" }); e.StanzaError() != "service-unavailable" {
		t.Errorf("a request to a client that is not there: %v", e)
	}

	// A message for somebody who is away (XEP-0160) waits, wherever the login is.
	a.chat(bare("cleo"), "are you there")
	a.alive()
	c := available(t, other, "cleo", "")
	if m := c.message("are you there"); m.Child("urn:xmpp:delay", "delay") == nil {
		t.Errorf("%v has no delay stamp (XEP-0203)", m)
	}
	// And for somebody who does not exist there is an error (RFC 6121 §8.5.1).
	a.chat(bare("zoe"), "and you")
	if e := a.expect("an error", func(e *xmppclient.Element) bool { return e.Attr("type") == "error" }); e.StanzaError() != "service-unavailable" {
		t.Errorf("a message for nobody: %v", e)
	}
	for _, u := range []*user{a, b, c} {
		u.silent()
	}
}

func TestClusterBasics(t *testing.T) {
	long(t)
	nodes := startCluster(t, 2, leased(longLease, nil))
	basics(t, nodes[0], nodes[1])
}

// TestClusterTwoDevices: two clients of one user on two nodes are sessions of one user: both get what comes to the bare
// address (RFC 6121 §8.5.2.1), and see each other.
func TestClusterTwoDevices(t *testing.T) {
	long(t)
	nodes := startCluster(t, 3, leased(longLease, nil))
	nodes[0].AddUsers("anna", "bert")
	phone := available(t, nodes[0], "bert", "phone")
	desk := available(t, nodes[1], "bert", "desk")
	phone.expect("the other's presence", func(e *xmppclient.Element) bool { return presence(e, desk.JID, "") })
	desk.expect("the other's presence", func(e *xmppclient.Element) bool { return presence(e, phone.JID, "") })
	a := available(t, nodes[2], "anna", "")
	for _, text := range []string{"one", "two", "three"} {
		a.chat(bare("bert"), text)
	}
	for _, u := range []*user{phone, desk} {
		for _, text := range []string{"one", "two", "three"} {
			u.message(text)
		}
		u.chat(a.JID, "from "+u.JID)
		a.message("from " + u.JID)
	}
	// To a full address only that one gets it.
	a.chat(desk.JID, "for the desk")
	desk.message("for the desk")
	// A roster push goes to both (RFC 6121 §2.1.6).
	desk.send("<iq xmlns='jabber:client' type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>")
	desk.expect("the roster", func(e *xmppclient.Element) bool { return e.Attr("id") == "r1" })
	phone.send("<iq xmlns='jabber:client' type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>")
	phone.expect("the roster", func(e *xmppclient.Element) bool { return e.Attr("id") == "r1" })
	desk.send("<iq xmlns='jabber:client' type='set' id='r2'><query xmlns='jabber:iq:roster'><item jid='" + bare("anna") + "'/></query></iq>")
	desk.expect("the push", isPush("anna", "none"))
	phone.expect("the push", isPush("anna", "none"))
	// When the first leaves properly, the other goes on.
	if err := phone.Leave(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
	desk.expect("the other's leaving", func(e *xmppclient.Element) bool { return presence(e, phone.JID, "unavailable") })
	a.chat(bare("bert"), "four")
	desk.message("four")
	desk.silent()
	a.silent()
}

// TestClusterPresence: subscriptions, roster pushes and presence (RFC 6121 §§2-4) between two nodes.
func TestClusterPresence(t *testing.T) {
	long(t)
	nodes := startCluster(t, 2, leased(longLease, nil))
	nodes[0].AddUsers("anna", "bert")
	a, b := available(t, nodes[0], "anna", ""), available(t, nodes[1], "bert", "")
	for _, u := range []*user{a, b} {
		u.send("<iq xmlns='jabber:client' type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
		u.expect("the roster", func(e *xmppclient.Element) bool { return e.Attr("id") == "roster" })
	}
	ask := func(from, to *user, name, toName string) {
		from.send("<presence xmlns='jabber:client' type='subscribe' to='" + bare(toName) + "'/>")
		to.expect("the request", func(e *xmppclient.Element) bool { return presence(e, bare(name), "subscribe") })
		to.send("<presence xmlns='jabber:client' type='subscribed' to='" + bare(name) + "'/>")
		from.expect("the approval", func(e *xmppclient.Element) bool { return presence(e, bare(toName), "subscribed") })
		from.expect("the other's presence", func(e *xmppclient.Element) bool { return presence(e, to.JID, "") })
	}
	ask(a, b, "anna", "bert")
	a.expect("the push", isPush("bert", "to"))
	b.expect("the push", isPush("anna", "from"))
	ask(b, a, "bert", "anna")
	a.expect("the push", isPush("bert", "both"))
	b.expect("the push", isPush("anna", "both"))

	a.send("<presence xmlns='jabber:client'><show>away</show></presence>")
	b.expect("the change", func(e *xmppclient.Element) bool {
		return presence(e, a.JID, "") && e.Child("", "show") != nil && e.Child("", "show").Text == "away"
	})
	// Who comes anew sees who is there, and is seen.
	again := available(t, nodes[0], "bert", "second")
	again.send("<iq xmlns='jabber:client' type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")
	again.expect("the other's presence", func(e *xmppclient.Element) bool { return presence(e, a.JID, "") })
	a.expect("the new one's presence", func(e *xmppclient.Element) bool { return presence(e, again.JID, "") })
	// A client that is cut off without stream management is gone, for others too (RFC 6121 §4.5).
	b.Abort()
	a.expect("the leaving", func(e *xmppclient.Element) bool { return presence(e, b.JID, "unavailable") })
	a.send("<iq xmlns='jabber:client' type='set' id='rm'><query xmlns='jabber:iq:roster'><item jid='" + bare("bert") + "' subscription='remove'/></query></iq>")
	a.expect("the push", isPush("bert", "remove"))
	again.expect("the end of the subscription", func(e *xmppclient.Element) bool { return presence(e, bare("anna"), "unsubscribed") })
}

// TestClusterConflict: a client that binds a resource on another node replaces the one that had it (RFC 6120 §7.7.2.2).
func TestClusterConflict(t *testing.T) {
	long(t)
	nodes := startCluster(t, 2, leased(longLease, nil))
	nodes[0].AddUsers("anna", "bert")
	old := available(t, nodes[0], "anna", "phone")
	b := available(t, nodes[1], "bert", "")
	now := available(t, nodes[1], "anna", "phone")
	if now.JID != old.JID {
		t.Errorf("bound %s, want %s", now.JID, old.JID)
	}
	e := old.expect("a stream error", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSStream, "error") })
	if e.Condition() != "conflict" {
		t.Errorf("%v, want conflict", e)
	}
	b.chat(bare("anna"), "who is it")
	now.message("who is it")
	now.silent()
}

// TestClusterUserRemoved: an account that the operator removes is gone on all nodes.
func TestClusterUserRemoved(t *testing.T) {
	long(t)
	nodes := startCluster(t, 2, leased(longLease, nil))
	nodes[0].AddUsers("anna", "bert")
	a, b := available(t, nodes[0], "anna", ""), available(t, nodes[1], "bert", "")
	b.chat(bare("anna"), "still here")
	a.message("still here")
	nodes[1].Command("user", "remove", "anna")
	e := a.expect("the end of its stream", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSStream, "error") })
	t.Logf("the removed user is told %s", e.Condition())
	b.chat(bare("anna"), "and now")
	if e := b.expect("an error", func(e *xmppclient.Element) bool { return e.Attr("type") == "error" }); e.StanzaError() != "service-unavailable" {
		t.Errorf("a message for a removed user: %v", e)
	}
	for i, g := range nodes {
		if _, err := xmppclient.Login(within(t, 10*time.Second), g.URL(), account("anna", "")); err == nil {
			t.Errorf("gateway %d lets the removed user in", i)
		}
	}
	// Somebody who gets the name anew gets nothing of the old one's.
	nodes[0].AddUsers("anna")
	// What another process did to an account may go unseen for a moment (AUTH_CACHE_AGE).
	known := func() bool {
		c, err := xmppclient.Login(t.Context(), nodes[1].URL(), account("anna", "probe"))
		if err == nil {
			c.Abort()
		}
		return err == nil
	}
	if !await(within(t, 5*time.Second), known) {
		t.Fatal("the new account is not let in")
	}
	available(t, nodes[1], "anna", "").silent()
}

// TestClusterMembers: every node knows who is there.
func TestClusterMembers(t *testing.T) {
	long(t)
	nodes := startCluster(t, 3, nil)
	nodes[1].Kill()
	awaitMembers(t, nodes, 2)
	nodes[1].Run()
	awaitMembers(t, nodes, 3)
	if code, took := nodes[2].Term(20 * time.Second); code != 0 {
		t.Errorf("exit code %d after %v", code, took)
	}
	awaitMembers(t, nodes, 2)
}

// TestClusterSettings: what cannot be a cluster does not start, and says why.
func TestClusterSettings(t *testing.T) {
	long(t)
	redis, database := redisproc.Shared(t).URL(), postgresproc.New(t)
	for name, c := range map[string]struct {
		redis, database, more string
		says                  string
	}{
		"Redis without PostgreSQL": {redis: redis, says: "HOLDFAST_DATABASE_URL"},
		"Redis with SQLite":        {redis: redis, database: "sqlite:x", says: "HOLDFAST_DATABASE_URL"},
		"a Redis URL that is none": {redis: "http://127.0.0.1:6379", database: database, says: "HOLDFAST_REDIS_URL"},
		"a database that is none":  {redis: redis, database: "mysql://127.0.0.1/x", says: "HOLDFAST_DATABASE_URL"},
		"a lease that is too short": {
			redis: redis, database: database, more: "HOLDFAST_CLUSTER_LEASE=100ms", says: "HOLDFAST_CLUSTER_LEASE",
		},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"HOLDFAST_REDIS_URL": c.redis, "HOLDFAST_DATABASE_URL": c.database}
			if k, v, ok := strings.Cut(c.more, "="); ok {
				env[k] = v
			}
			g := gatewayproc.New(t, env)
			if code, out := g.Fails("serve"); code != 2 || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d, %q", code, out)
			}
		})
	}
	t.Run("a Redis that is not there", func(t *testing.T) {
		g := gatewayproc.New(t, map[string]string{"HOLDFAST_REDIS_URL": "redis://127.0.0.1:1", "HOLDFAST_DATABASE_URL": database})
		if code, out := g.Fails("serve"); code != 1 || !strings.Contains(out, "HOLDFAST_REDIS_URL") && !strings.Contains(out, "127.0.0.1:1") {
			t.Errorf("exit code %d, %q", code, out)
		}
	})
}
