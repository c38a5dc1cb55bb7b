package session

import (
	"slices"
	"strings"
	"testing"

	"holdfast/stanza"
)

// TestMessageDelivery is the table of RFC 6121 §8.5.4, for messages, with the choices that route makes where the RFC
// leaves one. Juliet's sessions differ by case; romeo sends.
func TestMessageDelivery(t *testing.T) {
	type where map[string]string // by state of juliet
	const (
		nobody = "no such user"
		gone   = "no session"
		shy    = "negative priority"
		bare   = "not available"
		one    = "one session"
		two    = "several sessions"
	)
	// What becomes of a message: "stored", "dropped", "error", or the resources that get it.
	for _, tt := range []struct {
		name, to, typ string
		want          where
	}{
		{"§8.5.2.1.1 chat to the bare address", "juliet", "chat", where{nobody: "error", gone: "stored", shy: "stored", bare: "stored", one: "1", two: "1 2"}},
		{"normal to the bare address", "juliet", "normal", where{nobody: "error", gone: "stored", shy: "stored", bare: "stored", one: "1", two: "1 2"}},
		{"no type to the bare address", "juliet", "", where{nobody: "error", gone: "stored", shy: "stored", bare: "stored", one: "1", two: "1 2"}},
		{"an unknown type is normal (§5.2.2)", "juliet", "scroll", where{nobody: "error", gone: "stored", shy: "stored", bare: "stored", one: "1", two: "1 2"}},
		{"headline to the bare address", "juliet", "headline", where{nobody: "error", gone: "dropped", shy: "dropped", bare: "dropped", one: "1", two: "1 2"}},
		{"groupchat to the bare address", "juliet", "groupchat", where{nobody: "error", gone: "error", shy: "error", bare: "error", one: "error", two: "error"}},
		{"error to the bare address", "juliet", "error", where{nobody: "dropped", gone: "dropped", shy: "dropped", bare: "dropped", one: "dropped", two: "dropped"}},

		{"§8.5.3.1 chat to a resource", "juliet/1", "chat", where{nobody: "error", gone: "stored", shy: "1", bare: "1", one: "1", two: "1"}},
		{"normal to a resource", "juliet/1", "normal", where{nobody: "error", gone: "error", shy: "1", bare: "1", one: "1", two: "1"}},
		{"headline to a resource", "juliet/1", "headline", where{nobody: "error", gone: "error", shy: "1", bare: "1", one: "1", two: "1"}},
		{"groupchat to a resource", "juliet/1", "groupchat", where{nobody: "error", gone: "error", shy: "1", bare: "1", one: "1", two: "1"}},
		{"error to a resource", "juliet/1", "error", where{nobody: "dropped", gone: "dropped", shy: "1", bare: "1", one: "1", two: "1"}},

		{"§8.5.3.2.1 chat to a missing resource", "juliet/x", "chat", where{nobody: "error", gone: "stored", shy: "stored", bare: "stored", one: "1", two: "1 2"}},
		{"normal to a missing resource", "juliet/x", "normal", where{nobody: "error", gone: "error", shy: "error", bare: "error", one: "error", two: "error"}},
		{"headline to a missing resource", "juliet/x", "headline", where{nobody: "error", gone: "error", shy: "error", bare: "error", one: "error", two: "error"}},
		{"groupchat to a missing resource", "juliet/x", "groupchat", where{nobody: "error", gone: "error", shy: "error", bare: "error", one: "error", two: "error"}},
		{"error to a missing resource", "juliet/x", "error", where{nobody: "dropped", gone: "dropped", shy: "dropped", bare: "dropped", one: "dropped", two: "dropped"}},
	} {
		for state, want := range tt.want {
			t.Run(tt.name+"/"+state, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					var juliets []*client
					join := func(resource, presence string) {
						c := w.bound("juliet/" + resource)
						if presence != "" {
							c.send(presence)
						}
						juliets = append(juliets, c)
					}
					switch state {
					case nobody:
						delete(w.accounts.users, addr("juliet"))
					case shy:
						join("1", "<presence xmlns='jabber:client'><priority>-1</priority></presence>")
					case bare:
						join("1", "")
					case one:
						join("1", "<presence xmlns='jabber:client'/>")
					case two:
						join("1", "<presence xmlns='jabber:client'><priority>5</priority></presence>")
						join("2", "<presence xmlns='jabber:client'/>")
						join("3", "<presence xmlns='jabber:client'><priority>-5</priority></presence>")
					}
					for _, c := range juliets {
						c.frames()
					}
					romeo := w.bound("romeo/orchard")
					typ := ""
					if tt.typ != "" {
						typ = " type='" + tt.typ + "'"
					}
					romeo.send("<message xmlns='jabber:client' id='m'" + typ + " to='" + addr(tt.to).String() + "'><body>hail</body></message>")

					var got []string
					for _, c := range juliets {
						for _, e := range c.frames() {
							if body(e) != "hail" || e.Attr("from") != addr("romeo/orchard").String() || e.Attr("to") != addr(tt.to).String() || e.Attr("type") != tt.typ {
								t.Errorf("%s got %s", c.addr, e.Raw())
							}
							got = append(got, c.addr.Resource())
						}
					}
					for _, e := range romeo.frames() {
						if brief(e) != "message error "+short(addr(tt.to).String())+" service-unavailable" || e.Attr("id") != "m" {
							t.Errorf("romeo got %s", e.Raw())
						}
						got = append(got, "error")
					}
					if slices.Equal(w.box.bodies(addr("juliet")), []string{"hail"}) {
						got = append(got, "stored")
					}
					if len(got) == 0 {
						got = []string{"dropped"}
					}
					if s := strings.Join(got, " "); s != want {
						t.Errorf("got %q, want %q", s, want)
					}
				})
			})
		}
	}
}

func TestIQDelivery(t *testing.T) {
	const query = "<query xmlns='urn:example:q'/>"
	for _, tt := range []struct {
		name, to, typ, inner string
		juliet, romeo        string // what they get
	}{
		{"RFC 6121 §8.5.3.1: get to a resource", "juliet/balcony", "get", query, "iq get 1", ""},
		{"set to a resource", "juliet/balcony", "set", query, "iq set 1", ""},
		{"result to a resource", "juliet/balcony", "result", "", "iq result 1", ""},
		{"error to a resource", "juliet/balcony", "error", "<error type='cancel'><gone xmlns='" + stanza.NSStanzaErrors + "'/></error>", "iq error 1 gone", ""},
		{"§8.5.3.2.3: get to a missing resource", "juliet/x", "get", query, "", "iq error 1 service-unavailable"},
		{"result to a missing resource", "juliet/x", "result", "", "", ""},
		{"error to a missing resource", "juliet/x", "error", "", "", ""},
		{"§8.5.2.1.3: get to a bare address", "juliet", "get", query, "", "iq error 1 service-unavailable"},
		{"ping to a bare address", "juliet", "get", "<ping xmlns='urn:xmpp:ping'/>", "", "iq error 1 service-unavailable"},
		{"disco of somebody one may not see", "juliet", "get", "<query xmlns='" + nsDiscoInfo + "'/>", "", "iq error 1 service-unavailable"},
		{"disco of a friend's account", "nurse", "get", "<query xmlns='" + nsDiscoInfo + "'/>", "", "iq result 1"},
		{"somebody else's roster", "juliet", "get", "<query xmlns='jabber:iq:roster'/>", "", "iq error 1 service-unavailable"},
		{"result to a bare address", "juliet", "result", "", "", ""},
		{"§8.5.1: nobody", "nobody", "get", query, "", "iq error 1 service-unavailable"},
		{"nobody's resource", "nobody/x", "get", query, "", "iq error 1 service-unavailable"},
		{"one's own account", "romeo", "get", "<ping xmlns='urn:xmpp:ping'/>", "", "iq result 1"},
		{"something one's own account does not know", "romeo", "get", query, "", "iq error 1 service-unavailable"},
		{"oneself", "romeo/orchard", "get", query, "", "iq get 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(_ *testing.T, w *world) {
				w.roster.friends(addr("romeo"), addr("nurse"))
				juliet, romeo := w.bound("juliet/balcony"), w.bound("romeo/orchard")
				romeo.send("<iq xmlns='jabber:client' type='" + tt.typ + "' id='1' to='" + addr(tt.to).String() + "'>" + tt.inner + "</iq>")
				for c, want := range map[*client]string{juliet: tt.juliet, romeo: tt.romeo} {
					c.t = t
					if want == "" {
						c.want()
					} else {
						c.want(want)
					}
				}
			})
		})
	}
}

func TestServerAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, typ, inner, want string
	}{
		{"XEP-0199 ping", "get", "<ping xmlns='urn:xmpp:ping'/>", ""},
		{"a ping that is a set", "set", "<ping xmlns='urn:xmpp:ping'/>", "bad-request"},
		{"XEP-0092 version", "get", "<query xmlns='jabber:iq:version'/>", "<version>1.2.3</version>"},
		{"XEP-0202 time", "get", "<time xmlns='urn:xmpp:time'/>", "<tzo>"},
		{"XEP-0030 info", "get", "<query xmlns='" + nsDiscoInfo + "'/>", "<feature var='msgoffline'/>"},
		{"XEP-0013 §2.1", "get", "<query xmlns='" + nsDiscoInfo + "'/>", "<feature var='" + nsOffline + "'/>"},
		{"info of a node", "get", "<query xmlns='" + nsDiscoInfo + "' node='x'/>", "item-not-found"},
		{"XEP-0030 items", "get", "<query xmlns='" + nsDiscoItems + "'/>", "disco#items"},
		{"RFC 3921 session", "set", "<session xmlns='" + nsSession + "'/>", ""},
		{"XEP-0077 that is off", "get", "<query xmlns='jabber:iq:register'/>", "service-unavailable"},
		{"RFC 6120 §8.4 something unknown", "get", "<query xmlns='urn:example:q'/>", "service-unavailable"},
		{"the domain's roster", "get", "<query xmlns='jabber:iq:roster'/>", "service-unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.bound("juliet/balcony")
				c.send("<iq xmlns='jabber:client' type='" + tt.typ + "' id='1' to='" + testDomain + "'>" + tt.inner + "</iq>")
				got := c.frames()
				if len(got) != 1 || got[0].Attr("from") != testDomain || got[0].Attr("to") != c.addr.String() || got[0].Attr("id") != "1" {
					t.Fatalf("got %q", briefs(got))
				}
				if raw := string(got[0].Raw()); !strings.Contains(raw, tt.want) {
					t.Errorf("%s has no %s", raw, tt.want)
				}
			})
		})
	}
}
