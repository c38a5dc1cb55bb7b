package muc

import (
	"fmt"
	"strings"
	"testing"

	"holdfast/stanza"
)

const enter = "<presence><x xmlns='http://jabber.org/protocol/muc'/></presence>"

// XEP-0045 §10.1, §7.2.2, §7.1.
func TestEnter(t *testing.T) {
	h := newHall(t)
	h.expect("alice/a", "Alice", enter,
		"alice/a < Alice: presence owner/moderator jid=alice/a 110 201",
		"alice/a < room: message groupchat subject")
	h.expect("bob/b", "Bob", "<presence><show>away</show><x xmlns='http://jabber.org/protocol/muc'/></presence>",
		"alice/a < Bob: presence none/participant jid=bob/b show=away",
		"bob/b < Alice: presence owner/moderator",
		"bob/b < Bob: presence none/participant jid=bob/b 110 show=away",
		"bob/b < room: message groupchat subject")
	h.expect("carol/c", "Carol", enter,
		"alice/a < Carol: presence none/participant jid=carol/c",
		"bob/b < Carol: presence none/participant",
		"carol/c < Alice: presence owner/moderator",
		"carol/c < Bob: presence none/participant show=away",
		"carol/c < Carol: presence none/participant jid=carol/c 110",
		"carol/c < room: message groupchat subject")
}

// §7.2.3.
func TestEnterNonAnonymous(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.configure("whois=anyone")
	h.joinAll("bob/b")
	h.expect("carol/c", "carol", enter,
		"alice/a < carol: presence none/participant jid=carol/c",
		"bob/b < carol: presence none/participant jid=carol/c",
		"carol/c < alice: presence owner/moderator jid=alice/a",
		"carol/c < bob: presence none/participant jid=bob/b",
		"carol/c < carol: presence none/participant jid=carol/c 110 100",
		"carol/c < room: message groupchat subject")
}

// §7.2.1, §7.2.5 to §7.2.9, §10.1.
func TestEnterRefused(t *testing.T) {
	locked := func(fields ...string) func(*hall) {
		return func(h *hall) {
			h.joinAll("alice/a")
			h.configure(fields...)
		}
	}
	with := func(s string) string {
		return "<presence><x xmlns='http://jabber.org/protocol/muc'>" + s + "</x></presence>"
	}
	for _, c := range []struct {
		name, nick, stanza, want string
		before                   func(*hall)
	}{
		{"no nick", "", enter, "bob/b < room: presence error jid-malformed", locked()},
		{"no room, guest", "x", enter, "guest/b < x: presence error not-allowed", nil},
		{"nick in use", "alice", enter, "bob/b < alice: presence error conflict", locked()},
		{"no password", "bob", enter, "bob/b < bob: presence error not-authorized", locked("passwordprotectedroom=1", "roomsecret=cauldron")},
		{"wrong password", "bob", with("<password>kettle</password>"), "bob/b < bob: presence error not-authorized", locked("passwordprotectedroom=1", "roomsecret=cauldron")},
		{"members only", "bob", enter, "bob/b < bob: presence error registration-required", locked("membersonly=1")},
		{"banned", "bob", enter, "bob/b < bob: presence error forbidden", func(h *hall) {
			h.joinAll("alice/a")
			h.admin("alice/a", "<item affiliation='outcast' jid='bob@localhost'/>")
		}},
		{"full", "bob", enter, "bob/b < bob: presence error service-unavailable", func(h *hall) {
			h.joinAll("alice/a", "carol/c")
			h.configure("maxusers=2")
		}},
		{"too large", "bob", strings.Replace(enter, "<x", "<status>"+strings.Repeat("x", maxPresence)+"</status><x", 1), "bob/b < bob: presence error policy-violation", locked()},
		{"no x", "bob", "<presence/>", "bob/b < bob: presence unavailable none/none reason=You are not in the room. 110 307 333", locked()},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHall(t)
			if c.before != nil {
				c.before(h)
			}
			from := "bob/b"
			if strings.HasPrefix(c.want, "guest") {
				from = "guest/b"
			}
			before := string(h.room.State())
			h.expect(from, c.nick, c.stanza, c.want)
			if after := string(h.room.State()); after != before {
				t.Errorf("the room is another one: %s", after)
			}
		})
	}
}

// A room that the operator named is there for everybody, and nobody owns it but who owns every room.
func TestEnterNamed(t *testing.T) {
	h := newHall(t, func(c *Config) { c.Create, c.Admins = CreateNobody, []string{"root@localhost"} })
	h.named = true
	h.open(nil)
	h.expect("guest/g", "g", enter,
		"guest/g < g: presence none/participant jid=guest/g 110 201",
		"guest/g < room: message groupchat subject")
	if !h.room.exists() || h.room.Idle() {
		t.Error("the room is not there")
	}
	h.expect("alice/a", "alice", enter,
		"guest/g < alice: presence none/participant",
		"alice/a < g: presence none/participant",
		"alice/a < alice: presence none/participant jid=alice/a 110",
		"alice/a < room: message groupchat subject")
	h.expect("alice/a", "", configuration("persistentroom=1"), "alice/a < room: iq error id=c forbidden")
	h.expect("root/r", "root", enter,
		"guest/g < root: presence owner/moderator",
		"alice/a < root: presence owner/moderator",
		"root/r < g: presence none/participant jid=guest/g",
		"root/r < alice: presence none/participant jid=alice/a",
		"root/r < root: presence owner/moderator jid=root/r 110",
		"root/r < room: message groupchat subject")
	// That nobody owns it is no reason not to change what somebody is.
	for _, item := range []string{
		"jid='alice@localhost' affiliation='member'", "jid='alice@localhost' affiliation='none'", "jid='guest@localhost' affiliation='outcast'",
	} {
		if got := h.admin("root/r", "<item "+item+"/>"); got[0] != "root/r < room: iq result id=a" {
			t.Errorf("%s: %q", item, got)
		}
	}
}

func TestEnterNamedByUser(t *testing.T) {
	h := newHall(t)
	h.named = true
	h.open(nil)
	h.expect("alice/a", "alice", enter,
		"alice/a < alice: presence none/participant jid=alice/a 110 201",
		"alice/a < room: message groupchat subject")
	if len(h.room.affiliations) > 0 {
		t.Errorf("%v", h.room.affiliations)
	}
}

func TestEnterWithPassword(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.configure("passwordprotectedroom=1", "roomsecret=a<b")
	outs := h.handle("bob/b", "bob", "<presence><x xmlns='http://jabber.org/protocol/muc'><password>a&lt;b</password></x></presence>")
	if len(outs) != 4 {
		t.Fatalf("%q", lines(t, outs))
	}
	for _, o := range outs {
		if strings.Contains(string(o.Stanza.Raw()), "password") {
			t.Errorf("the password is passed on: %s", o.Stanza.Raw())
		}
	}
}

// Admins come in though the room is full (§7.2.9); it has a bound all the same.
func TestEnterFullAsAdmin(t *testing.T) {
	h := newHall(t, func(c *Config) { c.Occupants = 2 })
	h.joinAll("alice/a", "bob/b")
	h.admin("alice/a", "<item affiliation='admin' jid='carol@localhost'/>")
	h.joinAll("carol/c")
	for i := range 2 * maxNick {
		h.join(fmt.Sprintf("carol/c%d", i), "carol")
	}
	if n := len(h.room.byNick["carol"].sessions); n != maxNick {
		t.Errorf("%d sessions under one nick", n)
	}
}

func TestEnterCreateNobody(t *testing.T) {
	h := newHall(t, func(c *Config) { c.Create = CreateNobody })
	h.expect("alice/a", "alice", enter, "alice/a < alice: presence error not-allowed")
}

// A session that enters again gets everything again.
func TestEnterAgain(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.do("alice/a", "", "<message type='groupchat'><body>hello</body></message>")
	h.expect("bob/b", "bob", enter,
		"alice/a < bob: presence none/participant jid=bob/b",
		"bob/b < alice: presence owner/moderator",
		"bob/b < bob: presence none/participant jid=bob/b 110",
		"bob/b < alice: message groupchat body=hello delayed",
		"bob/b < room: message groupchat subject")
}

// Sessions of one user share a nick.
func TestSharedNick(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/1")
	h.expect("bob/2", "bob", "<presence><show>dnd</show><x xmlns='http://jabber.org/protocol/muc'/></presence>",
		"alice/a < bob: presence none/participant jid=bob/2 show=dnd",
		"bob/1 < bob: presence none/participant jid=bob/2 110 show=dnd",
		"bob/2 < alice: presence owner/moderator",
		"bob/2 < bob: presence none/participant jid=bob/2 110 show=dnd",
		"bob/2 < room: message groupchat subject")
	h.expect("bob/1", "bob", "<presence><show>xa</show></presence>",
		"alice/a < bob: presence none/participant jid=bob/1 show=xa",
		"bob/2 < bob: presence none/participant jid=bob/1 110 show=xa",
		"bob/1 < bob: presence none/participant jid=bob/1 110 show=xa")
	h.expect("bob/1", "bob", "<presence type='unavailable'/>",
		"bob/1 < bob: presence unavailable none/none jid=bob/1 110",
		"alice/a < bob: presence none/participant jid=bob/2 show=dnd",
		"bob/2 < bob: presence none/participant jid=bob/2 110 show=dnd")
	h.expect("bob/2", "bob", "<presence type='unavailable'><status>gone</status></presence>",
		"alice/a < bob: presence unavailable none/none jid=bob/2 status=gone",
		"bob/2 < bob: presence unavailable none/none jid=bob/2 110 status=gone")
}

// §7.14: a temporary room ends with its last occupant.
func TestLeaveLast(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	id := occupantIDs(t, h.handle("alice/a", "", "<message type='groupchat'><body>hello</body></message>"))
	h.do("alice/a", "alice", "<presence type='unavailable'/>")
	h.expect("bob/b", "bob", "<presence type='unavailable'/>", "bob/b < bob: presence unavailable none/none jid=bob/b 110")
	if !h.room.Idle() || h.room.exists() {
		t.Error("the room is still there")
	}
	h.expect("bob/b", "", "<message type='groupchat'><body>anybody?</body></message>", "bob/b < room: message error item-not-found")
	h.expect("bob/b", "bob", enter,
		"bob/b < bob: presence owner/moderator jid=bob/b 110 201",
		"bob/b < room: message groupchat subject")
	if again := occupantIDs(t, h.handle("alice/a", "alice", enter)); again[0] == id[0] {
		t.Error("the next room has the occupant ids of the one before")
	}
}

// What is no session enters no room.
func TestEnterFromBare(t *testing.T) {
	h := newHall(t)
	h.expect("alice", "alice", enter)
	h.joinAll("alice/a")
	h.expect("alice/a", "alice", "<presence type='unavailable'><status>"+strings.Repeat("x", maxPresence)+"</status></presence>",
		"alice/a < alice: presence unavailable owner/none jid=alice/a 110")
}

func TestLeaveOfStranger(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.expect("bob/b", "bob", "<presence type='unavailable'/>")
	h.expect("bob/b", "bob", "<presence type='error'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>")
	h.expect("bob/b", "bob", "<presence type='subscribe'/>")
}

// §7.6.
func TestChangeNick(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.expect("bob/b", "robert", "<presence/>",
		"alice/a < bob: presence unavailable none/participant jid=bob/b nick=robert 303",
		"bob/b < bob: presence unavailable none/participant jid=bob/b nick=robert 110 303",
		"alice/a < robert: presence none/participant jid=bob/b",
		"bob/b < robert: presence none/participant jid=bob/b 110")
	h.expect("bob/b", "alice", "<presence/>", "bob/b < alice: presence error conflict")
	h.join("bob/c", "robert")
	h.expect("bob/c", "bob", "<presence/>", // the other session stays
		"bob/c < robert: presence unavailable none/participant jid=bob/c nick=bob 110 303",
		"alice/a < robert: presence none/participant jid=bob/b",
		"bob/b < robert: presence none/participant jid=bob/b 110",
		"bob/c < robert: presence none/participant",
		"alice/a < bob: presence none/participant jid=bob/c",
		"bob/b < bob: presence none/participant",
		"bob/c < bob: presence none/participant jid=bob/c 110")
	h.expect("bob/c", "robert", "<presence/>", // and is joined again
		"alice/a < bob: presence unavailable none/participant jid=bob/c nick=robert 303",
		"bob/b < bob: presence unavailable none/participant nick=robert 303",
		"bob/c < bob: presence unavailable none/participant jid=bob/c nick=robert 110 303",
		"alice/a < robert: presence none/participant jid=bob/c",
		"bob/b < robert: presence none/participant jid=bob/c 110",
		"bob/c < robert: presence none/participant jid=bob/c 110")
}

// Errors from an occupant end its stay.
func TestUnreachable(t *testing.T) {
	for _, raw := range []string{
		"<presence type='error'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>",
		"<message type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
		"<message type='error'/>",
	} {
		h := newHall(t)
		h.joinAll("alice/a", "bob/b")
		h.expect("bob/b", "alice", raw,
			"alice/a < bob: presence unavailable none/none jid=bob/b 307 333",
			"bob/b < bob: presence unavailable none/none jid=bob/b 110 307 333")
	}
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.expect("bob/b", "alice", "<message type='error'><error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>",
		"alice/a < bob: message error not-acceptable")
}

// A client cannot say what only the room says.
func TestPresenceForged(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	outs := h.handle("bob/b", "bob", "<presence xmlns:u='http://jabber.org/protocol/muc#user'><u:x><item affiliation='owner' role='moderator'/></u:x>"+
		"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='alice'/><show>chat</show><x xmlns='vcard-temp:x:update'/></presence>")
	for _, o := range outs {
		s := look(t, wire(o))
		if s.X.Item.Affiliation != "none" || len(s.Occupant) != 1 || s.Occupant[0].ID == "alice" || s.Show != "chat" {
			t.Errorf("%s", wire(o).Raw())
		}
		if _, ok := o.Stanza.Find("vcard-temp:x:update", "x"); !ok {
			t.Errorf("the rest is lost: %s", o.Stanza.Raw())
		}
	}
}

func occupantIDs(t testing.TB, outs []Out) (ids []string) {
	t.Helper()
	for _, o := range outs {
		for _, id := range look(t, wire(o)).Occupant {
			ids = append(ids, id.ID)
		}
	}
	return ids
}

// XEP-0421 §3.1: the same for all stanzas and nicks of a user in a room, and another for any other.
func TestOccupantID(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	ids := map[string]bool{}
	for _, id := range occupantIDs(t, h.handle("bob/b", "", "<message type='groupchat'><body>x</body></message>")) {
		ids[id] = true
	}
	for _, id := range occupantIDs(t, h.handle("bob/b", "robert", "<presence/>")) {
		ids[id] = true
	}
	if len(ids) != 1 {
		t.Errorf("%d occupant ids of one user", len(ids))
	}
	for _, id := range occupantIDs(t, h.handle("alice/a", "alice", "<presence/>")) {
		if ids[id] {
			t.Error("two users have one occupant id")
		}
	}
	if got := h.room.occupantID(stanza.MustParseAddr("bob@localhost")); !strings.Contains(string(got), nsOccupantID) {
		t.Errorf("%s", got)
	}
}
