package bosh

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func with(name, value string) func(*http.Request) {
	return func(r *http.Request) {
		if value == "" {
			r.Header.Del(name)
			return
		}
		r.Header.Set(name, value)
	}
}

func method(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }

// XEP-0124 §7, §17: requests for a session that are malformed, and what clients without 'ver' are told.
func TestBadCreation(t *testing.T) {
	for _, tt := range []struct {
		attrs, cond string
		legacy      int
	}{
		{" wait='-1'", "bad-request", 400},
		{" wait='x'", "bad-request", 400},
		{" wait=''", "bad-request", 400},
		{" hold='-1'", "bad-request", 400},
		{" hold='1.5'", "bad-request", 400},
		{" content='text/html\n'", "", 200},
		{" content='a b/c'", "bad-request", 400},
		{" content='text/html; charset=latin1'", "bad-request", 400},
		{" type='terminate'", "bad-request", 400},
		{" to='unknown'", "host-unknown", 200},
	} {
		bubble(t, nil, func(t *testing.T, h *harness) {
			a := h.post(wrap(1, " ver='1.6'"+tt.attrs, "")).wait()
			if a.status != 200 || attr(a.body, "condition") != tt.cond || tt.cond != "" && attr(a.body, "sid") != "" {
				t.Errorf("%s: got %v", tt.attrs, a)
			}
			a = h.post(wrap(1, tt.attrs, "")).wait()
			if a.status != tt.legacy {
				t.Errorf("%s: got %v", tt.attrs, a)
			}
		})
	}
	bubble(t, nil, func(t *testing.T, h *harness) {
		if a := h.post(wrap(1, " ver='x'", "")).wait(); a.body != terminated("bad-request") {
			t.Errorf("got %v", a)
		}
	})
}

// Huge values are brought down to what is offered.
func TestHugeSettings(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		a := h.post(wrap(1, " ver='9.99' wait='99999999999999' hold='99999999999'", "")).wait()
		for name, want := range map[string]string{"wait": "60", "hold": "1", "requests": "2", "ver": "1.11"} {
			if got := attr(a.body, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		a = h.post(wrap(1, " ver='1.6' wait='30' hold='0'", "")).wait()
		for name, want := range map[string]string{"wait": "30", "hold": "0", "requests": "1", "ver": "1.6"} {
			if got := attr(a.body, name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if got := attr(h.post(wrap(1, " ver='1.6'", "")).wait().body, "wait"); got != "60" {
			t.Errorf("wait is %q", got)
		}
	})
	bubble(t, func(c *Config) { c.MaxWait, c.MaxHold = 0, 0 }, func(t *testing.T, h *harness) {
		a := h.post(wrap(1, " ver='1.6' wait='3600' hold='100'", "")).wait()
		if attr(a.body, "wait") != "3600" || attr(a.body, "hold") != "4" || attr(a.body, "requests") != "5" {
			t.Errorf("got %v", a)
		}
	})
}

// XEP-0124 §17.1.
func TestLegacyErrors(t *testing.T) {
	legacy := strings.Replace(createAttrs, " ver='1.6'", "", 1)
	for _, tt := range []struct {
		send func(c *client) *pending
		want int
	}{
		{func(c *client) *pending { return c.send(c.rid+9, "", "") }, 404},
		{func(c *client) *pending { return c.next(" pause='x'", "") }, 400},
		{func(c *client) *pending { return c.next(" pause='1000'", "") }, 403},
		{func(c *client) *pending { return c.next("", "<a>") }, 400},
	} {
		bubble(t, nil, func(t *testing.T, h *harness) {
			c := h.login(legacy)
			if a := tt.send(c).wait(); a.status != tt.want || a.body != "" {
				t.Errorf("got %v, want %d", a, tt.want)
			}
		})
	}
}

func TestUnknownSession(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		if a := h.post(wrap(1, " sid='nobody'", "")).wait(); a.status != 200 || a.body != terminated("item-not-found") {
			t.Fatalf("got %v", a)
		}
	})
}

// What cannot be understood ends the session, as the answer says.
func TestMalformedRequest(t *testing.T) {
	for _, inner := range []string{"<message>", "<message><!-- --></message>", "text", "<a:b/>"} {
		bubble(t, nil, func(t *testing.T, h *harness) {
			c := h.login(createAttrs)
			expect(t, c.next("", inner), terminated("bad-request"))
			c.lastEvent(t, lost(ErrRejected))
		})
	}
	// What is well-formed but not allowed is the stream's to judge.
	bubble(t, func(c *Config) { c.MaxChildren = 2 }, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		a := c.next("", `<message><a/><b/><c/></message>`).wait()
		if attr(a.body, "condition") != "remote-stream-error" || !strings.Contains(a.body, "policy-violation") {
			t.Fatalf("got %v", a)
		}
	})
	bubble(t, func(c *Config) { c.MaxStanzas = 2 }, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		isHeld(t, c.next("", message(1)+message(2)))
		expect(t, c.next("", message(1)+message(2)+message(3)), terminated("bad-request"))
	})
	bubble(t, func(c *Config) { c.MaxDepth = 2 }, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		isHeld(t, c.next("", message(1)))
		expect(t, c.next("", `<message><a><b/></a></message>`), terminated("bad-request"))
	})
	// With keys only the client can end it.
	bubble(t, nil, func(t *testing.T, h *harness) {
		keys := sequence("seed", 5)
		c := h.loginKeyed(keys)
		expect(t, c.send(c.rid+1, "", "<a>"), terminated("bad-request"))
		isHeld(t, c.next(keyed(keys[3]), message(1)))
	})
}

// Body size caps, that before authentication being the smaller one.
func TestBodySize(t *testing.T) {
	big := func(n int) string { return `<message><body>` + strings.Repeat("x", n) + `</body></message>` }
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.create(createAttrs)
		if a := c.next("", big(20<<10)).wait(); a.status != http.StatusRequestEntityTooLarge || attr(a.body, "condition") != "policy-violation" {
			t.Fatalf("got %v", a)
		}
		if a := h.post(strings.Repeat(" ", 17<<10)).wait(); a.status != http.StatusRequestEntityTooLarge {
			t.Fatalf("got %v", a)
		}
		d := h.login(createAttrs)
		isHeld(t, d.next("", big(200<<10)))
		if a := d.next("", big(300<<10)).wait(); a.status != http.StatusRequestEntityTooLarge {
			t.Fatalf("got %v", a)
		}
		d.lastEvent(t, lost(ErrRejected))
	})
}

// A body that never ends.
func TestEndlessBody(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		r, w := io.Pipe()
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://localhost/", r)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			fmt.Fprintf(w, `<body rid='%d' sid='%s' xmlns='http://jabber.org/protocol/httpbind'>`, c.rid+1, c.sid)
			for {
				if _, err := w.Write([]byte(strings.Repeat("<message/>", 100))); err != nil {
					return
				}
			}
		}()
		resp, err := h.hc.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Fatalf("got %d", resp.StatusCode)
			}
		}
		r.Close()
		c.lastEvent(t, lost(ErrRejected))
	})
}

// line is a connection that is spoken to by hand.
type line struct {
	net.Conn
	r      *bufio.Reader
	target string
}

// lines runs a test with a connection that net/http serves, and with one that the Server has taken over.
func lines(t *testing.T, f func(t *testing.T, h *harness, l *line)) {
	for _, target := range []string{"/", Path} {
		bubble(t, nil, func(t *testing.T, h *harness) {
			conn, err := h.lis.Dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			l := &line{conn, bufio.NewReader(conn), target}
			l.post(wrap(1, " sid='unknown'", ""))
			if resp := l.read(t); resp.StatusCode != http.StatusOK {
				t.Fatalf("got %d", resp.StatusCode)
			}
			if n := h.conns.Len(); n > 0 != (target == Path) {
				t.Fatalf("%d connections taken", n)
			}
			f(t, h, l)
		})
	}
}

func (l *line) post(body string) {
	fmt.Fprintf(l, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", l.target, len(body), body)
}

func (l *line) read(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(l.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}

// A body that trickles in.
func TestSlowBody(t *testing.T) {
	lines(t, func(t *testing.T, h *harness, l *line) {
		begin := time.Now()
		fmt.Fprintf(l, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n<body ", l.target)
		resp := l.read(t)
		if took := time.Since(begin); resp.StatusCode != http.StatusRequestTimeout || took != 15*time.Second || !resp.Close {
			t.Fatalf("got %d after %v", resp.StatusCode, took)
		}
		if got := h.met.slow.Load(); got != 1 {
			t.Fatalf("%d slow", got)
		}
	})
}

// A body that is larger than allowed is not read to its end.
func TestLargeBodyEndsTheConnection(t *testing.T) {
	lines(t, func(t *testing.T, h *harness, l *line) {
		go l.post(strings.Repeat("x", 1<<20))
		if resp := l.read(t); resp.StatusCode != http.StatusRequestEntityTooLarge || !resp.Close {
			t.Fatalf("got %d", resp.StatusCode)
		}
	})
}

// A client that does not read its response.
func TestSlowReader(t *testing.T) {
	lines(t, func(t *testing.T, h *harness, l *line) {
		c := h.login(createAttrs)
		c.st.send(message(1))
		c.rid++
		l.post(wrap(c.rid, " sid='"+c.sid+"'", ""))
		time.Sleep(32 * time.Second)
		synctest.Wait()
		if got := h.met.slow.Load(); got != 1 {
			t.Fatalf("%d slow", got)
		}
		expect(t, c.send(c.rid, "", ""), payload(message(1)))
	})
}

// The client's connection breaks while its request is held, and it asks again.
func TestHangUp(t *testing.T) {
	lines(t, func(t *testing.T, h *harness, l *line) {
		c := h.login(createAttrs)
		c.rid++
		l.post(wrap(c.rid, " sid='"+c.sid+"'", ""))
		synctest.Wait()
		_ = l.Close()
		synctest.Wait()
		if n := h.heldRequests(); n != 0 {
			t.Fatalf("%d requests are held", n)
		}
		c.st.send(message(1))
		expect(t, c.send(c.rid, "", ""), payload(message(1)))
	})
}

// The deadlines are those of one exchange, not of the connection.
func TestConnectionIsUsedAgain(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		for range 3 {
			if a := c.next("", "").wait(); a.body != emptyBody {
				t.Fatalf("got %v", a)
			}
			time.Sleep(50 * time.Second)
		}
	})
}

func TestContentTypes(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		for value, status := range map[string]int{
			"": 200, "text/xml": 200, "text/xml; charset=utf-8": 200, "Text/XML;charset=\"UTF-8\"": 200, "application/xml": 200,
			"text/plain;charset=UTF-8": 200, "application/x-www-form-urlencoded": 200,
			"application/json": 415, "multipart/form-data": 415, "text/xml; charset=iso-8859-1": 415, "image/png": 415,
		} {
			a := h.post(wrap(1, createAttrs, ""), with("Content-Type", value)).wait()
			if a.status != status || status != 200 && attr(a.body, "condition") != "bad-request" {
				t.Errorf("%q: got %v", value, a)
			}
		}
		if a := h.post(wrap(1, createAttrs, ""), with("Content-Encoding", "gzip")).wait(); a.status != 415 {
			t.Errorf("got %v", a)
		}
	})
}

// CORS on every answer, errors and terminations included.
func TestCORS(t *testing.T) {
	bubble(t, func(c *Config) { c.Origins = []string{"https://chat.example"} }, func(t *testing.T, h *harness) {
		const origin = "https://chat.example"
		page := with("Origin", origin)
		c := h.login(createAttrs)
		for name, p := range map[string]*pending{
			"creation":        h.post(wrap(1, createAttrs, ""), page),
			"unknown session": h.post(wrap(1, " sid='x'", ""), page),
			"not well-formed": h.post("<", page),
			"wrong type":      h.post("<", page, with("Content-Type", "image/png")),
			"too large":       h.post(strings.Repeat(" ", 20<<10), page),
			"termination":     h.post(wrap(c.rid+1, " sid='"+c.sid+"' type='terminate'", ""), page),
			"preflight":       h.post("", page, method(http.MethodOptions)),
			"page":            h.post("", page, method(http.MethodGet)),
			"method":          h.post("", page, method(http.MethodPut)),
		} {
			a := p.wait()
			if got := a.header.Get("Access-Control-Allow-Origin"); got != origin {
				t.Errorf("%s: allowed origin %q (%v)", name, got, a)
			}
			if got := a.header.Get("Vary"); !strings.HasPrefix(got, "Origin") {
				t.Errorf("%s: Vary %q", name, got)
			}
		}
		a := h.post("", page, method(http.MethodOptions)).wait()
		if a.status != http.StatusNoContent || a.header.Get("Access-Control-Allow-Headers") != "Content-Type" ||
			!strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "POST") || a.header.Get("Access-Control-Max-Age") == "" {
			t.Errorf("preflight: %v %v", a, a.header)
		}
		if a := h.post(wrap(1, createAttrs, ""), with("Origin", "http://localhost")).wait(); a.status != 200 {
			t.Errorf("same host: %v", a)
		}
		a = h.post(wrap(1, createAttrs, ""), with("Origin", "https://evil.example")).wait()
		if a.status != http.StatusForbidden || a.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("another origin: %v", a)
		}
	})
}

func TestOtherMethods(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		a := h.post("", method(http.MethodGet)).wait()
		if a.status != 200 || !strings.Contains(a.body, "<h1>") || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			t.Errorf("got %v", a)
		}
		a = h.post("", method(http.MethodDelete)).wait()
		if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
			t.Errorf("got %v", a)
		}
	})
}

// XEP-0124 §5: responses are compressed for who accepts it.
func TestGzip(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		long := strings.Repeat(message(1), 100)
		for accept, squeezed := range map[string]bool{"gzip": true, "deflate, gzip;q=0.5": true, "*": true, "": false, "gzip;q=0": false, "br": false} {
			c.st.send(long)
			c.rid++
			a := c.harness.post(wrap(c.rid, " sid='"+c.sid+"'", ""), with("Accept-Encoding", accept)).wait()
			if got := a.header.Get("Content-Encoding") == "gzip"; got != squeezed {
				t.Errorf("%q: compressed %v", accept, got)
				continue
			}
			body := a.body
			if squeezed {
				z, err := gzip.NewReader(strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(z)
				if err != nil {
					t.Fatal(err)
				}
				body = string(b)
			}
			if body != payload(long) {
				t.Errorf("%q: got %.100q", accept, body)
			}
		}
		if a := c.next("", message(3)); a.now() != nil {
			t.Fatal("answered")
		}
	})
}

// Sessions are capped: in all, without authentication, from one address.
func TestCaps(t *testing.T) {
	for _, tt := range []struct {
		edit   func(*Config)
		status int
	}{
		{func(c *Config) { c.MaxSessions = 3 }, http.StatusServiceUnavailable},
		{func(c *Config) { c.MaxUnauthenticated = 3 }, http.StatusServiceUnavailable},
		{func(c *Config) { c.MaxUnauthenticatedPerAddr = 3 }, http.StatusTooManyRequests},
	} {
		bubble(t, tt.edit, func(t *testing.T, h *harness) {
			from := with("X-Forwarded-For", "192.0.2.1")
			for range 3 {
				if a := h.post(wrap(1, createAttrs, ""), from).wait(); a.status != 200 {
					t.Fatalf("got %v", a)
				}
			}
			a := h.post(wrap(1, createAttrs, ""), from).wait()
			if a.status != tt.status || a.header.Get("Retry-After") != "10" || attr(a.body, "condition") != "policy-violation" {
				t.Fatalf("got %v", a)
			}
			time.Sleep(2 * time.Minute) // they have not authenticated
			if a := h.post(wrap(1, createAttrs, ""), from).wait(); a.status != 200 {
				t.Fatalf("got %v", a)
			}
		})
	}
}

// XEP-0124 §18.1: a session that began on TLS takes no requests without; they do not end it either.
func TestSecureSession(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		c := h.login(createAttrs)
		p := h.post(wrap(c.rid+1, " sid='"+c.sid+"'", ""), with("X-Forwarded-For", "192.0.2.1"), with("X-Forwarded-Proto", "http"))
		if a := p.wait(); a.err == nil {
			t.Fatalf("got %v", a)
		}
		isHeld(t, c.next("", ""))
	})
}
