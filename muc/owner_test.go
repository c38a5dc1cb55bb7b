package muc

import (
	"fmt"
	"strings"
	"testing"
)

// XEP-0045 §10.2.
func TestConfigForm(t *testing.T) {
	const get = "<iq type='get' id='g'><query xmlns='http://jabber.org/protocol/muc#owner'/></iq>"
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.expect("bob/b", "", get, "bob/b < room: iq error id=g forbidden")
	fields := []string{
		"roomname=A & B", "roomdesc=<here>", "lang=en", "persistentroom=true", "publicroom=false", "membersonly=false", "moderatedroom=true",
		"passwordprotectedroom=true", "roomsecret=cauldron", "whois=anyone", "changesubject=true", "allowinvites=true", "allowpm=moderators",
		"maxusers=50", "muc#maxhistoryfetch=10",
	}
	if got := h.configure(fields...); got[0] != "alice/a < room: iq result id=c" {
		t.Fatalf("%q", got)
	}
	var q struct {
		Query ownerQuery `xml:"http://jabber.org/protocol/muc#owner query"`
	}
	form := h.handle("alice/a", "", get)[0].Stanza
	if err := form.Decode(&q); err != nil {
		t.Fatal(err)
	}
	for _, f := range fields {
		name, want, _ := strings.Cut(f, "=")
		if !strings.HasPrefix(name, "muc#") {
			name = "muc#roomconfig_" + name
		}
		if got, ok := q.Query.Form.value(name); !ok || got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// What comes back as it was given changes nothing.
	before := string(h.room.State())
	if got := h.configure(fields...); len(got) != 1 || string(h.room.State()) != before {
		t.Errorf("%q", got)
	}
}

func TestConfigRefused(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	before := string(h.room.State())
	set := func(inner string) string {
		return "<iq type='set' id='c'><query xmlns='http://jabber.org/protocol/muc#owner'>" + inner + "</query></iq>"
	}
	for _, c := range []struct{ from, raw, want string }{
		{"bob/b", configuration("roomname=x"), "error id=c forbidden"},
		{"alice/a", set("<x xmlns='jabber:x:data' type='submit'/>"), "result id=c"}, // §10.1.2
		{"alice/a", set("<x xmlns='jabber:x:data' type='cancel'/>"), "result id=c"},
		{"alice/a", set("<x xmlns='jabber:x:data' type='form'/>"), "error id=c bad-request"},
		{"alice/a", set("<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>other</value></field></x>"), "error id=c bad-request"},
		{"alice/a", set(""), "error id=c bad-request"},
		{"alice/a", configuration("roomname=" + strings.Repeat("x", maxName+1)), "error id=c not-acceptable"},
		{"alice/a", configuration("passwordprotectedroom=1"), "error id=c not-acceptable"},
		{"alice/a", configuration("whois=nobody"), "error id=c not-acceptable"},
		{"alice/a", configuration("allowpm=some"), "error id=c not-acceptable"},
		{"alice/a", configuration("maxusers=0"), "error id=c not-acceptable"},
		{"alice/a", configuration("muc#maxhistoryfetch=-1"), "error id=c not-acceptable"},
		{"alice/a", configuration("publicroom=perhaps"), "error id=c not-acceptable"},
		{"alice/a", configuration("unknown=x"), "result id=c"},
	} {
		h.expect(c.from, "", c.raw, c.from+" < room: iq "+c.want)
	}
	if after := string(h.room.State()); after != before {
		t.Errorf("%s", after)
	}
}

// §10.2.1, §7.2.6, and voice for all when a room is moderated no more.
func TestConfigChanges(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.expect("alice/a", "", configuration("whois=anyone"),
		"alice/a < room: iq result id=c",
		"alice/a < room: message groupchat 104 172",
		"bob/b < room: message groupchat 104 172")
	h.expect("alice/a", "", configuration("whois=moderators", "moderatedroom=1"),
		"alice/a < room: iq result id=c",
		"alice/a < room: message groupchat 104 173",
		"bob/b < room: message groupchat 104 173")
	h.joinAll("carol/c")
	h.expect("alice/a", "", configuration("moderatedroom=0"),
		"alice/a < room: iq result id=c",
		"alice/a < room: message groupchat 104",
		"bob/b < room: message groupchat 104",
		"carol/c < room: message groupchat 104",
		"alice/a < carol: presence none/participant jid=carol/c",
		"bob/b < carol: presence none/participant",
		"carol/c < carol: presence none/participant jid=carol/c 110")
	h.admin("alice/a", "<item nick='bob' affiliation='member'/>")
	h.expect("alice/a", "", configuration("membersonly=1"),
		"alice/a < room: iq result id=c",
		"alice/a < room: message groupchat 104",
		"bob/b < room: message groupchat 104",
		"carol/c < room: message groupchat 104",
		"alice/a < carol: presence unavailable none/none jid=carol/c 322",
		"bob/b < carol: presence unavailable none/none 322",
		"carol/c < carol: presence unavailable none/none jid=carol/c 110 322")
}

// More than one answer may hold is refused.
func TestConfigTooMuch(t *testing.T) {
	h := newHall(t, func(c *Config) { c.Occupants = 0 })
	h.joinAll("alice/a")
	for i := range 200 {
		h.join(fmt.Sprintf("u%d/r", i), fmt.Sprintf("n%d", i))
	}
	h.expect("alice/a", "", configuration("membersonly=1"), "alice/a < room: iq error id=c resource-constraint")
	for i := range 150 {
		h.do(fmt.Sprintf("u%d/r", i), fmt.Sprintf("n%d", i), "<presence type='unavailable'/>")
	}
	if got := h.configure("membersonly=1"); len(got) > maxOuts || len(h.room.occupants) != 1 {
		t.Errorf("%d stanzas, %d occupants", len(got), len(h.room.occupants))
	}
}

// §10.9.
func TestDestroy(t *testing.T) {
	const destroy = "<iq type='set' id='d'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy jid='heath@conference.localhost'><reason>Macbeth</reason></destroy></query></iq>"
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.configure("persistentroom=1")
	h.expect("bob/b", "", destroy, "bob/b < room: iq error id=d forbidden")
	h.expect("alice/a", "", strings.Replace(destroy, "heath@", "@@", 1), "alice/a < room: iq error id=d jid-malformed")
	outs := h.handle("alice/a", "", destroy)
	if got := strings.Join(lines(t, outs), "\n"); got != "alice/a < room: iq result id=d\n"+
		"alice/a < alice: presence unavailable none/none 110 destroy\n"+
		"bob/b < bob: presence unavailable none/none 110 destroy" {
		t.Error(got)
	}
	if raw := string(outs[1].Stanza.Raw()); !strings.Contains(raw, "<destroy jid='heath@conference.localhost'><reason>Macbeth</reason></destroy>") {
		t.Error(raw)
	}
	if !h.room.Idle() || !h.room.Dirty() || h.room.exists() {
		t.Error("the room is still there")
	}
}
