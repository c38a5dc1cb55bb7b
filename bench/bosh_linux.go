package bench

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
)

// maxOpen is how many requests a client has open at most: one that is held, and one that carries something (XEP-0124 §11
// with hold='1').
const maxOpen = 2

// bosh is a client's session over HTTP: BOSH, or the long poll of bench/relay, which has the same shape without rids
// and without XML. One request is held as long as nothing is to be said; what is to be said goes at once with another one,
// on a second connection, which makes the server answer the first. BOSH's responses are taken in the order of their
// requests. Of a relay's two, either may be the first: no order is lost as long as a client only speaks, or only listens.
type bosh struct {
	client *client
	lanes  [maxOpen]lane
	head   []byte // of requests
	first  []byte // of the first one; a relay learns by it that the client is new
	up     bool
	sid    string
	next   uint64 // id of the next request
	due    uint64 // of the request whose response is taken next; next less due are open
	ask    ask    // what has to be said beside stanzas
	taking bool   // a response is being taken: what is said meanwhile goes when it has been
	early  []byte // the response to the request after due, when it came first
	hasty  bool   // there is one

	// What waits for a request: elements one behind the other, and where each ends.
	waiting []byte
	ends    []int
}

// ask is a request that is not just for stanzas.
type ask uint8

const (
	nothing ask = iota
	creation
	restart
	terminate
	ended // nothing follows
)

// lane is one keep-alive connection. rid is that of the request that is open on it, 0 for none.
type lane struct {
	socket
	bosh *bosh
	rid  uint64
}

func newBOSH(c *client) *bosh {
	b := &bosh{client: c}
	for i := range b.lanes {
		l := &b.lanes[i]
		l.bosh, l.fd, l.onData, l.onGone = b, -1, l.data, l.lost
	}
	return b
}

func (b *bosh) begin() error {
	c := b.client
	path := c.to.path
	if c.target.Relay {
		path += "?id=" + c.jid
	}
	b.head = postHead(c.to.host, path)
	b.first = b.head
	if c.target.Relay {
		b.first = postHead(c.to.host, path+"&new")
	}
	b.up, b.sid, b.ask, b.hasty, b.waiting, b.ends = true, "", nothing, false, b.waiting[:0], b.ends[:0]
	b.next = 1 + rand.Uint64N(1<<32) // XEP-0124 §14.1
	b.due = b.next
	if !c.target.Relay {
		c.opened()
		return nil
	}
	return b.post(nothing, 0) // it is answered at once
}

func (b *bosh) header() {
	b.ask = restart
	if b.sid == "" {
		b.ask = creation
	}
	b.flush()
}

func (b *bosh) text(raw []byte) {
	if !b.up {
		return
	}
	b.waiting = append(b.waiting, raw...)
	if b.client.target.Relay {
		b.waiting = append(b.waiting, '\n')
	}
	b.ends = append(b.ends, len(b.waiting))
	b.flush()
}

func (b *bosh) end() {
	if b.client.target.Relay || b.sid == "" {
		b.drop()
		return
	}
	b.ask = terminate
	b.flush()
}

func (b *bosh) open() bool { return b.up }

func (b *bosh) drop() {
	b.up = false
	for i := range b.lanes {
		b.lanes[i].drop()
		b.lanes[i].rid = 0
	}
}

func (b *bosh) deafen() {
	for i := range b.lanes {
		b.lanes[i].deafen()
	}
}

func (b *bosh) lost(err error) {
	if b.up {
		b.drop()
		b.client.lost(err)
	}
}

// flush sends what there is to send, as far as requests may be open, and sees to it that one is.
func (b *bosh) flush() {
	var err error
	for b.up && !b.taking && err == nil && b.next-b.due < maxOpen {
		switch {
		case len(b.ends) > 0:
			n := len(b.ends)
			if most := b.client.how.together; most > 0 {
				n = min(n, most)
			}
			err = b.post(nothing, n)
		case b.ask == ended:
			return
		case b.ask != nothing:
			ask := b.ask
			b.ask = nothing
			if ask == terminate {
				b.ask = ended
			}
			err = b.post(ask, 0)
		case b.next == b.due:
			err = b.post(nothing, 0)
		default:
			return
		}
	}
	if err != nil {
		b.client.fail(err)
	}
}

// post sends one request, with the first n of the elements that wait.
func (b *bosh) post(ask ask, n int) error {
	c := b.client
	size := 0
	if n > 0 {
		size = b.ends[n-1]
	}
	rid := b.next
	body := c.loop.body[:0]
	switch {
	case c.target.Relay:
		body = append(body, b.waiting[:size]...)
	case ask == creation:
		body = appendCreation(body, rid, c.target.Domain)
	case ask == restart:
		body = appendBody(body, rid, b.sid, restartNS+" to='"+c.target.Domain+"'", nil)
	case ask == terminate:
		body = appendBody(body, rid, b.sid, " type='terminate'", nil)
	default:
		body = appendBody(body, rid, b.sid, "", b.waiting[:size])
	}
	c.loop.body = body
	b.waiting = b.waiting[:copy(b.waiting, b.waiting[size:])]
	b.ends = b.ends[:copy(b.ends, b.ends[n:])]
	for i := range b.ends {
		b.ends[i] -= size
	}
	b.next++
	c.loop.requests++
	head := b.head
	if b.first != nil {
		head, b.first = b.first, nil
	}
	c.loop.out = appendPost(c.loop.out[:0], head, body)
	l := b.free()
	l.rid = rid
	if !l.open() {
		return l.dial(c.loop, c.to, c.ordinal, bytes.Clone(c.loop.out))
	}
	l.write(c.loop.out)
	return nil
}

// free is a connection without an open request. There is one while fewer than maxOpen are open.
func (b *bosh) free() *lane {
	for i := range b.lanes {
		if b.lanes[i].rid == 0 {
			return &b.lanes[i]
		}
	}
	panic("bench: more requests than may be open")
}

func (l *lane) lost(err error) {
	if l.rid != 0 { // or else the server has had enough of an idle connection
		l.bosh.lost(err)
	}
}

func (l *lane) data(data []byte) []byte {
	r, size, err := cutResponse(data)
	switch {
	case err == nil && size == 0:
		return data
	case err == nil && (l.rid == 0 || size < len(data)):
		err = errors.New("bench: a response that nothing was asked for")
	}
	if err != nil {
		l.drop()
		l.bosh.lost(err)
		return nil
	}
	rid := l.rid
	l.rid = 0
	if r.last {
		l.drop()
	}
	l.bosh.answered(rid, r)
	return nil
}

// answered takes the response to a request, or puts it by when the one before it is not there yet.
func (b *bosh) answered(rid uint64, r response) {
	if r.status != 200 {
		b.client.fail(fmt.Errorf("bench: %s: HTTP status %d: %.200q", b.client.jid, r.status, r.body))
		return
	}
	if rid != b.due && !b.client.target.Relay {
		b.early, b.hasty = append(b.early[:0], r.body...), true
		return
	}
	b.taking = true
	b.take(r.body)
	if b.up && b.hasty {
		b.hasty = false
		b.take(b.early)
	}
	b.taking = false
	b.flush()
}

func (b *bosh) take(raw []byte) {
	b.due++
	if b.client.target.Relay {
		b.takeLines(raw)
		return
	}
	body, rest, ok := payloads(raw)
	if !ok {
		b.client.fail(fmt.Errorf("bench: %s: not a BOSH response: %.200q", b.client.jid, raw))
		return
	}
	if b.sid == "" {
		b.sid = string(attr(body, "sid"))
	}
	for b.up && len(rest) > 0 {
		var e []byte
		if e, rest = cutElement(rest); e != nil {
			b.client.frame(e)
		}
	}
	switch typ := attr(body, "type"); {
	case typ == nil || !b.up:
	case b.client.stage == leaving && string(typ) == "terminate":
		b.drop()
	default:
		b.client.fail(fmt.Errorf("bench: %s: the server ended the session: %.200q", b.client.jid, raw))
	}
}

func (b *bosh) takeLines(raw []byte) {
	if b.client.stage == connecting {
		b.client.opened()
	}
	for b.up && len(raw) > 0 {
		var line []byte
		line, raw, _ = bytes.Cut(raw, []byte("\n"))
		b.client.frame(line)
	}
}
