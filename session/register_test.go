package session

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

// registrar is accounts that take registrations, with the rules that the tests need.
type registrar struct {
	*fakeAccounts
	taken   error             // what Register says to a name that exists
	changed map[string]string // passwords by user
}

func (a *registrar) Register(ctx context.Context, domain, name, password string, from netip.Addr) error {
	if user, err := stanza.NewAddr(name, domain, ""); err == nil && a.users[user] {
		return a.taken
	}
	return a.fakeAccounts.Register(ctx, domain, name, password, from)
}

func (a *registrar) ChangePassword(_ context.Context, user stanza.Addr, password string) error {
	a.changed[user.Local()] = password
	return a.err
}

func registering(taken error) (*registrar, func(*Config, *Parts)) {
	a := &registrar{taken: taken, changed: make(map[string]string)}
	return a, func(_ *Config, p *Parts) {
		a.fakeAccounts = p.Accounts.(*fakeAccounts)
		p.Accounts = a
	}
}

func register(typ, inner string) string {
	return "<iq xmlns='jabber:client' type='" + typ + "' id='reg'><query xmlns='jabber:iq:register'>" + inner + "</query></iq>"
}

// stranger has opened a stream to a gateway that offers registration from now on.
func (w *world) stranger() *client {
	w.sv.register = true
	c := w.connected()
	c.stream.Open(Open{To: testDomain, Version: "1.0"})
	c.want("open", "features SCRAM-SHA-1 PLAIN register")
	return c
}

func TestRegistrationBeforeAuthentication(t *testing.T) {
	conflict := mstanza.Error{Type: mstanza.Cancel, Condition: mstanza.Conflict}
	for _, tt := range []struct {
		name, raw, want string
		taken           error
		exists          string
	}{
		{name: "XEP-0077 §3.1 the form", raw: register("get", ""), want: "iq result reg"},
		{name: "§3.1 a registration", raw: register("set", "<username>friar</username><password>p</password>"), want: "iq result reg", exists: "friar"},
		{name: "§3.1 a name that is taken", raw: register("set", "<username>juliet</username><password>p</password>"), taken: conflict, want: "iq error reg conflict"},
		{name: "§3.1 a store that is down", raw: register("set", "<username>juliet</username><password>p</password>"), taken: errors.New("down"), want: "iq error reg internal-server-error"},
		{name: "§3.1 without a password", raw: register("set", "<username>friar</username>"), want: "iq error reg not-acceptable"},
		{name: "§3.1 an empty password", raw: register("set", "<username>friar</username><password/>"), want: "iq error reg not-acceptable"},
		{name: "§3.1 without a name", raw: register("set", "<password>p</password>"), want: "iq error reg not-acceptable"},
		{name: "§3.2 removal by a stranger", raw: register("set", "<remove/>"), want: "iq error reg not-authorized", exists: "juliet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, edit := registering(tt.taken)
			inWorld(t, func(t *testing.T, w *world) {
				c := w.stranger()
				c.send(tt.raw)
				c.want(tt.want)
				c.open()
				if tt.exists != "" && !a.users[addr(tt.exists)] {
					t.Errorf("%s does not exist", tt.exists)
				}
				if len(a.users) != 4 && tt.exists != "friar" {
					t.Errorf("users %v", a.users)
				}
				// The stream goes on, to SASL.
				c.send(auth("juliet"))
				c.want("success")
			}, edit)
		})
	}
	t.Run("off", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			c := w.greeted()
			c.send(register("get", ""))
			got := c.frames()
			if len(got) != 1 || !strings.Contains(string(got[0].Raw()), "not-authorized") && !strings.Contains(string(got[0].Raw()), "service-unavailable") {
				t.Errorf("got %q", briefs(got))
			}
			if len(w.accounts.users) != 4 {
				t.Errorf("users %v", w.accounts.users)
			}
		})
	})
}

func TestRegistrationAfterAuthentication(t *testing.T) {
	a, edit := registering(nil)
	inWorld(t, func(t *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		w.sv.register = true

		// XEP-0077 §3.1: who is registered is told so, and may not register.
		c.send(register("get", ""))
		got := c.frames()
		if len(got) != 1 || !strings.Contains(string(got[0].Raw()), "<registered/><username>juliet</username>") {
			t.Fatalf("got %q", briefs(got))
		}
		for _, bad := range []string{
			"<username>romeo</username><password>p</password>", "<username>juliet</username>", "<username>juliet</username><password/>", "",
		} {
			c.send(register("set", bad))
			c.want("iq error reg bad-request")
		}
		if len(a.changed) > 0 {
			t.Errorf("passwords changed: %v", a.changed)
		}
		// §3.3: the own password.
		c.send(register("set", "<username>juliet</username><password>star&amp;crossed</password>"))
		c.want("iq result reg")
		if a.changed["juliet"] != "star&crossed" {
			t.Errorf("password %q", a.changed["juliet"])
		}
		a.err = mstanza.Error{Type: mstanza.Modify, Condition: mstanza.NotAcceptable}
		c.send(register("set", "<password>short</password>"))
		c.want("iq error reg not-acceptable")
		a.err = errors.New("down")
		c.send(register("set", "<password>p</password>"))
		c.want("iq error reg internal-server-error")
		c.open()
		// Not somebody else's, whatever the address.
		a.err = nil
		c.send(strings.Replace(register("set", "<remove/>"), "<iq ", "<iq to='"+addr("romeo").String()+"' ", 1))
		c.want("iq error reg service-unavailable")
		if !a.users[addr("romeo")] {
			t.Error("romeo is gone")
		}
	}, edit)
}

func TestRemoval(t *testing.T) {
	// XEP-0077 §3.2, RFC 6121 §2.5.2.
	a, edit := registering(nil)
	inWorld(t, func(t *testing.T, w *world) {
		g := onStage(t, w)
		romeo, nurse := g.enter("romeo/orchard", true, true), g.enter("nurse/door", true, true)
		juliet, phone := g.enter("juliet/balcony", true, true), g.enter("juliet/phone", false, true)
		g.befriend(juliet, romeo)
		nurse.send(sub("subscribe", "juliet")) // is not answered any more
		for _, c := range g.clients {
			c.frames()
		}
		lost := w.managed("juliet/lost") // waits for its client
		lost.available()
		lost.cut()
		romeo.frames()
		juliet.frames()
		phone.frames()

		w.sv.register = true
		juliet.send(register("set", "<remove/>"))
		juliet.want("iq result reg")
		if a.users[addr("juliet")] {
			t.Error("juliet still exists")
		}
		if err := w.sv.UserRemoved(addr("juliet")); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*client{juliet, phone} {
			got := briefs(c.frames())
			if len(got) == 0 || got[len(got)-1] != "error not-authorized" {
				t.Errorf("%s got %q", c.addr, got)
			}
			c.finished(Closed)
			c.stream.Lost(nil)
		}
		heard := briefs(romeo.frames())
		gone := []string{"presence unavailable juliet/balcony", "presence unavailable juliet/lost", "presence unavailable juliet/phone"}
		if len(heard) != 7 {
			t.Fatalf("romeo heard %q", heard)
		}
		slices.Sort(heard[:3])
		if !slices.Equal(heard, append(gone, "presence unsubscribe juliet", "iq set roster [juliet to]", "presence unsubscribed juliet", "iq set roster [juliet none]")) {
			t.Errorf("romeo heard %q", heard)
		}
		nurse.want("presence unsubscribed juliet", "iq set roster [juliet none]")
		if n := len(w.sv.all()); n != 2 {
			t.Errorf("%d sessions are left", n)
		}

		// Once more does nothing.
		if err := w.sv.UserRemoved(addr("juliet")); err != nil {
			t.Error(err)
		}
		g.clients = map[string]*client{"romeo/orchard": romeo, "nurse/door": nurse}
		g.names = []string{"romeo/orchard", "nurse/door"}
		g.hear("again", nil)

		// The name's next owner has an empty roster, and nothing to resume.
		a.users[addr("juliet")] = true
		next := w.stranger()
		next.send(auth("juliet"))
		next.want("success")
		next.stream.Open(Open{To: testDomain, Version: "1.0"})
		next.frames()
		next.resume(lost.token, 0)
		next.want("failed item-not-found 1")
		next.send("<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='" + stanza.NSBind + "'><resource>new</resource></bind></iq>")
		next.want("iq result bind")
		next.send(rosterGet(""))
		next.want("iq result roster")
		next.send("<presence xmlns='jabber:client'/>")
		next.want("presence juliet/new")
		romeo.want()
	}, edit, withRoster(t))
}

func TestMessagesForARemovedAccount(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo, juliet := w.bound("romeo/orchard").available(), w.managed("juliet/balcony").available()
		romeo.send(asking("juliet", "1")) // on its way, and awaiting a receipt
		juliet.frames()
		st := w.receipts.waiting()[0]
		delete(w.accounts.users, addr("juliet"))
		if err := w.sv.UserRemoved(addr("juliet")); err != nil {
			t.Fatal(err)
		}
		romeo.frames()
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
		romeo.chat("juliet", "2") // §8.5.1
		romeo.want("message error juliet service-unavailable")

		// Somebody else takes the name.
		time.Sleep(10 * time.Millisecond)
		w.accounts.users[addr("juliet")] = true
		juliet = w.managed("juliet/new").available()
		if n, err := w.sv.Resend(st); n != 0 || err != nil {
			t.Errorf("resent to %d (%v)", n, err)
		}
		if kept, err := w.sv.Fallback(st); kept || err != nil {
			t.Errorf("fallback %v (%v)", kept, err)
		}
		juliet.want()
		if left := w.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
		// What is new is the new owner's.
		romeo.send(asking("juliet", "3"))
		juliet.want("message romeo/orchard 3")
		st = w.receipts.waiting()[len(w.receipts.waiting())-1]
		if kept, err := w.sv.Fallback(st); !kept || err != nil {
			t.Errorf("fallback of a new message %v (%v)", kept, err)
		}
	})
}

func TestRemovalWithRosterDown(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		w.roster.err = errors.New("down")
		if err := w.sv.UserRemoved(addr("juliet")); !errors.Is(err, w.roster.err) {
			t.Errorf("got %v", err)
		}
		c.finished(Closed) // nobody stays logged in meanwhile
	})
}
