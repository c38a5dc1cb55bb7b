package roster

import (
	"testing"
)

// The states of RFC 6121 §A.1 by the names it gives them.
var states = map[string]state{
	"None":                     {},
	"None + Pending Out":       {ask: true},
	"None + Pending In":        {pendingIn: true},
	"None + Pending Out+In":    {ask: true, pendingIn: true},
	"To":                       {sub: To},
	"To + Pending In":          {sub: To, pendingIn: true},
	"From":                     {sub: From},
	"From + Pending Out":       {sub: From, ask: true},
	"Both":                     {sub: Both},
	"None, approved":           {approved: true},
	"None + Pending Out, ok'd": {ask: true, approved: true},
	"To, approved":             {sub: To, approved: true},
	"From, approved":           {sub: From, approved: true},
	"From + Pending Out, ok'd": {sub: From, ask: true, approved: true},
	"Both, approved":           {sub: Both, approved: true},
}

// row is a line of a table of Appendix A. An empty next is "no state change".
type row struct {
	state string
	pass  bool // ROUTE? or DELIVER?
	next  string
	// What the text around the tables adds.
	reply       Kind
	presence    bool
	unavailable bool
	again       bool
}

var tables = []struct {
	section string
	inbound bool
	kind    Kind
	rows    []row
}{
	{"A.2.1 outbound subscribe", false, Subscribe, []row{
		{state: "None", pass: true, next: "None + Pending Out"},
		{state: "None + Pending Out", pass: true},
		{state: "None + Pending In", pass: true, next: "None + Pending Out+In"},
		{state: "None + Pending Out+In", pass: true},
		{state: "To", pass: true},
		{state: "To + Pending In", pass: true},
		{state: "From", pass: true, next: "From + Pending Out"},
		{state: "From + Pending Out", pass: true},
		{state: "Both", pass: true},
		{state: "None, approved", pass: true, next: "None + Pending Out, ok'd"},
		{state: "None + Pending Out, ok'd", pass: true},
		{state: "To, approved", pass: true},
	}},
	{"A.2.2 outbound unsubscribe", false, Unsubscribe, []row{
		{state: "None", pass: true},
		{state: "None + Pending Out", pass: true, next: "None"},
		{state: "None + Pending In", pass: true},
		{state: "None + Pending Out+In", pass: true, next: "None + Pending In"},
		{state: "To", pass: true, next: "None"},
		{state: "To + Pending In", pass: true, next: "None + Pending In"},
		{state: "From", pass: true},
		{state: "From + Pending Out", pass: true, next: "From"},
		{state: "Both", pass: true, next: "From"},
		{state: "None, approved", pass: true},
		{state: "None + Pending Out, ok'd", pass: true, next: "None, approved"},
		{state: "To, approved", pass: true, next: "None, approved"},
	}},
	{"A.2.3 outbound subscribed", false, Subscribed, []row{
		{state: "None", next: "None, approved"},
		{state: "None + Pending Out", next: "None + Pending Out, ok'd"},
		{state: "None + Pending In", pass: true, next: "From", presence: true},
		{state: "None + Pending Out+In", pass: true, next: "From + Pending Out", presence: true, again: true},
		{state: "To", next: "To, approved"},
		{state: "To + Pending In", pass: true, next: "Both", presence: true},
		{state: "From"},
		{state: "From + Pending Out"},
		{state: "Both"},
		{state: "None, approved"},
		{state: "None + Pending Out, ok'd"},
		{state: "To, approved"},
	}},
	{"A.2.4 outbound unsubscribed", false, Unsubscribed, []row{
		{state: "None"},
		{state: "None + Pending Out"},
		{state: "None + Pending In", pass: true, next: "None"},
		{state: "None + Pending Out+In", pass: true, next: "None + Pending Out"},
		{state: "To"},
		{state: "To + Pending In", pass: true, next: "To"},
		{state: "From", pass: true, next: "None", unavailable: true},
		{state: "From + Pending Out", pass: true, next: "None + Pending Out", unavailable: true},
		{state: "Both", pass: true, next: "To", unavailable: true},
		// [1] This event can result in cancellation of a subscription pre-approval.
		{state: "None, approved", next: "None"},
		{state: "None + Pending Out, ok'd", next: "None + Pending Out"},
		{state: "To, approved", next: "To"},
	}},
	{"A.3.1 inbound subscribe", true, Subscribe, []row{
		{state: "None", pass: true, next: "None + Pending In"},
		{state: "None + Pending Out", pass: true, next: "None + Pending Out+In"},
		{state: "None + Pending In"},
		{state: "None + Pending Out+In"},
		{state: "To", pass: true, next: "To + Pending In"},
		{state: "To + Pending In"},
		{state: "From", reply: Subscribed, presence: true},
		{state: "From + Pending Out", reply: Subscribed, presence: true},
		{state: "Both", reply: Subscribed, presence: true},
		{state: "None, approved", next: "From, approved", reply: Subscribed, presence: true},
		{state: "None + Pending Out, ok'd", next: "From + Pending Out, ok'd", reply: Subscribed, presence: true, again: true},
		{state: "To, approved", next: "Both, approved", reply: Subscribed, presence: true},
	}},
	{"A.3.2 inbound unsubscribe", true, Unsubscribe, []row{
		{state: "None"},
		{state: "None + Pending Out"},
		{state: "None + Pending In", pass: true, next: "None"},
		{state: "None + Pending Out+In", pass: true, next: "None + Pending Out"},
		{state: "To"},
		{state: "To + Pending In", pass: true, next: "To"},
		{state: "From", pass: true, next: "None", unavailable: true},
		{state: "From + Pending Out", pass: true, next: "None + Pending Out", unavailable: true},
		{state: "Both", pass: true, next: "To", unavailable: true},
		{state: "None, approved"},
		{state: "From, approved", pass: true, next: "None, approved", unavailable: true},
	}},
	{"A.3.3 inbound subscribed", true, Subscribed, []row{
		{state: "None"},
		{state: "None + Pending Out", pass: true, next: "To"},
		{state: "None + Pending In"},
		{state: "None + Pending Out+In", pass: true, next: "To + Pending In"},
		{state: "To"},
		{state: "To + Pending In"},
		{state: "From"},
		{state: "From + Pending Out", pass: true, next: "Both"},
		{state: "Both"},
		{state: "None, approved"},
		{state: "None + Pending Out, ok'd", pass: true, next: "To, approved"},
	}},
	{"A.3.4 inbound unsubscribed", true, Unsubscribed, []row{
		{state: "None"},
		{state: "None + Pending Out", pass: true, next: "None"},
		{state: "None + Pending In"},
		{state: "None + Pending Out+In", pass: true, next: "None + Pending In"},
		{state: "To", pass: true, next: "None"},
		{state: "To + Pending In", pass: true, next: "None + Pending In"},
		{state: "From"},
		{state: "From + Pending Out", pass: true, next: "From"},
		{state: "Both", pass: true, next: "From"},
		{state: "None, approved"},
		{state: "To, approved", pass: true, next: "None, approved"},
	}},
}

// TestAppendixA runs every line of the tables through a Service, for a contact that the user has in the roster, and
// for "None" and "None + Pending In" also for one that it never added.
func TestAppendixA(t *testing.T) {
	for _, table := range tables {
		t.Run(table.section, func(t *testing.T) {
			for _, r := range table.rows {
				before, ok := states[r.state]
				if !ok {
					t.Fatalf("no state %q", r.state)
				}
				after := before
				if r.next != "" {
					if after, ok = states[r.next]; !ok {
						t.Fatalf("no state %q", r.next)
					}
				}
				want := Outcome{
					Route: r.pass, AutoReply: r.reply, SendPresence: r.presence, SendUnavailable: r.unavailable, AskAgain: r.again,
				}
				t.Run(r.state, func(t *testing.T) { runRow(t, table.inbound, table.kind, before, after, want, true) })
				if before == (state{}) || before == (state{pendingIn: true}) {
					t.Run(r.state+", never added", func(t *testing.T) {
						runRow(t, table.inbound, table.kind, before, after, want, false)
					})
				}
			}
		})
	}
}

func runRow(t *testing.T, inbound bool, kind Kind, before, after state, want Outcome, listed bool) {
	e := entry{Item: Item{Contact: juliet}, listed: listed}
	if listed {
		e.version = 7
	}
	e.setState(before)
	if before.pendingIn {
		e.Request = []byte("<presence/>")
	}
	store := newMemory()
	if !e.void() {
		store.users[romeo.String()] = stored{version: e.version, rows: map[string]Row{juliet.String(): e.row()}}
	}
	s := newService(t, DefaultConfig(), store)

	var got Outcome
	if inbound {
		got = must(s.Inbound(t.Context(), romeo, juliet, kind, nil))(t)
	} else {
		got = must(s.Outbound(t.Context(), romeo, juliet, kind))(t)
	}

	// A stranger becomes a contact by the user's subscribe and subscribed.
	nowListed := listed || !inbound && (kind == Subscribe || kind == Subscribed)
	visible := func(s state) state { s.pendingIn = false; return s }
	if changed := visible(after) != visible(before) || nowListed != listed; changed != (got.Push != nil) {
		t.Errorf("push %+v; visible change %v", got.Push, changed)
	}
	if got.Push != nil {
		p := got.Push
		if p.Removed || p.Item.Contact != juliet || p.Item.Subscription != after.sub || p.Item.Ask != after.ask ||
			p.Item.Approved != after.approved {
			t.Errorf("push %+v for state %+v", p, after)
		}
		if _, version, _ := s.Get(t.Context(), romeo); p.Version != version {
			t.Errorf("push has version %s, the roster %s", p.Version, version)
		}
	}
	got.Push = nil
	if got != want {
		t.Errorf("outcome %+v, want %+v", got, want)
	}

	check := func(s *Service) {
		t.Helper()
		item, isListed := itemOf(t, s, romeo, juliet)
		e := entry{Item: item}
		if e.state() != after || isListed != nowListed {
			t.Errorf("state %+v listed %v, want %+v %v", e.state(), isListed, after, nowListed)
		}
		if requests := must(s.PendingRequests(t.Context(), romeo))(t); (len(requests) == 1) != after.pendingIn ||
			after.pendingIn && len(requests[0]) == 0 {
			t.Errorf("pending requests %q in %+v", requests, after)
		}
	}
	check(s)
	check(newService(t, DefaultConfig(), store)) // and so it is stored

	// A client that resends what was not acknowledged changes nothing more.
	saves := store.saves
	if inbound {
		must(s.Inbound(t.Context(), romeo, juliet, kind, nil))(t)
	} else {
		must(s.Outbound(t.Context(), romeo, juliet, kind))(t)
	}
	check(s)
	if store.saves != saves {
		t.Error("the repetition was stored")
	}
}

func TestNamesOfTheProtocol(t *testing.T) {
	for s, want := range map[Subscription]string{None: "none", To: "to", From: "from", Both: "both", 9: "none"} {
		if s.String() != want {
			t.Errorf("Subscription(%d) is %q", s, s)
		}
	}
	for k := Subscribe; k <= Unsubscribed; k++ {
		if got, ok := ParseKind([]byte(k.String())); !ok || got != k {
			t.Errorf("ParseKind(%q) = %v %v", k, got, ok)
		}
	}
	for _, typ := range []string{"", "unavailable", "probe", "error", "Subscribe"} {
		if k, ok := ParseKind([]byte(typ)); ok || k != NoKind {
			t.Errorf("ParseKind(%q) = %v %v", typ, k, ok)
		}
	}
}
