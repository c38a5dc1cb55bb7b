package session

import (
	"encoding/base64"
	"strings"
	"testing"

	"holdfast/stanza"
)

func TestStreamHeaders(t *testing.T) {
	for _, tt := range []struct {
		name string
		open Open
		want []string
		from string
	}{
		{"RFC 6120 §4.7.2: our domain", Open{To: testDomain, Version: "1.0"}, []string{"open", "features SCRAM-SHA-1 PLAIN"}, testDomain},
		{"the other domain", Open{To: otherDomain, Version: "1.0"}, []string{"open", "features SCRAM-SHA-1 PLAIN"}, otherDomain},
		{"written differently", Open{To: "Capulet.EXAMPLE", Version: "1.0"}, []string{"open", "features SCRAM-SHA-1 PLAIN"}, testDomain},
		{"no domain", Open{Version: "1.0"}, []string{"open", "features SCRAM-SHA-1 PLAIN"}, testDomain},
		{"§4.9.3.6: unknown host", Open{To: "verona.example", Version: "1.0"}, []string{"open", "error host-unknown"}, "verona.example"},
		{"a user is no host", Open{To: "juliet@" + testDomain, Version: "1.0"}, []string{"open", "error host-unknown"}, "juliet@" + testDomain},
		{"no address at all", Open{To: "@", Version: "1.0"}, []string{"open", "error host-unknown"}, "@"},
		{"§4.7.5: a later version", Open{To: testDomain, Version: "1.1"}, []string{"open", "features SCRAM-SHA-1 PLAIN"}, testDomain},
		{"§4.7.5: version 10", Open{To: testDomain, Version: "10.0"}, []string{"open", "features SCRAM-SHA-1 PLAIN"}, testDomain},
		{"§4.9.3.25: version 0.9", Open{To: testDomain, Version: "0.9"}, []string{"open", "error unsupported-version"}, testDomain},
		{"no version", Open{To: testDomain}, []string{"open", "error unsupported-version"}, testDomain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.t = t
				c := w.connected()
				c.stream.Open(tt.open)
				got := c.frames()
				if b := briefs(got); strings.Join(b, ",") != strings.Join(tt.want, ",") {
					t.Fatalf("got %q, want %q", b, tt.want)
				}
				if got[0].Attr("from") != tt.from || got[0].Attr("id") == "" || got[0].Attr("xml:lang") == "" {
					t.Errorf("header %s", got[0].Raw())
				}
				if strings.HasPrefix(tt.want[1], "error") {
					c.finished(Closed)
				} else {
					c.open()
				}
			})
		})
	}
}

func TestStreamRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.greeted()
		c.send(auth("juliet"))
		c.want("success")
		if !c.stream.Authenticated() {
			t.Error("not authenticated after success")
		}
		c.stream.Open(Open{To: otherDomain, Version: "1.0"})
		c.want("open", "error not-authorized") // RFC 6120 §4.3.3: the same identities
		c.finished(Closed)

		c = w.bound("juliet/balcony")
		c.stream.Open(Open{To: testDomain, Version: "1.0"})
		c.want("error policy-violation")
		c.finished(Closed)

		w.accounts.users[stanza.MustParseAddr("romeo@"+otherDomain)] = true
		w.accounts.users[stanza.MustParseAddr("romeo@"+otherDomain)] = true
		c = w.greeted()
		c.stream.Open(Open{To: otherDomain, Version: "1.0"})
		c.want("open", "features SCRAM-SHA-1 PLAIN")
		c.send(auth("romeo"))
		c.want("success")
		c.stream.Open(Open{Version: "1.0", To: otherDomain})
		c.want("open", "features bind session sm ver sub amp")
		c.send("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='" + stanza.NSBind + "'/></iq>")
		got := c.frames()
		if len(got) != 1 || !strings.Contains(string(got[0].Raw()), "<jid>romeo@"+otherDomain+"/") {
			t.Errorf("bound as %v", briefs(got))
		}
	})
}

func TestStreamEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		// What the transport found wrong before any header gets one first (RFC 6120 §4.9.1.2).
		c := w.connected()
		c.stream.Fail(stanza.NotWellFormed)
		c.want("open", "error not-well-formed")
		c.finished(Closed)
		c.stream.Fail(stanza.NotWellFormed)
		c.want()

		c = w.greeted()
		c.stream.PeerClosed()
		c.finished(Closed)
		c.send(auth("juliet"))
		c.want()
		c.stream.Lost(nil)

		// Nothing is handled, and nothing answered, once the stream is over.
		c = w.bound("juliet/balcony")
		c.stream.Fail(stanza.PolicyViolation)
		c.want("error policy-violation")
		c.chat("romeo", "late")
		c.stream.Open(Open{To: testDomain, Version: "1.0"})
		c.stream.PeerClosed()
		c.want()
		if got := w.box.bodies(addr("romeo")); len(got) > 0 {
			t.Errorf("handled after the end of the stream: %q", got)
		}

		// A client that makes us talk and does not read is cut.
		c = w.managed("juliet/balcony")
		for range maxControls + 1 {
			c.request()
		}
		c.finished(Broken)
	})
}

func TestDraining(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		managed, plain := w.managed("juliet/balcony").available(), w.bound("romeo/orchard").available()
		w.sv.Drain(t.Context())
		managed.want()
		managed.finished(Restarting)
		plain.want("error system-shutdown")
		plain.finished(Closed)
		managed.cut()
		plain.stream.Lost(nil)
		if w.sv.byToken(managed.token) == nil {
			t.Error("the session did not stay")
		}
		c := w.connected()
		c.stream.Open(Open{To: testDomain, Version: "1.0"})
		c.want("open", "error system-shutdown")
	})
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func sasl(name, attrs, text string) string {
	return "<" + name + " xmlns='" + stanza.NSSASL + "'" + attrs + ">" + text + "</" + name + ">"
}

func TestSASL(t *testing.T) {
	plain, scram := " mechanism='PLAIN'", " mechanism='SCRAM-SHA-1'"
	for _, tt := range []struct {
		name string
		send []string
		want []string
	}{
		{"RFC 6120 §6.4.2: initial response", []string{sasl("auth", plain, b64("juliet"))}, []string{"success"}},
		{"§6.4.3: challenge", []string{sasl("auth", scram, ""), sasl("response", "", b64("juliet"))}, []string{"challenge", "success"}},
		{"§6.4.2: an empty response is =", []string{sasl("auth", scram, "="), sasl("response", "", b64("juliet"))}, []string{"challenge", "success"}},
		{"§6.4.4: abort", []string{sasl("auth", scram, ""), sasl("abort", "", ""), sasl("auth", plain, b64("juliet"))}, []string{"challenge", "failure aborted", "success"}},
		{"§6.5.5: wrong base64", []string{sasl("auth", plain, "%%%"), sasl("auth", plain, b64("juliet"))}, []string{"failure incorrect-encoding", "success"}},
		{"base64 with bits that mean nothing", []string{sasl("auth", plain, "anVsaWV=")}, []string{"failure incorrect-encoding"}},
		{"wrong base64 in a response", []string{sasl("auth", scram, ""), sasl("response", "", "!")}, []string{"challenge", "failure incorrect-encoding"}},
		{"§6.5.7: unknown mechanism", []string{sasl("auth", " mechanism='X-NONE'", b64("juliet"))}, []string{"failure invalid-mechanism"}},
		{"no mechanism", []string{sasl("auth", "", b64("juliet"))}, []string{"failure invalid-mechanism"}},
		{"§6.5.10: not authorized", []string{sasl("auth", plain, b64("no"))}, []string{"failure not-authorized"}},
		{"§6.5.11: the store is down", []string{sasl("auth", plain, b64("down"))}, []string{"failure temporary-auth-failure"}},
		{"§6.5.9: response without auth", []string{sasl("response", "", "")}, []string{"failure malformed-request"}},
		{"auth within an exchange", []string{sasl("auth", scram, ""), sasl("auth", scram, ""), sasl("response", "", b64("juliet"))}, []string{"challenge", "failure malformed-request", "failure malformed-request"}},
		{"an unknown element", []string{sasl("authenticate", "", "")}, []string{"failure malformed-request"}},
		{
			"§6.4.5: too many tries",
			[]string{sasl("auth", plain, b64("no")), sasl("auth", plain, b64("no")), sasl("auth", plain, b64("no")), sasl("auth", plain, b64("juliet"))},
			[]string{"failure not-authorized", "failure not-authorized", "failure not-authorized", "error policy-violation"},
		},
		{"§6.2: a stanza before", []string{chat("romeo@"+testDomain, "x")}, []string{"error not-authorized"}},
		{"binding before", []string{"<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='" + stanza.NSBind + "'/></iq>"}, []string{"error not-authorized"}},
		{"XEP-0198 before", []string{"<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>"}, []string{"error not-authorized"}},
		{"no restart after", []string{sasl("auth", plain, b64("juliet")), "<presence xmlns='jabber:client'/>"}, []string{"success", "error not-authorized"}},
		{"registration that is off", []string{"<iq xmlns='jabber:client' type='get' id='r'><query xmlns='jabber:iq:register'/></iq>"}, []string{"error not-authorized"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.greeted()
				c.t = t
				for _, raw := range tt.send {
					c.send(raw)
				}
				c.want(tt.want...)
			})
		})
	}
}

func TestSASLWithoutTLS(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		c := w.connected()
		c.stream = w.sv.NewStream(c.wire, Peer{})
		c.wire.stream = c.stream
		c.stream.Open(Open{To: testDomain, Version: "1.0"})
		c.want("open", "features SCRAM-SHA-1")
		c.send(auth("juliet"))
		c.want("failure encryption-required")
	})
}

func bindTo(resource string) string {
	return "<iq xmlns='jabber:client' type='set' id='b&apos;1'><bind xmlns='" + stanza.NSBind + "'>" + resource + "</bind></iq>"
}

func TestBind(t *testing.T) {
	for _, tt := range []struct {
		name, send, want, jid string
	}{
		{"RFC 6120 §7.7: the client's resource", bindTo("<resource>balcony</resource>"), "iq result b'1", "juliet@" + testDomain + "/balcony"},
		{"§7.6: the server's resource", bindTo(""), "iq result b'1", "juliet@" + testDomain + "/"},
		{"an empty resource", bindTo("<resource/>"), "iq result b'1", "juliet@" + testDomain + "/"},
		{"a resource with markup", bindTo("<resource>&lt;&amp;&apos;</resource>"), "iq result b'1", "juliet@" + testDomain + "/&lt;&amp;&#39;"},
		{"§7.7.2.1: a resource that is none", bindTo("<resource>" + strings.Repeat("x", 1024) + "</resource>"), "iq error b'1 bad-request", ""},
		{"a stanza before", chat("romeo@"+testDomain, "x"), "error not-authorized", ""},
		{"another request before", "<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", "error not-authorized", ""},
		{"binding is a set", "<iq xmlns='jabber:client' type='get' id='b'><bind xmlns='" + stanza.NSBind + "'/></iq>", "error not-authorized", ""},
		{"XEP-0198 §3: enable before", "<enable xmlns='urn:xmpp:sm:3'/>", "failed unexpected-request", ""},
		{"an acknowledgement before", "<a xmlns='urn:xmpp:sm:3' h='0'/>", "failed unexpected-request", ""},
		{"something unknown", "<x xmlns='urn:example:x'/>", "error unsupported-stanza-type", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.authenticated("juliet")
				c.send(tt.send)
				got := c.frames()
				if len(got) != 1 || brief(got[0]) != tt.want {
					t.Fatalf("got %q, want %q", briefs(got), tt.want)
				}
				if !strings.Contains(string(got[0].Raw()), tt.jid) {
					t.Errorf("%s has no %s", got[0].Raw(), tt.jid)
				}
			})
		})
	}
}

func TestBindConflict(t *testing.T) {
	// RFC 6120 §7.7.2.2: the newcomer gets the resource.
	inWorld(t, func(t *testing.T, w *world) {
		old := w.managed("juliet/balcony").available()
		romeo := w.bound("romeo/orchard").available()
		romeo.chat("juliet", "unread")
		c := w.bound("juliet/balcony")
		old.want("error conflict")
		old.finished(Closed)
		old.chat("romeo", "late")
		old.stream.Lost(nil)
		romeo.want()
		if w.sv.byToken(old.token) != nil {
			t.Error("the old session can still be resumed")
		}
		c.available()
		if got := w.box.bodies(addr("juliet")); len(got) != 1 {
			t.Errorf("mailbox %q", got)
		}
		c.stream.Proved(c.wire.mark)
		if got := w.box.bodies(addr("juliet")); len(got) != 0 {
			t.Errorf("mailbox %q after the proof", got)
		}

		// A session that waits for its client is replaced too.
		old = w.managed("nurse/hall")
		old.cut()
		c = w.bound("nurse/hall")
		old.want()
		c.resume(old.token, 0)
		c.want("failed unexpected-request")
		c = w.authenticated("nurse")
		c.resume(old.token, 0)
		c.want("failed item-not-found 0")
	})
}

func TestBindLimit(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		a, b := w.bound("juliet/1"), w.bound("juliet/2")
		c := w.authenticated("juliet")
		c.send(bindTo("<resource>3</resource>"))
		c.want("iq error b'1 resource-constraint")
		c.open()
		w.bound("romeo/1")
		a.close()
		c.send(bindTo("<resource>3</resource>"))
		c.want("iq result b'1")
		w.bound("juliet/2") // in place of its own
		b.want("error conflict")

		// Sessions that wait for a client make room, the oldest first.
		x, y := w.managed("nurse/1"), w.managed("nurse/2")
		x.cut()
		y.cut()
		w.bound("nurse/3")
		x.addr, y.addr = addr("nurse/1"), addr("nurse/2")
		n := x.resumed(0)
		n.want("failed item-not-found 0")
		n = y.resumed(0)
		n.want("resumed 0")
	}, func(c *Config, _ *Parts) { c.SessionsPerUser = 2 })
}

func TestBoundStream(t *testing.T) {
	for _, tt := range []struct {
		name, send, want string
	}{
		{"RFC 6120 §8.1.2.1: forged from", "<message xmlns='jabber:client' from='romeo@" + testDomain + "/x' to='nurse@" + testDomain + "'/>", "error invalid-from"},
		{"another resource of one's own", "<presence xmlns='jabber:client' from='juliet@" + testDomain + "/chamber'/>", "error invalid-from"},
		{"from that is no address", "<presence xmlns='jabber:client' from='@'/>", "error invalid-from"},
		{"an empty from", "<presence xmlns='jabber:client' from=''/>", "error invalid-from"},
		{"§8.1.1.1: to that is no address", "<message xmlns='jabber:client' id='1' to='@'><body>x</body></message>", "message error " + testDomain + " jid-malformed"},
		{"an iq to none", "<iq xmlns='jabber:client' type='get' id='1' to='a@b@c/'><ping xmlns='urn:xmpp:ping'/></iq>", "iq error 1 jid-malformed"},
		{"§4.9.3.10: a stanza in another namespace", "<message xmlns='jabber:server'/>", "error unsupported-stanza-type"},
		{"an element of jabber:client that is no stanza", "<query xmlns='jabber:client'/>", "error unsupported-stanza-type"},
		{"an element in no namespace", "<message/>", "error invalid-namespace"},
		{"§4.9.3.24: something unknown", "<x xmlns='urn:example:x'/>", "error unsupported-stanza-type"},
		{"SASL again", sasl("auth", " mechanism='PLAIN'", b64("romeo")), "error unsupported-stanza-type"},
		{"an unknown element of XEP-0198", "<x xmlns='urn:xmpp:sm:3'/>", "error unsupported-stanza-type"},
		{"RFC 6120 §8.1.3: an iq without id", "<iq xmlns='jabber:client' type='get'><ping xmlns='urn:xmpp:ping'/></iq>", "iq error bad-request"},
		{"an iq with an empty id", "<iq xmlns='jabber:client' type='get' id=''><ping xmlns='urn:xmpp:ping'/></iq>", "iq error bad-request"},
		{"§8.2.3: an iq with two children", "<iq xmlns='jabber:client' type='get' id='1'><ping xmlns='urn:xmpp:ping'/><ping xmlns='urn:xmpp:ping'/></iq>", "iq error 1 bad-request"},
		{"an iq with none", "<iq xmlns='jabber:client' type='set' id='1'/>", "iq error 1 bad-request"},
		{"an iq of no type", "<iq xmlns='jabber:client' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "iq error 1 bad-request"},
		{"an iq of a made-up type", "<iq xmlns='jabber:client' type='ask' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", "iq error 1 bad-request"},
		{"RFC 6121 §4.7.1: a presence of a made-up type", "<presence xmlns='jabber:client' type='dancing'/>", "presence error " + testDomain + " bad-request"},
		{"a subscription to nobody", "<presence xmlns='jabber:client' type='subscribe'/>", "presence error " + testDomain + " bad-request"},
		{"§4.7.2.3: a priority out of range", "<presence xmlns='jabber:client'><priority>128</priority></presence>", "presence error " + testDomain + " bad-request"},
		{"RFC 6120 §10.4: a message to another server", "<message xmlns='jabber:client' to='paris@verona.example'><body>x</body></message>", "message error paris@verona.example remote-server-not-found"},
		{"a presence to another server", "<presence xmlns='jabber:client' to='paris@verona.example'/>", "presence error paris@verona.example remote-server-not-found"},
		{"a subscription to another server", "<presence xmlns='jabber:client' type='subscribe' to='paris@verona.example'/>", "presence error paris@verona.example remote-server-not-found"},
		{"an iq to another server", "<iq xmlns='jabber:client' type='get' id='1' to='verona.example'><ping xmlns='urn:xmpp:ping'/></iq>", "iq error 1 remote-server-not-found"},
		{"a message to the domain", "<message xmlns='jabber:client' to='" + testDomain + "'><body>x</body></message>", "message error " + testDomain + " service-unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := w.managed("juliet/balcony")
				c.t = t
				c.send(tt.send)
				c.want(tt.want)
				if strings.HasPrefix(tt.want, "error") {
					c.finished(Closed)
					// The error is the stream's, the session stays, and what was wrong is not counted.
					c.cut()
					n := c.resumed(0)
					n.want("resumed 0")
					return
				}
				c.open()
				if h := c.session().handled; h != 1 {
					t.Errorf("handled %d", h)
				}
			})
		})
	}
}

func TestFromMayBeOnesOwn(t *testing.T) {
	// RFC 6120 §8.1.2.1: the full address or the bare one; it is stamped with the full one.
	inWorld(t, func(_ *testing.T, w *world) {
		c, romeo := w.bound("juliet/balcony"), w.bound("romeo/orchard").available()
		for _, from := range []string{addr("juliet").String(), addr("juliet/balcony").String()} {
			c.send("<message xmlns='jabber:client' from='" + from + "' to='" + addr("romeo").String() + "'><body>x</body></message>")
			romeo.want("message juliet/balcony x")
		}
	})
}
