package bosh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// model is what XEP-0124 asks for, in a few lines: the client's view of one session. Stanzas are told apart by a number.
type model struct {
	*client
	hold    int
	last    uint64              // the highest rid that was sent
	bodies  map[uint64]string   // what each request holds
	sent    int                 // stanzas of the client
	out     int                 // stanzas for the client
	open    map[uint64]*pending // requests without an answer, by rid
	stray   map[*pending]uint64 // requests sent again while another connection waited
	attrs   map[uint64]string
	slowly  bool
	acks    bool
	answers map[uint64]string // what each rid was answered with
	next    uint64            // the rid whose answer the client processes next
	got     []string          // stanzas the client processed, in order
	lost    map[uint64]bool   // answers that did not get through
}

var stanzaOf = func(body string) (list []string) {
	for {
		_, rest, ok := strings.Cut(body, "<message")
		if !ok {
			return list
		}
		m, rest, _ := strings.Cut(rest, "</message>")
		list = append(list, "<message"+m+"</message>")
		body = rest
	}
}

// request sends a rid for the first time, or again.
func (m *model) request(rid uint64) {
	if old := m.open[rid]; old != nil {
		m.stray[old] = rid
	}
	m.open[rid] = m.client.send(rid, m.attrs[rid], m.bodies[rid])
}

// make begins the next request. Sent again it is the same.
func (m *model) make() {
	m.last++
	m.bodies[m.last] = ""
	if m.acks && m.next < m.last {
		m.attrs[m.last] = fmt.Sprintf(" ack='%d'", m.next-1)
	}
}

// collect takes what came back.
func (m *model) collect(rt *rapid.T) {
	synctest.Wait()
	for rid, p := range m.open {
		a := p.now()
		if a == nil {
			continue
		}
		delete(m.open, rid)
		m.answered(rt, rid, a)
	}
	for p, rid := range m.stray {
		if a := p.now(); a != nil {
			delete(m.stray, p)
			if a.err == nil && attr(a.body, "type") != "error" {
				m.answered(rt, rid, a)
			}
		}
	}
}

func (m *model) answered(rt *rapid.T, rid uint64, a *answer) {
	if a.err != nil || a.status != 200 || attr(a.body, "type") == "error" {
		m.lost[rid] = true // to be asked for again
		return
	}
	if typ := attr(a.body, "type"); typ != "" {
		fatalf("rid %d: the session ended: %v", rid, a)
	}
	if before, ok := m.answers[rid]; ok && before != a.body {
		fatalf("rid %d: got %s, before %s", rid, a.body, before)
	}
	m.answers[rid] = a.body
	delete(m.lost, rid)
	for {
		body, ok := m.answers[m.next]
		if !ok || m.open[m.next] != nil || m.lost[m.next] {
			return
		}
		m.got = append(m.got, stanzaOf(body)...)
		m.next++
	}
}

// check compares both directions with what they should be.
func (m *model) check(rt *rapid.T) {
	if bad := m.svc.bad.Load(); bad != nil {
		fatalf("a call that a stream must never see: %s", *bad)
	}
	m.svc.mu.Lock()
	s := m.svc.sids[m.sid]
	handled := slices.Clone(s.handled)
	m.svc.mu.Unlock()
	for i, h := range handled {
		if want := message(i + 1); h != want {
			fatalf("stanza %d handled is %s, want %s", i, h, want)
		}
	}
	if len(handled) > m.sent {
		fatalf("%d stanzas handled of %d", len(handled), m.sent)
	}
	for i, g := range m.got {
		if want := message(100001 + i); g != want {
			fatalf("stanza %d received is %s, want %s", i, g, want)
		}
	}
}

// Random sequences: requests in any order within the window, sent again, cut before and after the answer, stanzas for the
// client at any time, kills. Each side gets each stanza once, in order, and the same rid the same answer.
func TestWindowProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		hold := rapid.IntRange(0, 3).Draw(rt, "hold")
		acks := rapid.Bool().Draw(rt, "acks")
		var failed any
		synctest.Test(t, func(t *testing.T) {
			defer func() { failed = recover() }() // rapid's own panics may not leave the bubble
			h := &harness{t: t, svc: newFakeService(), cfg: config(func(c *Config) { c.MaxHold, c.Polling = 4, 0 })}
			h.start()
			defer h.stop()
			attrs := strings.Replace(createAttrs, "hold='1'", fmt.Sprintf("hold='%d'", hold), 1)
			if acks {
				attrs += " ack='1'"
			}
			runModel(rt, h, hold, acks, attrs)
		})
		switch f := failed.(type) {
		case nil:
		case verdict:
			rt.Fatal(string(f))
		default:
			panic(f)
		}
	})
}

func runModel(rt *rapid.T, h *harness, hold int, acks bool, attrs string) {
	c := h.login(attrs)
	m := &model{
		client: c, hold: hold, last: c.rid, next: c.rid + 1,
		acks: acks, attrs: map[uint64]string{}, bodies: map[uint64]string{}, open: map[uint64]*pending{}, stray: map[*pending]uint64{}, answers: map[uint64]string{}, lost: map[uint64]bool{},
	}
	requests := uint64(hold) + 1
	var queued []uint64 // made but not sent: requests that others overtook
	for range rapid.IntRange(1, 40).Draw(rt, "steps") {
		switch op := rapid.SampledFrom([]string{
			"send", "send", "send", "late", "late", "deliver", "deliver", "again", "cut", "lose", "time", "kill", "die", "drain", "slow",
		}).Draw(rt, "op"); op {
		case "send":
			// The client has at most so many requests without an answer.
			if m.last+1 >= m.next+requests {
				continue
			}
			m.make()
			inner := ""
			for range rapid.IntRange(0, 3).Draw(rt, "stanzas") {
				m.sent++
				inner += message(m.sent)
			}
			m.bodies[m.last] = inner
			if rapid.IntRange(0, 3).Draw(rt, "overtaken") == 0 {
				queued = append(queued, m.last)
				continue
			}
			m.request(m.last)
		case "late":
			if len(queued) > 0 {
				i := rapid.IntRange(0, len(queued)-1).Draw(rt, "which")
				rid := queued[i]
				queued = slices.Delete(queued, i, i+1)
				m.request(rid)
			}
		case "deliver":
			for range rapid.IntRange(1, 20).Draw(rt, "stanzas") {
				m.out++
				h.svc.mu.Lock()
				s := h.svc.sids[m.sid]
				s.outbox = append(s.outbox, message(100000+m.out))
				st := s.stream
				h.svc.mu.Unlock()
				if st != nil {
					st.t.Wake()
				}
			}
		case "again":
			// Any of those whose answer the client has not processed, the last one that it has too.
			rid := rapid.Uint64Range(m.next, m.last+1).Draw(rt, "rid")
			if _, made := m.bodies[rid]; made && !slices.Contains(queued, rid) {
				m.request(rid)
			}
		case "cut":
			for _, rid := range sorted(m.open) {
				if rapid.Bool().Draw(rt, "this") {
					m.open[rid].cancel()
				}
			}
		case "lose":
			// The answer got lost on the way: the client asks again. What it has seen it has seen.
			m.collect(rt)
			if m.last >= m.next && m.answers[m.last] != "" {
				m.lost[m.last] = true
			}
		case "time":
			time.Sleep(time.Duration(rapid.IntRange(1, 20).Draw(rt, "seconds")) * time.Second)
		case "kill":
			synctest.Wait()
			h.restart()
		case "die": // before a stanza is handled, soon
			h.svc.mu.Lock()
			st := h.svc.sids[m.sid].stream
			h.svc.mu.Unlock()
			if st == nil {
				continue
			}
			left := rapid.IntRange(1, 4).Draw(rt, "stanzas")
			st.mu.Lock()
			st.hook = func(string) {
				if left--; left == 0 {
					h.svc.kill()
				}
			}
			st.mu.Unlock()
		case "drain":
			synctest.Wait()
			h.svc.mu.Lock()
			h.svc.draining = true
			h.svc.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = h.Drain(ctx)
			cancel()
			h.restart()
			h.svc.mu.Lock()
			h.svc.draining = false
			h.svc.mu.Unlock()
		case "slow": // the journal
			m.slow(!m.slowly)
		}
		m.collect(rt)
		m.bury()
		// What got lost is asked for again, sooner or later.
		for _, rid := range sorted(m.lost) {
			if m.open[rid] == nil && rapid.Bool().Draw(rt, "ask again") {
				m.request(rid)
			}
		}
		m.collect(rt)
		m.bury()
		m.check(rt)
	}
	m.settle(rt, requests, queued)
	m.offend(rt)
}

// bury makes a new process when the old one died.
func (m *model) bury() {
	m.svc.mu.Lock()
	dead := m.svc.killed
	m.svc.mu.Unlock()
	if dead {
		m.restart()
	}
}

func (m *model) slow(slow bool) {
	m.svc.mu.Lock()
	defer m.svc.mu.Unlock()
	if m.slowly = slow; slow {
		m.svc.settled = make(chan struct{})
	} else if m.svc.settled != nil {
		close(m.svc.settled)
		m.svc.settled = nil
	}
}

// verdict leaves the bubble as a value: rapid's own panics are bound to its goroutine.
type verdict string

func fatalf(format string, args ...any) { panic(verdict(fmt.Sprintf(format, args...))) }

// offend breaks a rule: the session ends, and nobody goes on with it.
func (m *model) offend(rt *rapid.T) {
	synctest.Wait()
	m.svc.mu.Lock()
	st := m.svc.sids[m.sid].stream
	m.svc.mu.Unlock()
	if st == nil { // nobody came back after the last kill
		return
	}
	if a := m.client.send(rapid.Uint64Range(1, 999).Draw(rt, "old rid"), "", message(1)).wait(); a.body != terminated("item-not-found") {
		fatalf("an old request is answered with %v", a) // and that ends nothing
	}
	var p *pending
	switch rapid.SampledFrom([]string{"ahead", "malformed", "text", "pause"}).Draw(rt, "offence") {
	case "ahead":
		p = m.client.send(m.last+uint64(m.hold)+2+rapid.Uint64Range(0, 1<<40).Draw(rt, "by"), "", message(1))
	case "malformed":
		p = m.client.send(m.last+1, "", "<message>")
	case "text":
		p = m.client.send(m.last+1, "", message(1)+"x")
	case "pause":
		p = m.client.send(m.next, " pause='1000'", "")
		if m.next <= m.last {
			p.cancel()
			return
		}
	}
	a := p.wait()
	if a.status != 200 || attr(a.body, "type") != "terminate" {
		fatalf("offence answered with %v", a)
	}
	synctest.Wait()
	if got := st.seen(); got[len(got)-1] != lost(ErrRejected) {
		fatalf("events %q", got)
	}
	if a := m.client.send(m.last+1, "", "").wait(); a.body != terminated("item-not-found") {
		fatalf("after the end: %v", a)
	}
}

// settle brings everything to its end: all requests are answered, all stanzas are there.
func (m *model) settle(rt *rapid.T, requests uint64, queued []uint64) {
	m.slow(false)
	for _, rid := range queued {
		m.request(rid)
	}
	for n := 0; len(m.got) < m.out || m.handledNow() < m.sent; n++ {
		if n > 200 {
			fatalf("got %d of %d stanzas, answers up to %d of %d", len(m.got), m.out, m.next-1, m.last)
		}
		m.collect(rt)
		m.bury()
		m.collect(rt)
		for _, rid := range sorted(m.lost) {
			if m.open[rid] == nil {
				m.request(rid)
			}
		}
		m.collect(rt)
		m.bury()
		if m.last+1 < m.next+requests {
			m.make()
			m.request(m.last)
			m.collect(rt)
		} else {
			time.Sleep(time.Second)
		}
	}
	m.collect(rt)
	m.check(rt)
}

func (m *model) handledNow() int {
	m.svc.mu.Lock()
	defer m.svc.mu.Unlock()
	return len(m.svc.sids[m.sid].handled)
}

func sorted[V any](m map[uint64]V) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
