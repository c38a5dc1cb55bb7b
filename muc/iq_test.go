package muc

import (
	"slices"
	"strings"
	"testing"

	"holdfast/stanza"
)

const ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"

// XEP-0410 §3.3.
func TestSelfPing(t *testing.T) {
	h := newHall(t)
	h.expect("bob/b", "bob", ping, "bob/b < bob: iq error id=p not-acceptable")
	h.expect("bob/b", "bob", "<iq type='set' id='p'><vCard xmlns='vcard-temp'/></iq>", "bob/b < bob: iq error id=p not-acceptable")
	h.expect("bob/b", "", ping, "bob/b < room: iq error id=p item-not-found")
	h.joinAll("alice/a", "bob/b")
	h.expect("bob/b", "bob", ping, "bob/b < bob: iq result id=p")
	h.expect("bob/other", "bob", ping, "bob/other < bob: iq error id=p not-acceptable")
	h.expect("bob/b", "nobody", ping, "bob/b < nobody: iq error id=p item-not-found")
	h.expect("bob/b", "", ping, "bob/b < room: iq result id=p")
}

// XEP-0045 §6.6.
func TestOccupantIQ(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.join("alice/2", "alice")
	asked := h.handle("bob/b", "alice", "<iq type='get' id='v&apos;1'><vCard xmlns='vcard-temp'/></iq>")
	if len(asked) != 1 || asked[0].To.String() != "alice@localhost/2" || asked[0].From.Resource() != "bob" {
		t.Fatalf("%q", lines(t, asked))
	}
	request := wire(asked[0])
	if _, ok := request.Find("vcard-temp", "vCard"); !ok || request.Attr("type") != "get" {
		t.Errorf("%s", request.Raw())
	}
	id := escape(request.Attr("id"))
	answered := h.handle("alice/2", "bob", "<iq type='result' id='"+id+"'><vCard xmlns='vcard-temp'><FN>Alice</FN></vCard></iq>")
	if len(answered) != 1 || answered[0].To.String() != "bob@localhost/b" || answered[0].From.Resource() != "alice" {
		t.Fatalf("%q", lines(t, answered))
	}
	if answer := wire(answered[0]); answer.Attr("id") != "v'1" || !strings.Contains(string(answer.Raw()), "<FN>Alice</FN>") {
		t.Errorf("%s", answer.Raw())
	}
	// Answers to nothing go nowhere.
	h.expect("carol/c", "bob", "<iq type='result' id='"+id+"'/>")
	h.expect("alice/2", "bob", "<iq type='result' id='x'/>")
	h.expect("alice/2", "nobody", "<iq type='result' id='"+id+"'/>")
	h.expect("alice/2", "", "<iq type='result' id='"+id+"'/>")
	h.do("bob/b", "bob", "<presence type='unavailable'/>")
	h.expect("alice/2", "bob", "<iq type='result' id='"+id+"'/>")
	// The prefix is declared where it does not go along.
	h.joinAll("bob/b")
	h.expect("bob/b", "alice", "<iq type='get' id='1' xmlns:v='vcard-temp'><v:vCard/></iq>", "bob/b < alice: iq error id=1 bad-request")
}

// §6.4.
func TestDiscoverInfo(t *testing.T) {
	const info = "<iq type='get' id='d'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
	h := newHall(t)
	h.expect("bob/b", "", info, "bob/b < room: iq error id=d item-not-found")
	h.joinAll("alice/a")
	h.do("alice/a", "", "<message type='groupchat'><subject>fire</subject></message>")
	features := func() (all []string) {
		var q struct {
			Query struct {
				Identity []struct {
					Name string `xml:"name,attr"`
				} `xml:"identity"`
				Feature []struct {
					Var string `xml:"var,attr"`
				} `xml:"feature"`
				Form submitted `xml:"jabber:x:data x"`
			} `xml:"query"`
		}
		st := h.handle("bob/b", "", info)[0].Stanza
		if err := st.Decode(&q); err != nil {
			t.Fatal(err)
		}
		for _, f := range q.Query.Feature {
			all = append(all, f.Var)
		}
		subject, _ := q.Query.Form.value("muc#roominfo_subject")
		description, _ := q.Query.Form.value("muc#roominfo_description")
		occupants, _ := q.Query.Form.value("muc#roominfo_occupants")
		return append(all, q.Query.Identity[0].Name+","+subject+","+description+","+occupants)
	}
	wants := func(want ...string) {
		t.Helper()
		got := features()
		for _, f := range want {
			if !slices.Contains(got, f) {
				t.Errorf("%s is not among %q", f, got)
			}
		}
	}
	wants("http://jabber.org/protocol/muc", "urn:xmpp:sid:0", "urn:xmpp:occupant-id:0", "http://jabber.org/protocol/muc#stable_id",
		"http://jabber.org/protocol/muc#self-ping-optimization",
		"muc_public", "muc_open", "muc_unmoderated", "muc_semianonymous", "muc_unsecured", "muc_temporary", "coven,fire,,1")
	h.configure("roomname=Coven", "roomdesc=A place", "publicroom=0", "membersonly=1", "moderatedroom=1", "whois=anyone",
		"passwordprotectedroom=1", "roomsecret=x", "persistentroom=1")
	wants("muc_hidden", "muc_membersonly", "muc_moderated", "muc_nonanonymous", "muc_passwordprotected", "muc_persistent", "Coven,fire,A place,1")
	h.expect("bob/b", "", "<iq type='get' id='d'><query xmlns='http://jabber.org/protocol/disco#info' node='x-roomuser-item'/></iq>",
		"bob/b < room: iq error id=d feature-not-implemented")
	h.expect("bob/b", "", "<iq type='get' id='d'><vCard xmlns='vcard-temp'/></iq>", "bob/b < room: iq error id=d service-unavailable")
	h.expect("bob/b", "", "<iq type='get' id='d'/>", "bob/b < room: iq error id=d service-unavailable")
}

// §6.5.
func TestDiscoverItems(t *testing.T) {
	const items = "<iq type='get' id='d'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>"
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	count := func(from string) int {
		return strings.Count(string(h.handle(from, "", items)[0].Stanza.Raw()), "<item ")
	}
	if n := count("carol/c"); n != 2 {
		t.Errorf("%d items", n)
	}
	h.expect("bob/b", "", strings.Replace(items, "#items'", "#items' node='x'", 1), "bob/b < room: iq error id=d item-not-found")
	h.configure("publicroom=0")
	if in, out := count("bob/b"), count("carol/c"); in != 2 || out != 0 {
		t.Errorf("%d and %d items", in, out)
	}
}

// A room says nothing to nobody.
func TestNobody(t *testing.T) {
	h := newHall(t)
	if outs := h.room.Handle(stanza.New(stanza.Message, "", "", stanza.Addr{}, coven, nil)); len(outs) > 0 {
		t.Errorf("%q", lines(t, outs))
	}
}
