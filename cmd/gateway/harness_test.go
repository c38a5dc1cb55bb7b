package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"holdfast/auth"
	"holdfast/internal/testkit/freeport"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/xmppclient"
)

func TestMain(m *testing.M) {
	limitPatience = patience / 2 // a client that gets no answer fails the test
	goleak.VerifyTestMain(postgresproc.Main(m))
}

// patience is how long a test waits for what has to come.
const patience = 15 * time.Second

// plainHTTP keeps no connections, so that none is left when the gateway has ended.
var plainHTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// node is a gateway that runs in this process.
type node struct {
	t     testing.TB
	cfg   Config
	env   map[string]string
	url   string
	roots *x509.CertPool // who signed the certificate behind a wss url
	admin string
	log   *syncBuffer

	cancel context.CancelFunc
	ended  chan struct{}
	err    error // of serve, once ended
}

// configure makes the settings of a gateway for tests over dir; env is names without the prefix.
func configure(t testing.TB, dir string, env map[string]string) Config {
	t.Helper()
	all := map[string]string{
		"LISTEN": freeport.Addr(t), "ADMIN_LISTEN": freeport.Addr(t), "DATA_DIR": dir, "AUTH_SCRAM_ITERATIONS": "4096",
		"AUTH_MECHANISMS": "SCRAM-SHA-256,PLAIN",
		"AUTH_CACHE_AGE":  "0", "WS_CLOSE_TIMEOUT": "1s", "JOURNAL_SEGMENT": "524288", "JOURNAL_BYTES": "0", "SETTLE_WINDOW": "5ms",
		// Only when a test says so: a test copies the files of a gateway that runs.
		"CHECKPOINT_INTERVAL": "1h", "OFFLINE_WINDOW": "0",
	}
	maps.Copy(all, env)
	var environ []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		environ = append(environ, prefix+k+"="+all[k])
	}
	cfg, err := loadConfig(environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// startNode runs a gateway over dir until the test ends, and returns when it is ready.
func startNode(t testing.TB, dir string, env map[string]string) *node {
	t.Helper()
	n := &node{t: t, cfg: configure(t, dir, env), env: env, log: new(syncBuffer), ended: make(chan struct{})}
	n.url, n.admin = "ws://"+n.cfg.Listen+"/xmpp-websocket", "http://"+n.cfg.AdminListen
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		n.err = serve(ctx, &n.cfg, slog.New(slog.NewTextHandler(n.log, nil)))
	}()
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", n.log)
		}
	})
	n.await("ready", func() bool { return n.get("/readyz") == http.StatusOK })
	return n
}

// next runs a gateway over dir with the settings of n, some of them changed.
func (n *node) next(dir string, change map[string]string) *node {
	env := maps.Clone(n.env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, change)
	return startNode(n.t, dir, env)
}

func (n *node) dir() string { return n.cfg.SQLite.Dir }

// stop is SIGTERM.
func (n *node) stop() {
	n.t.Helper()
	n.cancel()
	select {
	case <-n.ended:
	case <-time.After(30 * time.Second):
		n.t.Fatal("the gateway does not end")
	}
	if n.err != nil {
		n.t.Errorf("serve: %v", n.err)
	}
}

// image copies what a kill at this moment would leave on the disk: the page cache is what the next process reads.
func (n *node) image() string {
	n.t.Helper()
	var err error
	for range 50 {
		to := filepath.Join(n.t.TempDir(), "image")
		if err = os.CopyFS(to, os.DirFS(n.dir())); err == nil {
			return to
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	n.t.Fatal(err)
	return ""
}

func (n *node) await(what string, cond func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-n.ended:
			n.t.Fatalf("the gateway ended before it was %s: %v\n%s", what, n.err, n.log)
		default:
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("not %s after %v\n%s", what, patience, n.log)
		}
	}
}

func (n *node) get(path string) int {
	code, _ := n.body(path)
	return code
}

func (n *node) body(path string) (int, string) {
	resp, err := plainHTTP.Get(n.admin + path)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// user runs `gateway user` as another process would, on a connection of its own.
func (n *node) user(stdin string, args ...string) {
	n.t.Helper()
	open := func(ctx context.Context) (*auth.Accounts, func() error, error) {
		return openAccounts(ctx, &n.cfg, slog.New(slog.DiscardHandler))
	}
	var out, errs bytes.Buffer
	if code := runUser(context.Background(), args, strings.NewReader(stdin), &out, &errs, open, n.cfg.Domains); code != exitOK {
		n.t.Fatalf("gateway user %v: exit %d: %s", args, code, errs.String())
	}
}

func (n *node) addUsers(names ...string) {
	n.t.Helper()
	for _, name := range names {
		n.user(password(name)+"\n", "add", name)
	}
}

func password(name string) string { return "secret of " + name }

// client is one connection of a user.
type client struct {
	t testing.TB
	*xmppclient.Conn
	in    uint32                // stanzas received since <enabled/>
	early []*xmppclient.Element // came before the presence that available waited for
	token string
}

func (n *node) account(user string) xmppclient.Account {
	local, domain, ok := strings.Cut(user, "@")
	if !ok {
		domain = n.cfg.Domains[0]
	}
	return xmppclient.Account{Domain: domain, User: local, Password: password(user), Resource: "test"}
}

// authenticated is a client that may bind or resume.
func (n *node) authenticated(user string) *client {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := xmppclient.DialTLS(ctx, n.url, n.roots)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(conn.Abort)
	if err := conn.Prepare(ctx, n.account(user)); err != nil {
		n.t.Fatalf("%s: %v", user, err)
	}
	return &client{t: n.t, Conn: conn}
}

func (n *node) bound(user string) *client {
	n.t.Helper()
	c := n.authenticated(user)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Bind(ctx, "test"); err != nil {
		n.t.Fatalf("%s: %v", user, err)
	}
	return c
}

// managed is a client with XEP-0198 and no presence; enable has further attributes for <enable/>.
func (n *node) managed(user, enable string) *client {
	n.t.Helper()
	c := n.bound(user)
	c.send("<enable xmlns='" + xmppclient.NSSM + "' resume='true' " + enable + "/>")
	e := c.next()
	if !e.Is(xmppclient.NSSM, "enabled") || e.Attr("id") == "" {
		n.t.Fatalf("%s: %v in answer to <enable/>", user, e)
	}
	c.token = e.Attr("id")
	return c
}

func (c *client) available() {
	c.t.Helper()
	c.send("<presence xmlns='jabber:client'/>")
	var early []*xmppclient.Element // a mailbox comes first
	c.until(func(e *xmppclient.Element) bool {
		if e.Name.Local == "presence" && e.Attr("from") == c.JID {
			return true
		}
		early = append(early, e)
		return false
	})
	c.early = append(c.early, early...)
}

func (c *client) send(frame string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Write(ctx, frame); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *client) chat(to string, bodies ...string) {
	c.t.Helper()
	for _, b := range bodies {
		c.send(fmt.Sprintf("<message xmlns='jabber:client' to='%s' type='chat' id='%s'><body>%s</body></message>", to, b, b))
	}
}

func (c *client) read() (*xmppclient.Element, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e, err := c.Read(ctx)
	if err == nil && e.Stanza() {
		c.in++
	}
	return e, err
}

// next returns the next element that is not a request for an acknowledgement.
func (c *client) next() *xmppclient.Element {
	c.t.Helper()
	if len(c.early) > 0 {
		e := c.early[0]
		c.early = c.early[1:]
		return e
	}
	for {
		e, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if !e.Is(xmppclient.NSSM, "r") {
			return e
		}
	}
}

func (c *client) until(cond func(*xmppclient.Element) bool) *xmppclient.Element {
	c.t.Helper()
	for {
		if e := c.next(); cond(e) {
			return e
		}
	}
}

// bodies reads messages up to the n-th, and returns what they say.
func (c *client) bodies(n int) (all []string) {
	c.t.Helper()
	for len(all) < n {
		e := c.until(func(e *xmppclient.Element) bool { return e.Name.Local == "message" })
		if b := e.Child("", "body"); b != nil {
			all = append(all, b.Text)
		} else {
			c.t.Errorf("message without a body: %v", e)
		}
	}
	return all
}

// ack acknowledges what was received, and asks for the server's count, which comes after it was taken.
func (c *client) ack() { c.send(fmt.Sprintf("<a xmlns='%s' h='%d'/>", xmppclient.NSSM, c.in)) }

// acked waits for the server's count to reach h.
func (c *client) acked(h int) {
	c.t.Helper()
	c.send("<r xmlns='" + xmppclient.NSSM + "'/>")
	c.until(func(e *xmppclient.Element) bool {
		return e.Is(xmppclient.NSSM, "a") && e.Attr("h") == fmt.Sprint(h)
	})
}

// quiet asserts that nothing but what was read is there for the client: the answer to a ping comes first.
func (c *client) quiet() {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='get' id='quiet'><ping xmlns='urn:xmpp:ping'/></iq>")
	if e := c.until(func(e *xmppclient.Element) bool { return e.Name.Local != "a" }); e.Attr("id") != "quiet" {
		c.t.Errorf("unexpected: %v", e)
	}
}

// resume takes up an earlier session of the user and returns the answer.
func (n *node) resume(user string, old *client) (*client, *xmppclient.Element) {
	n.t.Helper()
	c := n.authenticated(user)
	c.in, c.token, c.JID = old.in, old.token, old.JID
	c.send(fmt.Sprintf("<resume xmlns='%s' previd='%s' h='%d'/>", xmppclient.NSSM, old.token, old.in))
	return c, c.next()
}

func (n *node) resumed(user string, old *client, h int) *client {
	n.t.Helper()
	c, e := n.resume(user, old)
	if !e.Is(xmppclient.NSSM, "resumed") || e.Attr("h") != fmt.Sprint(h) {
		n.t.Fatalf("%s: %v in answer to <resume/>, want h=%d", user, e, h)
	}
	return c
}

// iq sends a request and returns its answer.
func (c *client) iq(kind, inner string) *xmppclient.Element {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='" + kind + "' id='ask'>" + inner + "</iq>")
	return c.until(func(e *xmppclient.Element) bool { return e.Name.Local == "iq" && e.Attr("id") == "ask" })
}

// end reads up to the end of the connection: the stream errors on the way, and the status code.
func (c *client) end() (conditions []string, status int) {
	c.t.Helper()
	for {
		e, err := c.read()
		if err != nil {
			return conditions, xmppclient.Status(err)
		}
		if e.Is(xmppclient.NSStream, "error") {
			conditions = append(conditions, e.Condition())
		}
		if e.Is(xmppclient.NSFraming, "close") {
			_ = c.Write(context.Background(), "<close xmlns='"+xmppclient.NSFraming+"'/>")
		}
	}
}
