package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// The stock clients: a library, where it runs, and what it runs over.
const (
	strophe     = "strophe"
	xmppjs      = "xmppjs"
	stropheBOSH = "strophe-bosh"
	chromium    = "chromium" // strophe.js over BOSH in a page
	converse    = "converse" // converse.js over BOSH in a page
	widget      = "widget"   // the widget of webclient/ in pages
)

// drivers are the scripts in clients/ that are not named like the client.
var drivers = map[string]string{stropheBOSH: "strophe"}

// nodeEvent is one line that a driver says.
type nodeEvent struct {
	Event   string `json:"event"`
	JID     string `json:"jid"`
	Resumed bool   `json:"resumed"`
	XML     string `json:"xml"`
	ID      string `json:"id"`
	Ref     string `json:"ref"`
	Text    string `json:"text"`
	SID     string `json:"sid"`
	RID     uint64 `json:"rid"`

	Value json.RawMessage `json:"value"` // of a result
	Error string          `json:"error"`
}

// nodeClient is a stock client in a Node process of its own.
type nodeClient struct {
	t       *testing.T
	library string
	name    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	done    chan struct{} // closed when the driver has said its last
	// onEvent is called for every event, from one goroutine, before the client keeps it.
	onEvent func(nodeEvent)

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every event
	online  bool
	jid     string
	fresh   int // sessions bound
	resumed int
	stanzas []*xmppclient.Element // that nobody took yet
	replies map[string]*xmppclient.Element
	session *nodeEvent // what attaches to the session, as last told
	logs    []string
	refs    int
}

// needClients skips nothing: without the clients the test fails and says what to do.
func needClients(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is not installed: run scripts/install.sh")
	}
	for _, name := range []string{"strophe.js", "converse.js", "playwright-core"} {
		if _, err := os.Stat(filepath.Join("clients", "node_modules", name)); err != nil {
			t.Fatal("the stock clients are not installed: run scripts/install.sh")
		}
	}
}

// startStock runs a client against a gateway, over the transport that it stands for; one in a browser needs pages.
func startStock(t *testing.T, g *gatewayproc.Gateway, library, name string) *nodeClient {
	t.Helper()
	switch library {
	case stropheBOSH:
		return startNode(t, library, name, g.BOSHURL(), false, nil)
	case chromium:
		return startChromium(t, name, g.BOSHURL())
	}
	return startNode(t, library, name, g.URL(), true, nil)
}

// startNode runs a driver and lets it connect. onEvent may be nil; then the client keeps what it gets for
// expect.
func startNode(t *testing.T, library, name, service string, sm bool, onEvent func(nodeEvent)) *nodeClient {
	t.Helper()
	return startNodeTLS(t, library, name, service, "", sm, onEvent)
}

// startNodeTLS is startNode to a wss service whose certificate is signed by the authority in the file.
func startNodeTLS(t *testing.T, library, name, service, authority string, sm bool, onEvent func(nodeEvent)) *nodeClient {
	t.Helper()
	var env []string
	if authority != "" {
		env = append(env, "NODE_EXTRA_CA_CERTS="+authority)
	}
	return launch(t, library, name, map[string]any{"service": service, "sm": sm}, env, onEvent)
}

// launch runs a driver with settings beyond those that all need.
func launch(t *testing.T, library, name string, settings map[string]any, env []string, onEvent func(nodeEvent)) *nodeClient {
	t.Helper()
	script := library
	if other, ok := drivers[library]; ok {
		script = other
	}
	cmd := exec.Command("node", script+".mjs")
	cmd.Dir = "clients"
	cmd.Env = append(os.Environ(), env...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &nodeClient{
		t: t, library: library, name: name, cmd: cmd, in: in, done: make(chan struct{}), onEvent: onEvent,
		changed: make(chan struct{}), replies: map[string]*xmppclient.Element{},
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go c.listen(out)
	t.Cleanup(c.end)
	start := map[string]any{
		"cmd": "start", "domain": gatewayproc.Domain, "user": name, "password": gatewayproc.Password(name), "resource": library,
	}
	maps.Copy(start, settings)
	c.command(start)
	return c
}

// end drops the driver without a farewell.
func (c *nodeClient) end() {
	_ = c.in.Close()
	select {
	case <-c.done:
	case <-time.After(5 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
	if c.t.Failed() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, l := range c.logs[max(0, len(c.logs)-20):] {
			c.t.Logf("%s (%s): %s", c.name, c.library, l)
		}
	}
}

func (c *nodeClient) command(v map[string]any) {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = c.in.Write(append(b, '\n'))
	}
	if err != nil {
		c.t.Errorf("%s (%s): %v", c.name, c.library, err)
	}
}

func (c *nodeClient) listen(out io.Reader) {
	defer close(c.done)
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 64<<10), 4<<20)
	for lines.Scan() {
		var e nodeEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = nodeEvent{Event: "log", Text: lines.Text()}
		}
		if c.onEvent != nil {
			c.onEvent(e)
		}
		c.take(e)
	}
	_ = c.cmd.Wait() // killed or not, it is gone
}

func (c *nodeClient) take(e nodeEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e.Event {
	case "online":
		c.online, c.jid = true, e.JID
		if e.Resumed {
			c.resumed++
		} else {
			c.fresh++
		}
	case "offline":
		c.online = false
	case "session":
		c.session = &e
	case "log":
		c.logs = append(c.logs, time.Now().Format("15:04:05.000 ")+e.Text)
	case "stanza", "reply":
		if c.onEvent != nil && e.Event == "stanza" {
			break
		}
		el, err := xmppclient.Parse(e.XML)
		if err != nil {
			c.logs = append(c.logs, err.Error())
			break
		}
		if e.Event == "reply" {
			c.replies[e.Ref] = el
		} else {
			c.stanzas = append(c.stanzas, el)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait returns when cond, which is called with the lock held, says so.
func (c *nodeClient) wait(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.After(60 * time.Second) // starting Node and Chromium may take long
	for {
		c.mu.Lock()
		ok, changed := cond(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.t.Fatalf("%s (%s) waits in vain for %s; it has %v", c.name, c.library, what, c.stanzas)
		case <-c.done:
			c.t.Fatalf("%s (%s) ended while it waited for %s", c.name, c.library, what)
		}
	}
}

func (c *nodeClient) awaitOnline() {
	c.t.Helper()
	c.wait("its session", func() bool { return c.online })
}

// expect takes the first stanza that fits, of those that came and those that will.
func (c *nodeClient) expect(what string, fits func(*xmppclient.Element) bool) *xmppclient.Element {
	c.t.Helper()
	var found *xmppclient.Element
	c.wait(what, func() bool {
		for i, e := range c.stanzas {
			if fits(e) {
				found = e
				c.stanzas = append(c.stanzas[:i], c.stanzas[i+1:]...)
				return true
			}
		}
		return false
	})
	return found
}

// send sends a stanza as it is.
func (c *nodeClient) send(format string, args ...any) {
	c.t.Helper()
	c.command(map[string]any{"cmd": "stanza", "xml": fmt.Sprintf(format, args...)})
}

// chat adds a message to what the driver has to send.
func (c *nodeClient) chat(id, xml string) {
	c.command(map[string]any{"cmd": "chat", "id": id, "xml": xml})
}

// iq asks and waits for the answer.
func (c *nodeClient) iq(kind, to, payload string) *xmppclient.Element {
	c.t.Helper()
	if to != "" {
		to = " to='" + to + "'"
	}
	return c.ask("the answer to "+payload, func(ref string) map[string]any {
		xml := fmt.Sprintf("<iq xmlns='jabber:client' type='%s' id='%s'%s>%s</iq>", kind, ref, to, payload)
		return map[string]any{"cmd": "iq", "ref": ref, "xml": xml}
	})
}

// ask gives a command that is replied to, and waits for that.
func (c *nodeClient) ask(what string, command func(ref string) map[string]any) *xmppclient.Element {
	c.t.Helper()
	c.mu.Lock()
	c.refs++
	ref := "q" + strconv.Itoa(c.refs)
	c.mu.Unlock()
	c.command(command(ref))
	var reply *xmppclient.Element
	c.wait(what, func() bool {
		reply = c.replies[ref]
		return reply != nil
	})
	return reply
}

// stop logs out and waits for the end of the process.
func (c *nodeClient) stop() {
	c.t.Helper()
	c.command(map[string]any{"cmd": "stop"})
	select {
	case <-c.done:
	case <-time.After(30 * time.Second):
		c.t.Errorf("%s (%s) does not end after logging out", c.name, c.library)
	}
}
