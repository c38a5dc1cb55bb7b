package session

import (
	"slices"
	"strings"
	"testing"
)

// verona is romeo and juliet with three clients each, and a bystander: one client is interested and available, one
// interested only, one available only (RFC 6121 §2.2).
func verona(t *testing.T, w *world) *stage {
	t.Helper()
	g := onStage(t, w)
	g.enter("romeo/orchard", true, true)
	g.enter("romeo/phone", true, false)
	g.enter("romeo/watch", false, true)
	g.enter("juliet/balcony", true, true)
	g.enter("juliet/chamber", true, false)
	g.enter("juliet/garden", false, true)
	g.enter("nurse/door", true, true)
	return g
}

// asked has romeo ask for what juliet shows.
func asked(g *stage) {
	g.t.Helper()
	g.says("romeo/orchard", sub("subscribe", "juliet/garden"), heard{ // §3.1.2: to the bare address whatever was said
		"romeo/orchard":  {"iq set roster [juliet none subscribe]"},
		"romeo/phone":    {"iq set roster [juliet none subscribe]"},
		"juliet/balcony": {"presence subscribe romeo"},
		"juliet/garden":  {"presence subscribe romeo"},
	})
}

// approved has juliet grant it.
func approved(g *stage) {
	g.t.Helper()
	asked(g)
	g.says("juliet/garden", sub("subscribed", "romeo"), heard{
		"juliet/balcony": {"iq set roster [romeo from]"},
		"juliet/chamber": {"iq set roster [romeo from]"},
		// §3.1.6: the approval before the push, then the presence.
		"romeo/orchard": {"presence subscribed juliet", "iq set roster [juliet to]", "presence juliet/balcony", "presence juliet/garden"},
		"romeo/phone":   {"presence subscribed juliet", "iq set roster [juliet to]"},
		"romeo/watch":   {"presence juliet/balcony", "presence juliet/garden"},
	})
}

// absent has a user not exist meanwhile.
func absent(g *stage, user string, do func()) {
	g.t.Helper()
	set := func(exists bool) {
		g.w.accounts.mu.Lock()
		defer g.w.accounts.mu.Unlock()
		g.w.accounts.users[addr(user)] = exists
	}
	set(false)
	do()
	set(true)
}

func TestSubscriptions(t *testing.T) {
	for name, play := range map[string]func(*stage){
		"RFC 6121 §3.1 request and approval": func(g *stage) {
			approved(g)
			// One way only: juliet is seen, romeo is not.
			g.says("juliet/balcony", "<presence xmlns='jabber:client'><show>dnd</show></presence>", heard{
				"juliet/balcony": {"presence juliet/balcony"}, "juliet/garden": {"presence juliet/balcony"},
				"romeo/orchard": {"presence juliet/balcony"}, "romeo/watch": {"presence juliet/balcony"},
			})
			g.says("romeo/orchard", "<presence xmlns='jabber:client'><show>dnd</show></presence>", heard{
				"romeo/orchard": {"presence romeo/orchard"}, "romeo/watch": {"presence romeo/orchard"},
			})
			g.says("juliet/balcony", sub("probe", "romeo"), nil)
			g.says("nurse/door", sub("probe", "juliet"), nil)
			g.says("romeo/phone", sub("probe", "juliet"), heard{"romeo/phone": {"presence juliet/balcony", "presence juliet/garden"}})
			g.leave("juliet/garden", heard{
				"juliet/balcony": {"presence unavailable juliet/garden"},
				"romeo/orchard":  {"presence unavailable juliet/garden"}, "romeo/watch": {"presence unavailable juliet/garden"},
			})
			g.leave("romeo/watch", heard{"romeo/orchard": {"presence unavailable romeo/watch"}})
			// §3.1.3: who is subscribed and asks again is answered without juliet.
			g.says("romeo/orchard", sub("subscribe", "juliet"), heard{"romeo/orchard": {"presence juliet/balcony"}})
		},
		"§3.1.3 a request that waits is not delivered twice": func(g *stage) {
			asked(g)
			g.says("romeo/phone", sub("subscribe", "juliet"), nil)
		},
		"§3.1.5 denial": func(g *stage) {
			asked(g)
			g.says("juliet/balcony", sub("unsubscribed", "romeo"), heard{
				"romeo/orchard": {"presence unsubscribed juliet", "iq set roster [juliet none]"},
				"romeo/phone":   {"presence unsubscribed juliet", "iq set roster [juliet none]"},
			})
			g.says("juliet/balcony", sub("unsubscribed", "romeo"), nil)
		},
		"§3.1.6 an approval that nobody asked for": func(g *stage) {
			g.says("nurse/door", sub("subscribed", "romeo"), heard{"nurse/door": {"iq set roster [romeo none true]"}})
			g.says("romeo/orchard", "<presence xmlns='jabber:client'/>", heard{
				"romeo/orchard": {"presence romeo/orchard"}, "romeo/watch": {"presence romeo/orchard"},
			})
		},
		"§3.2 cancellation": func(g *stage) {
			approved(g)
			g.says("juliet/chamber", sub("unsubscribed", "romeo"), heard{
				"juliet/balcony": {"iq set roster [romeo none]"},
				"juliet/chamber": {"iq set roster [romeo none]"},
				// §3.2.2: unavailable while romeo is still subscribed; §3.2.3: the cancellation before the push.
				"romeo/orchard": {"presence unavailable juliet/balcony", "presence unavailable juliet/garden", "presence unsubscribed juliet", "iq set roster [juliet none]"},
				"romeo/phone":   {"presence unsubscribed juliet", "iq set roster [juliet none]"},
				"romeo/watch":   {"presence unavailable juliet/balcony", "presence unavailable juliet/garden"},
			})
			g.says("juliet/balcony", "<presence xmlns='jabber:client'/>", heard{
				"juliet/balcony": {"presence juliet/balcony"}, "juliet/garden": {"presence juliet/balcony"},
			})
			g.says("romeo/orchard", sub("probe", "juliet"), nil)
		},
		"§3.3 unsubscription": func(g *stage) {
			approved(g)
			g.says("romeo/phone", sub("unsubscribe", "juliet"), heard{
				// §3.3.3: the stanza before the push; the unavailable presence at the end.
				"juliet/balcony": {"presence unsubscribe romeo", "iq set roster [romeo none]"},
				"juliet/chamber": {"presence unsubscribe romeo", "iq set roster [romeo none]"},
				"romeo/orchard":  {"iq set roster [juliet none]", "presence unavailable juliet/balcony", "presence unavailable juliet/garden"},
				"romeo/phone":    {"iq set roster [juliet none]"},
				"romeo/watch":    {"presence unavailable juliet/balcony", "presence unavailable juliet/garden"},
			})
		},
		"§3.3 a request that is taken back": func(g *stage) {
			asked(g)
			g.says("romeo/phone", sub("unsubscribe", "juliet"), heard{
				"romeo/orchard":  {"iq set roster [juliet none]"},
				"romeo/phone":    {"iq set roster [juliet none]"},
				"juliet/balcony": {"presence unsubscribe romeo"},
				"juliet/chamber": {"presence unsubscribe romeo"},
			})
			g.clients["juliet/chamber"].available() // it is not asked any more
			g.hear("chamber", heard{
				"juliet/balcony": {"presence juliet/chamber"}, "juliet/garden": {"presence juliet/chamber"},
			})
		},
		"§3.4 pre-approval": func(g *stage) {
			g.says("juliet/balcony", sub("subscribed", "romeo"), heard{
				"juliet/balcony": {"iq set roster [romeo none true]"},
				"juliet/chamber": {"iq set roster [romeo none true]"},
			})
			g.says("romeo/orchard", sub("subscribe", "juliet"), heard{
				"romeo/orchard": {
					"iq set roster [juliet none subscribe]", "presence subscribed juliet", "iq set roster [juliet to]",
					"presence juliet/balcony", "presence juliet/garden",
				},
				"romeo/phone":    {"iq set roster [juliet none subscribe]", "presence subscribed juliet", "iq set roster [juliet to]"},
				"romeo/watch":    {"presence juliet/balcony", "presence juliet/garden"},
				"juliet/balcony": {"iq set roster [romeo from true]"},
				"juliet/chamber": {"iq set roster [romeo from true]"},
			})
		},
		"§3.4 pre-approval taken back": func(g *stage) {
			g.says("juliet/balcony", sub("subscribed", "romeo"), heard{
				"juliet/balcony": {"iq set roster [romeo none true]"},
				"juliet/chamber": {"iq set roster [romeo none true]"},
			})
			g.says("juliet/balcony", sub("unsubscribed", "romeo"), heard{
				"juliet/balcony": {"iq set roster [romeo none]"},
				"juliet/chamber": {"iq set roster [romeo none]"},
			})
			asked(g)
		},
		"§3.1 both ways": func(g *stage) {
			approved(g)
			g.says("juliet/balcony", sub("subscribe", "romeo"), heard{
				"juliet/balcony": {"iq set roster [romeo from subscribe]"},
				"juliet/chamber": {"iq set roster [romeo from subscribe]"},
				"romeo/orchard":  {"presence subscribe juliet"},
				"romeo/watch":    {"presence subscribe juliet"},
			})
			g.says("romeo/orchard", sub("subscribed", "juliet"), heard{
				"romeo/orchard":  {"iq set roster [juliet both]"},
				"romeo/phone":    {"iq set roster [juliet both]"},
				"juliet/balcony": {"presence subscribed romeo", "iq set roster [romeo both]", "presence romeo/orchard", "presence romeo/watch"},
				"juliet/chamber": {"presence subscribed romeo", "iq set roster [romeo both]"},
				"juliet/garden":  {"presence romeo/orchard", "presence romeo/watch"},
			})
			// §2.5.2: who leaves a roster loses both ways, unavailable first.
			g.says("juliet/garden", rosterSet("<item jid='"+addr("romeo").String()+"' subscription='remove'/>"), heard{
				"juliet/balcony": {"iq set roster [romeo remove]", "presence unavailable romeo/orchard", "presence unavailable romeo/watch"},
				"juliet/chamber": {"iq set roster [romeo remove]"},
				"juliet/garden":  {"presence unavailable romeo/orchard", "presence unavailable romeo/watch", "iq result s"},
				"romeo/orchard": {
					"presence unavailable juliet/balcony", "presence unavailable juliet/garden",
					"presence unsubscribe juliet", "iq set roster [juliet to]", "presence unsubscribed juliet", "iq set roster [juliet none]",
				},
				"romeo/phone": {"presence unsubscribe juliet", "iq set roster [juliet to]", "presence unsubscribed juliet", "iq set roster [juliet none]"},
				"romeo/watch": {"presence unavailable juliet/balcony", "presence unavailable juliet/garden"},
			})
		},
		"§2.5 removal of one who waits for an answer": func(g *stage) {
			asked(g)
			g.says("romeo/watch", rosterSet("<item jid='"+addr("juliet").String()+"' subscription='remove'/>"), heard{
				"romeo/orchard":  {"iq set roster [juliet remove]"},
				"romeo/phone":    {"iq set roster [juliet remove]"},
				"romeo/watch":    {"iq result s"},
				"juliet/balcony": {"presence unsubscribe romeo"},
				"juliet/chamber": {"presence unsubscribe romeo"},
			})
		},
		"§8.5.1 nobody learns who exists": func(g *stage) {
			g.says("nurse/door", sub("subscribe", "ghost"), heard{"nurse/door": {"iq set roster [ghost none subscribe]"}})
			g.says("nurse/door", sub("unsubscribe", "ghost"), heard{"nurse/door": {"iq set roster [ghost none]"}})
		},
		"§8.5.1 a contact who was not there when asked, pre-approved": func(g *stage) {
			absent(g, "juliet", func() {
				g.says("romeo/orchard", sub("subscribed", "juliet"), heard{
					"romeo/orchard": {"iq set roster [juliet none true]"},
					"romeo/phone":   {"iq set roster [juliet none true]"},
				})
				g.says("romeo/orchard", sub("subscribe", "juliet"), heard{
					"romeo/orchard": {"iq set roster [juliet none subscribe true]"},
					"romeo/phone":   {"iq set roster [juliet none subscribe true]"},
				})
			})
			g.says("juliet/garden", sub("subscribed", "romeo"), heard{
				"juliet/balcony": {"iq set roster [romeo none true]"},
				"juliet/chamber": {"iq set roster [romeo none true]"},
			})
			g.says("juliet/garden", sub("subscribe", "romeo"), heard{
				"juliet/balcony": {
					"iq set roster [romeo none subscribe true]", "presence subscribed romeo", "iq set roster [romeo to true]",
					"presence romeo/orchard", "presence romeo/watch", "iq set roster [romeo both true]",
				},
				"juliet/chamber": {"iq set roster [romeo none subscribe true]", "presence subscribed romeo", "iq set roster [romeo to true]", "iq set roster [romeo both true]"},
				"juliet/garden":  {"presence romeo/orchard", "presence romeo/watch"},
				"romeo/orchard": {
					"iq set roster [juliet from subscribe true]", "presence subscribed juliet", "iq set roster [juliet both true]",
					"presence juliet/balcony", "presence juliet/garden",
				},
				"romeo/phone": {"iq set roster [juliet from subscribe true]", "presence subscribed juliet", "iq set roster [juliet both true]"},
				"romeo/watch": {"presence juliet/balcony", "presence juliet/garden"},
			})
		},
		"§8.5.1 a contact who was not there when asked, and asks": func(g *stage) {
			absent(g, "juliet", func() {
				g.says("romeo/orchard", sub("subscribe", "juliet"), heard{
					"romeo/orchard": {"iq set roster [juliet none subscribe]"},
					"romeo/phone":   {"iq set roster [juliet none subscribe]"},
				})
			})
			g.says("juliet/garden", sub("subscribe", "romeo"), heard{
				"juliet/balcony": {"iq set roster [romeo none subscribe]"},
				"juliet/chamber": {"iq set roster [romeo none subscribe]"},
				"romeo/orchard":  {"presence subscribe juliet"},
				"romeo/watch":    {"presence subscribe juliet"},
			})
			g.says("romeo/orchard", sub("subscribed", "juliet"), heard{
				"romeo/orchard":  {"iq set roster [juliet from subscribe]"},
				"romeo/phone":    {"iq set roster [juliet from subscribe]"},
				"juliet/balcony": {"presence subscribed romeo", "iq set roster [romeo to]", "presence romeo/orchard", "presence romeo/watch", "presence subscribe romeo"},
				"juliet/chamber": {"presence subscribed romeo", "iq set roster [romeo to]"},
				"juliet/garden":  {"presence romeo/orchard", "presence romeo/watch", "presence subscribe romeo"},
			})
		},
		"§3.1.2 oneself, another server, no address": func(g *stage) {
			g.says("nurse/door", sub("subscribe", "nurse"), nil)
			g.says("nurse/door", "<presence xmlns='jabber:client' type='subscribe' to='a@elsewhere.example'/>", heard{"nurse/door": {"presence error a@elsewhere.example remote-server-not-found"}})
			g.says("nurse/door", "<presence xmlns='jabber:client' type='subscribe'/>", heard{"nurse/door": {"presence error " + testDomain + " bad-request"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) { play(verona(t, w)) }, withRoster(t))
		})
	}
}

func TestRequestsWaitForALogin(t *testing.T) {
	// RFC 6121 §3.1.3: to each resource that becomes available, complete, until it is answered.
	inWorld(t, func(t *testing.T, w *world) {
		g := onStage(t, w)
		romeo := g.enter("romeo/orchard", true, true)
		romeo.send("<presence xmlns='jabber:client' id='ask' type='subscribe' to='" + addr("juliet").String() + "'><status>by yonder moon</status></presence>")
		romeo.want("iq set roster [juliet none subscribe]")

		juliet := w.bound("juliet/balcony")
		juliet.want()
		login := func(c *client, also ...string) {
			t.Helper()
			c.send("<presence xmlns='jabber:client'/>")
			got := c.frames()
			last := got[len(got)-1]
			c.t = t
			if want := append(append([]string{"presence " + short(c.addr.String())}, also...), "presence subscribe romeo"); !slices.Equal(briefs(got), want) {
				t.Fatalf("%s hears %q, want %q", c.addr, briefs(got), want)
			}
			if !strings.Contains(string(last.Raw()), "<status>by yonder moon</status>") || last.Attr("from") != addr("romeo").String() || last.Attr("id") != "ask" {
				t.Errorf("the request is %s", last.Raw())
			}
		}
		login(juliet)
		juliet.send("<presence xmlns='jabber:client'/>") // a change, not a login
		juliet.want("presence juliet/balcony")
		phone := w.bound("juliet/phone")
		login(phone, "presence juliet/balcony")
		juliet.want("presence juliet/phone")
		juliet.send("<presence xmlns='jabber:client' type='unavailable'/>")
		juliet.want()
		phone.want("presence unavailable juliet/balcony")
		login(juliet, "presence juliet/phone")
		phone.want("presence juliet/balcony")

		juliet.send(sub("unsubscribed", "romeo"))
		romeo.want("presence unsubscribed juliet", "iq set roster [juliet none]")
		phone.close()
		juliet.want("presence unavailable juliet/phone")
		phone = w.bound("juliet/phone")
		phone.send("<presence xmlns='jabber:client'/>")
		phone.want("presence juliet/phone", "presence juliet/balcony")
		juliet.want("presence juliet/phone")

		// The answer waits for nobody: the roster has it when romeo is back (§3.1.6).
		romeo.send(sub("subscribe", "juliet"))
		romeo.want("iq set roster [juliet none subscribe]")
		romeo.close()
		phone.send(sub("subscribed", "romeo"))
		romeo = w.bound("romeo/orchard")
		romeo.send(rosterGet(""))
		romeo.want("iq result roster [juliet to]")
		romeo.send("<presence xmlns='jabber:client'/>")
		romeo.want("presence romeo/orchard", "presence juliet/balcony", "presence juliet/phone")
	}, withRoster(t))
}

func TestRosterItems(t *testing.T) {
	// RFC 6121 §2.1 to §2.5.
	inWorld(t, func(t *testing.T, w *world) {
		g := onStage(t, w)
		g.enter("romeo/orchard", true, true)
		g.enter("romeo/watch", false, true)
		g.enter("juliet/balcony", true, true)
		juliet := addr("juliet").String()
		g.says("romeo/orchard", rosterGet(""), heard{"romeo/orchard": {"iq result roster"}})
		// Also the one that set it, though not interested, gets the result only.
		g.says("romeo/watch", rosterSet("<item jid='"+juliet+"/balcony' name='J &lt;3' subscription='both' ask='subscribe' approved='true'><group>Friends</group><group>Lovers</group></item>"), heard{
			"romeo/orchard": {"iq set roster [juliet none J <3]"}, "romeo/watch": {"iq result s"},
		})
		g.says("romeo/orchard", rosterSet("<item jid='"+juliet+"' name='Juliet'/>"), heard{
			"romeo/orchard": {"iq set roster [juliet none Juliet]", "iq result s"},
		})
		g.says("romeo/orchard", rosterSet("<item jid='friar@elsewhere.example'><group>Friends</group></item>"), heard{
			"romeo/orchard": {"iq set roster [friar@elsewhere.example none]", "iq result s"},
		})
		g.clients["romeo/watch"].send(rosterGet(""))
		got := g.clients["romeo/watch"].frames()
		if len(got) != 1 || !strings.Contains(string(got[0].Raw()), "<item jid='friar@elsewhere.example' subscription='none'><group>Friends</group></item><item jid='"+juliet+"' subscription='none' name='Juliet'></item>") {
			t.Errorf("the roster is %s", got[0].Raw())
		}
		for _, tt := range []struct{ name, item, want string }{
			{"§2.3.3 two items", "<item jid='a@b.example'/><item jid='c@b.example'/>", "bad-request"},
			{"§2.3.3 no item", "", "bad-request"},
			{"§2.3.3 a group twice", "<item jid='" + juliet + "'><group>A</group><group>A</group></item>", "bad-request"},
			{"§2.3.3 a group without a name", "<item jid='" + juliet + "'><group/></item>", "not-acceptable"},
			{"§2.3.3 a long name", "<item jid='" + juliet + "' name='" + strings.Repeat("x", 5000) + "'/>", "not-acceptable"},
			{"§2.3.3 no address", "<item jid='@'/>", "jid-malformed"},
			{"§2.5.3 nobody to remove", "<item jid='nurse@" + testDomain + "' subscription='remove'/>", "item-not-found"},
			{"oneself", "<item jid='" + addr("romeo").String() + "'/>", "not-allowed"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				g.t = t
				g.says("romeo/orchard", rosterSet(tt.item), heard{"romeo/orchard": {"iq error s " + tt.want}})
			})
		}
		g.t = t
		// §2.1.5: nobody else's.
		g.says("juliet/balcony", strings.Replace(rosterSet("<item jid='nurse@"+testDomain+"'/>"), "<iq ", "<iq to='"+addr("romeo").String()+"' ", 1), heard{
			"juliet/balcony": {"iq error s service-unavailable"},
		})
		g.says("romeo/watch", rosterSet("<item jid='"+juliet+"' subscription='remove'/>"), heard{
			"romeo/orchard": {"iq set roster [juliet remove]"}, "romeo/watch": {"iq set roster [juliet remove]", "iq result s"},
		})
	}, withRoster(t))
}

func TestRosterVersions(t *testing.T) {
	// RFC 6121 §2.6: what changed since, as pushes behind an empty result.
	inWorld(t, func(t *testing.T, w *world) {
		g := onStage(t, w)
		romeo := g.enter("romeo/orchard", false, false)
		get := func(c *client, ver string) (all []string, last string) {
			t.Helper()
			c.send(rosterGet(" ver='" + ver + "'"))
			for _, e := range c.frames() {
				all = append(all, brief(e))
				if q, ok := e.Find("jabber:iq:roster", "query"); ok {
					last = q.Attr("ver")
				}
			}
			return all, last
		}
		set := func(item string) (ver string) {
			t.Helper()
			romeo.send(rosterSet(item))
			for _, e := range romeo.frames() {
				if q, ok := e.Find("jabber:iq:roster", "query"); ok {
					ver = q.Attr("ver")
				}
			}
			return ver
		}
		item := func(name, more string) string { return "<item jid='" + addr(name).String() + "' " + more + "/>" }

		got, first := get(romeo, "")
		if !slices.Equal(got, []string{"iq result roster"}) || first == "" {
			t.Fatalf("first: %q, version %q", got, first)
		}
		known := set(item("juliet", ""))
		set(item("nurse", ""))
		if ver := set(item("tybalt", "")); ver == known || known == "" {
			t.Fatalf("versions %q and %q", known, ver)
		}
		set(item("nurse", "subscription='remove'"))
		newest := set(item("juliet", "name='J'"))

		phone := w.bound("romeo/phone")
		for _, tt := range []struct {
			ver  string
			want []string
		}{
			{known, []string{"iq result g", "iq set roster [tybalt none]", "iq set roster [nurse remove]", "iq set roster [juliet none J]"}},
			{newest, []string{"iq result g"}},
			{"made-up", []string{"iq result roster [juliet none J] [tybalt none]"}},
			{"", []string{"iq result roster [juliet none J] [tybalt none]"}},
		} {
			got, last := get(phone, tt.ver)
			if !slices.Equal(got, tt.want) {
				t.Errorf("ver %q: got %q, want %q", tt.ver, got, tt.want)
			}
			if len(got) > 1 && last != newest || len(got) == 1 && got[0] != "iq result g" && last != newest {
				t.Errorf("ver %q leads to %q, want %q", tt.ver, last, newest)
			}
		}
		// A client that does not speak of versions gets none.
		phone.send(rosterGet(""))
		if raw := string(phone.frames()[0].Raw()); strings.Contains(raw, " ver=") {
			t.Errorf("a version unasked: %s", raw)
		}
	}, withRoster(t))
}
