package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/xmppclient"
)

const (
	nsOffline    = "http://jabber.org/protocol/offline"
	nsDiscoInfo  = "http://jabber.org/protocol/disco#info"
	nsDiscoItems = "http://jabber.org/protocol/disco#items"
)

// offlineNodes asks for the headers of the mailbox (XEP-0013 §2.3).
func (c *client) offlineNodes() (nodes, senders []string) {
	c.t.Helper()
	q := c.iq("get", "<query xmlns='"+nsDiscoItems+"' node='"+nsOffline+"'/>").Child(nsDiscoItems, "query")
	for _, it := range q.Children {
		if it.Is(nsDiscoItems, "item") {
			nodes, senders = append(nodes, it.Attr("node")), append(senders, it.Attr("name"))
		}
	}
	return nodes, senders
}

// offline sends an <offline/> request and returns the messages before its answer, as "body node", and the answer.
func (c *client) offline(kind, inner string) (shown []string, answer *xmppclient.Element) {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='" + kind + "' id='offline'><offline xmlns='" + nsOffline + "'>" + inner + "</offline></iq>")
	answer = c.until(func(e *xmppclient.Element) bool {
		if e.Name.Local == "message" {
			c.delayed(e)
			shown = append(shown, e.Child("", "body").Text+" "+e.Child(nsOffline, "offline").Child(nsOffline, "item").Attr("node"))
		}
		return e.Name.Local == "iq" && e.Attr("id") == "offline"
	})
	return shown, answer
}

// delayed checks that a stored message says when it was sent, and who kept it (XEP-0203, XEP-0160 §3).
func (c *client) delayed(e *xmppclient.Element) {
	c.t.Helper()
	d := e.Child("urn:xmpp:delay", "delay")
	if d == nil {
		c.t.Errorf("without a delay: %v", e)
		return
	}
	at, err := time.Parse(time.RFC3339, d.Attr("stamp"))
	if age := time.Since(at); err != nil || age < 0 || age > 2*patience || d.Attr("from") != "localhost" {
		c.t.Errorf("delay from %q at %q, %v", d.Attr("from"), d.Attr("stamp"), err)
	}
}

func onBothBackends(t *testing.T, f func(t *testing.T, env map[string]string)) {
	t.Run("SQLite", func(t *testing.T) { f(t, nil) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, map[string]string{"DATABASE_URL": postgresproc.New(t)}) })
}

func action(name string, nodes ...string) (s string) {
	for _, n := range nodes {
		s += "<item action='" + name + "' node='" + n + "'/>"
	}
	return s
}

// XEP-0013 over a real socket, and across a restart: what was removed stays so, and who chose is given nothing.
func TestFlexibleRetrieval(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), env)
		n.addUsers("alice", "bob")
		alice := n.managed("alice", "")
		alice.chat("bob@localhost", "1", "2", "3", "4", "5")
		alice.acked(5)

		bob := n.managed("bob", "")
		info := bob.iq("get", "<query xmlns='"+nsDiscoInfo+"' node='"+nsOffline+"'/>").Child(nsDiscoInfo, "query")
		if s := info.String(); !strings.Contains(s, "message-list") || !strings.Contains(s, "5") {
			t.Errorf("§2.2: %s", s)
		}
		nodes, senders := bob.offlineNodes()
		if len(nodes) != 5 || !slices.IsSorted(nodes) || senders[0] != alice.JID {
			t.Fatalf("§2.3: %v of %v", nodes, senders)
		}
		if got, e := bob.offline("get", action("view", nodes[3], nodes[1])); e.Attr("type") != "result" || !slices.Equal(got, []string{"4 " + nodes[3], "2 " + nodes[1]}) {
			t.Errorf("§2.4: %q, %v", got, e)
		}
		if _, e := bob.offline("set", action("remove", nodes[0], nodes[3])); e.Attr("type") != "result" {
			t.Errorf("§2.5: %v", e)
		}
		for _, a := range []string{"view", "remove"} {
			kind := map[string]string{"view": "get", "remove": "set"}[a]
			if got, e := bob.offline(kind, action(a, nodes[1], nodes[0])); e.StanzaError() != "item-not-found" || len(got) > 0 {
				t.Errorf("%s of one that was removed: %q, %v", a, got, e)
			}
		}
		alice.send(fmt.Sprintf("<iq xmlns='jabber:client' type='get' id='ask' to='bob@localhost'><query xmlns='%s' node='%s'/></iq>", nsDiscoItems, nsOffline))
		if e := alice.until(func(e *xmppclient.Element) bool { return e.Name.Local == "iq" }); e.StanzaError() != "forbidden" {
			t.Errorf("somebody else's mailbox: %v", e)
		}

		bob.acked(6) // that a request was answered says nothing about what outlives a kill
		n = n.next(n.image(), nil)
		bob = n.resumed("bob", bob, 6)
		bob.available()
		bob.quiet()
		if got, e := bob.offline("get", "<fetch/>"); e.Attr("type") != "result" || !slices.Equal(got, []string{"2 " + nodes[1], "3 " + nodes[2], "5 " + nodes[4]}) {
			t.Errorf("§2.6: %q, %v", got, e)
		}
		if _, e := bob.offline("set", "<purge/>"); e.Attr("type") != "result" {
			t.Errorf("§2.7: %v", e)
		}
		n = n.next(n.image(), nil)
		bob = n.bound("bob")
		if nodes, _ := bob.offlineNodes(); len(nodes) > 0 {
			t.Errorf("after the purge there are %v", nodes)
		}
		bob.available()
		bob.quiet()
	})
}

// A mailbox that is longer than a page is fetched whole, without and with acknowledgements, and still there.
func TestFetchOfALongMailbox(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		const many = 250
		env = mapsWith(env, "OFFLINE_LIMIT", "0")
		n := startNode(t, t.TempDir(), env)
		n.addUsers("alice", "bob")
		alice := n.managed("alice", "")
		var want []string
		for i := range many {
			want = append(want, fmt.Sprint(i))
		}
		alice.chat("bob@localhost", want...)
		alice.acked(many)
		for _, managed := range []bool{false, true} {
			bob := n.bound("bob")
			if managed {
				bob.Abort()
				bob = n.managed("bob", "")
			}
			bob.send("<iq xmlns='jabber:client' type='get' id='f'><offline xmlns='" + nsOffline + "'><fetch/></offline></iq>")
			var got []string
			bob.until(func(e *xmppclient.Element) bool {
				if e.Name.Local == "message" {
					bob.delayed(e)
					got = append(got, e.Child("", "body").Text)
					if managed && bob.in%20 == 0 {
						bob.ack()
					}
				}
				return e.Attr("id") == "f"
			})
			if !slices.Equal(got, want) {
				t.Errorf("managed %v: got %d of %d", managed, len(got), many)
			}
			if nodes, _ := bob.offlineNodes(); len(nodes) != many {
				t.Errorf("managed %v: %d are left", managed, len(nodes))
			}
		}
	})
}

func mapsWith(m map[string]string, k, v string) map[string]string {
	out := map[string]string{k: v}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Whatever way a message took into the mailbox, it comes out with the time at which it was sent (XEP-0203).
func TestStoredMessagesSayWhenTheyWereSent(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), mapsWith(env, "RESUME_TIMEOUT", "1s"))
		n.addUsers("alice", "bob")
		alice := n.managed("alice", "")
		alice.chat("bob@localhost", "stored")
		alice.acked(1)
		bob := n.managed("bob", "")
		bob.available()
		bob.delayed(bob.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" }))
		bob.ack()
		bob.acked(1)
		bob.Abort()
		alice.chat("bob@localhost", "to a session that is cut") // and never comes back: its queue is stored
		alice.acked(2)
		n.await("the session's end", func() bool {
			_, text := n.body("/metrics")
			return line(text, "holdfast_offline_messages") == "holdfast_offline_messages 1"
		})
		bob = n.managed("bob", "")
		bob.available()
		e := bob.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
		if got := e.Child("", "body").Text; got != "to a session that is cut" {
			t.Errorf("got %q", got)
		}
		bob.delayed(e)
	})
}
