package muc

import (
	"fmt"
	"strings"
	"testing"

	"holdfast/stanza"
)

func inviting(to ...string) string {
	b := "<message id='i'><x xmlns='http://jabber.org/protocol/muc#user'>"
	for _, jid := range to {
		b += "<invite to='" + jid + "'><reason>Hey</reason><continue thread='t'/></invite>"
	}
	return b + "</x></message>"
}

// XEP-0045 §7.8.2.
func TestInvite(t *testing.T) {
	h := newHall(t)
	h.expect("bob/b", "", inviting("dave@localhost"), "bob/b < room: message error item-not-found")
	h.joinAll("alice/a", "bob/b")
	h.expect("dave/d", "", inviting("dave@localhost"), "dave/d < room: message error not-acceptable")
	h.configure("passwordprotectedroom=1", "roomsecret=cauldron")
	outs := h.handle("bob/b", "", inviting("dave@localhost", "erin@localhost/e"))
	if got := strings.Join(lines(t, outs), "\n"); got != "dave < room: message invite=bob@localhost,Hey password=cauldron\n"+
		"erin/e < room: message invite=bob@localhost,Hey password=cauldron" {
		t.Error(got)
	}
	if st := wire(outs[0]); outs[0].Stanza.ID.IsZero() || st.Attr("id") != "i" || !strings.Contains(string(st.Raw()), "<continue thread='t'/>") {
		t.Errorf("%s", st.Raw())
	}
	h.expect("bob/b", "", inviting("localhost"), "bob/b < room: message error jid-malformed")
	h.expect("bob/b", "", inviting(strings.Split(strings.Repeat("x@localhost ", maxInvites)+"x@localhost", " ")...), "bob/b < room: message error bad-request")
	h.admin("alice/a", "<item jid='dave@localhost' affiliation='outcast'/>")
	h.expect("bob/b", "", inviting("dave@localhost"), "bob/b < room: message error not-allowed")
}

func TestInviteToMembersOnly(t *testing.T) {
	h := newHall(t, func(c *Config) { c.Affiliations = 4 })
	h.joinAll("alice/a", "bob/b")
	h.admin("alice/a", "<item jid='bob@localhost' affiliation='member'/>")
	h.configure("membersonly=1")
	h.expect("bob/b", "", inviting("dave@localhost"), "bob/b < room: message error forbidden")
	h.configure("allowinvites=1")
	h.expect("bob/b", "", inviting("dave@localhost"), "dave < room: message invite=bob@localhost,Hey")
	if got := h.join("dave/d", "dave"); len(got) < 4 {
		t.Errorf("%q", got)
	}
	h.expect("alice/a", "", inviting("erin@localhost"), "erin < room: message invite=alice@localhost,Hey")
	h.expect("alice/a", "", inviting("frank@localhost"), "alice/a < room: message error resource-constraint")
}

func TestDecline(t *testing.T) {
	declining := func(to string) string {
		return "<message><x xmlns='http://jabber.org/protocol/muc#user'><decline to='" + to + "'><reason>No</reason></decline></x></message>"
	}
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.expect("dave/d", "", declining("bob@localhost")) // nobody invited him
	h.do("bob/b", "", inviting("dave@localhost", "erin@localhost/e"))
	h.do("alice/a", "", inviting("dave@localhost"))
	h.open(h.room.State())
	h.expect("frank/f", "", declining("bob@localhost"))
	h.expect("dave/d", "", declining("erin@localhost"))
	h.expect("dave/d", "", declining("bob@localhost"), "bob/b < room: message decline=dave@localhost,No")
	h.expect("dave/d", "", declining("bob@localhost")) // once
	h.expect("dave/d", "", declining("coven@conference.localhost/alice"), "alice/a < room: message decline=dave@localhost,No")
	h.expect("dave/d", "", declining("coven@conference.localhost/alice"))
	h.expect("dave/d", "", declining("coven@conference.localhost/nobody"))
	h.expect("dave/d", "", declining("@"), "dave/d < room: message error jid-malformed")
	h.do("bob/b", "bob", "<presence type='unavailable'/>")
	h.expect("erin/e", "", declining("bob@localhost")) // who is gone is told nothing
	h.do("alice/a", "", inviting("erin@localhost"))
	h.admin("alice/a", "<item jid='erin@localhost' affiliation='outcast'/>")
	h.expect("erin/e", "", declining("alice@localhost"))
}

// The room remembers the last invitations, also when nobody was in it meanwhile.
func TestInvitedBounds(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.configure("persistentroom=1")
	h.save()
	for i := range 2 * maxInvited {
		h.do("alice/a", "", inviting(fmt.Sprintf("u%d@localhost", i), "again@localhost"))
	}
	if !h.room.Dirty() {
		t.Error("the invitations are not saved")
	}
	h.do("alice/a", "alice", "<presence type='unavailable'/>")
	h.save()
	h.open(nil)
	want := fmt.Sprintf("u%d@localhost", 2*maxInvited-1)
	if n := len(h.room.invited); n != maxInvited || h.room.invited[n-2].User.String() != want {
		t.Errorf("%d invitations: %v", n, h.room.invited)
	}
	h.joinAll("alice/a")
	for i := range maxInvited {
		h.do("alice/a", "", inviting(strings.Repeat("x", 1000)+fmt.Sprintf("%d@localhost", i)))
	}
	bytes := 0
	for _, i := range h.room.invited {
		bytes += i.weight()
	}
	if bytes > maxInvitedBytes || bytes < maxInvitedBytes-2000 {
		t.Errorf("%d bytes of addresses", bytes)
	}
}

// §7.13, §8.6.
func TestVoice(t *testing.T) {
	voice := func(fields string) string {
		return "<message><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#request</value></field>" + fields + "</x></message>"
	}
	request := voice("<field var='muc#role'><value>participant</value></field>")
	allow := voice("<field var='muc#roomnick'><value>bob</value></field><field var='muc#request_allow'><value>true</value></field>")
	h := newHall(t)
	h.joinAll("alice/a", "carol/c")
	h.configure("moderatedroom=1")
	h.joinAll("bob/b")
	outs := h.handle("bob/b", "", request)
	if len(outs) != 1 || outs[0].To.Local() != "alice" {
		t.Fatalf("%q", lines(t, outs))
	}
	c, _ := outs[0].Stanza.Find(nsData, "x")
	var f submitted
	if err := c.Decode(&f); err != nil {
		t.Fatal(err)
	}
	jid, _ := f.value("muc#jid")
	nick, _ := f.value("muc#roomnick")
	if jid != "bob@localhost/b" || nick != "bob" {
		t.Errorf("%s", outs[0].Stanza.Raw())
	}
	h.expect("carol/c", "", allow)
	h.expect("dave/d", "", allow, "dave/d < room: message error not-acceptable")
	h.expect("alice/a", "", strings.Replace(allow, "true", "false", 1))
	h.expect("alice/a", "", allow,
		"alice/a < bob: presence none/participant jid=bob/b by=alice",
		"carol/c < bob: presence none/participant by=alice",
		"bob/b < bob: presence none/participant jid=bob/b by=alice 110")
	h.expect("alice/a", "", allow)
	if h.room.occupants[0].addr != stanza.MustParseAddr("coven@conference.localhost/alice") {
		t.Error("the order of the occupants changed")
	}
}
