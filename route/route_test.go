package route

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"holdfast/stanza"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is a session.
type device struct{ addr stanza.Addr }

func (d *device) Addr() stanza.Addr { return d.addr }

// verdict is what the fake mailbox says.
type verdict string

const (
	kept    verdict = "kept"
	full    verdict = "full"
	refused verdict = "refused"
)

// backend writes down what it is asked to do, in order.
type backend struct {
	mu    sync.Mutex
	did   []string
	known map[stanza.Addr]bool

	verdict  verdict // of Store
	takes    map[*device]bool
	all      bool // everybody takes
	storable bool
	anyType  bool  // the policy keeps headlines and groupchat too
	err      error // of everything
}

func newBackend() *backend {
	return &backend{known: map[stanza.Addr]bool{juliet: true}, verdict: kept, all: true, storable: true}
}

var (
	juliet = stanza.MustParseAddr("juliet@capulet.example")
	romeo  = &device{stanza.MustParseAddr("romeo@montague.example/orchard")}
)

func (b *backend) note(what string) {
	b.mu.Lock()
	b.did = append(b.did, what)
	b.mu.Unlock()
}

func (b *backend) Deliver(from *device, st *stanza.Stanza, to []*device) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	var names []string
	for _, d := range to {
		if b.all || b.takes[d] {
			names = append(names, d.addr.Resource())
		}
	}
	if len(names) > 0 {
		b.note("deliver " + strings.Join(names, " "))
	}
	return len(names), nil
}

func (b *backend) Store(_ *device, user stanza.Addr, st *stanza.Stanza) (verdict, bool, error) {
	if b.err != nil {
		return "", false, b.err
	}
	if user.IsFull() {
		b.note("a mailbox of a full address")
	}
	if !b.Storable(st) {
		b.note("not stored")
		return refused, string(st.TypeRaw()) != "groupchat", nil
	}
	b.note("store")
	return b.verdict, b.verdict == kept, nil
}

func (b *backend) Storable(st *stanza.Stanza) bool { return b.storable && (b.anyType || later(st)) }

func (b *backend) Unroutable(_ *device, _ *stanza.Stanza, why verdict) error {
	b.note(strings.TrimSpace("error " + string(why)))
	return nil
}

func (b *backend) Exists(_ context.Context, user stanza.Addr) (bool, error) {
	return b.known[user], b.err
}

type hub = Hub[*device, verdict]

// join enters a session of juliet; priority is nil while it is not available.
func join(h *hub, resource string, priority *int8) *device {
	addr, err := stanza.NewAddr(juliet.Local(), juliet.Domain(), resource)
	if err != nil {
		panic(err)
	}
	d := &device{addr}
	h.Locked(juliet, func(t Table[*device]) {
		t.Add(d)
		if priority != nil {
			t.SetPriority(d, true, *priority)
		}
	})
	return d
}

func prio(p int8) *int8 { return &p }

func leave(h *hub, d *device) { h.Locked(juliet, func(t Table[*device]) { t.Remove(d) }) }

func drain(h *hub, d *device) { h.Locked(juliet, func(t Table[*device]) { t.SetDraining(d) }) }

func message(t testing.TB, typ, resource, inner string) *stanza.Stanza {
	t.Helper()
	to := juliet.String()
	if resource != "" {
		to += "/" + resource
	}
	if typ != "" {
		typ = " type='" + typ + "'"
	}
	st, err := stanza.Parse([]byte("<message xmlns='jabber:client' id='1' from='"+romeo.addr.String()+"' to='"+to+"'"+typ+">"+inner+"</message>"), stanza.NewID())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// users counts what the table holds.
func users(h *hub) (n int) {
	for i := range h.shards {
		h.shards[i].mu.Lock()
		n += len(h.shards[i].users)
		h.shards[i].mu.Unlock()
	}
	return n
}

func TestMessage(t *testing.T) {
	// RFC 6121 §8.5: what happens by type, address, and who is there.
	states := map[string]func(*hub, *backend){
		"nobody":   func(_ *hub, b *backend) { delete(b.known, juliet) },
		"gone":     func(*hub, *backend) {},
		"not":      func(h *hub, _ *backend) { join(h, "1", nil) },
		"negative": func(h *hub, _ *backend) { join(h, "1", prio(-1)) },
		"one":      func(h *hub, _ *backend) { join(h, "1", prio(0)) },
		"several": func(h *hub, _ *backend) {
			join(h, "1", prio(1))
			join(h, "2", prio(-1))
			join(h, "3", nil)
			join(h, "4", prio(0))
		},
		"draining": func(h *hub, _ *backend) { // 1 is being given the mailbox
			drain(h, join(h, "1", prio(0)))
			join(h, "2", prio(0))
		},
		"full": func(_ *hub, b *backend) { b.verdict = full },
		"nobody takes": func(h *hub, b *backend) { // ending, or over its caps
			b.all = false
			join(h, "1", prio(0))
		},
	}
	const receipt = "<received xmlns='urn:xmpp:receipts' id='x'/>"
	for _, tt := range []struct {
		name, typ, resource, inner string
		want                       map[string]string
	}{
		{"§8.5.2.1.1 chat", "chat", "", "", map[string]string{
			"nobody": "error", "gone": "store", "not": "store", "negative": "store", "one": "deliver 1", "several": "deliver 1 4",
			"draining": "store", "full": "store, error full", "nobody takes": "store",
		}},
		{"§8.5.2.1.1 normal", "", "", "", map[string]string{
			"nobody": "error", "gone": "store", "not": "store", "negative": "store", "one": "deliver 1", "several": "deliver 1 4",
			"draining": "store", "full": "store, error full", "nobody takes": "store",
		}},
		{"§8.5.2.1.1 headline", "headline", "", "", map[string]string{
			"nobody": "error", "gone": "not stored", "not": "not stored", "negative": "not stored", "one": "deliver 1",
			"several": "deliver 1 4", "draining": "deliver 1 2", "full": "not stored", "nobody takes": "",
		}},
		{"§8.5.2.1.1 groupchat", "groupchat", "", "", map[string]string{
			"nobody": "error", "gone": "not stored, error refused", "not": "not stored, error refused", "negative": "not stored, error refused",
			"one": "error", "several": "error", "draining": "error",
		}},
		{"§8.5.2.1.1 error", "error", "", "", map[string]string{
			"nobody": "", "gone": "not stored", "not": "not stored", "negative": "not stored", "one": "", "several": "", "draining": "", "full": "not stored",
		}},
		{"§8.5.3.1 chat to a resource", "chat", "1", "", map[string]string{
			"nobody": "error", "gone": "store", "not": "deliver 1", "negative": "deliver 1", "one": "deliver 1", "several": "deliver 1",
			"draining": "store", "full": "store, error full", "nobody takes": "store",
		}},
		{"§8.5.3.1 normal to a resource", "normal", "1", "", map[string]string{
			"nobody": "error", "gone": "error", "not": "deliver 1", "one": "deliver 1", "draining": "store", "nobody takes": "store",
		}},
		{"§8.5.3.1 headline to a resource", "headline", "1", "", map[string]string{
			"gone": "error", "not": "deliver 1", "draining": "deliver 1",
		}},
		{"§8.5.3.1 groupchat to a resource", "groupchat", "1", "", map[string]string{"gone": "error", "one": "deliver 1", "draining": "deliver 1"}},
		{"§8.5.3.1 error to a resource", "error", "1", "", map[string]string{"gone": "", "one": "deliver 1", "draining": "deliver 1"}},
		{"§8.5.3.1 chat to a resource that is not draining", "chat", "2", "", map[string]string{"draining": "deliver 2"}},
		{"§8.5.3.2.1 chat to a missing resource", "chat", "x", "", map[string]string{
			"nobody": "error", "gone": "store", "negative": "store", "one": "deliver 1", "several": "deliver 1 4", "draining": "store",
		}},
		{"§8.5.3.2.1 normal to a missing resource", "", "x", "", map[string]string{"nobody": "error", "gone": "error", "one": "error", "several": "error"}},
		{"§8.5.3.2.1 headline to a missing resource", "headline", "x", "", map[string]string{"gone": "error", "one": "error"}},
		{"§8.5.3.2.1 groupchat to a missing resource", "groupchat", "x", "", map[string]string{"gone": "error", "one": "error"}},
		{"§8.5.3.2.1 error to a missing resource", "error", "x", "", map[string]string{"nobody": "", "gone": "", "one": ""}},
		{"XEP-0184 a receipt to a missing resource", "", "x", receipt, map[string]string{
			"nobody": "error", "gone": "store", "one": "deliver 1", "several": "deliver 1 4", "draining": "store",
		}},
		{"XEP-0333 a marker to a missing resource", "normal", "x", "<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>", map[string]string{
			"gone": "store", "one": "deliver 1",
		}},
	} {
		for state, want := range tt.want {
			t.Run(tt.name+"/"+state, func(t *testing.T) {
				b := newBackend()
				h := New[*device, verdict](b)
				states[state](h, b)
				before := users(h)
				if err := h.Message(romeo, message(t, tt.typ, tt.resource, tt.inner)); err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(b.did, ", "); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if n := users(h); n != before {
					t.Errorf("%d users in the table, %d before", n, before)
				}
			})
		}
	}
}

func TestWhatIsNotStoredPassesTheMailbox(t *testing.T) {
	// XEP-0334, XEP-0085: a message that the mailbox would not keep does not wait behind it.
	b := newBackend()
	b.storable = false
	h := New[*device, verdict](b)
	drain(h, join(h, "1", prio(0)))
	join(h, "2", prio(0))
	for resource, want := range map[string]string{"": "deliver 1 2", "1": "deliver 1"} {
		b.did = nil
		if err := h.Message(romeo, message(t, "chat", resource, "")); err != nil || strings.Join(b.did, ", ") != want {
			t.Errorf("to %q: %q (%v), want %q", resource, b.did, err, want)
		}
	}
}

func TestErrorsChangeNothing(t *testing.T) {
	// What failed can be routed again: nobody was told anything.
	for _, typ := range []string{"chat", "headline"} {
		for _, resource := range []string{"", "1"} {
			b := newBackend()
			h := New[*device, verdict](b)
			b.err = errors.New("down")
			if err := h.Message(romeo, message(t, typ, resource, "")); !errors.Is(err, b.err) {
				t.Errorf("%s to %q, nobody known: %v", typ, resource, err)
			}
			join(h, "1", prio(0))
			if err := h.Message(romeo, message(t, typ, resource, "")); !errors.Is(err, b.err) {
				t.Errorf("%s to %q: %v", typ, resource, err)
			}
			if ok, err := h.Direct(join(h, "2", nil).addr, romeo, message(t, typ, "2", "")); ok || !errors.Is(err, b.err) {
				t.Errorf("direct: %v, %v", ok, err)
			}
			if len(b.did) > 0 {
				t.Errorf("%s to %q did %q", typ, resource, b.did)
			}
			b.err = nil
			if err := h.Message(romeo, message(t, typ, resource, "")); err != nil || len(b.did) != 1 || b.did[0] != "deliver 1" {
				t.Errorf("%s to %q again: %q, %v", typ, resource, b.did, err)
			}
		}
	}
}

func TestDirect(t *testing.T) {
	b := newBackend()
	h := New[*device, verdict](b)
	one := join(h, "1", nil)
	st := message(t, "", "1", "")
	if ok, err := h.Direct(one.addr, romeo, st); !ok || err != nil {
		t.Errorf("to a session: %v, %v", ok, err)
	}
	missing := stanza.MustParseAddr(juliet.String() + "/x")
	if ok, err := h.Direct(missing, romeo, st); ok || err != nil {
		t.Errorf("to nobody: %v, %v", ok, err)
	}
	b.all = false
	if ok, err := h.Direct(one.addr, romeo, st); ok || err != nil {
		t.Errorf("to one that does not take it: %v, %v", ok, err)
	}
	if got := strings.Join(b.did, ", "); got != "deliver 1" {
		t.Errorf("did %q", got)
	}
}

func TestTable(t *testing.T) {
	h := New[*device, verdict](newBackend())
	one, two := join(h, "1", prio(5)), join(h, "2", prio(-1))
	names := func(all []*device) (s string) {
		for _, d := range all {
			s += d.addr.Resource()
		}
		return s
	}
	check := func(sessions, receivers string, draining *device) {
		t.Helper()
		var each []*device
		h.Each(juliet, func(d *device) { each = append(each, d) })
		h.Locked(juliet, func(tb Table[*device]) {
			if got := names(tb.Sessions()); got != sessions || names(each) != sessions {
				t.Errorf("sessions %q, each %q, want %q", got, names(each), sessions)
			}
			if got := names(tb.Receivers([]*device{romeo})); got != "orchard"+receivers {
				t.Errorf("receivers %q, want %q after what was there", got, receivers)
			}
			if tb.Draining() != draining {
				t.Errorf("draining %v", tb.Draining())
			}
		})
	}
	check("12", "1", nil)
	h.Locked(juliet, func(tb Table[*device]) {
		tb.SetPriority(one, false, 0)
		tb.SetPriority(two, true, 0)
		tb.SetPriority(romeo, true, 9) // is not here
		tb.SetDraining(two)
	})
	check("12", "2", two)
	leave(h, romeo)
	leave(h, one)
	drain(h, nil)
	check("2", "2", nil)
	leave(h, two)
	check("", "", nil)
	if n := users(h); n != 0 {
		t.Errorf("%d users in the table", n)
	}
}

// What the policy keeps is offered to the mailbox when nobody is there, of whatever type it is.
func TestTypesKeptOnRequest(t *testing.T) {
	for _, typ := range []string{"headline", "groupchat"} {
		b := newBackend()
		b.anyType = true
		h := New[*device, verdict](b)
		if err := h.Message(romeo, message(t, typ, "", "")); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(b.did, ", "); got != "store" {
			t.Errorf("%s: %q", typ, got)
		}
	}
}
