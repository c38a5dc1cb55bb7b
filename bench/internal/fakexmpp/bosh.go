package fakexmpp

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// BOSH speaks XEP-0124 and XEP-0206 for a Server: one request held, responses in order, nothing sent again.
type BOSH struct {
	*Server

	mu       sync.Mutex
	sessions map[string]*polled
}

// polled is one session's requests, and the sink of its stream.
type polled struct {
	sid    string
	stream *stream

	mu       sync.Mutex
	changed  *sync.Cond
	out      []string
	next     int // id of the request that is handled next
	answered int // the highest one that was answered
	over     bool
}

func (p *polled) write(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out = append(p.out, text)
	p.changed.Broadcast()
}

// find returns the session of a request, a new one when it names none, nil when there is none.
func (b *BOSH) find(a map[string]string, rid int) *polled {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sid, said := a["sid"]; said {
		return b.sessions[sid]
	}
	if b.sessions == nil {
		b.sessions = make(map[string]*polled)
	}
	p := &polled{sid: fmt.Sprintf("s%d", len(b.sessions)), next: rid, answered: rid - 1}
	p.changed = sync.NewCond(&p.mu)
	p.stream = &stream{server: b.Server, conn: p, bosh: true}
	b.sessions[p.sid] = p
	return p
}

// ServeHTTP takes one request.
func (b *BOSH) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	a := attrs(string(raw))
	rid, _ := strconv.Atoi(a["rid"])
	p := b.find(a, rid)
	if p == nil || rid == 0 {
		answer(w, `<body xmlns="http://jabber.org/protocol/httpbind" type="terminate" condition="item-not-found"/>`)
		return
	}
	defer context.AfterFunc(r.Context(), p.end)()
	p.mu.Lock()
	for p.next != rid && !p.over {
		p.changed.Wait()
	}
	p.mu.Unlock()
	if tag, _, _ := cut(string(raw), ">"); a["sid"] == "" || strings.Contains(tag, "xmpp:restart='true'") {
		p.stream.open()
	}
	for _, el := range children(raw) {
		p.stream.handle(el)
	}
	if a["type"] == "terminate" {
		p.end()
	}
	answer(w, p.response(a["sid"] == "", rid))
}

// end lets go of all requests.
func (p *polled) end() {
	p.stream.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.changed.Broadcast()
}

// response waits until there is something to say, or the next request was handled.
func (p *polled) response(first bool, rid int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	p.changed.Broadcast()
	for !p.over && (p.answered != rid-1 || len(p.out) == 0 && p.next == rid+1) {
		p.changed.Wait()
	}
	more := ""
	if first {
		more = fmt.Sprintf(` sid="%s" wait="60" requests="2" hold="1"`, p.sid)
	}
	if p.over {
		more += ` type="terminate"`
	}
	text := fmt.Sprintf(`<body xmlns="http://jabber.org/protocol/httpbind"%s>%s</body>`, more, strings.Join(p.out, ""))
	p.answered, p.out = rid, nil
	p.changed.Broadcast()
	return text
}

func answer(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = io.WriteString(w, text) // who is gone is noticed by r.Context
}

// children are the elements in a <body/>.
func children(raw []byte) (all []string) {
	d := xml.NewDecoder(bytes.NewReader(raw))
	depth, start := 0, 0
	for {
		at := int(d.InputOffset())
		token, err := d.RawToken()
		if err != nil {
			return all
		}
		switch token.(type) {
		case xml.StartElement:
			if depth++; depth == 2 {
				start = at
			}
		case xml.EndElement:
			if depth--; depth == 1 {
				all = append(all, string(raw[start:d.InputOffset()]))
			}
		}
	}
}
