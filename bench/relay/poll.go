package relay

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// Poll is the least that a messenger over HTTP can do, the limit of BOSH (XEP-0124): net/http, and a line of text for
// each message, which goes, as it is, to the client whose name it begins with. There is no XML, no id of a request, no
// response that is kept, and nothing but one mailbox for each client.
//
// A client names itself in the address of its requests: /poll?id=00000001, IDLength characters, with &new in its first
// one, which is answered at once. Any other request is held until there are lines for the client, or until its next
// request comes: so one is held, and two are open at most. Either of two may be handled first.
type Poll struct {
	mu    sync.RWMutex // guards boxes
	boxes map[string]*box
}

// box is what waits for a client.
type box struct {
	mu    sync.Mutex
	lines []byte
	held  *held // the request that is held, nil for none
}

// held is a request that waits.
type held struct {
	ready chan struct{} // gets one token when the wait is over
	told  bool          // it has; guarded by the box
	lines []byte        // what the request said, then what it is answered with
}

var (
	requests    = sync.Pool{New: func() any { return &held{ready: make(chan struct{}, 1), lines: make([]byte, 0, 1<<10)} }}
	contentType = []string{"text/plain; charset=utf-8"}
)

// NewPoll makes one without clients.
func NewPoll() *Poll { return &Poll{boxes: make(map[string]*box)} }

// ServeHTTP takes one request's lines and answers it, later.
func (p *Poll) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	id, named := strings.CutPrefix(req.URL.RawQuery, "id=")
	id, first := strings.CutSuffix(id, "&new")
	if !named || len(id) != IDLength {
		http.Error(w, "id has the wrong length", http.StatusBadRequest)
		return
	}
	h := requests.Get().(*held)
	defer requests.Put(h)
	if !h.read(req.Body) {
		return
	}
	p.relay(h.lines)
	h.lines = h.lines[:0]
	if first {
		p.mu.Lock()
		p.boxes[id] = &box{}
		p.mu.Unlock()
	} else if !p.hold(id, h, req) {
		return
	}
	header := w.Header()
	header["Content-Type"] = contentType
	header["Content-Length"] = []string{strconv.Itoa(len(h.lines))}
	_, _ = w.Write(h.lines) // a client that is gone is found out by its next request
}

func (h *held) read(body io.Reader) bool {
	h.lines = h.lines[:0]
	for {
		if len(h.lines) == cap(h.lines) {
			h.lines = append(h.lines, 0)[:len(h.lines)]
		}
		n, err := body.Read(h.lines[len(h.lines):cap(h.lines)])
		h.lines = h.lines[:len(h.lines)+n]
		if err == io.EOF {
			return true
		}
		if err != nil {
			return false
		}
	}
}

// relay puts lines into their recipients' boxes. Who is unknown is nobody.
func (p *Poll) relay(lines []byte) {
	for len(lines) > IDLength {
		n := bytes.IndexByte(lines, '\n') + 1
		if n == 0 {
			return
		}
		p.mu.RLock()
		b := p.boxes[string(lines[:IDLength])]
		p.mu.RUnlock()
		if b != nil {
			b.mu.Lock()
			b.lines = append(b.lines, lines[:n]...)
			b.held.tell()
			b.mu.Unlock()
		}
		lines = lines[n:]
	}
}

// tell ends the wait. It is called with the box locked.
func (h *held) tell() {
	if h != nil && !h.told {
		h.told = true
		h.ready <- struct{}{}
	}
}

// hold keeps the request until it is to be answered, with what is then in lines. It reports false when nobody waits any
// more.
func (p *Poll) hold(id string, h *held, req *http.Request) bool {
	p.mu.RLock()
	b := p.boxes[id]
	p.mu.RUnlock()
	if b == nil {
		return true
	}
	b.mu.Lock()
	if before := b.held; before != nil { // what is there is for the request before this one
		before.lines, b.lines, b.held = b.lines, before.lines, nil
		before.tell()
	}
	if len(b.lines) == 0 {
		b.held, h.told = h, false
		b.mu.Unlock()
		select {
		case <-h.ready:
		case <-req.Context().Done():
			p.forget(id, b, h)
			return false
		}
		b.mu.Lock()
		if b.held != h { // another request came
			b.mu.Unlock()
			return true
		}
		b.held = nil
	}
	h.lines, b.lines = b.lines, h.lines
	b.mu.Unlock()
	return true
}

// forget drops the box of a client whose held request has lost its connection.
func (p *Poll) forget(id string, b *box, h *held) {
	b.mu.Lock()
	mine := b.held == h
	if mine {
		b.held = nil
	}
	if h.told {
		<-h.ready
	}
	b.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if mine && p.boxes[id] == b {
		delete(p.boxes, id)
	}
}
