package muc

import (
	"fmt"
	"strings"
	"testing"
)

// XEP-0045 §8.2.
func TestKick(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b", "carol/c")
	const kick = "<iq type='set' id='k'><query xmlns='http://jabber.org/protocol/muc#admin'><item nick='bob' role='none'><reason>Avaunt!</reason></item></query></iq>"
	h.expect("carol/c", "", kick, "carol/c < room: iq error id=k forbidden")
	h.expect("alice/a", "", kick,
		"alice/a < room: iq result id=k",
		"alice/a < bob: presence unavailable none/none jid=bob/b by=alice reason=Avaunt! 307",
		"bob/b < bob: presence unavailable none/none jid=bob/b by=alice reason=Avaunt! 110 307",
		"carol/c < bob: presence unavailable none/none by=alice reason=Avaunt! 307")
	h.expect("alice/a", "", kick, "alice/a < room: iq error id=k item-not-found")
}

// §8.3, §8.4, §9.6, §9.7: who may change whose role.
func TestRoleTable(t *testing.T) {
	for _, c := range []struct{ actor, target, role, want string }{
		{"owner", "admin", "none", ""},
		{"owner", "admin", "participant", "not-allowed"},
		{"admin", "owner", "none", "not-allowed"},
		{"admin", "admin2", "none", ""},
		{"admin", "none", "moderator", ""},
		{"moderator", "none", "moderator", "forbidden"},
		{"moderator", "none", "visitor", ""},
		{"moderator", "visitor", "participant", ""},
		{"moderator", "member", "none", "not-allowed"},
		{"moderator", "admin", "visitor", "not-allowed"},
		{"admin", "moderator", "participant", ""},
		{"moderator", "moderator2", "participant", "forbidden"},
		{"none", "visitor", "participant", "forbidden"},
		{"stranger", "visitor", "participant", "forbidden"},
		{"owner", "nobody", "participant", "item-not-found"},
		{"owner", "none", "king", "bad-request"},
	} {
		t.Run(c.actor+" makes "+c.target+" "+c.role, func(t *testing.T) {
			h := newHall(t)
			h.joinAll("owner/x")
			h.admin("owner/x", "<item jid='admin@localhost' affiliation='admin'/><item jid='admin2@localhost' affiliation='admin'/><item jid='member@localhost' affiliation='member'/>")
			h.joinAll("admin/x", "admin2/x", "member/x", "none/x", "visitor/x", "moderator/x", "moderator2/x")
			h.admin("owner/x", "<item nick='visitor' role='visitor'/><item nick='moderator' role='moderator'/><item nick='moderator2' role='moderator'/>")
			got := h.admin(c.actor+"/x", fmt.Sprintf("<item nick='%s' role='%s'/>", c.target, c.role))
			want := c.actor + "/x < room: iq result id=a"
			if c.want != "" {
				want = c.actor + "/x < room: iq error id=a " + c.want
			}
			if got[0] != want {
				t.Errorf("%q, want %s", got, want)
			}
		})
	}
}

// §9, §10.3 to §10.8: who may change whose affiliation.
func TestAffiliationTable(t *testing.T) {
	for _, c := range []struct{ actor, target, affiliation, want string }{
		{"owner", "admin", "owner", ""},
		{"owner", "admin", "none", ""},
		{"owner", "owner", "none", "conflict"},
		{"owner", "owner", "outcast", "conflict"},
		{"admin", "owner", "none", "not-allowed"},
		{"admin", "admin2", "member", "not-allowed"},
		{"admin", "admin", "outcast", "not-allowed"},
		{"admin", "stranger", "admin", "forbidden"},
		{"admin", "stranger", "member", ""},
		{"admin", "member", "outcast", ""},
		{"member", "stranger", "member", "forbidden"},
		{"stranger", "member", "none", "forbidden"},
		{"owner", "member", "king", "bad-request"},
	} {
		t.Run(c.actor+" makes "+c.target+" "+c.affiliation, func(t *testing.T) {
			h := newHall(t)
			h.joinAll("owner/x")
			h.admin("owner/x", "<item jid='admin@localhost' affiliation='admin'/><item jid='admin2@localhost' affiliation='admin'/><item jid='member@localhost' affiliation='member'/>")
			got := h.admin(c.actor+"/x", fmt.Sprintf("<item jid='%s@localhost/any' affiliation='%s'/>", c.target, c.affiliation))
			want := c.actor + "/x < room: iq result id=a"
			if c.want != "" {
				want = c.actor + "/x < room: iq error id=a " + c.want
			}
			if len(got) != 1 || got[0] != want {
				t.Errorf("%q, want %s", got, want)
			}
		})
	}
}

// §9.1.
func TestBan(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.join("bob/2", "robert")
	h.join("bob/3", "robert")
	got := h.admin("alice/a", "<item jid='bob@localhost' affiliation='outcast'><reason>Treason</reason></item>")
	want := []string{
		"alice/a < room: iq result id=a",
		"alice/a < bob: presence unavailable outcast/none jid=bob/b by=alice reason=Treason 301",
		"bob/b < bob: presence unavailable outcast/none jid=bob/b by=alice reason=Treason 110 301",
		"bob/2 < bob: presence unavailable outcast/none by=alice reason=Treason 301",
		"bob/3 < bob: presence unavailable outcast/none by=alice reason=Treason 301",
		"alice/a < robert: presence unavailable outcast/none jid=bob/3 by=alice reason=Treason 301",
		"bob/2 < robert: presence unavailable outcast/none jid=bob/3 by=alice reason=Treason 110 301",
		"bob/3 < robert: presence unavailable outcast/none jid=bob/3 by=alice reason=Treason 110 301",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	list := h.handle("alice/a", "", "<iq type='get' id='l'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='outcast'/></query></iq>")
	if raw := string(list[0].Stanza.Raw()); !strings.Contains(raw, "<item affiliation='outcast' jid='bob@localhost'/>") {
		t.Error(raw)
	}
}

// §9.3, §9.4, §10.6: what a change of affiliation does to those in the room.
func TestAffiliationOfOccupant(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.configure("moderatedroom=1")
	h.joinAll("bob/b")
	for _, c := range []struct{ affiliation, want string }{
		{"member", "alice/a < bob: presence member/participant jid=bob/b by=alice"},
		{"admin", "alice/a < bob: presence admin/moderator jid=bob/b by=alice"},
		{"none", "alice/a < bob: presence none/visitor jid=bob/b by=alice"},
	} {
		if got := h.admin("alice/a", "<item nick='bob' affiliation='"+c.affiliation+"'/>"); len(got) != 3 || got[1] != c.want {
			t.Errorf("%q", got)
		}
	}
	h.admin("alice/a", "<item nick='bob' affiliation='member'/>")
	h.configure("membersonly=1")
	if got := h.admin("alice/a", "<item nick='bob' affiliation='none'/>"); len(got) != 3 || got[1] != "alice/a < bob: presence unavailable none/none jid=bob/b by=alice 321" {
		t.Errorf("%q", got)
	}
}

// A request is done as a whole or not at all.
func TestAdminAllOrNothing(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	before := string(h.room.State())
	for _, items := range []string{
		"<item nick='bob' role='none'/><item nick='nobody' role='none'/>",
		"<item jid='bob@localhost' affiliation='outcast'/><item jid='not a jid' affiliation='member'/>",
		"<item jid='localhost' affiliation='outcast'/>",
		"<item nick='bob' role='none' affiliation='none'/>",
		"<item nick='bob'/>",
		"<item role='none'/>",
		"",
		strings.Repeat("<item nick='bob' role='none'/>", maxItems+1),
		"<item nick='bob' role='none'><reason>" + strings.Repeat("x", maxReason+1) + "</reason></item>",
	} {
		if got := h.admin("alice/a", items); len(got) != 1 || !strings.Contains(got[0], "error") {
			t.Errorf("%s: %q", items, got)
		}
	}
	if after := string(h.room.State()); after != before {
		t.Errorf("%s", after)
	}
	// Ownership may be handed over in one request; an occupant may be named twice.
	got := h.admin("alice/a", "<item jid='alice@localhost' affiliation='none'/><item jid='bob@localhost' affiliation='owner'/><item nick='alice' role='none'/><item nick='alice' role='none'/>")
	if got[0] != "alice/a < room: iq result id=a" || h.room.affiliation(h.room.byNick["bob"].user) != owner || len(h.room.occupants) != 1 {
		t.Errorf("%q", got)
	}
}

func TestAffiliationsBound(t *testing.T) {
	h := newHall(t, func(c *Config) { c.Affiliations = 3 })
	h.joinAll("alice/a")
	for i, want := range []string{"result id=a", "result id=a", "error id=a resource-constraint"} {
		if got := h.admin("alice/a", fmt.Sprintf("<item jid='u%d@localhost' affiliation='member'/>", i)); got[0] != "alice/a < room: iq "+want {
			t.Errorf("%q", got)
		}
	}
	if got := h.admin("alice/a", "<item jid='u0@localhost' affiliation='none'/><item jid='u2@localhost' affiliation='member'/>"); got[0] != "alice/a < room: iq result id=a" {
		t.Errorf("%q", got)
	}
}

// §8.5, §9.5: who may see which list.
func TestAdminLists(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.admin("alice/a", "<item jid='bob@localhost' affiliation='member'/><item jid='dave@localhost' affiliation='member'/>")
	list := func(from, item string) string {
		return string(h.handle(from, "", "<iq type='get' id='l'><query xmlns='http://jabber.org/protocol/muc#admin'>"+item+"</query></iq>")[0].Stanza.Raw())
	}
	if got := list("alice/a", "<item affiliation='member'/>"); strings.Count(got, "<item ") != 2 {
		t.Error(got)
	}
	if got := list("alice/a", "<item role='participant'/>"); !strings.Contains(got, "nick='bob'") || strings.Count(got, "<item ") != 1 {
		t.Error(got)
	}
	if got := list("bob/b", "<item affiliation='member'/>"); !strings.Contains(got, "forbidden") {
		t.Error(got)
	}
	if got := list("bob/b", "<item role='participant'/>"); !strings.Contains(got, "forbidden") {
		t.Error(got)
	}
	if got := list("alice/a", "<item/>"); !strings.Contains(got, "bad-request") {
		t.Error(got)
	}
	h.configure("whois=anyone")
	if got := list("bob/b", "<item affiliation='member'/>"); strings.Count(got, "<item ") != 2 {
		t.Error(got)
	}
}

// Who owns every room is not to be touched by those who own one.
func TestAdmins(t *testing.T) {
	h := newHall(t, func(c *Config) { c.Admins = []string{" root@localhost", "eve@localhost"} })
	h.joinAll("alice/a", "bob/b")
	h.admin("alice/a", "<item jid='bob@localhost' affiliation='admin'/>")
	h.configure("membersonly=1")
	h.joinAll("root/r")
	if o := h.room.byNick["root"]; o.role != moderator {
		t.Errorf("enters as %v", o.role)
	}
	for _, c := range []struct{ actor, item, want string }{
		{"alice/a", "jid='root@localhost' affiliation='outcast'", "error id=a not-allowed"},
		{"alice/a", "jid='eve@localhost' affiliation='member'", "error id=a not-allowed"},
		{"alice/a", "nick='root' affiliation='none'", "error id=a not-allowed"},
		{"bob/b", "jid='root@localhost' affiliation='none'", "error id=a not-allowed"},
		{"carol/c", "jid='root@localhost' affiliation='none'", "error id=a forbidden"},
		{"root/r", "jid='root@localhost' affiliation='none'", "error id=a not-allowed"},
		{"bob/b", "nick='root' role='none'", "error id=a not-allowed"},
		{"alice/a", "nick='root' role='visitor'", "error id=a not-allowed"},
		{"root/r", "jid='alice@localhost' affiliation='none'", "error id=a conflict"}, // she alone owns this one
		{"eve/e", "jid='dave@localhost' affiliation='owner'", "result id=a"},
		{"root/r", "jid='alice@localhost' affiliation='none'", "result id=a"},
	} {
		if got := h.admin(c.actor, "<item "+c.item+"/>"); got[0] != c.actor+" < room: iq "+c.want {
			t.Errorf("%s: %s: %q", c.actor, c.item, got)
		}
	}
	list := string(h.handle("root/r", "", "<iq type='get' id='l'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='owner'/></query></iq>")[0].Stanza.Raw())
	if strings.Contains(list, "jid='root@") || !strings.Contains(list, "jid='dave@") {
		t.Error(list)
	}
}
