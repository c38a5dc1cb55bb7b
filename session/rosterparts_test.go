package session

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/sqlx/sqlxtest"
	"holdfast/roster"
	"holdfast/stanza"
)

// realRoster is package roster over SQLite, as cmd/gateway fits it to session.
type realRoster struct{ *roster.Service }

// withRoster gives a world a roster of its own.
func withRoster(t *testing.T) func(*Config, *Parts) {
	t.Helper()
	store, err := roster.OpenSQLite(context.Background(), sqlxtest.Open(t))
	if err != nil {
		t.Fatal(err)
	}
	r := realRoster{roster.New(roster.DefaultConfig(), store, slog.New(slog.DiscardHandler), prometheus.NewRegistry())}
	return func(_ *Config, p *Parts) { p.Roster, p.Subs = r, r }
}

func (r realRoster) Items(ctx context.Context, user stanza.Addr, has string, versioned bool) (items []Contact, version string, delta bool, err error) {
	if versioned && has != "" {
		changes, version, ok, err := r.Since(ctx, user, has)
		if err != nil {
			return nil, "", false, err
		}
		if ok {
			for _, ch := range changes {
				items = append(items, shown(ch))
			}
			return items, version, true, nil
		}
	}
	all, version, err := r.Get(ctx, user)
	for _, it := range all {
		items = append(items, shown(roster.Change{Item: it}))
	}
	return items, version, false, err
}

func (r realRoster) Set(ctx context.Context, user stanza.Addr, c Contact) (Contact, error) {
	ch, err := r.Service.Set(ctx, user, roster.Item{Contact: c.Addr, Name: c.Name, Groups: c.Groups})
	return shown(ch), err
}

func (r realRoster) Remove(ctx context.Context, user, contact stanza.Addr) (Contact, Parting, error) {
	ch, gone, err := r.Service.Remove(ctx, user, contact)
	return shown(ch), owed(gone), err
}

func (r realRoster) Forget(ctx context.Context, user stanza.Addr) (map[stanza.Addr]Parting, error) {
	gone, err := r.RemoveUser(ctx, user)
	all := make(map[stanza.Addr]Parting)
	for _, g := range gone {
		all[g.Contact] = owed(g)
	}
	return all, err
}

func (r realRoster) Change(ctx context.Context, user, contact stanza.Addr, inbound bool, st *stanza.Stanza) (Outcome, error) {
	kind, _ := roster.ParseKind(st.TypeRaw())
	var o roster.Outcome
	var err error
	if inbound {
		o, err = r.Inbound(ctx, user, contact, kind, st.Raw())
	} else {
		o, err = r.Outbound(ctx, user, contact, kind)
	}
	out := Outcome{
		Route: o.Route, AutoReply: o.AutoReply.String(), SendPresence: o.SendPresence, SendUnavailable: o.SendUnavailable,
		AskAgain: o.AskAgain,
	}
	if o.Push != nil {
		c := shown(*o.Push)
		out.Push = &c
	}
	return out, err
}

func (r realRoster) Watchers(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	return r.Subscribers(ctx, user)
}

func (r realRoster) Watched(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	return r.Subscriptions(ctx, user)
}

func (r realRoster) Pending(ctx context.Context, user stanza.Addr) ([][]byte, error) {
	return r.PendingRequests(ctx, user)
}

func shown(ch roster.Change) Contact {
	it := ch.Item
	c := Contact{
		Addr: it.Contact, Name: it.Name, Groups: it.Groups, Subscription: it.Subscription.String(),
		Ask: it.Ask, Approved: it.Approved, Version: ch.Version,
	}
	if ch.Removed {
		c.Subscription = "remove"
	}
	return c
}

func owed(g roster.Removed) Parting {
	return Parting{Unavailable: g.SendUnavailable, Unsubscribe: g.Unsubscribe, Unsubscribed: g.Unsubscribed}
}

// stage is a world with clients by name, of which everything is heard.
type stage struct {
	t       *testing.T
	w       *world
	clients map[string]*client
	names   []string
}

// heard is what clients get, in brief, by name. Who is not named gets nothing.
type heard map[string][]string

func onStage(t *testing.T, w *world) *stage {
	return &stage{t: t, w: w, clients: make(map[string]*client)}
}

// enter binds a client that may ask for its roster and become available. What it hears of that is dropped.
func (g *stage) enter(name string, interested, available bool) *client {
	g.t.Helper()
	c := g.w.bound(name)
	g.clients[name] = c
	g.names = append(g.names, name)
	if interested {
		c.send(rosterGet(""))
	}
	if available {
		c.send("<presence xmlns='jabber:client'/>")
	}
	for _, c := range g.clients {
		c.frames()
	}
	return c
}

// leave takes a client off, and checks what the others hear.
func (g *stage) leave(name string, want heard) {
	g.t.Helper()
	c := g.clients[name]
	delete(g.clients, name)
	g.names = slices.DeleteFunc(g.names, func(n string) bool { return n == name })
	c.close()
	g.hear(name+" leaves", want)
}

// says has a client send something, and checks what everybody hears.
func (g *stage) says(name, raw string, want heard) {
	g.t.Helper()
	g.clients[name].send(raw)
	g.hear(name+" says "+raw, want)
}

func (g *stage) hear(cause string, want heard) {
	g.t.Helper()
	for _, name := range g.names {
		got := briefs(g.clients[name].frames())
		got = slices.DeleteFunc(got, func(s string) bool { return s == "r" })
		if diff := cmp.Diff(append([]string{}, want[name]...), append([]string{}, got...)); diff != "" {
			g.t.Errorf("%s: %s hears (-want +got):\n%s", cause, name, diff)
		}
	}
	for name := range want {
		if g.clients[name] == nil {
			g.t.Fatalf("%s is not on stage", name)
		}
	}
}

func rosterGet(ver string) string {
	return "<iq xmlns='jabber:client' type='get' id='g'><query xmlns='jabber:iq:roster'" + ver + "/></iq>"
}

func rosterSet(item string) string {
	return "<iq xmlns='jabber:client' type='set' id='s'><query xmlns='jabber:iq:roster'>" + item + "</query></iq>"
}

// sub is a presence stanza of a subscription type.
func sub(typ, to string) string {
	return "<presence xmlns='jabber:client' type='" + typ + "' to='" + addr(to).String() + "'/>"
}

// befriend makes two users of the stage see each other.
func (g *stage) befriend(a, b *client) {
	g.t.Helper()
	a.send(sub("subscribe", b.addr.Local()))
	b.send(sub("subscribed", a.addr.Local()))
	b.send(sub("subscribe", a.addr.Local()))
	a.send(sub("subscribed", b.addr.Local()))
	for _, c := range g.clients {
		c.frames()
	}
}
