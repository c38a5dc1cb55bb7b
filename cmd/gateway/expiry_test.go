package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/xmppclient"
)

// again is the next process after a kill. With a database of its own that is one after a proper end, since what counts
// as killed here runs on, and would go on with what is in the database.
func (n *node) again() *node {
	n.t.Helper()
	if n.env["DATABASE_URL"] == "" {
		return n.next(n.image(), nil)
	}
	n.stop()
	return n.next(n.dir(), nil)
}

const nsAMP = "http://jabber.org/protocol/amp"

// Messages that say when they expire, over a real socket, on both backends and across a kill or a restart: nobody gets them after that,
// and only who asked for it hears of it (XEP-0023, XEP-0079 §4.3.2).
func TestExpiringMessages(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), env)
		n.addUsers("alice", "bob")
		alice, bob := n.managed("alice", ""), n.managed("bob", "")
		alice.available()
		bob.available()
		befriend(alice, bob)
		bob.send("<presence xmlns='jabber:client' type='unavailable'/>")
		alice.until(func(e *xmppclient.Element) bool { return e.Attr("type") == "unavailable" })
		began := time.Now()
		at := began.Add(3 * time.Second).UTC()
		say := func(id, inner string) {
			alice.send("<message xmlns='jabber:client' type='chat' id='" + id + "' to='bob@localhost'><body>" + id + "</body>" + inner + "</message>")
		}
		rule := func(action string) string {
			return "<amp xmlns='" + nsAMP + "'><rule action='" + action + "' condition='expire-at' value='" + at.Format("2006-01-02T15:04:05.000Z") + "'/></amp>"
		}
		say("1", "")
		say("2", rule("error"))
		say("3", rule("drop"))
		say("4", "<x xmlns='jabber:x:expire' seconds='2'/>")
		say("5", "<x xmlns='jabber:x:expire' seconds='3600'/>")
		say("6", rule("notify"))
		say("7", rule("alert"))
		alice.quiet()

		alice.Abort() // so that a proper end waits for nobody
		bob.Abort()
		n = n.again()
		// What was due before, the old process may have taken out of a database that both have.
		counts := env == nil || time.Since(began) < 2*time.Second
		var e *xmppclient.Element
		if alice, e = n.resume("alice", alice); e.Name.Local != "resumed" {
			t.Fatalf("alice's session: %v", e)
		}
		told := map[string]string{}
		for len(told) < 2 {
			e := alice.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
			if time.Now().Before(at) {
				t.Errorf("too early: %v", e)
			}
			told[e.Attr("id")] = e.Child(nsAMP, "amp").Attr("status")
		}
		if told["2"] != "error" || told["7"] != "alert" {
			t.Errorf("alice was told %v", told)
		}
		alice.quiet()
		bob = n.bound("bob")
		if nodes, _ := bob.offlineNodes(); len(nodes) != 3 {
			t.Errorf("%d messages are left", len(nodes))
		}
		bob.Abort()
		bob = n.bound("bob")
		bob.available()
		if got := bob.bodies(3); !slices.Equal(got, []string{"1", "5", "6"}) {
			t.Errorf("bob got %q", got)
		}
		e = alice.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
		if e.Attr("id") != "6" || e.Child(nsAMP, "amp").Attr("status") != "notify" {
			t.Errorf("of the late delivery alice was told %v", e)
		}
		if _, metrics := n.body("/metrics"); counts && (!strings.Contains(metrics, `holdfast_offline_expired_total{reason="expire_at"} 3`) ||
			!strings.Contains(metrics, `holdfast_offline_expired_total{reason="seconds"} 1`)) {
			t.Error("not counted by reason")
		}
	})
}
