package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// parties is a Host for hosted_test.go: who sends presence to an address is in, who sends unavailable presence is out, and
// whatever message comes goes to all, in the order in which they came, with a number.
type parties struct {
	mu    sync.Mutex
	saved map[stanza.Addr][]byte
	err   error // of Open without a state, and of Save
	opens int
}

const partyDomain = "parties." + testDomain

func newParties() *parties { return &parties{saved: make(map[stanza.Addr][]byte)} }

func (*parties) Serves(domain string) bool { return domain == partyDomain }

func (*parties) Under(domain string) (stanza.Addr, bool) {
	return stanza.MustParseAddr(partyDomain), domain == testDomain
}

func (*parties) Answer(_ context.Context, iq *stanza.Stanza) ([]byte, error) {
	if iq.Child(0).Is(nsPing, "ping") {
		return nil, nil
	}
	return nil, errNoNode
}

func (p *parties) Open(_ context.Context, addr stanza.Addr, state []byte) (Resident, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := &party{host: p, addr: addr}
	if state == nil {
		p.opens++
		if p.err != nil {
			return nil, p.err
		}
		state = p.saved[addr]
	}
	if len(state) == 0 {
		return x, nil
	}
	count, guests, ok := strings.Cut(string(state), " ")
	if !ok {
		return nil, errors.New("not the state of a party")
	}
	x.count, _ = strconv.Atoi(count)
	for g := range strings.FieldsSeq(guests) {
		x.guests = append(x.guests, stanza.MustParseAddr(g))
	}
	return x, nil
}

type party struct {
	host   *parties
	addr   stanza.Addr
	count  int
	guests []stanza.Addr
}

func (x *party) Handle(st *stanza.Stanza, send func(st *stanza.Stanza, from, to stanza.Addr)) {
	switch st.Kind() {
	case stanza.Presence:
		x.guests = slices.DeleteFunc(x.guests, func(a stanza.Addr) bool { return a == st.From })
		if len(st.TypeRaw()) == 0 {
			x.guests = append(x.guests, st.From)
		}
	case stanza.IQ:
		if string(st.TypeRaw()) == "get" {
			send(stanza.Result(st, nil), st.To, st.From)
		}
		return
	case stanza.Message:
		x.count++
		if string(st.TypeRaw()) == "error" {
			return
		}
	}
	request := ""
	if st.Payloads()&stanza.ReceiptRequest != 0 {
		request = "<request xmlns='urn:xmpp:receipts'/>"
	}
	inner := fmt.Sprintf("<body>%d %s</body>", x.count, body(&st.Element))
	for _, g := range x.guests {
		if st.Kind() == stanza.Presence {
			send(st, st.To, g)
		} else {
			send(stanza.New(stanza.Message, st.Attr("type"), st.Attr("id"), x.addr, g, []byte(inner+request)), x.addr, g)
		}
	}
}

func (x *party) State() []byte {
	s := strconv.Itoa(x.count) + " "
	for _, g := range x.guests {
		s += g.String() + " "
	}
	return []byte(s)
}

func (x *party) Save(context.Context) (bool, error) {
	x.host.mu.Lock()
	defer x.host.mu.Unlock()
	if x.host.err == nil {
		x.host.saved[x.addr] = x.State()
	}
	return x.count%2 == 1, x.host.err
}

func (x *party) Idle() bool { return len(x.guests) == 0 }

// inParty runs f with a Host, in virtual time.
func inParty(t *testing.T, f func(t *testing.T, w *world, p *parties), edit ...func(*Config, *Parts)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newParties()
		inWorld(t, func(t *testing.T, w *world) {
			w.pause = synctest.Wait
			f(t, w, p)
		}, append(edit, func(_ *Config, parts *Parts) { parts.Host = p })...)
	})
}

const party1 = "one@" + partyDomain

func enters(resource string) string {
	return "<presence xmlns='jabber:client' to='" + party1 + "/" + resource + "'/>"
}

func says(text string) string {
	return "<message xmlns='jabber:client' type='groupchat' to='" + party1 + "' id='" + text + "'><body>" + text + "</body></message>"
}

// What is sent to a hosted address is handled in order, and what comes of it reaches those it is for; the end of a session
// is told there as to anybody who had its presence.
func TestHosted(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, p *parties) {
		juliet, romeo := w.bound("juliet/a"), w.bound("romeo/b")
		juliet.send(enters("j"))
		juliet.want("presence " + party1 + "/j")
		romeo.send(enters("r"))
		romeo.want("presence " + party1 + "/r")
		juliet.want("presence " + party1 + "/r")
		juliet.send(says("hello"))
		romeo.send(says("hi"))
		juliet.want("message groupchat "+party1+" 1 hello", "message groupchat "+party1+" 2 hi")
		romeo.want("message groupchat "+party1+" 1 hello", "message groupchat "+party1+" 2 hi")
		juliet.send("<iq xmlns='jabber:client' type='get' id='q' to='" + party1 + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		juliet.want("iq result q")
		romeo.close()
		juliet.want("presence unavailable " + party1 + "/r")
		juliet.send("<presence xmlns='jabber:client' type='unavailable' to='" + party1 + "/j'/>")
		juliet.want()
		if n := len(w.sv.all()); n != 1 {
			t.Errorf("%d sessions when nobody is there, want that of juliet", n)
		}
		// What was saved is there for the next one.
		juliet.send(enters("j"))
		juliet.send(says("again"))
		juliet.want("presence "+party1+"/j", "message groupchat "+party1+" 3 again")
		if p.opens != 2 {
			t.Errorf("opened %d times without a state, want 2", p.opens)
		}
	})
}

// The Host's own address answers for itself, and other addresses that are not served are not found as ever.
func TestHostAddress(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, _ *parties) {
		juliet := w.bound("juliet/a")
		for raw, want := range map[string]string{
			"<iq xmlns='jabber:client' type='get' id='1' to='" + partyDomain + "'><ping xmlns='urn:xmpp:ping'/></iq>":                                    "iq result 1",
			"<iq xmlns='jabber:client' type='get' id='2' to='" + partyDomain + "'><query xmlns='jabber:iq:version'/></iq>":                               "iq error 2 item-not-found",
			"<iq xmlns='jabber:client' type='get' id='3' to='other." + testDomain + "'><ping xmlns='urn:xmpp:ping'/></iq>":                               "iq error 3 remote-server-not-found",
			"<message xmlns='jabber:client' id='4' to='" + partyDomain + "'><body>x</body></message>":                                                    "message error " + partyDomain + " service-unavailable",
			"<presence xmlns='jabber:client' id='5' to='x@other." + testDomain + "'/>":                                                                   "presence error x@other." + testDomain + " remote-server-not-found",
			"<iq xmlns='jabber:client' type='get' id='6' to='" + testDomain + "'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>":           "iq result 6",
			"<iq xmlns='jabber:client' type='get' id='7' to='x@" + partyDomain + "/y'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>":      "iq result 7",
			"<presence xmlns='jabber:client' type='subscribe' id='8' to='x@" + partyDomain + "'/>":                                                       "presence error x@" + partyDomain + " remote-server-not-found",
			"<iq xmlns='jabber:client' type='result' id='9' to='" + partyDomain + "'/>":                                                                  "",
			"<presence xmlns='jabber:client' type='unavailable' to='" + partyDomain + "'/>":                                                              "",
			"<message xmlns='jabber:client' type='error' to='x@" + partyDomain + "'><error/></message>":                                                  "",
			"<message xmlns='jabber:client' id='10' to='x@" + partyDomain + "' type='groupchat'><body>nobody is here</body></message>":                   "",
			"<message xmlns='jabber:client' id='11' to='x@" + partyDomain + "' type='groupchat'><amp xmlns='http://jabber.org/protocol/amp'/></message>": "message error x@" + partyDomain + " feature-not-implemented",
		} {
			juliet.send(raw)
			if want == "" {
				juliet.want()
			} else {
				juliet.want(want)
			}
		}
	})
}

// Where too much waits for a hosted address, senders are told, and those who leave are heard all the same.
func TestHostedCrowded(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, p *parties) {
		p.err = errors.New("the store is down")
		juliet := w.bound("juliet/a")
		for range 3 {
			juliet.send(says("x"))
		}
		juliet.want()
		juliet.send(says("x"))
		juliet.send("<presence xmlns='jabber:client' type='unavailable' to='" + party1 + "/j'/>")
		juliet.want("message error " + party1 + " resource-constraint")
		p.mu.Lock()
		p.err = nil
		p.mu.Unlock()
		time.Sleep(2 * time.Second)
		juliet.send(enters("j"))
		juliet.send(says("y"))
		juliet.want("presence "+party1+"/j", "message groupchat "+party1+" 4 y")
	}, func(c *Config, _ *Parts) { c.OutboxStanzas = 3 })
}

// A state that cannot be saved is saved later, and until then the address stays in use.
func TestHostedSavedLater(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, p *parties) {
		juliet := w.bound("juliet/a")
		juliet.send(enters("j"))
		juliet.want("presence " + party1 + "/j")
		p.mu.Lock()
		p.err = errors.New("the store is down")
		p.mu.Unlock()
		juliet.send(says("x"))
		juliet.send("<presence xmlns='jabber:client' type='unavailable' to='" + party1 + "/j'/>")
		juliet.want("message groupchat " + party1 + " 1 x")
		if n := len(w.sv.all()); n != 2 {
			t.Errorf("%d sessions while nothing can be saved, want 2", n)
		}
		p.mu.Lock()
		p.err = nil
		p.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(w.sv.all()); n != 1 {
			t.Errorf("%d sessions when everything is saved, want 1", n)
		}
	})
}

// phone is a client as one in the field: it resumes, and sends again what was not counted.
type phone struct {
	*client
	got  []string
	h    uint32
	sent []string // from the first that was not counted
	base uint32   // counted
}

func (p *phone) say(raw string) {
	p.sent = append(p.sent, raw)
	p.send(raw)
	p.read()
}

func (p *phone) read() {
	for _, e := range p.frames() {
		if e.Kind() != stanza.Other {
			p.h++
			p.got = append(p.got, brief(e))
		}
	}
}

// back resumes the session at a process that was started after a kill.
func (p *phone) back(t *testing.T) {
	t.Helper()
	p.client = p.resumed(p.h)
	for i, e := range p.frames() {
		switch {
		case i == 0 && e.Is(stanza.NSSM, "resumed"):
			h, err := strconv.ParseUint(e.Attr("h"), 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			p.sent, p.base = p.sent[uint32(h)-p.base:], uint32(h)
		case i == 0:
			t.Fatalf("not resumed: %s", e.Raw())
		case e.Kind() != stanza.Other:
			p.h++
			p.got = append(p.got, strings.TrimSuffix(brief(e), " delayed"))
		}
	}
	for _, raw := range p.sent {
		p.send(raw)
	}
	p.read()
}

// A process that is killed between any two records of its journal, and the next one too, loses nothing that a hosted
// address sends and sends nothing twice.
func TestHostedAfterKill(t *testing.T) {
	for _, checkpointed := range []bool{false, true} {
		for cut := 1; ; cut++ {
			died := false
			inParty(t, func(t *testing.T, w *world, _ *parties) { died = hostedKilledAt(t, w, cut, checkpointed) })
			if t.Failed() {
				t.Fatalf("killed after %d records, checkpoint %v", cut, checkpointed)
			}
			if !died {
				break
			}
		}
	}
}

func hostedKilledAt(t *testing.T, w *world, cut int, checkpointed bool) (died bool) {
	w.tune = func(sv *Service) { sv.noteEvery = 3 }
	w.tune(w.sv)
	d := newDisk()
	juliet, romeo := &phone{client: w.managed("juliet/a")}, &phone{client: w.managed("romeo/b")}
	if checkpointed {
		w.checkpoint(d)
		w.journal.records = nil
	}
	juliet.say(enters("j"))
	romeo.say(enters("r"))
	w.journal.dieAfter(cut)
	for i := range 4 {
		juliet.say(says(fmt.Sprint("j", i)))
		if i == 2 {
			juliet.say(enters("other"))
		}
		romeo.say(says(fmt.Sprint("r", i)))
		if i == 1 && checkpointed && !w.journal.dead() {
			w.checkpoint(d)
			w.journal.mu.Lock()
			w.journal.records = nil
			w.journal.mu.Unlock()
		}
	}
	died = w.journal.dead()
	for range 2 { // the second one finds what the first one did
		w.journal.die()
		w.sv.Close()
		w.journal.dieAfter(0)
		w.kill(d)
		juliet.back(t)
		romeo.back(t)
		juliet.read()
	}
	juliet.say(says("last"))
	romeo.read()
	for who, p := range map[string]*phone{"juliet": juliet, "romeo": romeo} {
		var want []string
		for _, line := range p.got {
			if rest, ok := strings.CutPrefix(line, "message groupchat "+party1+" "); ok {
				want = append(want, rest)
			}
		}
		checkParty(t, who, want)
	}
	return died
}

// checkParty checks that everything was said once, in the order of the numbers and of each who said it.
func checkParty(t *testing.T, who string, got []string) {
	t.Helper()
	var texts []string
	last := 0
	for _, line := range got {
		n, text, _ := strings.Cut(line, " ")
		number, _ := strconv.Atoi(n)
		if last != 0 && number != last+1 {
			t.Errorf("%s got %v: %d is not behind %d", who, got, number, last)
		}
		last = number
		texts = append(texts, text)
	}
	all := []string{"j0", "r0", "j1", "r1", "j2", "r2", "j3", "r3", "last"}
	sorted := slices.Sorted(slices.Values(texts))
	slices.Sort(all)
	if diff := cmp.Diff(all, sorted); diff != "" {
		t.Errorf("%s (-want +got):\n%s", who, diff)
	}
	for _, of := range []string{"j", "r"} {
		var own []string
		for _, text := range texts {
			if strings.HasPrefix(text, of) {
				own = append(own, text)
			}
		}
		if !slices.IsSorted(own) {
			t.Errorf("%s got %v, not in order", who, texts)
		}
	}
}

// A state that the next process cannot read is made anew of what is in the kept stores.
func TestHostedUnreadable(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, p *parties) {
		d := newDisk()
		juliet := &phone{client: w.managed("juliet/a")}
		juliet.say(enters("j"))
		p.mu.Lock()
		p.saved[stanza.MustParseAddr(party1)] = []byte("41 " + addr("juliet/a").String())
		p.mu.Unlock()
		w.sv.Close()
		for i, r := range w.journal.records {
			if r.kind == journal.KindCarried {
				w.journal.records[i].b = slices.Concat(r.b[:16], []byte("nonsense"))
			}
		}
		w.kill(d)
		juliet.back(t)
		juliet.say(says("x"))
		if got := juliet.got[len(juliet.got)-1]; got != "message groupchat "+party1+" 42 x" {
			t.Errorf("got %q", got)
		}
	})
}

// At any node of a cluster it is the same, whoever's home is where.
func TestHostedInCluster(t *testing.T) {
	p := newParties()
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		one, two, three := m.nodes[0], m.nodes[1], m.nodes[2]
		juliet, romeo, nurse := one.bound("juliet/a"), two.bound("romeo/b"), three.bound("nurse/c")
		juliet.send(enters("j"))
		juliet.want("presence " + party1 + "/j")
		romeo.send(enters("r"))
		romeo.want("presence " + party1 + "/r")
		nurse.send(enters("n"))
		juliet.want("presence "+party1+"/r", "presence "+party1+"/n")
		romeo.want("presence " + party1 + "/n")
		nurse.want("presence " + party1 + "/n")
		for i := range 5 {
			romeo.send(says(fmt.Sprint(i)))
		}
		var want []string
		for i := range 5 {
			want = append(want, fmt.Sprintf("message groupchat %s %d %d", party1, i+1, i))
		}
		for _, c := range []*client{juliet, romeo, nurse} {
			c.want(want...)
		}
		nurse.send("<iq xmlns='jabber:client' type='get' id='q' to='" + party1 + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		nurse.want("iq result q")
		romeo.close()
		juliet.want("presence unavailable " + party1 + "/r")
		nurse.want("presence unavailable " + party1 + "/r")
		if home := m.homeOf(party1); home != one.id {
			t.Errorf("the home is %q, want that of who came first", home)
		}
		for _, c := range []*client{juliet, nurse} {
			c.send("<presence xmlns='jabber:client' type='unavailable' to='" + party1 + "'/>")
		}
		m.rest()
		if n := len(one.sv.all()); n != 1 {
			t.Errorf("%d sessions at the home of an address that nobody uses, want one of juliet", n)
		}
	}, func(_ *Config, parts *Parts) { parts.Host = p })
}

// The homes of a hosted address die one after the other, with messages on the way to them and from them: nothing is lost,
// nothing comes twice, and all see the same order.
func TestHostedHomesDie(t *testing.T) {
	for seed := range uint64(20) {
		p := newParties()
		inMesh(t, 4, func(t *testing.T, m *mesh) {
			r := rand.New(rand.NewPCG(seed, 3))
			nurse := m.nodes[0].managed("nurse/n")
			nurse.send(enters("n"))
			m.rest()
			talkers := []*client{m.nodes[2].managed("juliet/j"), m.nodes[3].managed("romeo/r")}
			for _, c := range talkers {
				c.send(enters(c.addr.Resource()))
				m.rest()
			}
			for _, c := range talkers {
				c.frames()
			}
			sent := 0
			say := func() {
				for range 1 + r.IntN(4) {
					talkers[r.IntN(2)].send(says(fmt.Sprint("m", sent)))
					sent++
				}
			}
			others := []*node{m.nodes[2], m.nodes[3]}
			for range 2 {
				for range r.IntN(3) {
					say()
					if r.IntN(2) == 0 {
						m.rest()
					}
				}
				home := m.node(m.homeOf(party1))
				for _, other := range others {
					m.partition(home, other, r.IntN(2) == 0)
					m.partition(other, home, r.IntN(2) == 0)
				}
				say()
				synctest.Wait()
				e := m.die(home)
				say()
				heir := m.nodes[0]
				m.adopt(home, heir, e)
				say()
				if len(m.nodes) == 2 {
					break
				}
			}
			m.rest()
			for _, c := range talkers {
				var numbers, texts []string
				for _, e := range c.frames() {
					if e.Kind() == stanza.Message && e.Attr("type") == "groupchat" {
						n, text, _ := strings.Cut(body(e), " ")
						numbers, texts = append(numbers, n), append(texts, text)
					}
				}
				var want []string
				for i := range sent {
					want = append(want, strconv.Itoa(i+1))
				}
				slices.Sort(texts)
				if !slices.Equal(numbers, want) || len(slices.Compact(texts)) != sent {
					t.Errorf("seed %d: %s got %v %v of %d", seed, c.addr, numbers, texts, sent)
				}
			}
		}, func(_ *Config, parts *Parts) { parts.Host = p })
	}
}

// However many stanzas led to nothing, what comes of the next is sent, also by the next process.
func TestHostedCountsComeRound(t *testing.T) {
	if raceEnabled {
		t.Skip("takes long with the race detector, and has one sender")
	}
	inParty(t, func(t *testing.T, w *world, _ *parties) {
		d := newDisk()
		juliet := &phone{client: w.managed("juliet/a")}
		juliet.say(enters("j"))
		romeo := w.bound("romeo/r")
		nothing := "<message xmlns='jabber:client' type='error' to='" + party1 + "'/>"
		for i := range 1<<17 + 100 {
			romeo.send(nothing)
			if i%1000 == 0 {
				synctest.Wait()
				w.checkpoint(d)
				w.journal.mu.Lock()
				w.journal.records = nil
				w.journal.mu.Unlock()
			}
		}
		juliet.say(says("one"))
		w.journal.die()
		w.sv.Close()
		w.journal.dieAfter(0)
		w.kill(d)
		juliet.back(t)
		juliet.say(says("two"))
		want := []string{
			"presence " + party1 + "/j",
			fmt.Sprintf("message groupchat %s %d one", party1, 1<<17+101), fmt.Sprintf("message groupchat %s %d two", party1, 1<<17+102),
		}
		if diff := cmp.Diff(want, juliet.got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Where nobody is, only what may bring somebody there is looked at.
func TestHostedOpens(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, p *parties) {
		juliet := w.bound("juliet/a")
		for _, raw := range []string{
			"<message xmlns='jabber:client' type='error' to='" + party1 + "'/>",
			"<presence xmlns='jabber:client' type='unavailable' to='" + party1 + "/x'/>",
			"<iq xmlns='jabber:client' type='result' id='r' to='" + party1 + "'/>",
		} {
			juliet.send(raw)
			juliet.want()
		}
		if p.opens != 0 {
			t.Errorf("opened %d times", p.opens)
		}
		// Too many that wait for the store, which is away.
		p.mu.Lock()
		p.err = errors.New("the store is down")
		p.mu.Unlock()
		for i := range maxOpening {
			juliet.send(fmt.Sprintf("<message xmlns='jabber:client' to='n%d@%s'><body>x</body></message>", i, partyDomain))
		}
		juliet.want()
		juliet.send(says("x"))
		juliet.want("message error " + party1 + " resource-constraint")
		p.mu.Lock()
		p.err = nil
		p.mu.Unlock()
		time.Sleep(2 * time.Second)
		juliet.send(enters("j"))
		juliet.want("presence " + party1 + "/j")
		if n := w.sv.opening.Load(); n != 0 {
			t.Errorf("%d are still waited for", n)
		}
	})
}

// What a room sent to each of two devices is not sent to one of them again when the other does not come back.
func TestHostedDevices(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, _ *parties) {
		phone, desk := w.managed("juliet/phone").available(), w.managed("juliet/desk").available()
		phone.frames()
		for _, c := range []*client{phone, desk} {
			c.send("<presence xmlns='jabber:client' to='chat@" + partyDomain + "/j'/>")
			c.frames()
		}
		phone.frames()
		phone.cut()
		romeo := w.bound("romeo/r")
		romeo.send("<message xmlns='jabber:client' type='chat' to='chat@" + partyDomain + "' id='m'><body>hi</body><request xmlns='urn:xmpp:receipts'/></message>")
		desk.want("message chat@" + partyDomain + " 1 hi")
		if n := len(w.receipts.waiting()); n > 0 {
			t.Errorf("%d receipts are awaited of who is in a room", n)
		}
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		for _, line := range briefs(desk.frames()) {
			if strings.Contains(line, "hi") {
				t.Errorf("again: %s", line)
			}
		}
		if box := w.box.boxes[addr("juliet")]; len(box) > 0 {
			t.Errorf("in the mailbox: %s", box[0].Raw())
		}
	})
}

// A service that ends in order leaves nothing to be handled again.
func TestHostedEndsInOrder(t *testing.T) {
	inParty(t, func(t *testing.T, w *world, _ *parties) {
		d := newDisk()
		juliet := &phone{client: w.managed("juliet/a")}
		juliet.say(enters("j"))
		juliet.say(says("one"))
		w.sv.StopHosting()
		for _, s := range w.sv.all() {
			if s.hosted != nil && s.queued() > 0 {
				t.Errorf("%d wait", s.queued())
			}
		}
		juliet.say(says("two")) // for the next process
		w.kill(d)
		juliet.back(t)
		want := []string{"presence " + party1 + "/j", "message groupchat " + party1 + " 1 one", "message groupchat " + party1 + " 2 two"}
		if diff := cmp.Diff(want, juliet.got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
