package e2e

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
)

// people have browsers, in which pages show the widget.
type people struct {
	*nodeClient

	resultMu sync.Mutex
	results  map[string]nodeEvent
	came     chan struct{} // closed and replaced at every result
}

func newPeople(t *testing.T) *people {
	t.Helper()
	needClients(t)
	p := &people{results: map[string]nodeEvent{}, came: make(chan struct{})}
	p.nodeClient = launch(t, widget, "people", map[string]any{"browser": browser(t)}, nil, func(e nodeEvent) {
		if e.Event != "result" {
			return
		}
		p.resultMu.Lock()
		defer p.resultMu.Unlock()
		p.results[e.Ref] = e
		close(p.came)
		p.came = make(chan struct{})
	})
	return p
}

// person is one of them, with storage of their own.
type person struct {
	*people
	name, profile string
	open          int
}

func (p *people) person(name string) *person {
	p.t.Helper()
	p.call("person", map[string]any{"name": name})
	return &person{people: p, name: name}
}

// owner is a person with a whole browser, which can be closed and opened again.
func (p *people) owner(name string) *person {
	p.t.Helper()
	profile, err := os.MkdirTemp("", "holdfast-profile-")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = os.RemoveAll(profile) }) // after the browser's own end, which is registered later
	p.call("person", map[string]any{"name": name, "profile": profile})
	return &person{people: p, name: name, profile: profile}
}

// restart closes an owner's browser and opens it again on the same profile.
func (p *person) restart() {
	p.t.Helper()
	p.call("leave", map[string]any{"name": p.name})
	p.call("person", map[string]any{"name": p.name, "profile": p.profile})
}

// at opens a page in a new tab.
func (p *person) at(url string) *chat {
	p.t.Helper()
	p.open++
	c := &chat{p, fmt.Sprintf("%s %d", p.name, p.open), url, ""}
	p.call("open", map[string]any{"tab": c.tab, "name": p.name, "url": url})
	return c
}

// call gives a command and returns its result.
func (p *people) call(command string, args map[string]any) json.RawMessage {
	p.t.Helper()
	p.mu.Lock()
	p.refs++
	ref := "w" + strconv.Itoa(p.refs)
	p.mu.Unlock()
	all := map[string]any{"cmd": command, "ref": ref}
	for k, v := range args {
		all[k] = v
	}
	p.command(all)
	deadline := time.After(90 * time.Second)
	for {
		p.resultMu.Lock()
		e, ok := p.results[ref]
		delete(p.results, ref)
		came := p.came
		p.resultMu.Unlock()
		switch {
		case ok && e.Error != "":
			p.t.Fatalf("%s: %s: %s", p.name, command, e.Error)
		case ok:
			return e.Value
		}
		select {
		case <-came:
		case <-deadline:
			p.t.Fatalf("%s: %s %v comes to no end", p.name, command, args)
		case <-p.done:
			p.t.Fatalf("%s: the browser ended during %s", p.name, command)
		}
	}
}

// chat is the widget in one tab, or in a frame of it.
type chat struct {
	*person
	tab, url, who string
}

func (c *chat) frame(who string) *chat { return &chat{c.person, c.tab, c.url, who} }

func (c *chat) with(args map[string]any) map[string]any {
	all := map[string]any{"tab": c.tab, "who": c.who, "name": c.name}
	for k, v := range args {
		all[k] = v
	}
	return all
}

// do calls a JavaScript function with the element, and an argument.
func (c *chat) do(js string, arg any) json.RawMessage {
	c.t.Helper()
	return c.call("do", c.with(map[string]any{"js": js, "arg": arg}))
}

// until waits for a function to say something true.
func (c *chat) until(js string, arg any) json.RawMessage {
	c.t.Helper()
	return c.call("until", c.with(map[string]any{"js": js, "arg": arg, "ms": 60_000}))
}

func (c *chat) write(text string) {
	c.t.Helper()
	c.call("write", c.with(map[string]any{"text": text}))
}

// login signs in with the password that AddUsers gave.
func (c *chat) login() *chat {
	c.t.Helper()
	c.do(`(el, [user, password]) => el.login({ user, password })`, []string{c.name, gatewayproc.Password(c.name)})
	return c
}

func (c *chat) online() *chat {
	c.t.Helper()
	c.until(`(el) => el.connection.state === "online"`, nil)
	return c
}

// shown is a message as the API has it.
type shown struct {
	ID, Direction, Body, State string
}

func (c *chat) messages() (all []shown) {
	c.t.Helper()
	if err := json.Unmarshal(c.do(`(el) => el.messages`, nil), &all); err != nil {
		c.t.Fatal(err)
	}
	return all
}

// awaitState waits until the message with this text is in that state, for whoever sees it too.
func (c *chat) awaitState(text, state string) {
	c.t.Helper()
	c.until(`(el, [text, state]) => el.messages.some((m) => m.body === text && m.state === state)
		&& (state === "seen" || state === "unseen" || [...el.shadowRoot.querySelectorAll(".message.out." + state)].some((b) => b.querySelector(".text").textContent === text))`, []string{text, state})
}

// settled waits until the server has acknowledged all that this device had to send, and the store has it so.
func (c *chat) settled() {
	c.t.Helper()
	c.until(`async (el) => {
		const got = (r) => new Promise((resolve, reject) => { r.onsuccess = () => resolve(r.result); r.onerror = () => reject(r.error); });
		for (const { name } of (await indexedDB.databases()).filter((d) => d.name.startsWith("holdfast "))) {
			const db = await got(indexedDB.open(name));
			try {
				const tx = db.transaction(["queue", "meta"]);
				const [queue, ledger] = await Promise.all([got(tx.objectStore("queue").count()), got(tx.objectStore("meta").get("ledger"))]);
				if (queue > 0 || !ledger || ledger.unacked.length > 0) return false;
			} finally {
				db.close();
			}
		}
		return true;
	}`, nil)
}

// bodies are the texts that came or went, in their order.
func (c *chat) bodies(direction string) (all []string) {
	c.t.Helper()
	for _, m := range c.messages() {
		if m.Direction == direction {
			all = append(all, m.Body)
		}
	}
	return all
}

func (c *chat) picture(name string) {
	c.t.Helper()
	dir := os.Getenv("E2E_SCREENSHOTS")
	if dir == "" {
		dir = "artifacts"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	c.call("picture", c.with(map[string]any{"file": filepath.Join(dir, "widget-"+name+".png")}))
}

// sitePage serves a page of another site, with a strict Content-Security-Policy, that embeds the widget of the gateway at
// addr as its owner would: in two lines.
func sitePage(t *testing.T, addr string) func(attributes ...string) (url string) {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Security-Policy", strings.ReplaceAll(
			"default-src 'none'; img-src data:; script-src http://ADDR; connect-src http://ADDR ws://ADDR; base-uri 'none'; form-action 'none'", "ADDR", addr))
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		var attributes strings.Builder
		for name, values := range r.URL.Query() {
			fmt.Fprintf(&attributes, ` %s="%s"`, name, html.EscapeString(values[0]))
		}
		fmt.Fprintf(w, `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>A site</title><link rel="icon" href="data:,">
<script type="module" src="http://%s/widget.js"></script></head><body><main><h1>A site</h1><holdfast-chat%s></holdfast-chat></main></body></html>`, addr, attributes.String())
	}))
	t.Cleanup(srv.Close)
	return func(attributes ...string) string {
		q := url.Values{}
		for i := 0; i < len(attributes); i += 2 {
			q.Set(attributes[i], attributes[i+1])
		}
		return strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) + "/?" + q.Encode()
	}
}

// anySite lets every page connect.
func anySite(more map[string]string) map[string]string {
	env := map[string]string{"HOLDFAST_ORIGINS": "*"}
	for k, v := range more {
		env[k] = v
	}
	return env
}

// behind starts a cutting proxy before a gateway.
func behind(t *testing.T, g *gatewayproc.Gateway) *cutproxy.Proxy {
	t.Helper()
	p, err := cutproxy.Listen(g.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// noWebSockets is a proxy as some companies have it: it does not let WebSockets through while blocked is true.
func noWebSockets(t *testing.T, g *gatewayproc.Gateway) (addr string, blocked *atomic.Bool) {
	t.Helper()
	blocked = new(atomic.Bool)
	blocked.Store(true)
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: g.Addr()})
	forward.ErrorLog = nil
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" && blocked.Load() {
			http.Error(w, "not through here", http.StatusForbidden)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return srv.Listener.Addr().String(), blocked
}
