package bosh

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"holdfast/internal/admit"
	"holdfast/internal/httpconn"
	"holdfast/internal/limitread"
	"holdfast/session"
	"holdfast/stanza"
)

const (
	keepSize = 64 << 10 // larger buffers are not kept
	textXML  = "text/xml; charset=utf-8"
)

// inbox takes one request: its bytes and what the scan finds in them.
type inbox struct {
	buf  []byte
	body body
	elem stanza.Element
}

// outbuf takes one response.
type outbuf struct{ b []byte }

// put gives a buffer back, unless it is large.
func (o *outbuf) put() {
	if cap(o.b) <= keepSize {
		o.b = o.b[:0]
		outbufs.Put(o)
	}
}

var (
	inboxes = sync.Pool{New: func() any { return &inbox{buf: make([]byte, 0, 2<<10)} }}
	outbufs = sync.Pool{New: func() any { return &outbuf{b: make([]byte, 0, 2<<10)} }}
	calls   = sync.Pool{New: func() any { return new(call) }}
)

// call is one request and its answer, wherever it came in. While it is held it has neither inbox nor out.
type call struct {
	*inbox
	line   *waiter // who serves the connection that it came over; nil when net/http does, or another node
	origin string  // of the page that sent it
	may    bool    // that page may read the answer
	gzip   bool    // it takes a compressed one
	peer   session.Peer
	addr   netip.Addr // what the gate counts it under

	// Set when the answer has to be waited for.
	held *transport
	w    *waiter
	rid  uint64

	status  int
	retry   bool   // the client is to come back
	content string // Content-Type
	out     *outbuf
	aborted bool // there is nobody to answer
	// forwarded: another node looks for the session here.
	forwarded bool
}

func newCall() *call {
	c := calls.Get().(*call)
	c.inbox = inboxes.Get().(*inbox)
	return c
}

// release gives back the request's bytes.
func (c *call) release() {
	if in := c.inbox; in != nil {
		c.inbox = nil
		if cap(in.buf) <= keepSize && cap(in.body.scratch) <= keepSize { // else the element points into the large buffer
			inboxes.Put(in)
		}
	}
}

func (c *call) free() {
	c.release()
	if c.w != nil && c.line == nil {
		c.held.srv.waiters.Put(c.w)
	}
	if c.out != nil {
		c.out.put()
	}
	*c = call{}
	calls.Put(c)
}

// answer makes r the answer.
func (c *call) answer(r *response, legacy bool, content string) {
	c.status, c.content = r.status(legacy), content
	c.retry = c.status == http.StatusServiceUnavailable
	if c.out == nil {
		c.out = outbufs.Get().(*outbuf)
	}
	c.out.b = c.out.b[:0]
	if c.status == http.StatusOK {
		c.out.b = r.appendBody(c.out.b)
	}
}

// refuse ends the exchange with a terminal condition.
func (c *call) refuse(cond condition, legacy bool) {
	c.answer(&response{kind: terminate, cond: cond}, legacy, textXML)
}

// reject is refuse with an HTTP status, for what clients have to wait with or what is no BOSH at all.
func (c *call) reject(status int, cond condition) {
	c.refuse(cond, false)
	c.status = status
	c.retry = status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
}

// ServeHTTP is [http.Handler]'s. It reads a request, and takes the connection over to answer it, and all that follow.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		s.serveOthers(w, r)
		return
	}
	c := newCall()
	received := s.receive(c, r, http.NewResponseController(w))
	if received {
		if conn := s.conns.Take(w, r); conn != nil {
			go s.converse(conn, c)
			return
		}
	}
	defer c.free()
	if received {
		s.attend(r.Context(), c)
	}
	if c.aborted {
		panic(http.ErrAbortHandler) // closes the connection, without a word
	}
	s.write(w, c)
}

// converse answers c and the requests that come after it over a connection. What is on its stack is there as long as a
// request is held, so it is little.
func (s *Server) converse(conn *httpconn.Conn, c *call) {
	defer conn.Close()
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("bosh request failed", "error", r, "stack", string(debug.Stack()))
		}
	}()
	line := &waiter{wake: conn.Woken(), conn: conn}
	for {
		c.line = line
		s.attend(conn.Context(), c)
		if !s.reply(c) {
			return
		}
		if c = s.next(line); c == nil {
			return
		}
	}
}

// next reads the next request of a connection; nil when there is none, or the last one had a fault.
func (s *Server) next(line *waiter) *call {
	r, ok := line.conn.Next()
	if !ok {
		return nil
	}
	c := newCall()
	c.line = line
	if s.receive(c, r, line.conn) {
		return c
	}
	line.conn.Abandon()
	s.reply(c)
	return nil
}

func (s *Server) serveOthers(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Vary", "Origin")
	if by := readableBy(originOf(r), s.allowed(r)); by != "" {
		h.Set("Access-Control-Allow-Origin", by)
	}
	switch r.Method {
	case http.MethodOptions:
		preflight(w)
	case http.MethodGet, http.MethodHead:
		showPage(w)
	default:
		h["Allow"] = allowedMethods
		http.Error(w, "POST is what BOSH takes", http.StatusMethodNotAllowed)
	}
}

// deadliner bounds the reading of a body.
type deadliner interface{ SetReadDeadline(time.Time) error }

// receive reads a request. It reports false when that is answered already, or nobody waits for an answer.
func (s *Server) receive(c *call, r *http.Request, dl deadliner) bool {
	c.origin, c.may = originOf(r), s.allowed(r)
	c.gzip = s.cfg.Compression && acceptsGzip(r.Header)
	switch {
	case !c.may:
		s.met.refused.WithLabelValues(refusedOrigin).Inc()
		c.reject(http.StatusForbidden, policyViolation)
		return false
	case !xmlType(r.Header) || !identity(r.Header):
		c.reject(http.StatusUnsupportedMediaType, badRequest)
		return false
	}
	client := s.trust.Client(r)
	c.peer = session.Peer{Addr: client.Addr, Secure: client.Secure, Kind: "bosh"}
	if client.Known {
		c.addr = admit.Bucket(client.Addr)
	}
	return s.read(c, r, dl)
}

// xmlType reports whether a body may be XML in UTF-8. Pages that are to do without a preflight send text/plain, and
// XEP-0124 §5 knows the type of forms too.
func xmlType(h http.Header) bool {
	values := h["Content-Type"]
	if len(values) == 0 {
		return true
	}
	switch values[0] {
	case "text/xml; charset=utf-8", "text/xml", "text/plain;charset=UTF-8":
		return true
	}
	media, params, _ := strings.Cut(values[0], ";")
	switch strings.ToLower(strings.TrimSpace(media)) {
	case "", "text/xml", "application/xml", "text/plain", "application/x-www-form-urlencoded":
	default:
		return false
	}
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(name, "charset") && !strings.EqualFold(strings.Trim(value, `"`), "utf-8") {
			return false
		}
	}
	return true
}

func identity(h http.Header) bool {
	v := h["Content-Encoding"]
	return len(v) == 0 || len(v) == 1 && strings.EqualFold(v[0], "identity")
}

// read reads the request's body whole. It reports false when it has answered already.
func (s *Server) read(c *call, r *http.Request, dl deadliner) bool {
	bound := s.cfg.BodyTimeout > 0 && !(c.line != nil && r.ContentLength >= 0 && int64(c.line.conn.Ahead()) >= r.ContentLength)
	if bound {
		_ = dl.SetReadDeadline(time.Now().Add(s.cfg.BodyTimeout)) // without deadlines there is no limit
	}
	limit := s.cfg.bodyLimit(false)
	over, err := c.fill(r.Body, limit)
	if over && err == nil {
		if t := s.find(c.sidOf(c.buf)); t != nil && t.authed.Load() {
			limit = s.cfg.bodyLimit(true)
			if over, err = c.more(r.Body, limit); over && err == nil {
				t.reject()
			}
		}
	}
	switch {
	case timedOut(err):
		s.met.slow.Add(1)
		c.reject(http.StatusRequestTimeout, badRequest)
		return false
	case err != nil:
		c.aborted = true
		return false
	case over:
		c.reject(http.StatusRequestEntityTooLarge, policyViolation)
		return false
	}
	s.met.bytesIn.Add(uint64(len(c.buf)))
	if bound {
		_ = dl.SetReadDeadline(time.Time{})
	}
	return true
}

func timedOut(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// fill reads r to its end into the inbox; over says that it holds more than limit bytes, 0 for no limit.
func (in *inbox) fill(r io.Reader, limit int) (over bool, err error) {
	in.buf = in.buf[:0]
	return in.more(r, limit)
}

func (in *inbox) more(r io.Reader, limit int) (over bool, err error) {
	in.buf, over, err = limitread.Append(in.buf, r, limit)
	return over, err
}

// sidOf reads the sid of a request that is cut off or not well-formed; "" when it is not to be found.
func (in *inbox) sidOf(raw []byte) string {
	raw, err := skipDeclaration(raw)
	if err != nil {
		return ""
	}
	quote := byte(0)
	for i, c := range raw[:min(len(raw), 8<<10)] {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '>' && i > 0:
			tag := append([]byte(nil), raw[:i]...)
			if tag[i-1] != '/' {
				tag = append(tag, '/')
			}
			var e stanza.Element
			if e.Scan(append(tag, '>'), stanza.Limits{Attrs: 256}) != nil || !e.Is(nsBind, "body") {
				return ""
			}
			return e.Attr("sid")
		}
	}
	return ""
}

// attend sees to a request that is in the inbox until it has its answer, however long it is held. The inbox it does not need
// that long.
func (s *Server) attend(ctx context.Context, c *call) {
	s.serve(ctx, c)
	c.release()
	if c.held != nil {
		c.held.await(ctx, c)
	}
}

// serve answers a request that is in the inbox, or has it held.
func (s *Server) serve(ctx context.Context, c *call) {
	s.met.requests.Add(1)
	lim := s.limits(0)
	if lim.Depth > 0 {
		lim.Depth++
	}
	lim.Children = s.cfg.MaxStanzas
	if err := c.body.parse(c.buf, lim); err != nil {
		sid := string(c.body.sid)
		if !c.body.scanned {
			sid = c.sidOf(c.buf)
		}
		s.malformed(c, sid)
		return
	}
	if len(c.body.sid) == 0 {
		s.create(c)
		return
	}
	t := s.find(string(c.body.sid))
	if t == nil {
		if t = s.lookElsewhere(ctx, c); t == nil {
			return
		}
	}
	t.serve(c)
}

// malformed answers what cannot be understood (XEP-0124 §17.2). It ends the session: the client takes it for ended.
func (s *Server) malformed(c *call, sid string) {
	t := s.find(sid)
	c.refuse(badRequest, t != nil && t.legacy)
	if t != nil {
		t.reject()
	}
}
