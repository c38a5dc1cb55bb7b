package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testkit/boshclient"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// mallory posts what nobody should.
type mallory struct {
	t    *testing.T
	url  string
	http *http.Client
	sid  string
	rid  uint64 // of the next request
}

func newMallory(t *testing.T, g *gatewayproc.Gateway) *mallory {
	t.Helper()
	m := &mallory{t: t, url: g.BOSHURL(), http: boshclient.NewHTTP(nil)}
	t.Cleanup(m.http.CloseIdleConnections)
	return m
}

// reachBOSH is reach over BOSH; dialled is a stage where there is no session.
func reachBOSH(t *testing.T, g *gatewayproc.Gateway, s stage) *mallory {
	t.Helper()
	m := newMallory(t, g)
	if s == dialled {
		m.rid = 1
		return m
	}
	ctx := within(t, 10*time.Second)
	c := boshclient.Dial(boshclient.Config{URL: m.url, Domain: gatewayproc.Domain})
	err := c.Open(ctx, gatewayproc.Domain)
	if err == nil && s >= authenticated {
		if err = c.Authenticate(ctx, account("mallory", "")); err == nil {
			err = c.Open(ctx, gatewayproc.Domain)
		}
	}
	if err == nil && s == bound {
		err = c.Bind(ctx, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Abort)
	session := boshclient.SessionOf(c)
	m.sid, m.rid = session.SID(), session.NextRID() // nobody reads, so that no request is open
	return m
}

func (m *mallory) raw(text string, header http.Header) *boshclient.Response {
	m.t.Helper()
	resp, err := boshclient.Post(within(m.t, 15*time.Second), m.http, m.url, text, header)
	if err != nil {
		m.t.Fatalf("posting %.200q: %v", text, err)
	}
	return resp
}

// body makes the next request.
func (m *mallory) body(attrs, inner string) string {
	s := fmt.Sprintf("<body xmlns='%s' rid='%d' sid='%s' %s>%s</body>", boshclient.NSBind, m.rid, m.sid, attrs, inner)
	m.rid++
	return s
}

// refused holds an answer to a terminating condition (XEP-0124 §17.2), or to one of the statuses when it is no <body/>.
func refused(t *testing.T, resp *boshclient.Response, statuses []int, conditions ...string) {
	t.Helper()
	if resp.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("no CORS headers with %d %.200q", resp.Status, resp.Text)
	}
	if slices.Contains(statuses, resp.Status) && resp.Status != http.StatusOK {
		return
	}
	if resp.Status != http.StatusOK || resp.Kind() != "terminate" || !slices.Contains(conditions, resp.Body.Attr("condition")) {
		t.Errorf("answered with %d %.300q; want one of %v, or a status of %v", resp.Status, resp.Text, conditions, statuses)
	}
	if resp.Body.Attr("condition") == "remote-stream-error" && resp.Body.Child(xmppclient.NSStream, "error") == nil {
		t.Errorf("no stream error in %.300q", resp.Text)
	}
}

// gone sees that the session has ended.
func (m *mallory) gone() {
	m.t.Helper()
	refused(m.t, m.raw(m.body("", ""), nil), nil, "item-not-found")
}

// TestBOSHBadInputXML feeds what is no XML of ours, in a session request and before and after authentication.
func TestBOSHBadInputXML(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("mallory", "witness")
	witness := available(t, g, "witness", "")
	message := func(inner string) string {
		return "<message xmlns='jabber:client' to='" + bare("witness") + "'>" + inner + "</message>"
	}
	malformed := []string{"bad-request", "remote-stream-error"}
	tooMuch := []string{"policy-violation", "remote-stream-error", "bad-request"}
	cases := []struct {
		name       string
		inner      string
		conditions []string
	}{
		{"unclosed", "<message xmlns='jabber:client'><body>", malformed},
		{"two bodies", "</body><body xmlns='http://jabber.org/protocol/httpbind'>", malformed},
		{"text", "hello", malformed},
		{"unbalanced", message("<a></b>"), malformed},
		{"unclosed attribute", message("<a b='c></a>"), malformed},
		{"attribute given twice", message("<a b='1' b='2'/>"), malformed},
		{"control character", message("\x01"), malformed},
		{"not UTF-8", message("\xff\xfe"), malformed},
		{"undeclared prefix", message("<p:a/>"), malformed},
		{"comment", message("<!-- hidden -->"), malformed},
		{"processing instruction", message("<?php exit; ?>"), malformed},
		{"CDATA that does not end", message("<![CDATA[ a"), malformed},
		{"undeclared entity", message("&nbsp;"), malformed},
		{"10,000 nested elements", message(strings.Repeat("<a>", 10_000) + strings.Repeat("</a>", 10_000)), tooMuch},
		{"10,000 attributes", "<message xmlns='jabber:client' " + attributes(10_000) + "/>", tooMuch},
		{"10,000 stanzas", strings.Repeat("<presence xmlns='jabber:client'/>", 10_000), tooMuch},
		{"10 MB", message("<body>" + strings.Repeat("a", 10<<20) + "</body>"), tooMuch},
	}
	for _, s := range []stage{dialled, opened, authenticated, bound} {
		for _, c := range cases {
			t.Run(s.String()+"/"+c.name, func(t *testing.T) {
				m := reachBOSH(t, g, s)
				text := m.body("to='localhost' wait='1' hold='1' ver='1.6'", c.inner)
				if s == dialled {
					text = strings.Replace(text, " sid=''", "", 1)
				}
				resp, err := boshclient.Post(within(t, 15*time.Second), m.http, m.url, text, nil)
				if err != nil {
					if len(text) < 1<<20 { // the gateway may stop reading 10 MB before all of it is written
						t.Fatal(err)
					}
					return
				}
				refused(t, resp, []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge}, append(c.conditions, "bad-request")...)
				// Of what is too large nothing is read, so that nobody knows whose session it was.
				if s != dialled && resp.Status == http.StatusOK {
					m.gone()
				}
			})
			if t.Failed() {
				break
			}
		}
	}
	for _, text := range []string{
		"", " ", "hello", "<", "<body", "<body/>", "<body xmlns='urn:example'/>", "\x00", strings.Repeat("<", 10_000),
		"<!DOCTYPE body [<!ENTITY a 'aaaa'>]><body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='localhost'/>",
		"<?xml version='1.0' encoding='UTF-16'?><body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='localhost'/>",
		"<!-- --><body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='localhost'/>",
		"<message xmlns='jabber:client'/>",
	} {
		refused(t, newMallory(t, g).raw(text, nil), []int{http.StatusBadRequest}, "bad-request")
	}
	witness.alive()
	if got := g.ResidentMiB(); got > 300 {
		t.Errorf("the gateway has %d MiB resident after all that", got)
	}
}

// TestBOSHBadInputSessions asks for sessions in ways in which none is to be had, or not as asked.
func TestBOSHBadInputSessions(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	create := func(attrs string) string {
		return "<body xmlns='http://jabber.org/protocol/httpbind' ver='1.6' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh' " + attrs + "/>"
	}
	for _, c := range []struct{ name, attrs, condition string }{
		{"no rid", "to='localhost'", "bad-request"},
		{"a negative rid", "to='localhost' rid='-1'", "bad-request"},
		{"a rid of words", "to='localhost' rid='first'", "bad-request"},
		{"a rid of 2^53", "to='localhost' rid='9007199254740992'", "bad-request"},
		{"a rid of 2^64+1", "to='localhost' rid='18446744073709551617'", "bad-request"},
		{"a rid of 10,000 digits", "to='localhost' rid='" + strings.Repeat("1", 10_000) + "'", "bad-request"},
		{"unknown host", "to='elsewhere.example' rid='1'", "host-unknown"},
		{"a host that is none", "to='@@' rid='1'", "improper-addressing"},
		{"negative wait", "to='localhost' rid='1' wait='-1'", "bad-request"},
		{"wait of words", "to='localhost' rid='1' wait='long'", "bad-request"},
		{"negative hold", "to='localhost' rid='1' hold='-1'", "bad-request"},
		{"hold of words", "to='localhost' rid='1' hold='some'", "bad-request"},
		{"content that injects a header", "to='localhost' rid='1' content='text/xml&#13;&#10;X-Evil: 1'", "bad-request"},
		{"content of no kind", "to='localhost' rid='1' content='evil'", "bad-request"},
		{"a newkey that is none", "to='localhost' rid='1' newkey='x'", "bad-request"},
		{"terminated at once", "to='localhost' rid='1' type='terminate'", "bad-request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conditions := []string{c.condition}
			if c.condition == "improper-addressing" {
				conditions = append(conditions, "host-unknown", "remote-stream-error")
			}
			resp := newMallory(t, g).raw(create(c.attrs), nil)
			refused(t, resp, []int{http.StatusBadRequest}, conditions...)
			if resp.Header.Get("X-Evil") != "" {
				t.Error("a header was injected")
			}
		})
	}
	for _, c := range []struct{ name, attrs, attr, low, high string }{
		{"a huge wait", "wait='99999999999999999999999'", "wait", "1", "60"},
		{"a huge hold", "hold='4294967297'", "hold", "1", "4"},
		{"a version from the future", "ver='1.6'", "ver", "1.6", "1.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := newMallory(t, g).raw(strings.Replace(create("to='localhost' rid='1' "+c.attrs), "ver='1.6' xmpp", "xmpp", 1), nil)
			got := resp.Body.Attr(c.attr)
			if resp.Status == http.StatusBadRequest || resp.Body.Attr("condition") == "bad-request" {
				return // as good an answer
			}
			if resp.Body.Attr("sid") == "" || len(got) > len(c.high) || got < c.low || len(got) == len(c.high) && got > c.high {
				t.Errorf("answered with %d %.300q", resp.Status, resp.Text)
			}
		})
	}
}

// TestBOSHBadInputHTTP is what is wrong before any XML is.
func TestBOSHBadInputHTTP(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, map[string]string{"HOLDFAST_BOSH_BODY_TIMEOUT": "1s"})
	g.AddUsers("mallory", "witness")
	witness := available(t, g, "witness", "")
	const create = "<body xmlns='http://jabber.org/protocol/httpbind' rid='1' to='localhost' ver='1.6'/>"
	ask := func(t *testing.T, method string, header http.Header) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(within(t, 10*time.Second), method, g.BOSHURL(), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp
	}
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, "BREW"} {
		if resp := ask(t, method, nil); resp.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(resp.Header.Get("Allow"), "POST") {
			t.Errorf("%s: %d, Allow %q", method, resp.StatusCode, resp.Header.Get("Allow"))
		}
	}
	if resp := ask(t, http.MethodGet, nil); resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		t.Errorf("GET: %d %q", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	same := http.Header{"Origin": {"http://" + g.Addr()}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"content-type"}}
	if resp := ask(t, http.MethodOptions, same); resp.StatusCode/100 != 2 || resp.Header.Get("Access-Control-Allow-Origin") != same.Get("Origin") ||
		!strings.Contains(strings.ToLower(resp.Header.Get("Access-Control-Allow-Headers")), "content-type") {
		t.Errorf("OPTIONS: %d %v", resp.StatusCode, resp.Header)
	}
	evil := http.Header{"Origin": {"https://evil.example"}}
	if resp := ask(t, http.MethodOptions, evil); resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("OPTIONS of a foreign origin: %d %v", resp.StatusCode, resp.Header)
	}
	m := newMallory(t, g)
	if resp := m.raw(create, evil); resp.Status != http.StatusForbidden || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("POST of a foreign origin: %d %v %q", resp.Status, resp.Header, resp.Text)
	}
	for _, ct := range []string{"application/json", "multipart/form-data; boundary=x", "text/html", "image/png", "text/xml; charset=utf-16"} {
		t.Run("Content-Type "+ct, func(t *testing.T) {
			refused(t, m.raw(create, http.Header{"Content-Type": {ct}}), []int{http.StatusUnsupportedMediaType, http.StatusBadRequest}, "bad-request")
		})
	}
	t.Run("a compressed body that was not offered", func(t *testing.T) {
		refused(t, m.raw("\x1f\x8b\x08\x00"+create, http.Header{"Content-Encoding": {"gzip"}}),
			[]int{http.StatusUnsupportedMediaType, http.StatusBadRequest}, "bad-request")
	})
	t.Run("an endless body", func(t *testing.T) {
		req, err := http.NewRequestWithContext(within(t, 20*time.Second), http.MethodPost, g.BOSHURL(), endless{})
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", boshclient.ContentType)
		resp, err := m.http.Do(req)
		if err != nil {
			if errors.Is(err, req.Context().Err()) && req.Context().Err() != nil {
				t.Error("it is read for ever")
			}
			return // cut off
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusRequestEntityTooLarge && resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusOK {
			t.Errorf("answered with %d", resp.StatusCode)
		}
	})
	t.Run("a slow body", func(t *testing.T) {
		c, err := net.Dial("tcp", g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		fmt.Fprintf(c, "POST /http-bind HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n", g.Addr(), len(create))
		start := time.Now()
		var dribble sync.WaitGroup
		dribble.Go(func() {
			for i := range len(create) - 1 {
				if _, err := c.Write([]byte(create[i : i+1])); err != nil {
					return
				}
				time.Sleep(200 * time.Millisecond) // the slowness
			}
		})
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			t.Errorf("after %v it is still read", time.Since(start))
		}
		if err == nil {
			if resp.StatusCode != http.StatusRequestTimeout && resp.StatusCode != http.StatusBadRequest {
				t.Errorf("answered with %d", resp.StatusCode)
			}
			_ = resp.Body.Close()
		}
		_ = c.Close()
		dribble.Wait()
	})
	witness.alive()
}

// endless is a request body that does not end.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	return copy(b, strings.Repeat("<body xmlns='a'>", 64)), nil
}

// TestBOSHBadInputWindow breaks the rules of rids, keys and streams.
func TestBOSHBadInputWindow(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("mallory", "witness")
	witness := available(t, g, "witness", "")
	for _, sid := range []string{"x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", strings.Repeat("x", 5_000), "&lt;&apos;", "é"} {
		t.Run("an unknown sid", func(t *testing.T) {
			m := newMallory(t, g)
			m.sid, m.rid = sid, 1
			refused(t, m.raw(m.body("", ""), nil), []int{http.StatusNotFound}, "item-not-found")
		})
	}
	for _, off := range []int64{2, 3, 1000, -1000, 1 << 52} {
		t.Run(fmt.Sprintf("a rid that is %d off", off), func(t *testing.T) {
			m := reachBOSH(t, g, bound)
			m.rid = uint64(int64(m.rid) + off)
			refused(t, m.raw(m.body("", ""), nil), nil, "item-not-found", "bad-request")
			m.gone()
		})
	}
	for _, rid := range []string{"", "-1", "x", "9007199254740992", "18446744073709551616", "1e3", " 1"} {
		t.Run("rid "+rid, func(t *testing.T) {
			m := reachBOSH(t, g, bound)
			text := fmt.Sprintf("<body xmlns='%s' rid='%s' sid='%s'/>", boshclient.NSBind, rid, m.sid)
			refused(t, m.raw(text, nil), []int{http.StatusBadRequest}, "item-not-found", "bad-request")
		})
	}
	t.Run("a stolen sid and a wrong key", func(t *testing.T) {
		ctx := within(t, 10*time.Second)
		c := boshclient.Dial(boshclient.Config{URL: g.BOSHURL(), Domain: gatewayproc.Domain, Keys: 100})
		if err := c.Prepare(ctx, account("mallory", "")); err != nil {
			t.Fatal(err)
		}
		if err := c.Bind(ctx, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Abort)
		s := boshclient.SessionOf(c)
		for _, key := range []string{"", "key='0000000000000000000000000000000000000000'", "key=''", "key='x' newkey='y'"} {
			m := newMallory(t, g)
			m.sid, m.rid = s.SID(), s.NextRID()
			refused(t, m.raw(m.body(key, "<message xmlns='jabber:client' to='"+bare("witness")+"'><body>stolen</body></message>"), nil), nil,
				"item-not-found", "bad-request")
		}
	})
	for _, s := range []stage{opened, authenticated} {
		t.Run("a stanza too early, "+s.String(), func(t *testing.T) {
			m := reachBOSH(t, g, s)
			refused(t, m.raw(m.body("", "<message xmlns='jabber:client' to='"+bare("witness")+"'><body>early</body></message>"), nil), nil, "remote-stream-error")
			m.gone()
		})
	}
	for _, inner := range []string{
		"<message xmlns='jabber:client' from='" + bare("witness") + "' to='" + bare("witness") + "'><body>forged</body></message>",
		"<telegram xmlns='jabber:client'/>",
		"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>",
		"<stream:stream xmlns:stream='http://etherx.jabber.org/streams'/>",
	} {
		t.Run("a stream error for "+inner[:12], func(t *testing.T) {
			m := reachBOSH(t, g, bound)
			refused(t, m.raw(m.body("", inner), nil), nil, "remote-stream-error", "bad-request")
			m.gone()
		})
	}
	for _, attrs := range []string{"pause='-1'", "pause='99999999'", "pause='x'", "ack='x'", "type='nonsense'"} {
		t.Run("attributes "+attrs, func(t *testing.T) {
			m := reachBOSH(t, g, bound)
			resp := m.raw(m.body(attrs+" x:unheard='1' xmlns:x='urn:x'", "<presence xmlns='jabber:client'/>"), nil)
			if resp.Status != http.StatusOK && resp.Status != http.StatusBadRequest || resp.Status == http.StatusOK && !resp.Body.Is(boshclient.NSBind, "body") {
				t.Errorf("answered with %d %q", resp.Status, resp.Text)
			}
		})
	}
	t.Run("prefixes declared on body", func(t *testing.T) {
		m := reachBOSH(t, g, bound)
		inner := "<message to='" + bare("witness") + "'><body>prefixed</body><p:ext a='1'/></message>"
		resp := m.raw(m.body("xmlns:p='urn:example:prefix' type='terminate'", inner), nil)
		if resp.Kind() != "terminate" || resp.Body.Attr("condition") != "" {
			t.Errorf("answered with %q", resp.Text)
		}
		if e := witness.message("prefixed"); e.Child("urn:example:prefix", "ext").Attr("a") != "1" {
			t.Errorf("got %v", e)
		}
	})
	witness.silent()
}

// TestBOSHManySessions: one address does not get more sessions than the cap, and those who log in do.
func TestBOSHManySessions(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, map[string]string{
		"HOLDFAST_BOSH_MAX_UNAUTHENTICATED_PER_ADDR": "50", "HOLDFAST_TRUSTED_PROXIES": "none", "HOLDFAST_BOSH_AUTH_TIMEOUT": "3s",
	})
	g.AddUsers("mallory")
	m := newMallory(t, g)
	var got, refusals int
	for i := range 2000 {
		resp := m.raw(fmt.Sprintf("<body xmlns='%s' rid='%d' to='localhost' ver='1.6' wait='1' hold='1' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'/>",
			boshclient.NSBind, i+1), nil)
		switch {
		case resp.Status == http.StatusOK && resp.Body.Attr("sid") != "":
			got++
		case resp.Status == http.StatusTooManyRequests, resp.Status == http.StatusServiceUnavailable:
			refusals++
		default:
			t.Fatalf("answered with %d %q", resp.Status, resp.Text)
		}
	}
	t.Logf("%d sessions, %d refusals", got, refusals)
	if refusals == 0 {
		t.Error("nothing is refused")
	}
	// Those that never log in do not keep the others out for ever.
	if !await(within(t, 20*time.Second), func() bool {
		c := boshclient.Dial(boshclient.Config{URL: g.BOSHURL(), Domain: gatewayproc.Domain})
		defer c.Abort()
		return c.Prepare(within(t, 5*time.Second), account("mallory", "")) == nil
	}) {
		t.Error("nobody gets in any more")
	}
}
