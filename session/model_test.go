package session

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"holdfast/stanza"
)

// model is what must be true of messages whatever happens to connections, sessions and processes: DESIGN §2. Its
// clients are as good as clients get: they count, they resume, they resend what was not acknowledged, and nothing else.
type model struct {
	t       *rapid.T
	w       *world
	disk    *disk
	users   []*person
	devices []*device
	sent    []*parcel
	killed  int // when the process was last killed
	clock   int // counts operations, to say what came before what
}

type person struct {
	addr    stanza.Addr
	devices []*device
	// ends is when sessions of the user ended whose messages may have gone to another one.
	ends []int
	// first is the newest message that any client of the user has had.
	first map[lane]int
}

// parcel is one message.
type parcel struct {
	n       int
	from    *device
	to      stanza.Addr
	at      int
	safe    bool // its sender was told so
	bounced bool
	reads   int          // sessions whose client got it
	life    int          // the sender's session
	early   bool         // sent to a full address before it was available, so it may be earlier than what waits
	acked   int          // when an acknowledgement of it first arrived, 0 before
	taken   map[int]bool // by session
}

// lane is what order is kept in. A session without presence gets what is sent to its full address (RFC 6121 §8.5.3.1)
// before what waits in the mailbox.
type lane struct {
	from *device
	to   stanza.Addr
}

// device is one client. A client without XEP-0198 proves what it has as the transport does.
type device struct {
	m       *model
	p       *person
	addr    stanza.Addr
	managed bool
	c       *client // nil while there is no connection

	life     int          // names the session
	dead     map[int]bool // sessions that ended with what may not have been read
	bound    int          // when
	online   bool
	token    string
	in       uint32       // stanzas received since <enable/>
	fresh    []*parcel    // got, and not acknowledged
	seq      map[lane]int // newest message by sender and address
	sentH    uint32       // h that the gateway said
	out      uint32       // stanzas sent since <enable/>
	unacked  []*parcel    // nil for what is no message
	presence bool         // whether presence is to be sent once bound
}

// GoString is how rapid shows what it drew.
func (d *device) GoString() string { return d.addr.Resource() + " of " + d.addr.Local() }

func (p *person) GoString() string { return p.addr.Local() }

func (m *model) fatalf(format string, args ...any) { m.t.Helper(); m.t.Fatalf(format, args...) }

func newModel(t *rapid.T) *model {
	m := &model{t: t, disk: newDisk()}
	m.w = newWorld(t, func(c *Config, _ *Parts) {
		c.PageMessages, c.RequestEvery, c.ResumeTimeout = 3, 4, 5*time.Minute
		c.OutboxStanzas = rapid.SampledFrom([]int{0, 0, 40}).Draw(t, "outbox cap")
	})
	m.w.box.limit = rapid.SampledFrom([]int{0, 8}).Draw(t, "mailbox limit")
	for _, name := range []string{"juliet", "romeo", "nurse"} {
		p := &person{addr: addr(name), first: make(map[lane]int)}
		m.users = append(m.users, p)
		for i := range rapid.IntRange(1, 2).Draw(t, name+"'s devices") {
			full, _ := p.addr.WithResource(strconv.Itoa(i))
			d := &device{m: m, p: p, addr: full, managed: rapid.IntRange(0, 3).Draw(t, "plain") > 0, presence: true, dead: make(map[int]bool)}
			p.devices, m.devices = append(p.devices, d), append(m.devices, d)
		}
	}
	return m
}

// connect logs a device in: with its session when there is one, else with a new one.
func (d *device) connect() {
	d.c = d.m.w.authenticated(d.addr.Local())
	if d.token == "" {
		d.bind()
		return
	}
	d.c.resume(d.token, d.in)
	d.receive(-1)
}

// bind makes a session. What is not acknowledged of the last one is sent again.
func (d *device) bind() {
	d.m.clock++
	d.online = false
	d.life, d.bound, d.token, d.in, d.sentH, d.out = d.m.clock, d.m.clock, "", 0, 0, 0
	d.fresh, d.seq = nil, make(map[lane]int)
	d.c.send(bindTo("<resource>" + d.addr.Resource() + "</resource>"))
	if d.managed {
		d.c.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	}
	d.receive(-1)
	again := d.unacked
	d.unacked = nil
	for _, p := range again {
		if p != nil {
			d.say(p, true)
		}
	}
	if d.presence {
		d.setPresence(true)
	}
}

func (d *device) setPresence(on bool) {
	d.online = on
	typ := ""
	if !on {
		typ = " type='unavailable'"
	}
	d.count(nil)
	d.c.send("<presence xmlns='jabber:client'" + typ + "/>")
}

func (d *device) count(p *parcel) {
	if d.managed {
		d.out++
		d.unacked = append(d.unacked, p)
	}
}

// say sends a message; one that is lost on the way is only in the client's memory.
func (d *device) say(p *parcel, arrives bool) {
	p.life, p.early = d.life, false
	for _, other := range d.m.devices {
		p.early = p.early || other.addr == p.to && !other.online
	}
	d.count(p)
	if arrives {
		d.c.send(chat(p.to.String(), strconv.Itoa(p.n)))
		if !d.managed {
			p.safe = true // nobody else will say so
		}
	}
}

// receive takes up to n frames off the wire, all with n < 0. The others are lost with the connection.
func (d *device) receive(n int) {
	frames := d.c.frames()
	lost := n >= 0 && n < len(frames)
	if lost {
		frames = frames[:n]
	}
	for _, e := range frames {
		if d.c == nil {
			return
		}
		d.take(e)
	}
	if lost {
		d.cut()
	} else if d.c != nil && !d.managed {
		d.ackNow()
	}
}

func (d *device) take(e *stanza.Element) {
	if e.Kind() != stanza.Other {
		if e.Kind() == stanza.IQ && e.Attr("id") == "b'1" {
			return // answers the binding, before counting begins
		}
		d.in++
		if e.Kind() == stanza.Message {
			d.message(e)
		}
		return
	}
	switch string(e.Name()) {
	case "enabled":
		d.token, d.in, d.out = e.Attr("id"), 0, 0
	case "r":
		d.ackNow()
	case "a":
		d.acknowledged(e)
	case "resumed":
		d.acknowledged(e)
		again := d.unacked
		d.unacked, d.out = nil, d.sentH
		for _, p := range again {
			if p == nil {
				d.count(nil)
				d.c.send("<presence xmlns='jabber:client'" + map[bool]string{false: " type='unavailable'"}[d.online] + "/>")
				continue
			}
			d.say(p, true)
		}
	case "failed":
		if !e.HasAttr("h") {
			d.m.fatalf("%s: a session that was there is unknown: %s", d.addr, e.Raw())
		}
		d.acknowledged(e)
		d.p.ended(d.m)
		d.dead[d.life] = true
		d.bind()
	case "error":
		if c := e.Child(0); string(c.Name()) != "conflict" && string(c.Name()) != "resource-constraint" {
			d.m.fatalf("%s: %s", d.addr, e.Raw())
		}
		d.cut()
	case "open", "features", "success":
	default:
		d.m.fatalf("%s: %s", d.addr, e.Raw())
	}
}

func (d *device) acknowledged(e *stanza.Element) {
	h64, err := strconv.ParseUint(e.Attr("h"), 10, 32)
	h := uint32(h64)
	if err != nil || h < d.sentH || h > d.out {
		d.m.fatalf("%s: %s after h=%d with %d sent", d.addr, e.Raw(), d.sentH, d.out)
	}
	for _, p := range d.unacked[:h-d.sentH] {
		if p != nil {
			p.safe = true
		}
	}
	d.unacked, d.sentH = d.unacked[h-d.sentH:], h
}

func (d *device) message(e *stanza.Element) {
	m := d.m
	if e.Attr("type") == "error" {
		n, _ := strconv.Atoi(e.Attr("id"))
		m.sent[n].bounced = true
		return
	}
	n, err := strconv.Atoi(body(e))
	if err != nil || n >= len(m.sent) {
		m.fatalf("%s got %s", d.addr, e.Raw())
	}
	p := m.sent[n]
	switch {
	case p.to.Bare() != d.p.addr:
		m.fatalf("%s got message %d for %s", d.addr, n, p.to)
	case p.taken[d.life]:
		m.fatalf("%s got message %d twice in one session", d.addr, n)
	case p.acked > 0 && p.acked < d.bound && (len(d.p.devices) == 1 || m.killed < p.at):
		// After a restart it is not known any more which of two devices acknowledged its copy.
		m.fatalf("%s got message %d in a session that began after it was acknowledged", d.addr, n)
	case p.bounced:
		m.fatalf("%s got message %d, which was returned", d.addr, n)
	}
	if last, ok := d.seq[lane{p.from, p.to}]; ok && last > n && !slices.ContainsFunc(d.p.ends, func(end int) bool { return end > p.at && end > d.bound }) {
		m.fatalf("%s got message %d after %d", d.addr, n, last)
	}
	if last, ok := d.p.first[lane{p.from, p.to}]; ok && p.reads == 0 && !p.early && len(d.p.devices) == 1 && last > n {
		m.fatalf("%s first got message %d after %d", d.addr, n, last)
	}
	if !p.early {
		d.seq[lane{p.from, p.to}] = max(d.seq[lane{p.from, p.to}], n)
		d.p.first[lane{p.from, p.to}] = max(d.p.first[lane{p.from, p.to}], n)
	}
	p.taken[d.life] = true
	p.reads++
	d.fresh = append(d.fresh, p)
}

// ackNow acknowledges everything that was received.
func (d *device) ackNow() {
	d.m.clock++
	if d.managed {
		d.c.ack(d.in)
	} else {
		d.c.stream.Proved(d.c.wire.mark)
	}
	for _, p := range d.fresh {
		if p.acked == 0 {
			p.acked = d.m.clock
		}
	}
	d.fresh = nil
}

// ended notes that what a session of this user had may have been handed to another one.
func (p *person) ended(m *model) {
	m.clock++
	p.ends = append(p.ends, m.clock)
}

func (d *device) cut() {
	c := d.c
	d.c = nil
	c.cut()
	d.gone()
}

// gone follows the end of a connection: a client that can't resume begins anew.
func (d *device) gone() {
	if d.token == "" {
		d.p.ended(d.m)
		d.dead[d.life] = true
		d.unacked = nil
	}
}

func (d *device) close() {
	d.receive(-1)
	if d.c == nil {
		return
	}
	if d.managed {
		d.ackNow()
		// A client waits for the last acknowledgement before it goes.
		time.Sleep(settleTime)
		d.c.request()
		d.receive(-1)
		if d.c == nil {
			return
		}
		if d.out != d.sentH {
			d.m.fatalf("%s: %d of %d acknowledged", d.addr, d.sentH, d.out)
		}
	}
	c := d.c
	c.stream.PeerClosed()
	for _, e := range c.frames() { // what was under way
		d.take(e)
	}
	c.stream.Proved(c.wire.mark)
	c.stream.Lost(nil)
	d.m.clock++
	for _, p := range d.fresh {
		if p.acked == 0 {
			p.acked = d.m.clock // the transport proved it
		}
	}
	d.fresh = nil
	d.c, d.token, d.unacked = nil, "", nil
	d.p.ended(d.m)
}

func (m *model) connected(t *rapid.T) *device { return m.pick(t, true) }

func (m *model) pick(t *rapid.T, connected bool) *device {
	var some []*device
	for _, d := range m.devices {
		if (d.c != nil) == connected {
			some = append(some, d)
		}
	}
	if len(some) == 0 {
		t.Skip("nobody")
	}
	return rapid.SampledFrom(some).Draw(t, "device")
}

func (m *model) send(t *rapid.T, arrives bool) {
	d := m.connected(t)
	to := rapid.SampledFrom(m.users).Draw(t, "to")
	for range rapid.IntRange(1, 6).Draw(t, "burst") {
		m.clock++
		p := &parcel{n: len(m.sent), from: d, to: to.addr, at: m.clock, taken: make(map[int]bool)}
		if rapid.IntRange(0, 9).Draw(t, "full") == 0 {
			p.to = rapid.SampledFrom(to.devices).Draw(t, "resource").addr
		}
		m.sent = append(m.sent, p)
		d.say(p, arrives)
	}
	if !arrives {
		d.cut()
	}
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"send":          func(t *rapid.T) { m.send(t, true) },
		"send more":     func(t *rapid.T) { m.send(t, true) },
		"send and lose": func(t *rapid.T) { m.send(t, false) },
		"receive":       func(t *rapid.T) { m.connected(t).receive(-1) },
		"receive some":  func(t *rapid.T) { m.connected(t).receive(rapid.IntRange(0, 5).Draw(t, "frames")) },
		"acknowledge": func(t *rapid.T) {
			if d := m.connected(t); d.managed {
				d.ackNow()
			}
		},
		"request": func(t *rapid.T) {
			if d := m.connected(t); d.managed {
				d.c.request()
			}
		},
		"cut":     func(t *rapid.T) { m.connected(t).cut() },
		"close":   func(t *rapid.T) { m.connected(t).close() },
		"connect": func(t *rapid.T) { m.pick(t, false).connect() },
		"take over": func(t *rapid.T) {
			d := m.connected(t)
			old := d.c
			if d.token == "" {
				d.gone() // the new session replaces it
			}
			d.connect()
			old.cut()
		},
		"presence": func(t *rapid.T) {
			d := m.connected(t)
			d.setPresence(!d.online)
		},
		"a moment passes": func(*rapid.T) { time.Sleep(settleTime) },
		"time passes": func(*rapid.T) {
			time.Sleep(m.w.cfg.ResumeTimeout + time.Second)
			for _, d := range m.devices {
				if d.c == nil && d.token != "" {
					d.p.ended(m)
				}
			}
		},
		"checkpoint": func(*rapid.T) { m.w.checkpoint(m.disk) },
		"kill":       func(*rapid.T) { m.kill() },
		"":           func(*rapid.T) { m.check() },
	}
}

// kill is kill -9 of the gateway: connections break without a Lost.
func (m *model) kill() {
	m.clock++
	m.killed = m.clock
	m.w.kill(m.disk)
	for _, d := range m.devices {
		if d.c != nil {
			d.c = nil
			d.gone()
		}
	}
}

// check compares counters of every session.
func (m *model) check() {
	for _, s := range m.w.sv.all() {
		s.mu.Lock()
		o := &s.out
		if o.acked > o.sent || o.sent > o.last() || int32(s.handled-s.settled) < 0 || s.kept > o.last() {
			m.fatalf("%s: acked %d sent %d last %d handled %d settled %d kept %d", s.addr, o.acked, o.sent, o.last(), s.handled, s.settled, s.kept)
		}
		bytes := 0
		for place := o.acked + 1; place <= o.last(); place++ {
			bytes += len(o.at(place).st.Raw())
		}
		if bytes != o.bytes {
			m.fatalf("%s: %d bytes queued, counted %d", s.addr, bytes, o.bytes)
		}
		s.mu.Unlock()
	}
}

// finish brings everybody back, lets them read all there is, and looks for what is missing.
func (m *model) finish() {
	for _, d := range m.devices {
		d.presence = true
		for d.c == nil {
			d.connect()
		}
	}
	m.settle()
	for _, d := range m.devices {
		for d.c == nil {
			d.connect()
		}
		d.close()
	}
	m.settle()
	for _, p := range m.users { // whoever is the last reads what was left
		d := p.devices[0]
		for d.c == nil {
			d.connect()
		}
		m.settle()
		if left := m.w.box.bodies(p.addr); len(left) > 0 {
			m.fatalf("%s is online and the mailbox has %q", p.addr, left)
		}
	}
	for _, p := range m.sent {
		if m.w.box.limit > 0 && p.from.dead[p.life] {
			continue // it may have been returned to somebody who is gone
		}
		if p.safe && p.reads == 0 && !p.bounced {
			m.fatalf("message %d from %s to %s was acknowledged and is lost", p.n, p.from.addr, p.to)
		}
	}
}

// settle lets everything that is under way arrive.
func (m *model) settle() {
	for range 200 {
		synctest.Wait()
		quiet := true
		for _, d := range m.devices {
			if d.c == nil {
				continue
			}
			before := d.in
			d.receive(-1)
			if d.c != nil {
				d.ackNow()
			}
			quiet = quiet && d.in == before
		}
		if quiet {
			return
		}
	}
	m.fatalf("it does not come to rest")
}

func TestMessagesSurvive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, func() {
			m := newModel(rt)
			defer func() { m.w.stop() }()
			for _, d := range m.devices {
				d.connect()
			}
			rt.Repeat(m.actions())
			m.finish()
		})
	})
}

// inBubble runs f in virtual time, and lets its panic, which is how rapid stops a case, out of there.
func inBubble(t *testing.T, f func()) {
	var failure any
	synctest.Test(t, func(*testing.T) {
		defer func() { failure = recover() }()
		f()
	})
	// rapid tells failures apart by where they come from, and one kind of its panics is no failure.
	if fmt.Sprintf("%T", failure) == "rapid.invalidData" {
		panic(failure)
	}
	if failure != nil {
		panic(failure)
	}
}
