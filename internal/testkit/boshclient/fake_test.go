package boshclient

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testkit/xmppclient"
)

// fake is a small connection manager with one session at a time, whose user talks to itself.
type fake struct {
	*httptest.Server
	t    *testing.T
	wait time.Duration
	// before and after are asked about every request and say whether its connection breaks there.
	before, after func(rid uint64) bool
	// spoil changes an answer, the first one and every repeated one.
	spoil func(rid uint64, again bool, text string) string

	mu      sync.Mutex
	changed xmppclient.Signal
	done    uint64 // rids up to here were handled
	answers map[uint64]string
	out     []string // waits for the client
	key     string
	ended   bool
	lost    bool     // the session is not known any more, whatever is asked next
	got     []string // ids of messages, in order
}

func startFake(t *testing.T) *fake {
	never := func(uint64) bool { return false }
	f := &fake{t: t, wait: time.Second, before: never, after: never, answers: map[uint64]string{}}
	f.spoil = func(_ uint64, _ bool, text string) string { return text }
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	e, err := xmppclient.Parse(string(b))
	if err != nil {
		f.t.Error(err)
		return
	}
	rid, _ := strconv.ParseUint(e.Attr("rid"), 10, 64)
	if f.before(rid) {
		panic(http.ErrAbortHandler)
	}
	text := f.answer(r, e, rid)
	if f.after(rid) {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", ContentType)
	_, _ = io.WriteString(w, text)
}

const bodyStart = "<body xmlns='" + NSBind + "'"

func (f *fake) answer(r *http.Request, e *xmppclient.Element, rid uint64) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.Attr("sid") == "" {
		f.done, f.key, f.ended, f.lost, f.out = rid, e.Attr("newkey"), false, false, nil
		return fmt.Sprintf("%s sid='s' wait='%d' hold='1' requests='2' inactivity='60' polling='0' ver='1.11' from='localhost' ack='%d'>%s</body>",
			bodyStart, f.wait/time.Second, rid, features)
	}
	if text, ok := f.answers[rid]; ok {
		return f.spoil(rid, true, text)
	}
	if f.lost || f.ended || rid > f.done+2 || rid < f.done {
		return bodyStart + " type='terminate' condition='item-not-found'/>"
	}
	for f.done != rid-1 && f.done != rid {
		f.waitLocked(r, f.wait)
	}
	if f.done != rid {
		f.handleLocked(e)
		f.done = rid
		f.changed.Notify()
	}
	// In order, and one is held.
	for start := time.Now(); f.done == rid && len(f.out) == 0 && !f.ended && time.Since(start) < f.wait; {
		f.waitLocked(r, f.wait-time.Since(start))
	}
	if text, ok := f.answers[rid]; ok { // another connection was faster
		return f.spoil(rid, true, text)
	}
	text := bodyStart
	if f.done > rid {
		text += fmt.Sprintf(" ack='%d'", f.done)
	}
	if f.ended {
		text += " type='terminate'"
	}
	text += ">" + strings.Join(f.out, "") + "</body>"
	f.out = nil
	text = f.spoil(rid, false, text)
	f.answers[rid] = text
	delete(f.answers, rid-3)
	return text
}

func (f *fake) waitLocked(r *http.Request, d time.Duration) {
	changed := f.changed.Changed()
	f.mu.Unlock()
	select {
	case <-changed:
	case <-time.After(d):
	case <-r.Context().Done():
		f.mu.Lock()
		panic(http.ErrAbortHandler)
	}
	f.mu.Lock()
}

const features = "<features xmlns='" + xmppclient.NSStream + "'/>"

func (f *fake) handleLocked(e *xmppclient.Element) {
	if f.key != "" {
		if hash(e.Attr("key")) != f.key {
			f.t.Errorf("key %q, whose hash is not %q", e.Attr("key"), f.key)
		}
		if f.key = e.Attr("key"); e.Attr("newkey") != "" {
			f.key = e.Attr("newkey")
		}
	}
	for _, a := range e.Attrs {
		if a.Name.Space == NSXMPP && a.Name.Local == "restart" {
			f.out = append(f.out, features)
		}
	}
	for _, c := range e.Children {
		switch c.Name.Local {
		case "auth":
			f.out = append(f.out, "<success xmlns='"+xmppclient.NSSASL+"'/>")
		case "iq":
			f.out = append(f.out, "<iq xmlns='jabber:client' type='result' id='bind'><bind xmlns='"+xmppclient.NSBind+"'><jid>a@localhost/r</jid></bind></iq>")
		case "message":
			f.got = append(f.got, c.Attr("id"))
			f.out = append(f.out, c.String())
		}
	}
	f.ended = e.Attr("type") == "terminate"
}
