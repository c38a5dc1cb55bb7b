package ws

import (
	"bufio"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/testkit/pipes"
	"holdfast/session"
)

// rawClient speaks frames by hand, so that it can leave out what a library would do.
type rawClient struct {
	net.Conn
	br *bufio.Reader
}

type frame struct {
	op      byte
	payload string
}

func (f frame) status() int {
	if f.op != opClose || len(f.payload) < 2 {
		return -1
	}
	return int(binary.BigEndian.Uint16([]byte(f.payload)))
}

func (c *rawClient) send(t *testing.T, op byte, payload string) {
	t.Helper()
	b := []byte(maskedText(payload))
	b[0] = 0x80 | op
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// next reads one frame; op 0 stands for the end.
func (c *rawClient) next() frame {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.br, head); err != nil {
		return frame{}
	}
	n := int(head[1])
	if n == 126 {
		var long [2]byte
		if _, err := io.ReadFull(c.br, long[:]); err != nil {
			return frame{}
		}
		n = int(binary.BigEndian.Uint16(long[:]))
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(c.br, payload); err != nil {
		return frame{}
	}
	return frame{head[0] & 0xf, string(payload)}
}

// frames reads in the background.
func (c *rawClient) frames() <-chan frame {
	ch := make(chan frame, 1000)
	go func() {
		defer close(ch)
		for {
			f := c.next()
			if f.op == 0 {
				return
			}
			ch <- f
		}
	}()
	return ch
}

func upgradeRaw(t testing.TB, conn net.Conn) *rawClient {
	t.Helper()
	req := "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: xmpp\r\n"
	for i := 0; i < len(upgradeHeaders); i += 2 {
		req += upgradeHeaders[i] + ": " + upgradeHeaders[i+1] + "\r\n"
	}
	if _, err := io.WriteString(conn, req+"\r\n"); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	return &rawClient{conn, br}
}

// bubble runs f in virtual time with a server, one raw client and its stream. Nothing has been said yet.
func bubble(t *testing.T, edit func(*Config), f func(t *testing.T, c *rawClient, s *fakeStream)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		streams := make(chan *fakeStream, 1)
		srv, err := New(config(edit), slog.New(slog.DiscardHandler), prometheus.NewRegistry(), func(tr session.Transport, p session.Peer) session.Stream {
			s := newFakeStream(tr, p)
			streams <- s
			return s
		})
		if err != nil {
			t.Fatal(err)
		}
		ln := pipes.New()
		web := &http.Server{Handler: srv, ReadHeaderTimeout: time.Minute}
		go func() { _ = web.Serve(ln) }()
		conn, err := ln.Dial()
		if err != nil {
			t.Fatal(err)
		}
		c := upgradeRaw(t, conn)
		defer func() {
			_ = conn.Close()
			_ = web.Close()
			_ = ln.Close()
			if err := srv.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(t, c, <-streams)
	})
}

// greet opens the stream.
func greet(t *testing.T, c *rawClient, s *fakeStream) {
	t.Helper()
	c.send(t, opText, openElement)
	if f := c.next(); !strings.HasPrefix(f.payload, "<open") {
		t.Fatalf("got %q", f)
	}
	s.expect(t, "open:localhost")
}

// within checks that d passed since begin, but for the watch's period.
func within(t *testing.T, begin time.Time, d time.Duration) {
	t.Helper()
	if got := time.Since(begin); got < d-time.Second || got > d+2*time.Second {
		t.Errorf("after %v, want %v", got, d)
	}
}

// waitFor waits for one event in virtual time, however long it takes.
func waitFor(t *testing.T, s *fakeStream, want string) {
	t.Helper()
	if got := <-s.events; got != want {
		t.Fatalf("stream event %q, want %q", got, want)
	}
}

// RFC 6120 §4.9.3.4: a peer that does not open the stream, or does not authenticate, is sent away.
func TestHandshakeAndAuthTimeouts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		open  bool
		after time.Duration
	}{
		{"no open", false, 15 * time.Second},
		{"no authentication", true, 30 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
				begin := time.Now()
				if tt.open {
					greet(t, c, s)
				}
				frames := c.frames()
				for f := range frames {
					if f.op == opPing {
						continue
					}
					if !strings.Contains(f.payload, "connection-timeout") {
						t.Errorf("got %q", f)
					}
					break
				}
				within(t, begin, tt.after)
				if f := <-frames; f.payload != closeFramed {
					t.Errorf("got %q", f)
				}
				if f := <-frames; f.status() != 1000 {
					t.Errorf("got %q", f)
				}
				s.expect(t, "fail:connection-timeout")
				c.send(t, opClose, "\x03\xe8")
				waitFor(t, s, lost(nil))
			})
		})
	}
}

// A message that is never finished is interrupted too.
func TestAuthTimeoutWithinMessage(t *testing.T) {
	bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
		greet(t, c, s)
		frames := c.frames()
		if _, err := c.Write([]byte(maskedText(ping))[:20]); err != nil {
			t.Fatal(err)
		}
		got := ""
		for f := range frames {
			got += f.payload
		}
		if !strings.Contains(got, "connection-timeout") || !strings.HasSuffix(got, closeFramed+"\x03\xe8") {
			t.Errorf("got %q", got)
		}
		s.expect(t, "fail:connection-timeout", lost(ErrCloseTimeout))
	})
}

// An authenticated peer may be silent for ever as long as it answers pings; nothing of it is proved twice.
func TestPings(t *testing.T) {
	bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
		greet(t, c, s)
		s.authed.Store(true)
		begin := time.Now()
		pings := 0
		frames := c.frames()
		for time.Since(begin) < 10*time.Minute {
			select {
			case f := <-frames:
				if f.op != opPing {
					t.Fatalf("got %q", f)
				}
				pings++
				c.send(t, opPong, f.payload)
			case <-time.After(time.Second):
			}
		}
		if pings < 22 || pings > 24 {
			t.Errorf("%d pings in 10 minutes", pings)
		}
		if len(s.proved) != 1 || <-s.proved != 1 {
			t.Error("<open/> was not proved once")
		}
	})
}

func TestDeadPeer(t *testing.T) {
	bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
		greet(t, c, s)
		s.authed.Store(true)
		begin := time.Now()
		frames := c.frames()
		if f := <-frames; f.op != opPing {
			t.Errorf("got %q", f)
		}
		within(t, begin, 25*time.Second)
		waitFor(t, s, lost(ErrPingTimeout))
		within(t, begin, 45*time.Second)
		if len(s.proved) != 0 {
			t.Error("proved")
		}
	})
}

// Anything that arrives is a sign of life, whole messages or not.
func TestTalkingPeerIsNotPinged(t *testing.T) {
	bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
		greet(t, c, s)
		s.authed.Store(true)
		s.quiet = true
		frames := c.frames()
		for range 20 {
			time.Sleep(20 * time.Second)
			c.send(t, opPong, "unasked")
		}
		if len(frames) != 0 {
			t.Errorf("got %q", <-frames)
		}
	})
}

// A probe proves what was written before it and nothing that came after; one that is asked for meanwhile follows.
func TestProbe(t *testing.T) {
	bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
		greet(t, c, s)
		frames := c.frames()
		s.send("<a xmlns='b'/>")
		synctest.Wait()
		s.t.Probe()
		synctest.Wait()
		s.send("<c xmlns='b'/>")
		s.t.Probe()
		synctest.Wait()
		var pings []string
		for len(frames) > 0 {
			if f := <-frames; f.op == opPing {
				pings = append(pings, f.payload)
			}
		}
		if len(pings) != 1 {
			t.Fatalf("%d pings in flight", len(pings))
		}
		c.send(t, opPong, "another")
		synctest.Wait()
		if len(s.proved) != 0 {
			t.Fatal("proved by somebody else's pong")
		}
		c.send(t, opPong, pings[0])
		if mark := <-s.proved; mark != 2 {
			t.Errorf("proved %d, want 2", mark)
		}
		f := <-frames
		if f.op != opPing || f.payload == pings[0] {
			t.Fatalf("got %q", f)
		}
		c.send(t, opPong, pings[0]) // an old one proves nothing new
		synctest.Wait()
		if len(s.proved) != 0 {
			t.Fatal("proved by an old pong")
		}
		c.send(t, opPong, f.payload)
		if mark := <-s.proved; mark != 3 {
			t.Errorf("proved %d, want 3", mark)
		}
	})
}

func TestSlowReader(t *testing.T) {
	bubble(t, func(c *Config) { c.PingInterval = 0 }, func(t *testing.T, c *rawClient, s *fakeStream) {
		greet(t, c, s)
		s.authed.Store(true)
		begin := time.Now()
		s.send("<a xmlns='b'/>")
		waitFor(t, s, lost(ErrWriteTimeout))
		within(t, begin, 30*time.Second)
	})
}

// A peer that pings and does not read makes us hold one pong, and its reader goes on.
func TestPingFlood(t *testing.T) {
	bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
		greet(t, c, s)
		s.send("<a xmlns='b'/>")
		synctest.Wait()
		for range 1000 {
			c.send(t, opPing, "p")
		}
		c.send(t, opPing, "last")
		c.send(t, opText, ping)
		s.expect(t, "handle:"+ping)
		frames := c.frames()
		if f := <-frames; f.payload != "<a xmlns='b'/>" {
			t.Fatalf("got %q", f)
		}
		synctest.Wait()
		pongs := 0
		for len(frames) > 0 {
			if f := <-frames; f.op == opPong {
				pongs++
				if f.payload != "last" {
					t.Errorf("got %q", f)
				}
			}
		}
		if pongs != 1 {
			t.Errorf("%d pongs", pongs)
		}
	})
}

// RFC 7395 §3.6 with a peer that does not answer: half of the bound for its <close/>, the rest for its closing frame.
func TestCloseTimeout(t *testing.T) {
	for _, tt := range []struct {
		name   string
		how    session.Finish
		status int
		after  time.Duration
	}{
		{"closed", session.Closed, 1000, 2500 * time.Millisecond},
		{"restarting", session.Restarting, 1012, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
				greet(t, c, s)
				begin := time.Now()
				frames := c.frames()
				s.t.Finish(tt.how)
				for f := range frames {
					if f.op == opClose {
						if f.status() != tt.status {
							t.Errorf("status %d", f.status())
						}
						break
					}
				}
				within(t, begin, tt.after)
				waitFor(t, s, lost(ErrCloseTimeout))
				within(t, begin, 5*time.Second)
				if len(s.proved) != 0 {
					t.Error("proved")
				}
			})
		})
	}
	t.Run("does not read", func(t *testing.T) {
		bubble(t, nil, func(t *testing.T, c *rawClient, s *fakeStream) {
			greet(t, c, s)
			begin := time.Now()
			s.send("<a xmlns='b'/>")
			s.t.Finish(session.Closed)
			waitFor(t, s, lost(ErrCloseTimeout))
			within(t, begin, 5*time.Second)
		})
	})
}

// Limits of 0 are none.
func TestTimeoutsLifted(t *testing.T) {
	bubble(t, func(c *Config) {
		c.HandshakeTimeout, c.AuthTimeout, c.WriteTimeout, c.CloseTimeout, c.PingInterval, c.PingTimeout = 0, 0, 0, 0, 0, 0
	}, func(t *testing.T, c *rawClient, s *fakeStream) {
		time.Sleep(time.Hour)
		greet(t, c, s)
		s.send("<a xmlns='b'/>")
		time.Sleep(time.Hour)
		s.t.Finish(session.Closed)
		frames := c.frames()
		time.Sleep(time.Hour)
		if len(frames) != 2 {
			t.Fatalf("%d frames", len(frames))
		}
		c.send(t, opText, closeFramed)
		<-frames
		<-frames
		if f := <-frames; f.status() != 1000 {
			t.Errorf("got %q", f)
		}
		c.send(t, opClose, "\x03\xe8")
		waitFor(t, s, lost(nil))
	})
}
