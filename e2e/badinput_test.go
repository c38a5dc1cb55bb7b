package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// stage is how far an ill-behaved connection goes before it misbehaves.
type stage int

const (
	dialled       stage = iota // a WebSocket, nothing said
	opened                     // the stream is open, nobody is authenticated
	authenticated              // SASL is done, no resource is bound
	bound
)

func (s stage) String() string {
	return [...]string{"dialled", "opened", "authenticated", "bound"}[s]
}

func reach(t *testing.T, g *gatewayproc.Gateway, s stage) *user {
	t.Helper()
	if s == bound {
		return login(t, g, "mallory", "")
	}
	ctx := within(t, 10*time.Second)
	c, err := xmppclient.Dial(ctx, g.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Abort)
	switch s {
	case opened:
		err = c.Open(ctx, gatewayproc.Domain)
	case authenticated:
		err = c.Prepare(ctx, account("mallory", ""))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &user{Conn: c, t: t}
}

// expectStreamError reads up to a stream error, holds it to one of the conditions, and sees the stream closed
// (RFC 6120 §4.9.1.1, RFC 7395 §3.5) and then the connection, with one of the statuses.
func (u *user) expectStreamError(conditions []string, statuses ...int) *xmppclient.Element {
	u.t.Helper()
	failed := u.expect("a stream error", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSStream, "error") })
	if !slices.Contains(conditions, failed.Condition()) || failed.Child(xmppclient.NSStreams, failed.Condition()) == nil {
		u.t.Errorf("%v; want one of %v", failed, conditions)
	}
	ctx := within(u.t, 10*time.Second)
	e, err := u.Read(ctx)
	if err == nil {
		if !e.Is(xmppclient.NSFraming, "close") {
			u.t.Errorf("%v after a stream error; want <close/>", e)
		}
		if err = u.Write(ctx, "<close xmlns='"+xmppclient.NSFraming+"'/>"); err == nil {
			_, err = u.Read(ctx)
		}
	} else {
		u.t.Errorf("no <close/> after a stream error: %v", err)
	}
	if got := xmppclient.Status(err); !slices.Contains(statuses, got) {
		u.t.Errorf("the connection ended with %d (%v); want one of %v", got, err, statuses)
	}
	return failed
}

// TestBadInputXML feeds what is no XML of ours, before and after authentication.
func TestBadInputXML(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("mallory", "witness")
	witness := available(t, g, "witness", "")
	normal, tooBig := int(websocket.StatusNormalClosure), int(websocket.StatusMessageTooBig)
	message := func(inner string) string {
		return "<message xmlns='jabber:client' to='" + bare("witness") + "'>" + inner + "</message>"
	}
	nested := strings.Repeat("<a>", 10_000) + strings.Repeat("</a>", 10_000)
	cases := []struct {
		name       string // the section that says so
		frame      string
		conditions []string
		status     int
	}{
		{"RFC 7395 §3.3.3, two elements in a frame", message("") + message(""), []string{"bad-format", "not-well-formed", "invalid-xml"}, normal},
		{"RFC 7395 §3.3.3, not a whole element", "<message xmlns='jabber:client'><body>", []string{"not-well-formed", "bad-format"}, normal},
		{"RFC 7395 §3.3.3, no element", "hello", []string{"bad-format", "not-well-formed", "invalid-xml"}, normal},
		{"RFC 6120 §4.9.3.13, unbalanced", message("<a></b>"), []string{"not-well-formed"}, normal},
		{"RFC 6120 §4.9.3.13, unclosed attribute", message("<a b='c></a>"), []string{"not-well-formed"}, normal},
		{"RFC 6120 §4.9.3.13, attribute given twice", message("<a b='1' b='2'/>"), []string{"not-well-formed"}, normal},
		{"RFC 6120 §4.9.3.13, control character", message("\x01"), []string{"not-well-formed"}, normal},
		{"RFC 6120 §4.9.3.2, undeclared prefix", message("<p:a/>"), []string{"bad-namespace-prefix", "not-well-formed"}, normal},
		{"RFC 6120 §11.1, comment", message("<!-- hidden -->"), []string{"restricted-xml"}, normal},
		{"RFC 6120 §11.1, processing instruction", message("<?php exit; ?>"), []string{"restricted-xml"}, normal},
		{"RFC 6120 §11.1, DTD", "<!DOCTYPE m [<!ENTITY a 'aaaa'>]>" + message("&a;"), []string{"restricted-xml"}, normal},
		{"RFC 6120 §11.1, undeclared entity", message("&nbsp;"), []string{"restricted-xml", "not-well-formed"}, normal},
		{"RFC 6120 §13.12, 10,000 nested elements", message(nested), []string{"policy-violation"}, normal},
		{"RFC 6120 §13.12, 10,000 attributes", "<message xmlns='jabber:client' " + attributes(10_000) + "/>", []string{"policy-violation"}, normal},
		{"RFC 6120 §13.12, 10 MB", message("<body>" + strings.Repeat("a", 10<<20) + "</body>"), []string{"policy-violation"}, tooBig},
	}
	for _, s := range []stage{dialled, opened, authenticated, bound} {
		for _, c := range cases {
			t.Run(s.String()+"/"+c.name, func(t *testing.T) {
				u := reach(t, g, s)
				// The gateway may stop reading a message of 10 MB before all of it is written.
				err := u.Write(within(t, 10*time.Second), c.frame)
				if err != nil && len(c.frame) < 1<<20 {
					t.Fatal(err)
				}
				// Before authentication messages are bounded more tightly, and then it is their size that is wrong.
				conditions, statuses := c.conditions, []int{c.status}
				if s < authenticated && len(c.frame) > 16<<10 {
					conditions, statuses = append(conditions, "policy-violation"), append(statuses, tooBig)
				}
				u.expectStreamError(conditions, statuses...)
			})
			if t.Failed() {
				break
			}
		}
	}
	witness.alive()
	if got := g.ResidentMiB(); got > 300 {
		t.Errorf("the gateway has %d MiB resident after all that", got)
	}
}

func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d='' ", i)
	}
	return b.String()
}

// TestBadInputFrames is what WebSocket itself forbids, or RFC 7395 does.
func TestBadInputFrames(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("mallory", "witness")
	witness := available(t, g, "witness", "")
	for _, protocols := range [][]string{nil, {"chat"}, {"XMPP-framing", "mqtt"}} {
		t.Run(fmt.Sprintf("RFC 7395 §3.1, subprotocols %v", protocols), func(t *testing.T) {
			c, resp, err := xmppclient.DialOptions(t.Context(), g.URL(), &websocket.DialOptions{Subprotocols: protocols})
			if err == nil {
				c.Abort()
				t.Fatal("the handshake succeeded")
			}
			if resp == nil || resp.StatusCode != http.StatusBadRequest {
				t.Fatalf("answered with %v, %v; want 400", resp, err)
			}
		})
	}
	t.Run("RFC 6455 §10.2, an Origin that is not allowed", func(t *testing.T) {
		_, resp, err := xmppclient.DialOptions(t.Context(), g.URL(), &websocket.DialOptions{
			Subprotocols: []string{"xmpp"}, HTTPHeader: http.Header{"Origin": {"https://evil.example"}},
		})
		if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("answered with %v, %v; want 403", resp, err)
		}
	})
	for _, s := range []stage{opened, bound} {
		t.Run("RFC 7395 §3.2, binary frame, "+s.String(), func(t *testing.T) {
			u := reach(t, g, s)
			if err := u.WriteBinary(within(t, 5*time.Second), []byte("<presence xmlns='jabber:client'/>")); err != nil {
				t.Fatal(err)
			}
			u.expectStreamError([]string{"unsupported-encoding", "bad-format"}, int(websocket.StatusUnsupportedData))
		})
	}
	t.Run("RFC 6455 §8.1, not UTF-8", func(t *testing.T) {
		u := reach(t, g, bound)
		u.send("<message xmlns='jabber:client'><body>\xff\xfe</body></message>")
		u.expectStreamError([]string{"not-well-formed", "unsupported-encoding", "bad-format"},
			int(websocket.StatusNormalClosure), int(websocket.StatusInvalidFramePayloadData))
	})
	t.Run("RFC 6455 §5.4, a stanza in many frames is right", func(t *testing.T) {
		u := reach(t, g, bound)
		err := u.WriteFragmented(within(t, 5*time.Second), "<message xmlns='jab", "ber:client' to='"+bare("witness"), "'><body>in p", "ieces</body></message>")
		if err != nil {
			t.Fatal(err)
		}
		witness.message("in pieces")
		u.alive()
	})
	t.Run("RFC 6455 §5.1, an unmasked frame", func(t *testing.T) {
		c, err := net.Dial("tcp", g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET /xmpp-websocket HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", g.Addr())
		buf := make([]byte, 4096)
		if n, err := c.Read(buf); err != nil || !strings.Contains(string(buf[:n]), " 101 ") {
			t.Fatalf("handshake: %q, %v", buf[:n], err)
		}
		if _, err := c.Write([]byte{0x81, 0x02, 'h', 'i'}); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := c.Read(buf); err != nil {
				if errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "timeout") {
					t.Fatalf("the connection stays open: %v", err)
				}
				return
			}
		}
	})
	witness.alive()
}

// TestBadInputStream breaks the rules of streams, authentication and stanzas.
func TestBadInputStream(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("mallory", "witness")
	witness := available(t, g, "witness", "")
	normal := int(websocket.StatusNormalClosure)

	t.Run("RFC 6120 §4.9.3.6, unknown host", func(t *testing.T) {
		u := reach(t, g, dialled)
		u.send("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='elsewhere.example' version='1.0'/>")
		u.expectStreamError([]string{"host-unknown"}, normal)
	})
	t.Run("RFC 6120 §4.9.3.25, version from the future", func(t *testing.T) {
		u := reach(t, g, dialled)
		u.send("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost'/>")
		u.expectStreamError([]string{"unsupported-version"}, normal)
	})
	t.Run("RFC 7395 §3.4, wrong namespace of open", func(t *testing.T) {
		u := reach(t, g, dialled)
		u.send("<open xmlns='urn:example:wrong' to='localhost' version='1.0'/>")
		u.expectStreamError([]string{"invalid-namespace"}, normal)
	})
	for _, s := range []stage{dialled, opened, authenticated} {
		t.Run("RFC 6120 §4.9.3.12, stanza too early, "+s.String(), func(t *testing.T) {
			u := reach(t, g, s)
			u.send("<message xmlns='jabber:client' to='" + bare("witness") + "'><body>early</body></message>")
			u.expectStreamError([]string{"not-authorized"}, normal)
		})
	}
	for _, from := range []string{bare("witness"), bare("witness") + "/x", "localhost", bare("mallory") + "/other", "@@"} {
		t.Run("RFC 6120 §8.1.2.1, forged from "+from, func(t *testing.T) {
			u := reach(t, g, bound)
			u.send("<message xmlns='jabber:client' from='" + from + "' to='" + bare("witness") + "'><body>forged</body></message>")
			u.expectStreamError([]string{"invalid-from"}, normal)
		})
	}
	t.Run("RFC 6120 §8.1.2.1, from is stamped", func(t *testing.T) {
		u := reach(t, g, bound)
		u.send("<message xmlns='jabber:client' to='" + bare("witness") + "'><body>honest</body></message>")
		if m := witness.message("honest"); m.Attr("from") != u.JID {
			t.Errorf("from %q, want %q", m.Attr("from"), u.JID)
		}
	})
	t.Run("RFC 6120 §4.9.3.24, unknown element", func(t *testing.T) {
		u := reach(t, g, bound)
		u.send("<telegram xmlns='jabber:client'/>")
		u.expectStreamError([]string{"unsupported-stanza-type"}, normal)
	})
	for _, who := range []struct{ what, name, password string }{
		{"wrong password", "witness", "guess"}, {"unknown user", "nobody", "guess"},
	} {
		t.Run("RFC 6120 §6.5.10, "+who.what, func(t *testing.T) {
			for _, mech := range []string{"PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"} {
				u := reach(t, g, opened)
				err := u.Authenticate(within(t, 10*time.Second), xmppclient.Account{User: who.name, Password: who.password, Mechanism: mech})
				if want := (xmppclient.Failure{Condition: "not-authorized"}); !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", mech, err, want)
				}
			}
		})
	}
	t.Run("RFC 6120 §6.4.5, too many tries", func(t *testing.T) {
		u := reach(t, g, opened)
		auth := "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" +
			base64.StdEncoding.EncodeToString([]byte("\x00mallory\x00guess")) + "</auth>"
		for range 3 {
			u.send(auth)
			u.expect("a failure", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSASL, "failure") })
		}
		u.expectStreamError([]string{"policy-violation"}, normal)
	})
	for _, c := range []struct{ name, body, condition string }{
		{"RFC 6120 §6.5.5, garbage instead of base64", "!!!not base64!!!", "incorrect-encoding"},
		{"RFC 6120 §6.5.5, base64 with a line break", "AG1hbGxv\ncnkAZ3Vlc3M=", "incorrect-encoding"},
		{"RFC 6120 §6.5.8, garbage in base64", base64.StdEncoding.EncodeToString([]byte("no separators")), "malformed-request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := reach(t, g, opened)
			u.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + c.body + "</auth>")
			f := u.expect("a failure", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSASL, "failure") })
			if f.Condition() != c.condition {
				t.Errorf("%v, want %s", f, c.condition)
			}
			// One bad try does not end the stream.
			if err := u.Authenticate(within(t, 10*time.Second), account("mallory", "")); err != nil {
				t.Errorf("the next try: %v", err)
			}
		})
	}
	t.Run("RFC 6120 §6.5.7, unknown mechanism", func(t *testing.T) {
		u := reach(t, g, opened)
		u.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='KERBEROS_V4'/>")
		f := u.expect("a failure", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSASL, "failure") })
		if f.Condition() != "invalid-mechanism" {
			t.Errorf("%v, want invalid-mechanism", f)
		}
	})
	witness.alive()
}

// managed logs in and switches XEP-0198 on; it returns the session's id.
func managed(t *testing.T, g *gatewayproc.Gateway, name string) (*user, string) {
	t.Helper()
	u := available(t, g, name, "")
	u.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	e := u.expect("<enabled/>", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "enabled") })
	u.stanzas = 0
	return u, e.Attr("id")
}

// TestBadInputStreamManagement lies about counts and sessions (XEP-0198).
func TestBadInputStreamManagement(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("mallory", "witness")
	witness, id := managed(t, g, "witness")
	normal := int(websocket.StatusNormalClosure)
	tooHigh := func(t *testing.T, u *user) {
		t.Helper()
		e := u.expectStreamError([]string{"undefined-condition"}, normal)
		if e.Child(xmppclient.NSSM, "handled-count-too-high") == nil {
			t.Errorf("%v lacks handled-count-too-high", e)
		}
	}
	for _, c := range []struct{ name, id string }{
		{"a stranger's id", id},
		{"an id that never was", "AAAAAAAAAAAAAAAAAAAAAAAA"},
		{"no id", ""},
		{"an id of 10,000 bytes", strings.Repeat("x", 10_000)},
	} {
		t.Run("XEP-0198 §5, resume with "+c.name, func(t *testing.T) {
			u := reach(t, g, authenticated)
			u.send("<resume xmlns='urn:xmpp:sm:3' h='0' previd='" + c.id + "'/>")
			f := u.expect("<failed/>", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "failed") })
			if f.Condition() != "item-not-found" || f.Attr("h") != "" {
				t.Errorf("%v; want item-not-found and no count", f)
			}
			// The client may still bind (§5).
			if err := u.Bind(within(t, 10*time.Second), ""); err != nil {
				t.Error(err)
			}
			u.alive()
			witness.alive()
		})
	}
	t.Run("XEP-0198 §4, h from the future", func(t *testing.T) {
		u, _ := managed(t, g, "mallory")
		u.send("<a xmlns='urn:xmpp:sm:3' h='4711'/>")
		tooHigh(t, u)
	})
	t.Run("XEP-0198 §5, resume with h from the future", func(t *testing.T) {
		u, id := managed(t, g, "mallory")
		u.Abort()
		u = reach(t, g, authenticated)
		u.send("<resume xmlns='urn:xmpp:sm:3' h='4711' previd='" + id + "'/>")
		tooHigh(t, u)
	})
	for _, h := range []string{"", "-1", "many", "99999999999999999999"} {
		t.Run("XEP-0198 §4, h is "+h, func(t *testing.T) {
			u, _ := managed(t, g, "mallory")
			u.send("<a xmlns='urn:xmpp:sm:3' h='" + h + "'/>")
			u.expectStreamError([]string{"bad-format", "undefined-condition"}, normal)
		})
	}
	t.Run("XEP-0198 §3, enable twice", func(t *testing.T) {
		u, _ := managed(t, g, "mallory")
		u.send("<enable xmlns='urn:xmpp:sm:3'/>")
		u.expect("<failed/>", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "failed") })
	})
	t.Run("XEP-0198 §3, enable before binding", func(t *testing.T) {
		u := reach(t, g, authenticated)
		u.send("<enable xmlns='urn:xmpp:sm:3'/>")
		u.expect("<failed/>", func(e *xmppclient.Element) bool { return e.Is(xmppclient.NSSM, "failed") })
	})
	witness.alive()
}
