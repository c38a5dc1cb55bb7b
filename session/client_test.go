package session

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"holdfast/stanza"
)

// wire is a Transport that does nothing by itself: a test pulls frames and says when it is lost.
type wire struct {
	stream Stream

	mu       sync.Mutex
	woken    bool
	probes   int
	finished []Finish
	batch    Batch
	mark     uint64 // of the last Pull
}

func (w *wire) Header(h Header) []byte {
	return fmt.Appendf(nil, "<open xmlns='%s' from='%s' to='%s' id='%s' xml:lang='%s' version='1.0'/>", stanza.NSFraming, h.From, h.To, h.ID, h.Lang)
}

func (w *wire) Wake() {
	w.mu.Lock()
	w.woken = true
	w.mu.Unlock()
}

func (w *wire) Probe() {
	w.mu.Lock()
	w.probes++
	w.mu.Unlock()
}

func (w *wire) Finish(how Finish) {
	w.mu.Lock()
	w.finished = append(w.finished, how)
	w.mu.Unlock()
}

// pull takes what is there to write. That something is there without a Wake would leave it unsent by a real transport.
func (w *wire) pull(t tester) (frames [][]byte) {
	w.mu.Lock()
	woken := w.woken
	w.woken = false
	w.mu.Unlock()
	for w.stream.Pull(&w.batch) {
		frames = append(frames, w.batch.Frames...)
		w.mark = w.batch.Mark
		w.batch.Reset()
	}
	if len(frames) > 0 && !woken {
		t.Helper()
		t.Errorf("frames without a Wake: %s", frames)
	}
	return frames
}

// client is one peer. Its methods build on each other: connected, greeted, authenticated, bound, managed.
type client struct {
	t      tester
	w      *world
	wire   *wire
	stream Stream
	addr   stanza.Addr // once bound
	token  string      // once managed
}

// connected is a client on a new transport that has said nothing.
func (w *world) connected() *client {
	c := &client{t: w.t, w: w, wire: new(wire)}
	c.stream = w.sv.NewStream(c.wire, Peer{Addr: netip.MustParseAddr("127.0.0.1"), Secure: true, Kind: "websocket"})
	c.wire.stream = c.stream
	return c
}

// greeted has opened its stream.
func (w *world) greeted() *client {
	c := w.connected()
	c.stream.Open(Open{To: testDomain, Version: "1.0"})
	c.want("open", "features SCRAM-SHA-1 PLAIN")
	return c
}

// authenticated has passed SASL and opened its stream again.
func (w *world) authenticated(user string) *client {
	w.t.Helper()
	c := w.greeted()
	c.send(auth(user))
	c.want("success")
	c.stream.Open(Open{To: testDomain, Version: "1.0"})
	c.want("open", "features bind session sm ver sub amp")
	return c
}

func auth(user string) string {
	return "<auth xmlns='" + stanza.NSSASL + "' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte(user)) + "</auth>"
}

// bound has a full address: name is user/resource.
func (w *world) bound(name string) *client {
	w.t.Helper()
	c := w.authenticated(addr(name).Local())
	c.send("<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='" + stanza.NSBind + "'><resource>" + addr(name).Resource() + "</resource></bind></iq>")
	c.want("iq result bind")
	c.addr = addr(name)
	return c
}

// managed has XEP-0198 with resumption.
func (w *world) managed(name string) *client {
	w.t.Helper()
	c := w.bound(name)
	c.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	got := c.frames()
	if len(got) != 1 || !got[0].Is(stanza.NSSM, "enabled") {
		w.t.Fatalf("enable was answered with %v", briefs(got))
	}
	c.token = got[0].Attr("id")
	return c
}

// available sends initial presence, and drops what comes of it.
func (c *client) available() *client {
	c.t.Helper()
	c.send("<presence xmlns='jabber:client'/>")
	c.frames()
	return c
}

// session is the state behind the client.
func (c *client) session() *Session { return c.stream.(*stream).session.Load() }

// send gives one element to the stream.
func (c *client) send(raw string) {
	c.t.Helper()
	var e stanza.Element
	if err := e.Scan([]byte(raw), stanza.Limits{}); err != nil {
		c.t.Fatalf("%s: %v", raw, err)
	}
	c.stream.Handle(&e)
}

// frames are the elements that the gateway has for the client.
func (c *client) frames() (all []*stanza.Element) {
	c.t.Helper()
	if c.w.pause != nil {
		c.w.pause()
	}
	for _, raw := range c.wire.pull(c.t) {
		e := new(stanza.Element)
		if err := e.Scan(slices.Clone(raw), stanza.Limits{}); err != nil {
			c.t.Fatalf("the gateway sent %s: %v", raw, err)
		}
		all = append(all, e)
	}
	return all
}

// want compares what the gateway has for the client, in brief. Requests for acknowledgements are left out.
func (c *client) want(want ...string) {
	c.t.Helper()
	got := slices.DeleteFunc(briefs(c.frames()), func(s string) bool { return s == "r" })
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, got...)); diff != "" {
		c.t.Fatalf("frames (-want +got):\n%s", diff)
	}
}

// finished checks that the transport was told to finish.
func (c *client) finished(how Finish) {
	c.t.Helper()
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if !slices.Equal(c.wire.finished, []Finish{how}) {
		c.t.Fatalf("the transport was finished with %v, want once %v", c.wire.finished, how)
	}
}

// probes is how often the transport was asked for a sign of life.
func (c *client) probes() int {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	return c.wire.probes
}

// open checks that it was not.
func (c *client) open() {
	c.t.Helper()
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if len(c.wire.finished) > 0 {
		c.t.Fatalf("the transport was finished with %v", c.wire.finished)
	}
}

var errCut = fmt.Errorf("connection reset")

// cut is a connection that breaks.
func (c *client) cut() { c.stream.Lost(errCut) }

// close ends the stream and the transport properly.
func (c *client) close() {
	c.t.Helper()
	c.stream.PeerClosed()
	c.frames()
	c.stream.Proved(c.wire.mark)
	c.stream.Lost(nil)
}

// ack acknowledges h stanzas.
func (c *client) ack(h uint32) {
	c.t.Helper()
	c.send(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", h))
}

// request asks for an acknowledgement.
func (c *client) request() { c.t.Helper(); c.send("<r xmlns='urn:xmpp:sm:3'/>") }

// resume asks for the session of an earlier client on this client's stream.
func (c *client) resume(token string, h uint32) {
	c.t.Helper()
	c.send(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", token, h))
}

// resumed is a new transport on which the session goes on.
func (c *client) resumed(h uint32) *client {
	c.t.Helper()
	n := c.w.authenticated(c.addr.Local())
	n.addr, n.token = c.addr, c.token
	n.resume(c.token, h)
	return n
}

// chat is a message of type chat.
func chat(to, text string) string {
	return "<message xmlns='jabber:client' type='chat' to='" + to + "' id='" + text + "'><body>" + text + "</body></message>"
}

// chat sends one to a user of the first domain.
func (c *client) chat(to, text string) { c.t.Helper(); c.send(chat(addr(to).String(), text)) }

func briefs(all []*stanza.Element) []string {
	out := make([]string, 0, len(all))
	for _, e := range all {
		out = append(out, brief(e))
	}
	return out
}

// brief says what an element is in a few words.
func brief(e *stanza.Element) string {
	var b strings.Builder
	word := func(s string) {
		if s != "" {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(s)
		}
	}
	word(string(e.Name()))
	switch e.Kind() {
	case stanza.Message, stanza.Presence:
		if typ := e.Attr("type"); typ != "chat" {
			word(typ)
		}
		word(short(e.Attr("from")))
		word(body(e))
		if _, ok := e.Find(stanza.NSDelay, "delay"); ok {
			word("delayed")
		}
		word(condition(e))
		return b.String()
	case stanza.IQ:
		word(e.Attr("type"))
		if q, ok := e.Find(stanza.NSRoster, "query"); ok {
			return b.String() + rosterBrief(q)
		}
		if !strings.HasPrefix(e.Attr("id"), "caps-") {
			word(e.Attr("id"))
		}
		word(condition(e))
		return b.String()
	}
	for i := range e.NumChildren() {
		c := e.Child(i)
		if c.Is(stanza.NSSASL, "mechanisms") {
			word(strings.Join(strings.FieldsFunc(strings.NewReplacer("<mechanism>", " ", "</mechanism>", " ").Replace(string(c.Inner())), func(r rune) bool { return r == ' ' }), " "))
			continue
		}
		if string(c.Name()) != "text" {
			word(string(c.Name()))
		}
	}
	if e.HasAttr("h") {
		word(e.Attr("h"))
	}
	return b.String()
}

func rosterBrief(q stanza.Child) string {
	var r struct {
		Items []struct {
			JID          string `xml:"jid,attr"`
			Subscription string `xml:"subscription,attr"`
			Ask          string `xml:"ask,attr"`
			Approved     string `xml:"approved,attr"`
			Name         string `xml:"name,attr"`
		} `xml:"item"`
	}
	if err := q.Decode(&r); err != nil {
		return " " + err.Error()
	}
	s := " roster"
	for _, i := range r.Items {
		s += " [" + short(i.JID) + " " + i.Subscription
		for _, x := range []string{i.Ask, i.Approved, i.Name} {
			if x != "" {
				s += " " + x
			}
		}
		s += "]"
	}
	return s
}

// short leaves the first domain out of an address.
func short(a string) string { return strings.Replace(a, "@"+testDomain, "", 1) }

func condition(e *stanza.Element) string {
	c, ok := e.Find(stanza.NSClient, "error")
	if !ok {
		return ""
	}
	inner := string(c.Inner())
	_, inner, _ = strings.Cut(inner, "<")
	return inner[:strings.IndexAny(inner, " />")]
}

// inWorld runs f with a world of its own.
func inWorld(t *testing.T, f func(t *testing.T, w *world), edit ...func(*Config, *Parts)) {
	t.Helper()
	w := newWorld(t, edit...)
	defer w.stop()
	f(t, w)
}
