package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

const nsMUCUser = nsMUC + "#user"

// statuses are the status codes in a presence or message of a room.
func statuses(e *xmppclient.Element) string {
	var codes []string
	x := e.Child(nsMUCUser, "x")
	if x == nil {
		return ""
	}
	for _, c := range x.Children {
		if c.Name.Local == "status" {
			codes = append(codes, c.Attr("code"))
		}
	}
	return strings.Join(codes, " ")
}

// enter has somebody enter a room, asking for that history, and returns the own presence.
func (u *user) enter(room, nick, history string) *xmppclient.Element {
	u.t.Helper()
	u.send("<presence xmlns='jabber:client' to='" + room + "/" + xmppclient.Escape(nick) + "'><x xmlns='" + nsMUC + "'>" + history + "</x></presence>")
	e := u.occupant(room, nick, "")
	if !strings.Contains(statuses(e), "110") {
		u.t.Errorf("%s enters and gets %v", u.JID, e)
	}
	return e
}

// occupant waits for the presence of an occupant.
func (u *user) occupant(room, nick, typ string) *xmppclient.Element {
	u.t.Helper()
	return u.expect("presence "+typ+" of "+nick, func(e *xmppclient.Element) bool { return presence(e, room+"/"+nick, typ) })
}

// told waits for a message of a room with that text.
func (u *user) told(from, text string) *xmppclient.Element {
	u.t.Helper()
	return u.expect("in the room: "+text, func(e *xmppclient.Element) bool {
		return e.Name.Local == "message" && e.Attr("type") == "groupchat" && e.Attr("from") == from && e.Child("", "body") != nil && e.Child("", "body").Text == text
	})
}

func groupchat(room, id, text string) string {
	return "<message xmlns='jabber:client' type='groupchat' id='" + id + "' to='" + room + "'><body>" + text + "</body></message>"
}

// ask sends a request and returns its answer.
func (u *user) ask(typ, to, payload string) *xmppclient.Element {
	u.t.Helper()
	id := fmt.Sprint("ask", len(u.skipped), u.stanzas)
	u.send("<iq xmlns='jabber:client' type='" + typ + "' id='" + id + "' to='" + to + "'>" + payload + "</iq>")
	return u.expect("an answer", func(e *xmppclient.Element) bool { return e.Name.Local == "iq" && e.Attr("id") == id })
}

// roomLife is a room from its creation to its end (XEP-0045), with clients at any gateways.
func roomLife(t *testing.T, one, two, three *gatewayproc.Gateway) {
	one.AddUsers("anna", "bert", "cleo")
	room := roomAddr("Café") // prepared as any address
	room = strings.ToLower(room)
	a, b, c := available(t, one, "anna", ""), available(t, two, "bert", ""), available(t, three, "cleo", "")

	// §6: it can be found.
	if e := a.ask("get", gatewayproc.Domain, "<query xmlns='http://jabber.org/protocol/disco#items'/>"); e.Child("", "query").Child("", "item").Attr("jid") != "conference."+gatewayproc.Domain {
		t.Errorf("the domain has %v", e)
	}
	if e := a.ask("get", "conference."+gatewayproc.Domain, "<query xmlns='http://jabber.org/protocol/disco#info'/>"); e.Child("", "query").Child("", "identity").Attr("category") != "conference" {
		t.Errorf("the host is %v", e)
	}
	if e := a.ask("get", room, "<query xmlns='http://jabber.org/protocol/disco#info'/>"); e.StanzaError() != "item-not-found" {
		t.Errorf("a room that is not there: %v", e)
	}

	// §7.2: entering, §10.1: creation.
	if got := statuses(a.enter(room, "Ann", "")); !strings.Contains(got, "201") {
		t.Errorf("who creates a room gets %q", got)
	}
	self := b.enter(room, "Bert", "")
	if self.Child("urn:xmpp:occupant-id:0", "occupant-id").Attr("id") == "" || self.Child(nsMUCUser, "x").Child("", "item").Attr("role") != "participant" {
		t.Errorf("the own presence: %v", self)
	}
	b.occupant(room, "Ann", "")
	seen := a.occupant(room, "Bert", "")
	if seen.Child(nsMUCUser, "x").Child("", "item").Attr("jid") != b.JID {
		t.Errorf("an owner does not see who it is: %v", seen)
	}
	c.send("<presence xmlns='jabber:client' to='" + room + "/Bert'><x xmlns='" + nsMUC + "'/></presence>")
	if e := c.occupant(room, "Bert", "error"); e.StanzaError() != "conflict" {
		t.Errorf("a name that is taken: %v", e)
	}

	// §7.4: messages; the originator gets it too, with its id.
	a.send(groupchat(room, "m1", "hello all"))
	for _, u := range []*user{a, b} {
		m := u.told(room+"/Ann", "hello all")
		if m.Attr("id") != "m1" || roomID(m, room) == "" {
			t.Errorf("%s got %v", u.JID, m)
		}
	}
	c.send(groupchat(room, "m2", "am I in"))
	if e := c.expect("an error", func(e *xmppclient.Element) bool { return e.Attr("id") == "m2" }); e.StanzaError() != "not-acceptable" {
		t.Errorf("a message of somebody outside: %v", e)
	}

	// §8.1: the subject, §7.2.13: history, then the subject.
	a.send("<message xmlns='jabber:client' type='groupchat' to='" + room + "'><subject>Tea</subject></message>")
	b.expect("the subject", func(e *xmppclient.Element) bool {
		return e.Child("", "subject") != nil && e.Child("", "subject").Text == "Tea"
	})
	c.enter(room, "Cleo", "")
	if m := c.told(room+"/Ann", "hello all"); m.Child("urn:xmpp:delay", "delay").Attr("from") != room {
		t.Errorf("history: %v", m)
	}
	if e := c.expect("the subject", func(e *xmppclient.Element) bool { return e.Child("", "subject") != nil }); e.Child("", "subject").Text != "Tea" {
		t.Errorf("the subject is %v", e)
	}

	// §7.5: private messages, §7.6: another name, XEP-0410.
	c.send("<message xmlns='jabber:client' type='chat' id='p1' to='" + room + "/Bert'><body>psst</body></message>")
	if m := b.message("psst"); m.Attr("from") != room+"/Cleo" || m.Child(nsMUCUser, "x") == nil {
		t.Errorf("a private message: %v", m)
	}
	c.send("<presence xmlns='jabber:client' to='" + room + "/Cleopatra'/>")
	if e := b.occupant(room, "Cleo", "unavailable"); !strings.Contains(statuses(e), "303") {
		t.Errorf("another name: %v", e)
	}
	b.occupant(room, "Cleopatra", "")
	if e := c.ask("get", room+"/Cleopatra", "<ping xmlns='urn:xmpp:ping'/>"); e.Attr("type") != "result" {
		t.Errorf("a ping to oneself: %v", e)
	}
	if e := c.ask("get", room+"/Cleo", "<ping xmlns='urn:xmpp:ping'/>"); e.Attr("type") != "error" {
		t.Errorf("a ping to an old name: %v", e)
	}

	// A request to another occupant and its answer.
	c.send("<iq xmlns='jabber:client' type='get' id='v1' to='" + room + "/Bert'><query xmlns='jabber:iq:version'/></iq>")
	q := b.expect("the request", func(e *xmppclient.Element) bool {
		return e.Name.Local == "iq" && e.Child("jabber:iq:version", "query") != nil
	})
	b.send("<iq xmlns='jabber:client' type='result' id='" + q.Attr("id") + "' to='" + q.Attr("from") + "'><query xmlns='jabber:iq:version'><name>x</name></query></iq>")
	if e := c.expect("the answer", func(e *xmppclient.Element) bool { return e.Attr("id") == "v1" }); e.Attr("from") != room+"/Bert" || e.Attr("type") != "result" {
		t.Errorf("answered with %v", e)
	}

	// §10.1.3, §10.2: configuration. The room stays, and is listed.
	form := func(fields string) string {
		return "<query xmlns='" + nsMUC + "#owner'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>" + nsMUC + "#roomconfig</value></field>" + fields + "</x></query>"
	}
	if e := b.ask("get", room, "<query xmlns='"+nsMUC+"#owner'/>"); e.StanzaError() != "forbidden" {
		t.Errorf("who is no owner is shown the settings: %v", e)
	}
	if e := a.ask("get", room, "<query xmlns='"+nsMUC+"#owner'/>"); e.Child("", "query").Child("jabber:x:data", "x") == nil {
		t.Errorf("the settings: %v", e)
	}
	if e := a.ask("set", room, form("<field var='muc#roomconfig_persistentroom'><value>1</value></field><field var='muc#roomconfig_roomname'><value>Tea room</value></field>")); e.Attr("type") != "result" {
		t.Errorf("the settings are not taken: %v", e)
	}
	listed := func() bool {
		e := c.ask("get", "conference."+gatewayproc.Domain, "<query xmlns='http://jabber.org/protocol/disco#items'/>")
		item := e.Child("", "query").Child("", "item")
		return item != nil && item.Attr("jid") == room && item.Attr("name") == "Tea room"
	}
	if !await(within(t, 5*time.Second), listed) {
		t.Error("the room is not listed")
	}

	// §8.2: somebody is kicked, §9.1: banned.
	admin := func(item string) string {
		return "<query xmlns='" + nsMUC + "#admin'><item " + item + "/></query>"
	}
	if e := a.ask("set", room, admin("nick='Bert' role='none'")); e.Attr("type") != "result" {
		t.Errorf("kick: %v", e)
	}
	if e := b.occupant(room, "Bert", "unavailable"); !strings.Contains(statuses(e), "307") {
		t.Errorf("kicked with %v", e)
	}
	if e := a.ask("set", room, admin("jid='"+bare("bert")+"' affiliation='outcast'")); e.Attr("type") != "result" {
		t.Errorf("ban: %v", e)
	}
	b.send("<presence xmlns='jabber:client' to='" + room + "/Bert'><x xmlns='" + nsMUC + "'/></presence>")
	if e := b.occupant(room, "Bert", "error"); e.StanzaError() != "forbidden" {
		t.Errorf("banned, and gets %v", e)
	}

	// Who goes away leaves, also without a word to the room; who comes back gets what was said, and the room knows its owner.
	if err := c.Leave(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
	a.occupant(room, "Cleopatra", "unavailable")
	a.send(groupchat(room, "m3", "all gone"))
	a.told(room+"/Ann", "all gone")
	if err := a.Leave(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
	gone := func() bool {
		for _, g := range []*gatewayproc.Gateway{one, two, three} {
			if metric(g, "holdfast_session_hosted") != 0 {
				return false
			}
		}
		return true
	}
	if !await(within(t, 5*time.Second), gone) {
		t.Error("a room that nobody is in stays in memory")
	}
	a = available(t, three, "anna", "")
	self = a.enter(room, "Ann", "")
	if self.Child(nsMUCUser, "x").Child("", "item").Attr("affiliation") != "owner" || strings.Contains(statuses(self), "201") {
		t.Errorf("the owner comes back: %v", self)
	}
	a.told(room+"/Ann", "hello all")
	a.told(room+"/Ann", "all gone")
	b.send("<presence xmlns='jabber:client' to='" + room + "/Bert'><x xmlns='" + nsMUC + "'/></presence>")
	if e := b.occupant(room, "Bert", "error"); e.StanzaError() != "forbidden" {
		t.Errorf("banned for good, and gets %v", e)
	}

	// §10.9: its end.
	if e := a.ask("set", room, "<query xmlns='"+nsMUC+"#owner'><destroy><reason>enough</reason></destroy></query>"); e.Attr("type") != "result" {
		t.Errorf("destroy: %v", e)
	}
	a.occupant(room, "Ann", "unavailable")
	if !await(within(t, 5*time.Second), func() bool {
		return a.ask("get", room, "<query xmlns='http://jabber.org/protocol/disco#info'/>").StanzaError() == "item-not-found"
	}) {
		t.Error("the room is still there")
	}
}

func TestRoom(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	roomLife(t, g, g, g)
	noErrors(t, []*gatewayproc.Gateway{g}, "level=ERROR")
}

func TestClusterRoom(t *testing.T) {
	long(t)
	nodes := startCluster(t, 3, leased(longLease, nil))
	roomLife(t, nodes[0], nodes[1], nodes[2])
}

// TestRoomsSwitchedOff: then there is nothing at their addresses.
func TestRoomsSwitchedOff(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, map[string]string{"HOLDFAST_MUC": "false"})
	g.AddUsers("anna")
	a := available(t, g, "anna", "")
	a.send("<presence xmlns='jabber:client' to='" + roomAddr("plaza") + "/Ann'><x xmlns='" + nsMUC + "'/></presence>")
	if e := a.occupant(roomAddr("plaza"), "Ann", "error"); e.StanzaError() != "remote-server-not-found" {
		t.Errorf("got %v", e)
	}
}

// TestRoomGuests: guests come into the rooms that the operator names and no others; who owns every room owns those, and nobody else.
func TestRoomGuests(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, map[string]string{"HOLDFAST_GUEST_CONTACTS": roomAddr("lobby"), "HOLDFAST_MUC_ADMINS": bare("anna")})
	g.AddUsers("anna", "bert")
	guest, err := xmppclient.Login(within(t, 10*time.Second), g.URL(), xmppclient.Account{Domain: gatewayproc.Domain, Mechanism: "ANONYMOUS"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(guest.Abort)
	v := &user{Conn: guest, t: t}
	lobby := roomAddr("lobby")
	v.send(entering(roomAddr("other"), "Visitor"))
	if e := v.occupant(roomAddr("other"), "Visitor", "error"); e.StanzaError() != "forbidden" {
		t.Errorf("a guest who would go elsewhere gets %v", e)
	}
	if self := v.enter(lobby, "Visitor", ""); self.Child(nsMUCUser, "x").Child("", "item").Attr("affiliation") != "none" {
		t.Errorf("a guest is %v", self)
	}
	b := available(t, g, "bert", "")
	if self := b.enter(lobby, "Bert", ""); self.Child(nsMUCUser, "x").Child("", "item").Attr("affiliation") != "none" {
		t.Errorf("the first user is %v", self)
	}
	a := available(t, g, "anna", "")
	if self := a.enter(lobby, "Ann", ""); self.Child(nsMUCUser, "x").Child("", "item").Attr("affiliation") != "owner" {
		t.Errorf("who owns every room is %v", self)
	}
	v.send(groupchat(lobby, "g1", "is this the lobby"))
	a.told(lobby+"/Visitor", "is this the lobby")
	a.send(groupchat(lobby, "a1", "it is"))
	v.told(lobby+"/Ann", "it is")
}

// TestConverseInARoom: converse.js enters a room over BOSH, reads and writes there, and is still in it after a reload.
func TestConverseInARoom(t *testing.T) {
	long(t)
	needClients(t)
	g := gatewayproc.Start(t, forPages())
	g.AddUsers("romeo", "juliet")
	room := roomAddr("verona")
	j := available(t, g, "juliet", "")
	j.enter(room, "Juliet", "")
	j.send(groupchat(room, "j1", "Wherefore art thou"))
	r := startConverse(t, g, "romeo")
	r.awaitOnline()
	r.command(map[string]any{"cmd": "enter", "jid": room, "nick": "Romeo"})
	j.occupant(room, "Romeo", "")
	r.read("Wherefore art thou")
	r.command(map[string]any{"cmd": "say", "text": "Shall I hear more"})
	j.told(room+"/Romeo", "Shall I hear more")
	j.send(groupchat(room, "j2", "What man art thou"))
	r.read("What man art thou")
	r.screenshot("converse-room")
	r.command(map[string]any{"cmd": "reload"})
	r.wait("the session again", func() bool { return r.resumed == 1 })
	r.ask("the room", func(ref string) map[string]any { return map[string]any{"cmd": "entered", "ref": ref, "jid": room} })
	j.send(groupchat(room, "j3", "How camest thou hither"))
	r.read("How camest thou hither")
	r.stop()
	j.occupant(room, "Romeo", "unavailable")
}
