package e2e

import (
	"context"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
	"holdfast/internal/testkit/xmppclient"
)

func TestMain(m *testing.M) {
	postgresproc.Main(m, "fsync=off") // no test pulls the plug
	code := redisproc.M{M: m}.Run()
	gatewayproc.Remove()
	postgresproc.Remove()
	os.Exit(code)
}

// long marks a test that needs the binary.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the binary; not in short mode")
	}
}

// seed is that of the random schedules: of the environment, or a new one. A failed test tells it.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("E2E_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("E2E_SEED: %v", err)
		}
	}
	t.Logf("E2E_SEED=%d", s)
	return s
}

// scale lengthens the runs by E2E_SCALE, 1 when it is not set.
func scale(t *testing.T) int {
	t.Helper()
	v := os.Getenv("E2E_SCALE")
	if v == "" {
		return 1
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("E2E_SCALE: %q is not a number from 1 on", v)
	}
	return n
}

// within bounds one step of a test.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func account(user, resource string) xmppclient.Account {
	return xmppclient.Account{
		Domain: gatewayproc.Domain, User: user, Password: gatewayproc.Password(user), Resource: resource,
	}
}

func bare(user string) string { return user + "@" + gatewayproc.Domain }

// user is a client on a bare connection.
type user struct {
	*xmppclient.Conn
	t       *testing.T
	skipped []*xmppclient.Element // what came while something else was expected, for the next one who asks
	stanzas int                   // that came, since stream management was switched on if it was
}

// login binds a resource and sends nothing more; the connection ends with the test.
func login(t *testing.T, g *gatewayproc.Gateway, name, resource string) *user {
	t.Helper()
	c, err := xmppclient.Login(within(t, 10*time.Second), g.URL(), account(name, resource))
	if err != nil {
		t.Fatalf("%s logs in: %v", name, err)
	}
	t.Cleanup(c.Abort)
	return &user{Conn: c, t: t}
}

// available logs in and sends initial presence, which has come back when it returns.
func available(t *testing.T, g *gatewayproc.Gateway, name, resource string) *user {
	t.Helper()
	u := login(t, g, name, resource)
	u.send("<presence xmlns='jabber:client'/>")
	u.expect("its own presence", func(e *xmppclient.Element) bool {
		return e.Name.Local == "presence" && e.Attr("from") == u.JID
	})
	return u
}

func (u *user) send(frame string) {
	u.t.Helper()
	if err := u.Write(within(u.t, 10*time.Second), frame); err != nil {
		u.t.Fatalf("%s sends: %v", u.JID, err)
	}
}

// expect takes the first element that fits, among those skipped before and then those to come.
func (u *user) expect(what string, fits func(*xmppclient.Element) bool) *xmppclient.Element {
	u.t.Helper()
	for i, e := range u.skipped {
		if fits(e) {
			u.skipped = slices.Delete(u.skipped, i, i+1)
			return e
		}
	}
	ctx := within(u.t, 10*time.Second)
	for {
		e, err := u.Read(ctx)
		if err != nil {
			u.t.Fatalf("%s waits for %s: %v; it got %v", u.JID, what, err, u.skipped)
		}
		if e.Stanza() {
			u.stanzas++
		}
		if fits(e) {
			return e
		}
		u.skipped = append(u.skipped, e)
	}
}

// message waits for a message with this body.
func (u *user) message(body string) *xmppclient.Element {
	u.t.Helper()
	return u.expect("the message "+body, func(e *xmppclient.Element) bool {
		return e.Name.Local == "message" && e.Child("", "body") != nil && e.Child("", "body").Text == body
	})
}

// alive says that the user's session works: a ping of the server (XEP-0199) is answered.
func (u *user) alive() {
	u.t.Helper()
	id := "alive-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	u.send("<iq xmlns='jabber:client' type='get' id='" + id + "' to='" + gatewayproc.Domain + "'><ping xmlns='urn:xmpp:ping'/></iq>")
	u.expect("the answer to a ping", func(e *xmppclient.Element) bool {
		return e.Name.Local == "iq" && e.Attr("id") == id && e.Attr("type") == "result"
	})
}
