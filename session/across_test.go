package session

import (
	"slices"
	"testing"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// two is juliet at the first node and romeo at the second one.
func two(m *mesh) (juliet, romeo *client) {
	return m.nodes[0].managed("juliet/balcony").available(), m.nodes[1].managed("romeo/orchard").available()
}

func TestStanzasAcrossNodes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		m.atHome(m.nodes[0], "juliet", 1)
		m.atHome(m.nodes[1], "romeo", 1)
		romeo.chat("juliet", "1")
		romeo.chat("juliet/balcony", "2")
		romeo.send("<iq xmlns='jabber:client' type='get' id='q' to='" + juliet.addr.String() + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		romeo.send("<presence xmlns='jabber:client' to='" + juliet.addr.String() + "'/>")
		juliet.want("message romeo/orchard 1", "message romeo/orchard 2", "iq get q", "presence romeo/orchard")
		juliet.send("<iq xmlns='jabber:client' type='result' id='q' to='" + romeo.addr.String() + "'/>")
		romeo.want("iq result q")
		// Sent twice, carried out once.
		m.nodes[0].repeat()
		m.nodes[1].repeat()
		juliet.want()
		romeo.want()
		romeo.request()
		romeo.want("a 5")
	})
}

func TestIDsAreTheHomes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		romeo.chat("juliet", "1")
		for _, e := range juliet.frames() {
			if id, ok := e.Find(stanza.NSStanzaID, "stanza-id"); e.Kind() == stanza.Message && (!ok || id.Attr("by") != addr("juliet").String()) {
				t.Errorf("no id by the recipient's account: %s", e.Raw())
			}
		}
		if n := m.nodes[1].journal.kinds(); n[journal.KindForward] == 0 {
			t.Errorf("records at the sender's node: %v", n)
		}
	})
}

func TestOrderAcrossNodes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		m.delay = 20 * time.Millisecond
		for _, n := range numbers(1, 30) {
			romeo.chat("juliet", n)
		}
		for range 12 {
			m.rest()
		}
		if got := juliet.bodiesOf(); !slices.Equal(got, numbers(1, 30)) {
			t.Errorf("got %q", got)
		}
	})
}

func TestErrorsComeBackAcrossNodes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		_, romeo := two(m)
		for _, x := range []struct{ send, want string }{
			{"<iq xmlns='jabber:client' type='get' id='q' to='" + addr("juliet/none").String() + "'><ping xmlns='urn:xmpp:ping'/></iq>", "iq error q service-unavailable"},
			{"<iq xmlns='jabber:client' type='result' id='q' to='" + addr("juliet/none").String() + "'/>", ""},
			{"<iq xmlns='jabber:client' type='get' id='v' to='" + addr("juliet").String() + "'><query xmlns='jabber:iq:version'/></iq>", "iq error v service-unavailable"},
			{"<iq xmlns='jabber:client' type='get' id='d' to='" + addr("juliet").String() + "'><query xmlns='" + nsDiscoInfo + "'/></iq>", "iq error d service-unavailable"},
			{"<message xmlns='jabber:client' type='groupchat' to='" + addr("juliet").String() + "' id='g'><body>x</body></message>", "message error juliet service-unavailable"},
			{"<message xmlns='jabber:client' type='chat' to='" + addr("nobody").String() + "' id='n'><body>x</body></message>", "message error nobody service-unavailable"},
			{"<message xmlns='jabber:client' type='error' to='" + addr("nobody").String() + "' id='n'><body>x</body></message>", ""},
			{"<iq xmlns='jabber:client' type='get' id='d' to='" + addr("nobody").String() + "'><query xmlns='" + nsDiscoInfo + "'/></iq>", "iq error d service-unavailable"},
			{"<iq xmlns='jabber:client' type='get' id='d' to='" + addr("nobody/x").String() + "'><query xmlns='" + nsDiscoInfo + "'/></iq>", "iq error d service-unavailable"},
		} {
			romeo.send(x.send)
			if x.want == "" {
				romeo.want()
				continue
			}
			romeo.want(x.want)
		}
		if m.home("nobody") != "" {
			t.Error("a user who does not exist has a home")
		}
		// Who may see juliet's presence may know that there is an account.
		m.nodes[0].roster.friends(addr("juliet"), addr("romeo"))
		romeo.send("<iq xmlns='jabber:client' type='get' id='d' to='" + addr("juliet").String() + "'><query xmlns='" + nsDiscoInfo + "'/></iq>")
		romeo.want("iq result d")
	})
}

func TestMailboxAcrossNodes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		// Nurse has no home: it is the node that has something for her first.
		_, romeo := two(m)
		romeo.chat("nurse", "1")
		m.atHome(m.nodes[1], "nurse", 0)
		// And the message waits there, until she comes somewhere else.
		nurse := m.nodes[0].managed("nurse/x")
		m.atHome(m.nodes[0], "nurse", 1)
		nurse.send("<presence xmlns='jabber:client'/>")
		if got := nurse.bodiesOf(); !slices.Equal(got, numbers(1, 1)) {
			t.Errorf("got %q", got)
		}
	})
}

func TestPresenceAcrossNodes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		m.nodes[0].roster.friends(addr("juliet"), addr("romeo"))
		juliet := m.nodes[0].managed("juliet/balcony").available()
		romeo := m.nodes[1].managed("romeo/orchard")
		romeo.send("<presence xmlns='jabber:client'/>")
		romeo.want("presence romeo/orchard", "presence juliet/balcony") // its own, and an answered probe
		juliet.want("presence romeo/orchard")
		juliet.send("<presence xmlns='jabber:client' to='" + romeo.addr.String() + "'/>")
		romeo.want("presence juliet/balcony")
		juliet.send("<presence xmlns='jabber:client' type='probe' to='" + addr("romeo").String() + "'/>")
		juliet.want("presence romeo/orchard")
		juliet.close()
		romeo.want("presence unavailable juliet/balcony")

		// Subscriptions go through the roster of the other one, at that one's home.
		romeo.send("<presence xmlns='jabber:client' type='subscribe' to='" + addr("nurse").String() + "'/>")
		romeo.want()
		nurse := m.nodes[0].bound("nurse/x").available()
		romeo.send("<presence xmlns='jabber:client' type='subscribe' to='" + addr("nurse").String() + "'/>")
		nurse.want("presence subscribe romeo")
		m.nodes[0].repeat()
		nurse.want()
		// To nobody: it changes the own roster, and nobody answers.
		romeo.send("<presence xmlns='jabber:client' type='subscribe' to='" + addr("nobody").String() + "'/>")
		romeo.want()
	})
}

// What may be lost may be lost; what is journaled arrives when the way is mended, once and in order.
func TestPartition(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		juliet, romeo := two(m)
		m.partition(m.nodes[1], m.nodes[0], true)
		for _, n := range numbers(1, 5) {
			romeo.chat("juliet", n)
		}
		m.rest()
		romeo.request()
		romeo.want("a 6")
		juliet.want()
		juliet.chat("romeo", "back")
		romeo.want("message juliet/balcony back")
		m.partition(m.nodes[1], m.nodes[0], false)
		if got := juliet.bodiesOf(); !slices.Equal(got, numbers(1, 5)) {
			t.Errorf("got %q", got)
		}
	})
}
