package muc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"holdfast/stanza"
)

// step is one stanza that a client might send.
func step(t *rapid.T) (from, to, raw string) {
	users := []string{"alice", "bob", "carol", "guest", "root"}
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	user := func() string { return pick("user", users...) }
	nick := func() string { return pick("nick", "alice", "bob", "carol", "dave") }
	from = user() + "/" + pick("resource", "1", "2")
	yes := func() string { return pick("yes", "0", "1") }
	admin := func(item string) string {
		return "<iq type='set' id='a'><query xmlns='http://jabber.org/protocol/muc#admin'>" + item + "</query></iq>"
	}
	switch pick("what", "enter", "enter", "enter", "presence", "presence", "leave", "say", "say", "say", "private", "subject", "kick", "role",
		"affiliation", "affiliation", "configure", "configure", "invite", "decline", "error", "ping", "ask", "answer", "info", "items", "list", "form", "destroy") {
	case "enter":
		to = nick()
		raw = "<presence><show>" + pick("show", "away", "xa", "dnd") + "</show><x xmlns='http://jabber.org/protocol/muc'>" +
			pick("password", "", "<password>right</password>") + pick("history", "", "<history maxstanzas='2'/>", "<history seconds='3'/>") + "</x></presence>"
	case "presence":
		to, raw = nick(), "<presence><show>"+pick("show", "away", "xa", "dnd")+"</show></presence>"
	case "leave":
		to, raw = nick(), "<presence type='unavailable'><status>off</status></presence>"
	case "say":
		raw = "<message type='groupchat' id='m'><body>" + pick("body", "one", "two", strings.Repeat("long", 100)) + "</body>" +
			pick("more", "", "<no-store xmlns='urn:xmpp:hints'/>", "<x xmlns='http://jabber.org/protocol/muc#user'/>") + "</message>"
	case "private":
		to, raw = nick(), "<message type='chat'><body>psst</body></message>"
	case "subject":
		raw = "<message type='groupchat'><subject>" + pick("subject", "fire", "smoke", "") + "</subject></message>"
	case "kick":
		raw = admin("<item nick='" + nick() + "' role='none'/>")
	case "role":
		raw = admin("<item nick='" + nick() + "' role='" + pick("role", "visitor", "participant", "moderator") + "'/>")
	case "affiliation":
		item := "<item jid='" + pick("user", append(users, "erin", "frank")...) + "@localhost' affiliation='" + pick("affiliation", "outcast", "none", "member", "admin", "owner") + "'/>"
		raw = admin(item + pick("more", "", "<item nick='"+nick()+"' affiliation='member'/>"))
	case "configure":
		raw = configuration(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{
			"membersonly=" + yes(), "moderatedroom=" + yes(), "persistentroom=" + yes(), "publicroom=" + yes(),
			"whois=" + pick("whois", "anyone", "moderators"), "changesubject=" + yes(), "allowinvites=" + yes(),
			"maxusers=" + pick("maxusers", "2", "3", "10"), "allowpm=" + pick("allowpm", "anyone", "moderators", "none"),
			"muc#maxhistoryfetch=" + pick("fetch", "1", "3"), "roomsecret=right", "passwordprotectedroom=" + yes(),
		}), 1, 4, func(s string) string { return s }).Draw(t, "fields")...)
	case "invite":
		raw = inviting(user() + "@localhost")
	case "decline":
		raw = "<message><x xmlns='http://jabber.org/protocol/muc#user'><decline to='" + user() + "@localhost'/></x></message>"
	case "error":
		to = nick()
		raw = "<" + pick("kind", "message", "presence") + " type='error'><error type='cancel'><" + pick("condition", "gone", "not-acceptable") + " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></"
		raw += raw[1:strings.IndexByte(raw, ' ')] + ">"
	case "ping":
		to, raw = nick(), ping
	case "ask":
		to, raw = nick(), "<iq type='get' id='v'><vCard xmlns='vcard-temp'/></iq>"
	case "answer":
		to = nick()
		raw = "<iq type='result' id='" + returnID(stanza.MustParseAddr(user()+"@localhost/1"), "v") + "'/>"
	case "info":
		raw = "<iq type='get' id='i'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
	case "items":
		raw = "<iq type='get' id='i'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>"
	case "list":
		raw = "<iq type='get' id='l'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='" + pick("affiliation", "member", "outcast", "owner") + "'/></query></iq>"
	case "form":
		raw = "<iq type='get' id='f'><query xmlns='http://jabber.org/protocol/muc#owner'/></iq>"
	case "destroy":
		raw = "<iq type='set' id='d'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query></iq>"
	}
	return from, to, raw
}

// views is who is in the room as each session was told: by nick, affiliation and role.
type views map[string]map[string]string

func (v views) take(t testing.TB, outs []Out) {
	for _, o := range outs {
		if o.Stanza.Kind() != stanza.Presence || o.Stanza.Attr("type") == "error" {
			continue
		}
		s := look(t, wire(o))
		to, nick := o.To.String(), o.From.Resource()
		self, moves := false, s.X.Item.Nick != ""
		for _, code := range s.X.Status {
			self = self || code.Code == "110"
		}
		switch {
		case o.Stanza.Attr("type") == "":
			if v[to] == nil {
				v[to] = make(map[string]string)
			}
			v[to][nick] = s.X.Item.Affiliation + "/" + s.X.Item.Role
		case self && !moves:
			delete(v, to)
		default:
			delete(v[to], nick)
		}
	}
}

func rosterOf(r *Room) views {
	roster := make(map[string]string)
	for _, o := range r.occupants {
		roster[o.nick()] = r.affiliation(o.user).String() + "/" + o.role.String()
	}
	v := make(views)
	for session := range r.bySession {
		v[session.String()] = roster
	}
	return v
}

func checkBounds(t testing.TB, r *Room, outs []Out) {
	t.Helper()
	sessions := 0
	for _, o := range r.occupants {
		sessions += len(o.sessions)
		if r.byNick[o.nick()] != o || len(o.sessions) == 0 {
			t.Fatalf("%s is not found by nick", o.nick())
		}
	}
	switch {
	case len(outs) > maxOuts:
		t.Fatalf("%d stanzas", len(outs))
	case sessions != r.sessions || len(r.bySession) != sessions || len(r.byNick) != len(r.occupants):
		t.Fatalf("%d sessions, counted %d, found %d", sessions, r.sessions, len(r.bySession))
	case len(r.affiliations) > r.limits.Affiliations, len(r.history.entries()) > r.limits.History,
		r.history.bytes > r.limits.HistoryBytes, len(r.invited) > maxInvited:
		t.Fatalf("%d affiliations, %d messages", len(r.affiliations), len(r.history.entries()))
	case r.exists() && r.creator != r.nobody() && !slices.ContainsFunc(r.affiliated(), func(u stanza.Addr) bool { return r.affiliations[u] == owner }):
		t.Fatal("nobody owns the room")
	case !r.exists() && (len(r.occupants) > 0 || len(r.affiliations) > 0 || len(r.history.entries()) > 0):
		t.Fatal("something is left of the room")
	}
}

func printed(outs []Out) string {
	var b strings.Builder
	for _, o := range outs {
		fmt.Fprintf(&b, "%v > %v: %s\n", o.From, o.To, wire(o).Raw())
	}
	return b.String()
}

// A room that is taken down and opened again from its state at any time is the same room, and what it told everybody
// is who is in it.
func TestProperties(t *testing.T) {
	small := func(c *Config) {
		c.Occupants, c.History, c.Affiliations, c.Admins = 4, 5, 5, []string{"root@localhost"}
	}
	h := newHall(t, small)
	restarted := newHall(t, func(c *Config) { c.Create, c.Admins = CreateNobody, []string{"alice@localhost"} })
	rapid.Check(t, func(rt *rapid.T) {
		h.now = 0
		clear(h.store.rooms)
		h.named = rapid.Bool().Draw(rt, "named")
		restarted.named = !h.named
		h.open(nil)
		h.room.limits.HistoryBytes = 1500
		one, err := h.sv.Open(t.Context(), coven, h.room.State())
		if err != nil {
			rt.Fatal(err)
		}
		other := h.room
		told := make(views)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			from, to, raw := step(rt)
			st := h.parse(from, to, raw)
			if rapid.IntRange(0, 3).Draw(rt, "open") == 0 {
				if other, err = restarted.sv.Open(t.Context(), coven, other.State()); err != nil {
					rt.Fatal(err)
				}
			}
			before := string(one.State())
			outs, again := one.Handle(st), other.Handle(st)
			if diff := cmp.Diff(printed(outs), printed(again)); diff != "" {
				rt.Fatalf("%s to %q: %s (-one +opened again)\n%s", from, to, raw, diff)
			}
			if diff := cmp.Diff(string(one.State()), string(other.State())); diff != "" {
				rt.Fatalf("after %s to %q: %s (-one +opened again)\n%s", from, to, raw, diff)
			}
			if len(outs) == 1 && outs[0].Stanza.Attr("type") == "error" && string(one.State()) != before {
				rt.Fatalf("refused, and yet the room is another one: %s", raw)
			}
			checkBounds(t, one, outs)
			told.take(t, outs)
			if diff := cmp.Diff(rosterOf(one), told); diff != "" {
				rt.Fatalf("after %s to %q: %s\n%s(-is +was told)\n%s", from, to, raw, printed(outs), diff)
			}
		}
	})
}
