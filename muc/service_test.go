package muc

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
	}{
		{"MUC_HOST", func(c *Config) { c.Host = "a@b" }},
		{"MUC_HOST", func(c *Config) { c.Host = "a/b" }},
		{"MUC_CREATE", func(c *Config) { c.Create = "" }},
		{"MUC_ADMINS", func(c *Config) { c.Admins = []string{"root@localhost", "localhost"} }},
		{"MUC_ADMINS", func(c *Config) { c.Admins = []string{"root@localhost/r"} }},
		{"MUC_ADMINS", func(c *Config) { c.Admins = []string{""} }},
		{"MUC_OCCUPANTS", func(c *Config) { c.Occupants = 2001 }},
		{"MUC_HISTORY", func(c *Config) { c.History = -1 }},
		{"MUC_ROOMS_PER_USER", func(c *Config) { c.RoomsPerUser = -1 }},
		{"MUC_AFFILIATIONS", func(c *Config) { c.Affiliations = 0 }},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.name) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestHosts(t *testing.T) {
	h := newHall(t)
	host, ok := h.sv.Host("localhost")
	if !ok || host.String() != "conference.localhost" || !h.sv.Serves("conference.localhost") || h.sv.Serves("localhost") {
		t.Errorf("%v", host)
	}
	for _, addr := range []string{"conference.localhost", "coven@localhost", "coven@conference.localhost/nick"} {
		if _, err := h.sv.Open(t.Context(), stanza.MustParseAddr(addr), nil); err == nil {
			t.Errorf("%s is a room", addr)
		}
	}
	off := newHallWithout(t)
	if off.Serves("conference.localhost") || off.Serves("localhost") {
		t.Error("rooms are not off")
	}
	if _, ok := off.Host("localhost"); ok {
		t.Error("rooms are not off")
	}
}

// XEP-0045 §6.1 to §6.3.
func TestAnswer(t *testing.T) {
	h := newHall(t)
	for i := range 7 {
		room := stanza.MustParseAddr(fmt.Sprintf("r%d@conference.localhost", i))
		h.store.rooms[room] = Kept{Room: room, Public: i != 3, Name: map[int]string{1: "One & only"}[i]}
	}
	ask := func(raw string) (string, mstanza.Condition) {
		st, err := stanza.Parse([]byte("<iq xmlns='jabber:client' from='bob@localhost/b' to='conference.localhost' "+raw), stanza.ID{})
		if err != nil {
			t.Fatal(err)
		}
		content, err := h.sv.Answer(t.Context(), st)
		var e mstanza.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatal(err)
		}
		return string(content), e.Condition
	}
	items := func(set string) (string, mstanza.Condition) {
		return ask("type='get'><query xmlns='http://jabber.org/protocol/disco#items'>" + set + "</query></iq>")
	}
	if got, _ := ask("type='get'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"); !strings.Contains(got, "<feature var='http://jabber.org/protocol/muc'/>") {
		t.Error(got)
	}
	if got, condition := ask("type='get'><ping xmlns='urn:xmpp:ping'/></iq>"); got != "" || condition != "" {
		t.Error(got, condition)
	}
	got, _ := items("")
	if strings.Count(got, "<item ") != 6 || !strings.Contains(got, "<item jid='r1@conference.localhost' name='One &amp; only'/>") || strings.Contains(got, "r3@") || strings.Contains(got, "<set") {
		t.Error(got)
	}
	got, _ = items("<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><after>r1@conference.localhost</after></set>")
	if strings.Count(got, "<item ") != 2 || !strings.Contains(got, "<first>r2@conference.localhost</first><last>r4@conference.localhost</last>") {
		t.Error(got)
	}
	got, _ = items("<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><after>r6@conference.localhost</after></set>")
	if got != "<query xmlns='http://jabber.org/protocol/disco#items'><set xmlns='http://jabber.org/protocol/rsm'></set></query>" {
		t.Error(got)
	}
	for _, c := range []struct {
		raw  string
		want mstanza.Condition
	}{
		{"type='set'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>", mstanza.ServiceUnavailable},
		{"type='get'><query xmlns='jabber:iq:version'/></iq>", mstanza.ServiceUnavailable},
		{"type='get'/>", mstanza.ServiceUnavailable},
		{"type='get'><query xmlns='http://jabber.org/protocol/disco#items' node='x'/></iq>", mstanza.ItemNotFound},
		{"type='get'><query xmlns='http://jabber.org/protocol/disco#info' node='x'/></iq>", mstanza.ItemNotFound},
		{"type='get'><query xmlns='http://jabber.org/protocol/disco#items'><set xmlns='http://jabber.org/protocol/rsm'><max>x</max></set></query></iq>", mstanza.BadRequest},
		{"type='get'><query xmlns='http://jabber.org/protocol/disco#items'><set xmlns='http://jabber.org/protocol/rsm'><before/></set></query></iq>", mstanza.FeatureNotImplemented},
	} {
		if _, condition := ask(c.raw); condition != c.want {
			t.Errorf("%s: %s", c.raw, condition)
		}
	}
	// A long list says that it goes on, asked or not.
	for i := range maxPage {
		room := stanza.MustParseAddr(fmt.Sprintf("s%03d@conference.localhost", i))
		h.store.rooms[room] = Kept{Room: room, Public: true}
	}
	if got, _ := items(""); strings.Count(got, "<item ") != maxPage || !strings.Contains(got, "<last>s093@conference.localhost</last>") {
		t.Error(got)
	}
	h.store.err = errors.New("away")
	st, _ := stanza.Parse([]byte("<iq xmlns='jabber:client' type='get'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>"), stanza.ID{})
	if _, err := h.sv.Answer(t.Context(), st); !errors.Is(err, h.store.err) {
		t.Error(err)
	}
}
