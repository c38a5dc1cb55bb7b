package roster

import (
	"errors"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// compare lets go-cmp see addresses.
var compare = gocmp.Comparer(func(a, b stanza.Addr) bool { return a == b })

func TestSet(t *testing.T) { // RFC 6121 §2.3, §2.4
	s := newService(t, DefaultConfig(), newMemory())
	phone := must(romeo.WithResource("phone"))(t)

	groups := []string{"Friends", "Lovers"}
	c := must(s.Set(t.Context(), phone, Item{
		Contact: must(juliet.WithResource("balcony"))(t), Name: "Juliet", Groups: groups,
		// What a client says of the rest does not count (§2.1.2).
		Subscription: Both, Ask: true, Approved: true, PendingIn: true, Request: []byte("x"),
	}))(t)
	groups[0] = "changed by the caller"
	want := Item{Contact: juliet, Name: "Juliet", Groups: []string{"Friends", "Lovers"}}
	if diff := gocmp.Diff(Change{Item: want, Version: c.Version}, c, compare); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	items, version, err := s.Get(t.Context(), romeo)
	if diff := gocmp.Diff([]Item{want}, items, compare); err != nil || diff != "" || version != c.Version {
		t.Errorf("%v, version %s after %s: -want +got\n%s", err, version, c.Version, diff)
	}

	same := must(s.Set(t.Context(), romeo, want))(t)
	if diff := gocmp.Diff(c, same, compare); diff != "" {
		t.Errorf("nothing changed: -want +got\n%s", diff)
	}

	// An item is replaced as a whole: no name and no groups take them away (§2.4).
	must(s.Outbound(t.Context(), romeo, juliet, Subscribe))(t)
	c2 := must(s.Set(t.Context(), romeo, Item{Contact: juliet}))(t)
	if diff := gocmp.Diff(Change{Item: Item{Contact: juliet, Ask: true}, Version: c2.Version}, c2, compare); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if c2.Version == c.Version {
		t.Error("the version stayed")
	}
}

func TestSetRefused(t *testing.T) { // RFC 6121 §2.3.3
	cfg := DefaultConfig()
	cfg.Items, cfg.Groups, cfg.Name = 2, 2, 5
	free := Config{}
	at := func(contact stanza.Addr, name string, groups ...string) Item {
		return Item{Contact: contact, Name: name, Groups: groups}
	}
	for _, tt := range []struct {
		name string
		item Item
		want error // nil is accepted
		free error // with the limits lifted
	}{
		{"fits", at(juliet, "12345", "abcde", "f"), nil, nil},
		{"no contact", at(stanza.Addr{}, ""), ErrBadContact, ErrBadContact},
		{"oneself", at(must(romeo.WithResource("x"))(t), ""), ErrOwnContact, ErrOwnContact},
		{"own server", at(romeo.Server(), ""), nil, nil},
		{"long name", at(juliet, "123456"), ErrLongName, nil},
		{"long name in bytes", at(juliet, "ééé"), ErrLongName, nil},
		{"empty group", at(juliet, "", "a", ""), ErrEmptyGroup, ErrEmptyGroup},
		{"long group", at(juliet, "", "123456"), ErrLongName, nil},
		{"many groups", at(juliet, "", "a", "b", "c"), ErrManyGroups, nil},
		{"group twice", at(juliet, "", "a", "a"), ErrDuplicateGroup, ErrDuplicateGroup},
		{"group twice, composed and not", at(juliet, "", "\u00e9", "e\u0301"), ErrDuplicateGroup, ErrDuplicateGroup},
		{"groups by case", at(juliet, "", "a", "A"), nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newMemory()
			s := newService(t, cfg, store)
			if _, err := s.Set(t.Context(), romeo, tt.item); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if tt.want != nil && store.saves != 0 {
				t.Error("stored all the same")
			}
			s = newService(t, free, newMemory())
			if _, err := s.Set(t.Context(), romeo, tt.item); !errors.Is(err, tt.free) {
				t.Errorf("without limits: error %v, want %v", err, tt.free)
			}
		})
	}
}

func TestRosterFull(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Items = 1
	s := newService(t, cfg, newMemory())
	must(s.Set(t.Context(), romeo, Item{Contact: juliet}))(t)
	must(s.Set(t.Context(), romeo, Item{Contact: juliet, Name: "J"}))(t)

	if _, err := s.Set(t.Context(), romeo, Item{Contact: mercutio}); !errors.Is(err, ErrManyItems) {
		t.Errorf("set: %v", err)
	}
	if _, err := s.Outbound(t.Context(), romeo, mercutio, Subscribe); !errors.Is(err, ErrManyItems) {
		t.Errorf("subscribe: %v", err)
	}
	// A stranger's request does not need a place, approving it does.
	must(s.Inbound(t.Context(), romeo, mercutio, Subscribe, nil))(t)
	if _, err := s.Outbound(t.Context(), romeo, mercutio, Subscribed); !errors.Is(err, ErrManyItems) {
		t.Errorf("subscribed: %v", err)
	}
	if o := must(s.Outbound(t.Context(), romeo, mercutio, Unsubscribed))(t); o != (Outcome{Route: true}) {
		t.Errorf("unsubscribed: %+v", o)
	}
	if _, _, err := s.Remove(t.Context(), romeo, juliet); err != nil {
		t.Fatal(err)
	}
	must(s.Set(t.Context(), romeo, Item{Contact: mercutio}))(t)
}

func TestErrorsAreStanzaErrors(t *testing.T) {
	s := newService(t, DefaultConfig(), newMemory())
	_, _, err := s.Remove(t.Context(), romeo, juliet)
	var on mstanza.Error
	if !errors.As(err, &on) || on.Condition != mstanza.ItemNotFound || on.Type != mstanza.Cancel {
		t.Errorf("%v is %+v on the wire", err, on)
	}
	if !strings.Contains(err.Error(), "item-not-found") {
		t.Errorf("%q does not name its condition", err)
	}
}

func TestRemove(t *testing.T) { // RFC 6121 §2.5
	for _, tt := range []struct {
		state string
		want  Removed
	}{
		{"None", Removed{}},
		{"None, approved", Removed{}},
		{"None + Pending Out", Removed{Unsubscribe: true}},
		{"None + Pending In", Removed{Unsubscribed: true}},
		{"None + Pending Out+In", Removed{Unsubscribe: true, Unsubscribed: true}},
		{"To", Removed{Unsubscribe: true}},
		{"To + Pending In", Removed{Unsubscribe: true, Unsubscribed: true}},
		{"From", Removed{Unsubscribed: true, SendUnavailable: true}},
		{"From + Pending Out", Removed{Unsubscribe: true, Unsubscribed: true, SendUnavailable: true}},
		{"Both", Removed{Unsubscribe: true, Unsubscribed: true, SendUnavailable: true}},
	} {
		t.Run(tt.state, func(t *testing.T) {
			e := entry{Item: Item{Contact: juliet, Name: "J", Groups: []string{"g"}}, listed: true, version: 1}
			e.setState(states[tt.state])
			store := newMemory()
			store.users[romeo.String()] = stored{version: 1, rows: map[string]Row{juliet.String(): e.row()}}
			s := newService(t, DefaultConfig(), store)
			tt.want.Contact = juliet

			c, owed, err := s.Remove(t.Context(), romeo, juliet)
			if err != nil || owed != tt.want {
				t.Errorf("owed %+v, want %+v: %v", owed, tt.want, err)
			}
			items, version, _ := s.Get(t.Context(), romeo)
			if want := (Change{Item: Item{Contact: juliet}, Removed: true, Version: version}); gocmp.Diff(want, c, compare) != "" {
				t.Errorf("push %+v, want %+v", c, want)
			}
			if len(items) != 0 || version == "1" {
				t.Errorf("items %v, version %s", items, version)
			}
			if _, _, err := s.Remove(t.Context(), romeo, juliet); !errors.Is(err, ErrItemNotFound) {
				t.Errorf("again: %v", err)
			}
		})
	}
	t.Run("stranger", func(t *testing.T) {
		s := newService(t, DefaultConfig(), newMemory())
		must(s.Inbound(t.Context(), romeo, juliet, Subscribe, nil))(t)
		if _, _, err := s.Remove(t.Context(), romeo, juliet); !errors.Is(err, ErrItemNotFound) {
			t.Errorf("a request is no item: %v", err)
		}
		if _, _, err := s.Remove(t.Context(), romeo, stanza.Addr{}); !errors.Is(err, ErrBadContact) {
			t.Errorf("no contact: %v", err)
		}
	})
}

func TestRequestFromStrangerIsNotShown(t *testing.T) { // RFC 6121 §A.1, "None + Pending In"
	s := newService(t, DefaultConfig(), newMemory())
	_, before, _ := s.Get(t.Context(), romeo)
	if o := must(s.Inbound(t.Context(), romeo, juliet, Subscribe, nil))(t); o != (Outcome{Route: true}) {
		t.Errorf("outcome %+v", o)
	}
	items, version, _ := s.Get(t.Context(), romeo)
	if len(items) != 0 || version != before {
		t.Errorf("items %v, version %s after %s", items, version, before)
	}
	// The user's own adding makes it an item and keeps the request.
	c := must(s.Set(t.Context(), romeo, Item{Contact: juliet, Name: "J"}))(t)
	if c.Item.Name != "J" || len(must(s.PendingRequests(t.Context(), romeo))(t)) != 1 {
		t.Errorf("push %+v", c)
	}
	// Giving up one's own subscription does not make one either.
	if o := must(s.Outbound(t.Context(), romeo, mercutio, Unsubscribe))(t); o != (Outcome{Route: true}) {
		t.Errorf("outcome %+v", o)
	}
	if items, _, _ := s.Get(t.Context(), romeo); len(items) != 1 {
		t.Errorf("items %v", items)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Requests = 2
	store := newMemory()
	s := newService(t, cfg, store)
	must(s.Inbound(t.Context(), romeo, juliet, Subscribe, nil))(t)
	must(s.Inbound(t.Context(), romeo, mercutio, Subscribe, nil))(t)
	tybalt := stanza.MustParseAddr("tybalt@example.com")
	if o := must(s.Inbound(t.Context(), romeo, tybalt, Subscribe, nil))(t); o != (Outcome{AutoReply: Unsubscribed}) {
		t.Errorf("one too many: %+v", o)
	}
	// Neither do those that wait count twice, nor do those that need not wait.
	if o := must(s.Inbound(t.Context(), romeo, juliet, Subscribe, nil))(t); o != (Outcome{}) {
		t.Errorf("again: %+v", o)
	}
	must(s.Outbound(t.Context(), romeo, tybalt, Subscribed))(t)
	if o := must(s.Inbound(t.Context(), romeo, tybalt, Subscribe, nil))(t); o.AutoReply != Subscribed {
		t.Errorf("pre-approved: %+v", o)
	}
	must(s.Outbound(t.Context(), romeo, juliet, Unsubscribed))(t)
	paris := stanza.MustParseAddr("paris@example.com")
	if o := must(s.Inbound(t.Context(), romeo, paris, Subscribe, nil))(t); o != (Outcome{Route: true}) {
		t.Errorf("after an answer: %+v", o)
	}
	if got := len(must(s.PendingRequests(t.Context(), romeo))(t)); got != 2 || len(store.users[romeo.String()].rows) != 3 {
		t.Errorf("%d requests, rows %v", got, store.users[romeo.String()].rows)
	}
}

func TestOneself(t *testing.T) {
	store := newMemory()
	s := newService(t, DefaultConfig(), store)
	phone := must(romeo.WithResource("phone"))(t)
	for k := Subscribe; k <= Unsubscribed; k++ {
		out := must(s.Outbound(t.Context(), phone, romeo, k))(t)
		in := must(s.Inbound(t.Context(), romeo, phone, k, nil))(t)
		if out != (Outcome{}) || in != (Outcome{}) {
			t.Errorf("%v: %+v %+v", k, out, in)
		}
	}
	if !must(s.IsSubscriber(t.Context(), romeo, phone))(t) {
		t.Error("a user may not see itself")
	}
	if store.saves+store.loads != 0 {
		t.Error("the store was asked")
	}
}

func TestWhoSeesWhom(t *testing.T) {
	store := newMemory()
	rows := make(map[string]Row)
	var names []string
	for name, st := range states {
		contact := strings.NewReplacer(" ", "", ",", "", "+", "", "'", "").Replace(strings.ToLower(name)) + "@localhost"
		e := entry{Item: Item{Contact: stanza.MustParseAddr(contact)}, listed: true, version: 1}
		e.setState(st)
		rows[contact] = e.row()
		names = append(names, contact)
	}
	store.users[romeo.String()] = stored{version: 1, rows: rows}
	s := newService(t, DefaultConfig(), store)
	slices.Sort(names)

	for _, tt := range []struct {
		name string
		got  []stanza.Addr
		want func(state) bool
	}{
		{"subscribers", must(s.Subscribers(t.Context(), romeo))(t), func(s state) bool { return s.sub == From || s.sub == Both }},
		{"subscriptions", must(s.Subscriptions(t.Context(), romeo))(t), func(s state) bool { return s.sub == To || s.sub == Both }},
		{"asked", must(s.Asked(t.Context(), romeo))(t), func(s state) bool { return s.ask }},
	} {
		var got, want []string
		for _, a := range tt.got {
			got = append(got, a.String())
		}
		for _, n := range names {
			e := must(rows[n].entry())(t)
			if tt.want(e.state()) {
				want = append(want, n)
			}
			laptop := must(e.Contact.WithResource("laptop"))(t)
			if is := must(s.IsSubscriber(t.Context(), romeo, laptop))(t); is != e.Subscription.HasFrom() {
				t.Errorf("IsSubscriber(%s) = %v", n, is)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s are %v, want %v", tt.name, got, want)
		}
	}
	if must(s.IsSubscriber(t.Context(), romeo, juliet))(t) {
		t.Error("a stranger is a subscriber")
	}
}

func TestRemoveUser(t *testing.T) {
	store := newMemory()
	s := newService(t, DefaultConfig(), store)
	must(s.Outbound(t.Context(), romeo, juliet, Subscribe))(t)
	must(s.Inbound(t.Context(), romeo, mercutio, Subscribe, nil))(t)
	must(s.Set(t.Context(), romeo, Item{Contact: stanza.MustParseAddr("paris@example.com")}))(t)
	_, old, _ := s.Get(t.Context(), romeo)

	want := []Removed{{Contact: juliet, Unsubscribe: true}, {Contact: mercutio, Unsubscribed: true}}
	if got := must(s.RemoveUser(t.Context(), romeo))(t); !slices.Equal(got, want) {
		t.Errorf("owed %+v, want %+v", got, want)
	}
	if items, version, _ := s.Get(t.Context(), romeo); len(items) != 0 || version != "0" || len(store.users) != 0 {
		t.Errorf("items %v, version %s, stored %v", items, version, store.users)
	}
	if got := must(s.RemoveUser(t.Context(), romeo))(t); len(got) != 0 {
		t.Errorf("owed again %+v", got)
	}

	// An account made again under the name is not the old one's continuation (§2.6).
	must(s.Set(t.Context(), romeo, Item{Contact: mercutio}))(t)
	if changed, _, ok, _ := s.Since(t.Context(), romeo, old); ok {
		t.Errorf("changes %v since a version of the removed account", changed)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("all limits lifted: %v", err)
	}
	cfg := DefaultConfig()
	cfg.History = -1
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "ROSTER_HISTORY") {
		t.Errorf("error %v does not name the variable", err)
	}
}
