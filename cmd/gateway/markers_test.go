package main

import (
	"slices"
	"testing"

	"holdfast/internal/testkit/xmppclient"
)

// Receipts and markers for somebody who is away, over a real socket and across a kill or a restart: every receipt comes, and of the
// markers the last (XEP-0184, XEP-0333).
func TestReceiptsAndMarkersWait(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) {
		n := startNode(t, t.TempDir(), env)
		n.addUsers("alice", "bob")
		alice, bob := n.bound("alice"), n.bound("bob")
		bob.available()
		for _, id := range []string{"1", "2", "3"} {
			alice.send("<message xmlns='jabber:client' type='chat' id='" + id + "' to='bob@localhost'><body>" + id + "</body>" +
				"<request xmlns='urn:xmpp:receipts'/><markable xmlns='urn:xmpp:chat-markers:0'/></message>")
		}
		var from string
		for range 3 {
			from = bob.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" }).Attr("from")
		}
		alice.Abort() // and its session with it, which cannot be resumed
		n.await("rid of alice", func() bool {
			bob.send("<iq xmlns='jabber:client' type='get' id='there' to='" + from + "'><query xmlns='urn:xmpp:ping'/></iq>")
			e := bob.until(func(e *xmppclient.Element) bool { return e.Attr("id") == "there" })
			return e.StanzaError() == "service-unavailable"
		})
		say := func(typ, inner string) {
			bob.send("<message xmlns='jabber:client' type='" + typ + "' to='" + from + "'>" + inner + "</message>")
		}
		marker := func(kind, id string) string {
			return "<" + kind + " xmlns='urn:xmpp:chat-markers:0' id='" + id + "'/>"
		}
		for _, id := range []string{"1", "2", "3"} {
			say("chat", "<received xmlns='urn:xmpp:receipts' id='"+id+"'/>")
			say("chat", marker("received", id))
			say("normal", marker("displayed", id))
			say("chat", "<thread>t</thread>"+marker("displayed", id))
		}
		say("chat", marker("received", "4"))
		bob.quiet()

		n = n.again()
		alice = n.bound("alice")
		alice.available()
		var got []string
		for range 6 {
			e := alice.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
			for _, c := range e.Children {
				switch c.Name.Space {
				case "urn:xmpp:receipts", "urn:xmpp:chat-markers:0":
					got = append(got, c.Name.Local+" "+c.Attr("id"))
				}
			}
		}
		if want := []string{"received 1", "received 2", "received 3", "displayed 3", "displayed 3", "received 4"}; !slices.Equal(got, want) {
			t.Errorf("alice got %q, want %q", got, want)
		}
		alice.quiet()
	})
}
