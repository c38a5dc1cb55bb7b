package httpconn

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// aheadSize is how much of what comes next a connection takes in by itself. Most requests fit.
const aheadSize = 1 << 10

var (
	// ErrSlow is what [Conn.Reply] returns when the client did not read for too long.
	ErrSlow = errors.New("httpconn: the client does not read")

	errGone = errors.New("httpconn: the connection is gone")
	past    = time.Unix(1, 0)
)

// What a connection does, in the upper bits of Conn.state; below is since which tick.
const (
	busy uint64 = iota << 60
	idle
	writing
	tooSlow // writing, and closed for that
	closed
	doing = uint64(15) << 60
)

// Conn is a connection. But for Wake its methods are for the goroutine that serves it.
type Conn struct {
	// static
	pool   *Pool
	web    *http.Server
	nc     net.Conn
	remote string
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}

	state atomic.Uint64
	// ahead[from:to] was read, and belongs to the next request.
	ahead    []byte
	from, to int
	br       *bufio.Reader // while a request is read
	last     bool          // no request comes after this one
	given    bool          // net/http has it again

	mu          sync.Mutex
	parked      bool // Wait reads
	interrupted bool // by a deadline
}

func (c *Conn) set(what uint64) { c.state.Store(what | uint64(c.pool.now.Load())) }

// closeIf closes a connection that has been doing something for so many ticks.
func (c *Conn) closeIf(what uint64, ticks int64) {
	s := c.state.Load()
	if s&doing != what || c.pool.now.Load()-int64(s&^doing) < ticks {
		return
	}
	to := closed
	if what == writing {
		to = tooSlow
	}
	if c.state.CompareAndSwap(s, to) {
		c.hangUp()
	}
}

// hangUp closes the connection under who works with it.
func (c *Conn) hangUp() {
	c.cancel()
	_ = c.nc.Close()
}

// Context ends when the connection is closed.
func (c *Conn) Context() context.Context { return c.ctx }

// Close closes the connection, unless it has been given back.
func (c *Conn) Close() {
	c.keep()
	c.cancel()
	if !c.given {
		_ = c.nc.Close()
	}
	c.pool.leave(c)
}

// Read is for the reader of a request: what is there already, and then the connection.
func (c *Conn) Read(p []byte) (int, error) {
	if c.from < c.to {
		n := copy(p, c.ahead[c.from:c.to])
		c.from += n
		return n, nil
	}
	return c.nc.Read(p)
}

// keep ends the reading of a request: what its reader has of the next one is kept, and the buffer given back.
func (c *Conn) keep() {
	if c.br == nil {
		return
	}
	if n := c.br.Buffered(); n > 0 {
		more, _ := c.br.Peek(n) // cannot fail: they are there
		c.holds(more, c.ahead[c.from:c.to])
	}
	c.br.Reset(nil)
	readers.Put(c.br)
	c.br = nil
}

// holds makes what was read ahead this, in this order.
func (c *Conn) holds(parts ...[]byte) {
	all := slices.Concat(parts...)
	c.from, c.to = 0, len(all)
	if len(all) > len(c.ahead) {
		c.ahead = all
	} else {
		copy(c.ahead, all)
	}
}

// Next reads the head of the next request. It reports false when there is none: the client has hung up or sent what is
// no request, it was given back to net/http, or the Pool is drained.
func (c *Conn) Next() (*http.Request, bool) {
	c.keep()
	if c.last || !c.begins() {
		return nil, false
	}
	c.br = readers.Get().(*bufio.Reader)
	c.br.Reset(c)
	slow, blank := false, 0
	for need := 1; ; {
		if _, err := c.br.Peek(need); err != nil {
			return nil, false
		}
		b, _ := c.br.Peek(c.br.Buffered())                            // cannot fail: they are there
		if need == 1 && blank < 4 && (b[0] == '\r' || b[0] == '\n') { // old clients end a body so (RFC 9112 §2.2)
			blank++
			_, _ = c.br.Discard(1)
			continue
		}
		if n := min(len(b), len(c.pool.start)); !bytes.Equal(b[:n], c.pool.start[:n]) || len(b) == c.br.Size() && !complete(b) {
			c.giveBack()
			return nil, false
		}
		if complete(b) {
			break
		}
		need = len(b) + 1
		if !slow && c.pool.cfg.Head > 0 {
			slow = true
			_ = c.nc.SetReadDeadline(time.Now().Add(c.pool.cfg.Head)) // without deadlines there is no limit
		}
	}
	if slow {
		_ = c.nc.SetReadDeadline(time.Time{})
	}
	r, err := http.ReadRequest(c.br)
	if err != nil || !proper(r) {
		c.last = true
		_ = c.Reply(http.StatusBadRequest, nil, nil)
		return nil, false
	}
	r.RemoteAddr = c.remote
	c.last = r.Close
	return r, c.meets(r)
}

// meets answers what a request expects before it sends its body (RFC 9110 §10.1.1).
func (c *Conn) meets(r *http.Request) bool {
	expects := r.Header["Expect"]
	switch {
	case len(expects) == 0:
		return true
	case len(expects) > 1 || !strings.EqualFold(expects[0], "100-continue"):
		c.last = true
		_ = c.Reply(http.StatusExpectationFailed, nil, nil)
		return false
	}
	if r.ContentLength == 0 || c.br.Buffered() > 0 {
		return true // it has not waited
	}
	return c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n")) == nil
}

func complete(head []byte) bool {
	return bytes.Contains(head, []byte("\n\r\n")) || bytes.Contains(head, []byte("\n\n"))
}

// proper applies what net/http asks of a request besides (RFC 9112 §3.2, RFC 9110 §5.5).
func proper(r *http.Request) bool {
	if r.Host == "" || strings.ContainsFunc(r.Host, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return false
	}
	for name, values := range r.Header {
		if strings.Contains(name, " ") { // before the colon: others may read another field there, such as a length
			return false
		}
		for _, v := range values {
			for i := range len(v) {
				if b := v[i]; b < ' ' && b != '\t' || b == 0x7f {
					return false
				}
			}
		}
	}
	return true
}

// begins waits for the first bytes of a request.
func (c *Conn) begins() bool {
	if c.from < c.to {
		return true
	}
	c.set(idle)
	if c.pool.door.IsShut() {
		return false
	}
	n, err := c.nc.Read(c.ahead)
	c.from, c.to = 0, n
	if s := c.state.Load(); s&doing != idle || !c.state.CompareAndSwap(s, busy) {
		return false // closed in this moment
	}
	return err == nil
}

// Ahead reports how much of a body has come with its head.
func (c *Conn) Ahead() int {
	if c.br == nil {
		return 0
	}
	return c.br.Buffered()
}

// SetReadDeadline bounds the reading of a body.
func (c *Conn) SetReadDeadline(at time.Time) error { return c.nc.SetReadDeadline(at) }

// Abandon says that the body of the request has not been read to its end.
func (c *Conn) Abandon() { c.last = true }

// Wait returns when Wake has been called, since the last Wait or what was last received from Woken. It reports whether the
// client has hung up instead.
func (c *Conn) Wait() (gone bool) {
	c.keep()
	for {
		if c.from == c.to {
			c.from, c.to = 0, 0
		}
		c.mu.Lock()
		select {
		case <-c.wake:
			c.mu.Unlock()
			return false
		default:
		}
		if c.to == len(c.ahead) { // there is a request behind this one, and no knowing what is behind that
			c.mu.Unlock()
			select {
			case <-c.wake:
				return false
			case <-c.ctx.Done():
				return true
			}
		}
		c.parked = true
		c.mu.Unlock()
		n, err := c.nc.Read(c.ahead[c.to:])
		c.to += n
		c.mu.Lock()
		c.parked = false
		interrupted := c.interrupted
		c.interrupted = false
		if interrupted {
			_ = c.nc.SetReadDeadline(time.Time{})
		}
		c.mu.Unlock()
		if err != nil && !(interrupted && errors.Is(err, os.ErrDeadlineExceeded)) {
			return true
		}
	}
}

// Wake ends a Wait, now or the next one. It may be called at any time, by anybody.
func (c *Conn) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.parked && !c.interrupted {
		c.interrupted = true
		_ = c.nc.SetReadDeadline(past)
	}
}

// Woken receives what Wake sends, for who waits for something else than the client.
func (c *Conn) Woken() <-chan struct{} { return c.wake }

// Watch returns a context that ends when the client hangs up, for what cannot be woken. The connection is not to be used
// before stop has returned.
func (c *Conn) Watch() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(c.ctx)
	over := make(chan struct{})
	var stopped atomic.Bool
	go func() {
		defer close(over)
		for !stopped.Load() { // what wakes it may have been for an earlier request
			if c.Wait() {
				cancel()
				return
			}
		}
	}()
	return ctx, func() {
		stopped.Store(true)
		c.Wake()
		<-over
		cancel()
	}
}

// Field is a field of a response.
type Field struct{ Name, Value string }

type output struct{ b []byte }

const keepSize = 64 << 10 // larger buffers are not kept

var outputs = sync.Pool{New: func() any { return &output{make([]byte, 0, 2<<10)} }}

// Reply writes a response; Date, Content-Length and Connection need not be among its fields. After an error, and after the last
// response of a connection, Next reports false.
func (c *Conn) Reply(status int, fields []Field, body []byte) error {
	c.keep()
	c.last = c.last || c.pool.door.IsShut()
	o := outputs.Get().(*output)
	b := o.b[:0]
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(append(b, ' '), http.StatusText(status)...), "\r\n"...)
	b = append(b, *c.pool.date.Load()...)
	for _, f := range fields {
		b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	if c.last {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(append(b, "\r\n\r\n"...), body...)
	err := c.write(b)
	if cap(b) <= keepSize {
		o.b = b
		outputs.Put(o)
	}
	switch {
	case err != nil:
		c.last = true
	case c.last:
		c.linger()
	}
	return err
}

// write writes under the limit that the Pool has.
func (c *Conn) write(b []byte) error {
	c.set(writing)
	_, err := c.nc.Write(b)
	if s := c.state.Load(); s&doing != writing || !c.state.CompareAndSwap(s, busy) {
		if s&doing == tooSlow {
			return ErrSlow
		}
		return errGone
	}
	return err
}

// lingerFor is how long the client has to read the last response before what it has sent meanwhile makes the system
// reset the connection, response and all. net/http waits as long.
const lingerFor = 500 * time.Millisecond

func (c *Conn) linger() {
	if w, ok := c.nc.(interface{ CloseWrite() error }); ok && w.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(lingerFor)) // without deadlines there is no waiting
	_, _ = io.CopyN(io.Discard, c.nc, 256<<10)
}

// giveBack has net/http go on with the connection, from where the last request ended.
func (c *Conn) giveBack() {
	c.keep()
	c.given = true
	_ = c.nc.SetReadDeadline(time.Time{})
	back := &replay{Conn: c.nc, ahead: bytes.Clone(c.ahead[c.from:c.to])} // Take takes it off again
	go func() {
		l := &one{conn: back}
		_ = c.web.Serve(l) // it ends with what the listener says, which has nothing more
		if !l.taken {
			_ = back.Close() // the server is closed
		}
	}()
}

// replay is a connection of which something has been read.
type replay struct {
	net.Conn
	ahead []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.ahead) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.ahead)
	if r.ahead = r.ahead[n:]; len(r.ahead) == 0 {
		r.ahead = nil
	}
	return n, nil
}

// Unwrap returns the connection below once everything has been read that was ahead, and r until then. It belongs to the
// goroutine that reads.
func (r *replay) Unwrap() net.Conn {
	if len(r.ahead) > 0 {
		return r
	}
	if u, ok := r.Conn.(interface{ Unwrap() net.Conn }); ok {
		return u.Unwrap()
	}
	return r.Conn
}

// one is a listener for one connection.
type one struct {
	conn  net.Conn
	taken bool
}

func (l *one) Accept() (net.Conn, error) {
	if l.taken {
		return nil, io.EOF
	}
	l.taken = true
	return l.conn, nil
}

func (l *one) Close() error   { return nil }
func (l *one) Addr() net.Addr { return l.conn.LocalAddr() }
