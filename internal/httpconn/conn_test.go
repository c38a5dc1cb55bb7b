package httpconn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"holdfast/internal/testkit/pipes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const path = "/poll"

// harness is an http.Server with a long poll at path, behind pipes. A body "wait" is held until somebody wakes it, "watch" until
// release, all others are sent back.
type harness struct {
	t    testing.TB
	pool *Pool
	web  *http.Server
	lis  *pipes.Listener
	take bool // connections are taken

	release chan struct{} // ends a "watch"

	mu    sync.Mutex
	held  []*Conn
	errs  []error // of replies
	taken int
	gone  int // clients that hung up
}

func newHarness(t testing.TB, take bool) *harness {
	h := &harness{t: t, take: take, lis: pipes.New(), release: make(chan struct{})}
	h.pool = NewPool(Config{Path: path, Idle: time.Minute, Head: 10 * time.Second, Write: 30 * time.Second})
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, h.poll)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "other %s %s", r.URL.Path, b)
	})
	h.web = &http.Server{Handler: mux, MaxHeaderBytes: 16 << 10}
	go func() { _ = h.web.Serve(h.lis) }()
	return h
}

func (h *harness) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	h.pool.Drain(now)
	_ = h.web.Close()
	time.Sleep(time.Second) // net/http lets a client read an error
	synctest.Wait()
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, f func(t *testing.T, h *harness)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, true)
		defer h.close()
		f(t, h)
	})
}

func (h *harness) poll(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if h.take {
		if c := h.pool.Take(w, r); c != nil {
			h.mu.Lock()
			h.taken++
			h.mu.Unlock()
			if _, again := c.nc.(*replay); again {
				h.t.Error("a connection that has been given back carries that with it")
			}
			go h.converse(c, body)
			return
		}
	}
	fmt.Fprintf(w, "got %s", body)
}

func (h *harness) converse(c *Conn, body []byte) {
	defer c.Close()
	for {
		if string(body) == "wait" {
			h.mu.Lock()
			h.held = append(h.held, c)
			h.mu.Unlock()
			if c.Wait() {
				h.mu.Lock()
				h.gone++
				h.mu.Unlock()
				return
			}
		}
		if string(body) == "stuck" {
			<-h.release
		}
		if string(body) == "watch" {
			c.Wake() // late, for an earlier request
			ctx, stop := c.Watch()
			select {
			case <-ctx.Done():
				stop()
				h.mu.Lock()
				h.gone++
				h.mu.Unlock()
				return
			case <-h.release:
				stop()
			}
		}
		if err := c.Reply(http.StatusOK, []Field{{"X-Conn", "taken"}}, append([]byte("got "), body...)); err != nil {
			h.mu.Lock()
			h.errs = append(h.errs, err)
			h.mu.Unlock()
			return
		}
		r, ok := c.Next()
		if !ok {
			return
		}
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return
		}
	}
}

func (h *harness) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.held {
		c.Wake()
	}
	h.held = nil
}

// client is the other end of a connection.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (h *harness) dial() *client {
	conn, err := h.lis.Dial()
	if err != nil {
		h.t.Fatal(err)
	}
	return &client{t: h.t, conn: conn, r: bufio.NewReader(conn)}
}

func (c *client) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// read reads a response: its status, body, and whether the connection stays open.
func (c *client) read() (status int, body string, stays bool) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	if resp.StatusCode == http.StatusOK && resp.Header.Get("Date") == "" {
		c.t.Error("a response without a date")
	}
	return resp.StatusCode, string(b), !resp.Close
}

func (c *client) expect(body string) {
	c.t.Helper()
	if status, got, stays := c.read(); status != http.StatusOK || got != body || !stays {
		c.t.Fatalf("%d %q, stays %v; want %q", status, got, stays, body)
	}
}

func (c *client) expectEnd() {
	c.t.Helper()
	if b, err := io.ReadAll(c.r); err != nil && !errors.Is(err, io.ErrClosedPipe) || len(b) > 0 {
		c.t.Fatalf("%q, %v; want the end", b, err)
	}
}

func post(body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

func TestRequestsOfOneConnection(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		defer c.conn.Close()
		for i := range 3 {
			c.write(post(fmt.Sprint("m", i)))
			c.expect(fmt.Sprint("got m", i))
			time.Sleep(50 * time.Second)
		}
		c.write(post("wait"))
		synctest.Wait()
		time.Sleep(5 * time.Minute) // no limit on that
		h.wake()
		c.expect("got wait")
		c.write(strings.Replace(post("x"), "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		if _, body, stays := c.read(); body != "got x" || stays {
			t.Errorf("%q, stays %v", body, stays)
		}
		c.expectEnd()
		if h.taken != 1 {
			t.Errorf("taken %d times", h.taken)
		}
	})
}

// What is sent while a request is held is served afterwards, in order, however much it is.
func TestPipelining(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		defer c.conn.Close()
		large := strings.Repeat("x", 3*aheadSize)
		go func() {
			c.write(post("a") + post("wait") + post("b") + post(large))
			c.write(post("wait") + "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n" + post("c"))
		}()
		c.expect("got a")
		synctest.Wait()
		h.wake()
		c.expect("got wait")
		c.expect("got b")
		c.expect("got " + large)
		synctest.Wait()
		h.wake()
		c.expect("got wait")
		c.expect("other /page ")
		c.expect("got c")
		if h.taken != 2 {
			t.Errorf("taken %d times", h.taken)
		}
	})
}

func TestTheClientHangsUp(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		c.write(post("wait"))
		synctest.Wait()
		_ = c.conn.Close()
		synctest.Wait()
		if h.gone != 1 || h.pool.Len() != 0 {
			t.Errorf("%d gone, %d connections", h.gone, h.pool.Len())
		}
		h.wake() // whoever does not know yet does no harm
	})
}

func TestWatch(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		for range 2 {
			c.write(post("watch"))
			h.release <- struct{}{}
			c.expect("got watch")
			c.write(post("a"))
			c.expect("got a")
		}
		c.write(post("watch") + post("b"))
		h.release <- struct{}{}
		c.expect("got watch")
		c.expect("got b")
		c.write(post("watch"))
		synctest.Wait()
		_ = c.conn.Close()
		synctest.Wait()
		if h.gone != 1 || h.pool.Len() != 0 {
			t.Errorf("%d gone, %d connections", h.gone, h.pool.Len())
		}
	})
}

func TestLimits(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		c.write(post("a"))
		c.expect("got a")
		time.Sleep(62 * time.Second) // idle
		c.expectEnd()

		c = h.dial()
		c.write(post("a"))
		c.expect("got a")
		c.write(post("b")[:20])
		time.Sleep(11 * time.Second) // within a head
		c.expectEnd()

		c = h.dial()
		c.write(post("wait"))
		synctest.Wait()
		h.wake()
		time.Sleep(32 * time.Second) // nobody reads
		synctest.Wait()
		if len(h.errs) != 1 || !errors.Is(h.errs[0], ErrSlow) {
			t.Errorf("%v", h.errs)
		}
		c.expectEnd()
		if n := h.pool.Len(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// What is no ordinary request.
func TestOddRequests(t *testing.T) {
	for _, x := range []struct {
		name, request string
		status        int
		ends          bool
	}{
		{"no host", "POST /poll HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400, true},
		{"a bad field", "POST /poll HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n", 400, true},
		{"a space behind a field's name", "POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\nab", 400, true},
		{"a bad host", "POST /poll HTTP/1.1\r\nHost: a b\r\nContent-Length: 0\r\n\r\n", 400, true},
		{"blank lines before it", "\r\n\r\nPOST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, false},
		{"a last line that ends as in Unix", "POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 0\n\r\n", 200, false},
		{"two lengths", "POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, true},
		{"a length and chunks", "POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, false},
		{"no HTTP", "what?\r\n\r\n", 400, true},
		{"another version", "POST /poll HTTP/2.0\r\nHost: a\r\n\r\n", 505, true},
		{"an old version", "POST /poll HTTP/1.0\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, true},
		{"a query", "POST /poll?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, false},
		{"another path", "POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, false},
		{"another method", "PUT /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, false},
		{"a large head", "POST /poll HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2*headSize) + "\r\nContent-Length: 0\r\n\r\n", 200, false},
		{"too large a head", "POST /poll HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 32<<10) + "\r\nContent-Length: 0\r\n\r\n", 431, true},
		{"lines that end as in Unix", "POST /poll HTTP/1.1\r\nHost: a\nContent-Length: 2\n\nhi", 200, false},
		{"chunks", "POST /poll HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, false},
		{"an expectation", "POST /poll HTTP/1.1\r\nHost: a\r\nExpect: much\r\nContent-Length: 0\r\n\r\n", 417, true},
	} {
		t.Run(x.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *harness) {
				c := h.dial()
				defer c.conn.Close()
				c.write(post("a"))
				c.expect("got a")
				go func() { _, _ = io.WriteString(c.conn, x.request) }()
				status, body, stays := c.read()
				if status != x.status || stays == x.ends {
					t.Fatalf("%d %q, stays %v", status, body, stays)
				}
				if !x.ends {
					c.write(post("b"))
					c.expect("got b")
				}
			})
		})
	}
}

// A balancer sends everything over the connections that it has.
func TestToAndFro(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		defer c.conn.Close()
		for i := range 20 {
			c.write(post(fmt.Sprint(i)))
			c.expect(fmt.Sprint("got ", i))
			c.write("GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
			c.expect("other /page ")
		}
		if h.taken != 20 {
			t.Errorf("taken %d times", h.taken)
		}
		c.write(post("wait"))
		synctest.Wait()
		h.wake()
		c.expect("got wait")
	})
}

// A handler that does not notice that its connection is gone does not hold up the end.
func TestDrainWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		c.write(post("stuck"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		h.pool.Drain(ctx)
		if took := time.Since(begin); took != 6*time.Second {
			t.Errorf("drained after %v", took)
		}
		h.release <- struct{}{}
	})
}

func TestExpectContinue(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		defer c.conn.Close()
		c.write(post("a"))
		c.expect("got a")
		c.write("POST /poll HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil || resp.StatusCode != http.StatusContinue {
			t.Fatal(resp, err)
		}
		c.write("hi")
		c.expect("got hi")
	})
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		idles, waits, never := h.dial(), h.dial(), h.dial()
		idles.write(post("a"))
		idles.expect("got a")
		waits.write(post("wait"))
		synctest.Wait()
		waiting := h.held
		h.held = nil
		never.write(post("wait"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		drained := make(chan struct{})
		begin := time.Now()
		go func() {
			h.pool.Drain(ctx)
			close(drained)
		}()
		idles.expectEnd()
		time.Sleep(time.Second)
		waiting[0].Wake()
		if _, body, stays := waits.read(); body != "got wait" || stays {
			t.Errorf("%q, stays %v", body, stays)
		}
		waits.expectEnd()
		<-drained
		never.expectEnd()
		if took := time.Since(begin); took != 10*time.Second || h.pool.Len() != 0 {
			t.Errorf("drained after %v, %d connections", took, h.pool.Len())
		}
		late := h.dial() // stays with net/http
		defer late.conn.Close()
		late.write(post("b"))
		late.expect("got b")
	})
}

// After net/http was shut down there is nobody to give a connection back to.
func TestGiveBackTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, h *harness) {
		c := h.dial()
		c.write(post("a"))
		c.expect("got a")
		if err := h.web.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.expectEnd()
	})
}

// Whatever a client sends, in whatever pieces, is answered as net/http answers it.
func TestLikeNetHTTP(t *testing.T) {
	requests := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
		body := rapid.SampledFrom([]string{"", "a", "hello", strings.Repeat("long ", 500)}).Draw(t, "body")
		target := rapid.SampledFrom([]string{path, path, path, "/other", path + "?q"}).Draw(t, "target")
		method := rapid.SampledFrom([]string{"POST", "POST", "POST", "PUT"}).Draw(t, "method")
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\n", method, target)
		if rapid.IntRange(0, 9).Draw(t, "padded") == 0 {
			head += "X-Pad: " + strings.Repeat("p", rapid.SampledFrom([]int{500, 3900, 4000, 5000}).Draw(t, "pad")) + "\r\n"
		}
		if rapid.Bool().Draw(t, "chunked") && body != "" {
			return fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(body), body)
		}
		return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
	}), 1, 8)
	rapid.Check(t, func(r *rapid.T) {
		all := requests.Draw(r, "requests")
		stream := strings.Join(all, "")
		cuts := rapid.SliceOfN(rapid.IntRange(1, 900), 1, 6).Draw(r, "pieces")
		var answers [2][]string
		for i, take := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, take)
				defer h.close()
				c := h.dial()
				defer c.conn.Close()
				go func() {
					rest := stream
					for n := 0; rest != ""; n++ {
						size := min(cuts[n%len(cuts)], len(rest))
						if _, err := io.WriteString(c.conn, rest[:size]); err != nil {
							return
						}
						rest = rest[size:]
					}
				}()
				for range all {
					status, body, stays := c.read()
					answers[i] = append(answers[i], fmt.Sprint(status, body, stays))
				}
			})
		}
		if fmt.Sprint(answers[0]) != fmt.Sprint(answers[1]) {
			r.Fatalf("net/http answers %.300q, we %.300q", answers[0], answers[1])
		}
	})
}
