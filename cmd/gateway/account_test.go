package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"holdfast/internal/journal"
	"holdfast/internal/sqlx"
	"holdfast/internal/testkit/xmppclient"
	"holdfast/stanza"
)

func openDB(t testing.TB, dir string) *sqlx.DB {
	t.Helper()
	cfg := sqlx.DefaultConfig()
	cfg.Dir = dir
	db, err := sqlx.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// badSession is a stored session whose presence can't be read.
func badSession() []byte {
	return (&journal.Session{
		Ord: 1, Addr: stanza.MustParseAddr("zoe@localhost/x"), Token: "zoe", Managed: true, Max: time.Hour,
		Presence: []byte("<presence"), CreatedAt: time.Now(),
	}).Append(nil)
}

const rosterNS = "jabber:iq:roster"

func contactsOf(c *client) (items []string) {
	c.t.Helper()
	e := c.iq("get", "<query xmlns='"+rosterNS+"'/>")
	for _, i := range e.Child(rosterNS, "query").Children {
		items = append(items, i.Attr("jid")+" "+i.Attr("subscription"))
	}
	slices.Sort(items)
	return items
}

// befriend makes two users see each other (RFC 6121 §3.1).
func befriend(a, b *client) {
	a.t.Helper()
	contactsOf(a) // whoever did not ask for the roster hears nothing of approvals (RFC 6121 §3.1.6)
	contactsOf(b)
	for _, pair := range [][2]*client{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		from.send("<presence xmlns='jabber:client' type='subscribe' to='" + bareOf(to) + "'/>")
		to.until(func(e *xmppclient.Element) bool { return e.Attr("type") == "subscribe" })
		to.send("<presence xmlns='jabber:client' type='subscribed' to='" + bareOf(from) + "'/>")
		from.until(func(e *xmppclient.Element) bool { return e.Attr("type") == "subscribed" })
	}
}

func bareOf(c *client) string { return stanza.MustParseAddr(c.JID).Bare().String() }

// `gateway user remove` beside a running gateway: the user's sessions end, those who saw the user hear of it, and
// nothing of the user is left for whoever gets the name next, not even after a kill.
func TestUserIsRemovedWhileRunning(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob", "carol")
	alice, bob, carol := n.managed("alice", ""), n.managed("bob", ""), n.bound("carol")
	alice.available()
	bob.available()
	befriend(alice, bob)
	if got := contactsOf(alice); !slices.Equal(got, []string{"bob@localhost both"}) {
		t.Fatalf("alice's roster is %v", got)
	}
	alice.send("<presence xmlns='jabber:client' type='unavailable'/>")
	bob.send("<presence xmlns='jabber:client' type='unavailable'/>")
	carol.chat("bob@localhost", "for the old bob")
	carol.quiet()
	n.user("", "remove", "bob")
	if conditions, _ := bob.end(); !slices.Equal(conditions, []string{"not-authorized"}) {
		t.Errorf("bob was sent away with %v", conditions)
	}
	n.await("rid of bob", func() bool { return len(contactsOf(alice)) == 0 || contactsOf(alice)[0] == "bob@localhost none" })
	c := dialed(n)
	if err := c.Prepare(t.Context(), n.account("bob")); err == nil {
		t.Error("bob can log in")
	}
	carol.chat("bob@localhost", "nobody")
	if e := carol.next(); e.StanzaError() != "service-unavailable" {
		t.Errorf("carol got %v", e)
	}

	n.await("done with the removal", func() bool { return pendingRemovals(t, n) == 0 })
	n.addUsers("bob")
	check := func(n *node) {
		t.Helper()
		again := n.bound("bob")
		again.available()
		again.quiet()
		if got := contactsOf(again); len(got) != 0 {
			t.Errorf("the new bob knows %v", got)
		}
		if _, e := n.resume("bob", bob); e.Name.Local != "failed" {
			t.Errorf("the new bob resumed the old one's session: %v", e)
		}
	}
	t.Run("same process", func(*testing.T) { check(n) })
	t.Run("after a kill", func(*testing.T) { check(n.next(n.image(), nil)) })
}

func pendingRemovals(t testing.TB, n *node) (pending int) {
	t.Helper()
	db := openDB(t, n.dir())
	defer func() { _ = db.Close() }()
	if err := db.Read.QueryRow(`SELECT count(*) FROM auth_change WHERE pending = 1`).Scan(&pending); err != nil {
		t.Fatal(err)
	}
	return pending
}

func dialed(n *node) *xmppclient.Conn {
	n.t.Helper()
	c, err := xmppclient.Dial(context.Background(), n.url)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(c.Abort)
	return c
}

// A user who is removed while the gateway is down is gone when it starts.
func TestUserIsRemovedWhileDown(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice, bob := n.managed("alice", ""), n.managed("bob", "")
	bob.available()
	bob.Abort()
	alice.chat("bob@localhost", "1")
	alice.acked(1)
	n.stop()
	n.user("", "remove", "bob")
	n = n.next(n.dir(), nil)
	n.await("done with the removal", func() bool { return pendingRemovals(t, n) == 0 })
	n.addUsers("bob")
	if _, e := n.resume("bob", bob); e.Name.Local != "failed" {
		t.Errorf("the new bob resumed the old one's session: %v", e)
	}
	again := n.bound("bob")
	again.available()
	again.quiet()
}

// Who is added again right after the removal loses nothing to it.
func TestUserIsAddedAgainAtOnce(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice := n.managed("alice", "")
	for i := 1; i <= 5; i++ {
		n.user("", "remove", "bob")
		n.addUsers("bob")
		alice.chat("bob@localhost", fmt.Sprint(i))
		alice.acked(i) // held for bob, who is offline
		n.await("done with the removal", func() bool { return pendingRemovals(t, n) == 0 })
		bob := n.bound("bob")
		bob.available()
		if got := bob.bodies(1); got[0] != fmt.Sprint(i) {
			t.Errorf("bob got %q", got)
		}
		bob.Abort()
	}
}

// A removal while no gateway runs is carried out by the next one, and the name cannot be used before.
func TestUserIsAddedAgainWhileDown(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice := n.managed("alice", "")
	alice.chat("bob@localhost", "to the old bob")
	alice.acked(1)
	n.stop()
	n.user("", "remove", "bob")
	n.addUsers("bob")
	n = n.next(n.dir(), nil)
	n.await("done with the removal", func() bool { return pendingRemovals(t, n) == 0 })
	bob := n.bound("bob")
	bob.available()
	bob.quiet()
}

// XEP-0077: registration is off unless asked for.
func TestRegistration(t *testing.T) {
	const ns = "jabber:iq:register"
	register := "<iq xmlns='jabber:client' type='set' id='reg' to='localhost'><query xmlns='" + ns + "'><username>dora</username><password>" + password("dora") + "</password></query></iq>"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	t.Run("off", func(t *testing.T) {
		n := startNode(t, t.TempDir(), nil)
		c := dialed(n)
		if err := c.Open(ctx, "localhost"); err != nil {
			t.Fatal(err)
		}
		if c.Features.Child("", "register") != nil {
			t.Error("registration is offered")
		}
		if err := c.Write(ctx, register); err != nil {
			t.Fatal(err)
		}
		if e, err := c.Read(ctx); err == nil && e.Attr("type") == "result" {
			t.Errorf("registered: %v", e)
		}
	})
	t.Run("open", func(t *testing.T) {
		n := startNode(t, t.TempDir(), map[string]string{"REGISTRATION": "open"})
		c := dialed(n)
		if err := c.Open(ctx, "localhost"); err != nil {
			t.Fatal(err)
		}
		if c.Features.Child("", "register") == nil {
			t.Error("registration is not offered")
		}
		if err := c.Write(ctx, register); err != nil {
			t.Fatal(err)
		}
		e, err := c.Read(ctx)
		if err != nil || e.Attr("type") != "result" {
			t.Fatalf("%v, %v", e, err)
		}
		dora := n.bound("dora")
		dora.available()
		dora.send("<iq xmlns='jabber:client' type='set' id='gone'><query xmlns='" + ns + "'><remove/></query></iq>")
		if e := dora.next(); e.Attr("id") != "gone" || e.Attr("type") != "result" {
			t.Errorf("removal was answered with %v", e)
		}
		if conditions, _ := dora.end(); !slices.Equal(conditions, []string{"not-authorized"}) {
			t.Errorf("dora was sent away with %v", conditions)
		}
		if err := dialed(n).Prepare(ctx, n.account("dora")); err == nil {
			t.Error("dora can log in")
		}
	})
}
