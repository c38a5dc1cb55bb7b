package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
)

// couple opens two people's pages, through networks of their own, and waits until both are online.
func couple(t *testing.T, g *gatewayproc.Gateway, attributes ...string) (r, j *chat, rNet, jNet *cutproxy.Proxy) {
	t.Helper()
	g.AddUsers("romeo", "juliet")
	rNet, jNet = behind(t, g), behind(t, g)
	all := newPeople(t)
	open := func(who *person, other string, net *cutproxy.Proxy) *chat {
		return who.at(sitePage(t, net.Addr())(append([]string{"contact", bare(other), "name", other, "user", who.name}, attributes...)...)).login()
	}
	r, j = open(all.owner("romeo"), "juliet", rNet), open(all.person("juliet"), "romeo", jNet)
	return r.online(), j.online(), rNet, jNet
}

// visible says whether the page is looked at; in a headless browser all are.
func (c *chat) visible(yes bool) {
	c.t.Helper()
	c.do(`(el, state) => {
		Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
		document.dispatchEvent(new Event("visibilitychange"));
	}`, map[bool]string{true: "visible", false: "hidden"}[yes])
}

// TestWidgetConversation: two people write to each other on pages of another site, and see where each message is.
func TestWidgetConversation(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, _, _ := couple(t, g)
	r.until(`(el) => el.shadowRoot.querySelector(".presence").textContent === "online"`, nil)
	r.write("wherefore art thou")
	j.awaitState("wherefore art thou", "seen")
	r.awaitState("wherefore art thou", "read")
	j.do(`(el) => { const field = el.shadowRoot.querySelector("textarea"); field.value = "call"; field.dispatchEvent(new Event("input")); }`, nil)
	r.until(`(el) => el.shadowRoot.querySelector(".typing").textContent.match("is typing|has stopped typing")`, nil)
	j.write("call me but love")
	r.awaitState("call me but love", "seen")
	j.awaitState("call me but love", "read")
	r.until(`(el) => el.shadowRoot.querySelector(".typing").textContent === ""`, nil)

	// On a page that nobody looks at a message is delivered, and not read.
	j.visible(false)
	r.write("are you there")
	r.awaitState("are you there", "delivered")
	j.awaitState("are you there", "unseen")
	j.until(`(el) => document.title === "(1) A site" && el.unread === 1`, nil)
	r.awaitState("are you there", "delivered")
	j.visible(true)
	r.awaitState("are you there", "read")
	j.until(`(el) => document.title === "A site" && el.unread === 0`, nil)

	// Who types fast sends all of it, and what is not sent stays in the field.
	r.do(`(el) => {
		const field = el.shadowRoot.querySelector("textarea");
		for (const text of ["one", "two", "three"]) {
			field.value += text;
			field.dispatchEvent(new Event("input"));
			field.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", cancelable: true }));
		}
		field.value += "four";
	}`, nil)
	for _, text := range []string{"one", "two", "three"} {
		r.awaitState(text, "read")
	}
	r.until(`(el) => el.shadowRoot.querySelector("textarea").value === "four"`, nil)

	// Somebody who is away has not got it: the server has.
	j.call("close", j.with(nil))
	g.Kill() // the session would wait for ten minutes otherwise
	g.Set("HOLDFAST_RESUME_TIMEOUT", "1s")
	g.Run()
	r.online()
	r.write("till tomorrow")
	r.awaitState("till tomorrow", "held")
	if got, want := r.bodies("out"), []string{"wherefore art thou", "are you there", "one", "two", "three", "till tomorrow"}; !slices.Equal(got, want) {
		t.Errorf("romeo wrote %q, want %q", got, want)
	}
}

// exactly compares what came with what was written.
func exactly(t *testing.T, who string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	seen := map[string]int{}
	for _, b := range got {
		seen[b]++
	}
	var lost, repeated []string
	for _, b := range want {
		if seen[b] == 0 {
			lost = append(lost, b)
		}
		if seen[b] > 1 {
			repeated = append(repeated, b)
		}
	}
	t.Errorf("%s: %d of %d messages, lost %q, repeated %q, in order %v", who, len(got), len(want), lost, repeated, slices.IsSorted(got))
}

// TestWidgetBadNetwork: 200 messages and 20 cuts; nothing is lost, nothing comes twice, all of it in order, and all of it
// is said to be read in the end.
func TestWidgetBadNetwork(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, rNet, jNet := couple(t, g)
	random := rand.New(rand.NewPCG(seed(t), 1))
	const messages, cuts = 200, 20
	var fromR, fromJ []string
	cut := 0
	for i := range messages {
		text := fmt.Sprintf("%03d of many", i)
		if random.IntN(2) == 0 {
			fromR = append(fromR, text)
			r.do(`(el, text) => el.send(text)`, text)
		} else {
			fromJ = append(fromJ, text)
			j.do(`(el, text) => el.send(text)`, text)
		}
		if i%(messages/cuts) != random.IntN(messages/cuts) || cut == cuts {
			if (i+1)*cuts/messages <= cut {
				continue
			}
		}
		cut++
		net := []*cutproxy.Proxy{rNet, jNet}[random.IntN(2)]
		switch {
		case cut%10 == 0:
			net.Each((*cutproxy.Link).HalfOpen)
		case cut%5 == 0:
			net.Each((*cutproxy.Link).Stall)
			time.AfterFunc(time.Second, func() { net.Each((*cutproxy.Link).Flow) })
		default:
			net.Each((*cutproxy.Link).Cut)
		}
		time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond)
	}
	if cut != cuts {
		t.Fatalf("%d cuts", cut)
	}
	allRead := `(el, n) => { const out = el.messages.filter((m) => m.direction === "out"); return out.length === n && out.every((m) => m.state === "read"); }`
	r.until(allRead, len(fromR))
	j.until(allRead, len(fromJ))
	exactly(t, "juliet has", j.bodies("in"), fromR)
	exactly(t, "romeo has", r.bodies("in"), fromJ)
	t.Logf("connections: romeo %d, juliet %d", rNet.Accepted(), jNet.Accepted())
}

// TestWidgetReload: pages that are reloaded, or killed, in the middle of sending lose and repeat nothing, nor does a
// browser that is closed with something in the queue.
func TestWidgetReload(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, rNet, _ := couple(t, g)
	var want []string
	send := func(n int) {
		for range n {
			text := fmt.Sprintf("%03d", len(want))
			want = append(want, text)
			r.do(`(el, text) => el.send(text)`, text)
		}
	}
	for round := range 6 {
		send(8)
		if round%2 == 0 {
			r.call("reload", r.with(nil))
		} else {
			r.call("crash", r.with(nil))
		}
		r.login()
		send(2) // before it is online again
		if round == 3 {
			r.online()
		}
	}
	r.online()
	rNet.Each((*cutproxy.Link).Cut)
	g.Pause()
	send(5)
	r.restart()
	g.Resume()
	r = r.at(r.url)
	r.login().online()
	r.until(`(el, n) => { const out = el.messages.filter((m) => m.direction === "out"); return out.length === n && out.every((m) => m.state === "read"); }`, len(want))
	exactly(t, "juliet has", j.bodies("in"), want)
	exactly(t, "romeo wrote", r.bodies("out"), want)
}

// boundSessions is how many sessions began at a gateway; one that is resumed does not begin.
func boundSessions(g *gatewayproc.Gateway) int { return strings.Count(g.Log(), "session bound") }

// TestWidgetTabs: all tabs of a site have one connection, any of them can send, and when the one that had it goes
// another goes on with the session.
func TestWidgetTabs(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, _, _ := couple(t, g)
	two := r.at(r.url).login().online()
	two.write("from the second tab")
	two.awaitState("from the second tab", "read")
	r.awaitState("from the second tab", "read")
	j.write("to all of them")
	r.awaitState("to all of them", "seen")
	two.awaitState("to all of them", "seen")
	if n := boundSessions(g); n != 2 {
		t.Errorf("%d sessions for two people", n)
	}
	r.call("close", r.with(nil))
	two.write("from the tab that is left")
	two.awaitState("from the tab that is left", "read")
	if n := boundSessions(g); n != 2 {
		t.Errorf("%d sessions after a tab is gone", n)
	}
	exactly(t, "juliet has", j.bodies("in"), []string{"from the second tab", "from the tab that is left"})
}

// TestWidgetWritesAtOnce: what is written before the widget has opened its store waits for that.
func TestWidgetWritesAtOnce(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, _, _ := couple(t, g)
	for _, text := range []string{"at once", "and once more"} {
		tab := r.at(r.url)
		tab.do(`(el, [user, password, text]) => {
			el.login({ user, password });
			return el.send(text);
		}`, []string{"romeo", gatewayproc.Password("romeo"), text})
		tab.awaitState(text, "read")
	}
	exactly(t, "juliet has", j.bodies("in"), []string{"at once", "and once more"})
}

// TestWidgetFrozenTab: when the browser has stopped the tab that has the connection, one in which somebody writes goes on
// with the session, and the other is one among others when it comes to itself.
func TestWidgetFrozenTab(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, _, _ := couple(t, g)
	two := r.at(r.url).login().online()
	j.write("before")
	two.awaitState("before", "seen")
	resumed := func() int { return strings.Count(g.Log(), "session resumed") }
	j.awaitState("before", "read")
	two.settled()
	// No browser freezes a page in the middle of a transaction, and the debugger may.
	for tries := 1; ; tries++ {
		time.Sleep(time.Second)
		r.call("freeze", r.with(nil))
		time.Sleep(time.Second) // until it wanted to do something
		if two.canStore() {
			break
		}
		if tries == 10 {
			t.Fatal("the page is in a transaction whenever it is frozen")
		}
		r.call("thaw", r.with(nil))
	}
	if n := resumed(); n != 0 {
		t.Errorf("%d resumptions before anything happened", n)
	}
	two.write("who is there?")
	two.awaitState("who is there?", "read")
	if n := resumed(); n != 1 {
		t.Errorf("%d resumptions, want one of the tab that went on", n)
	}
	j.write("while it is frozen")
	two.awaitState("while it is frozen", "seen")
	r.call("thaw", r.with(nil))
	r.awaitState("while it is frozen", "seen")
	r.write("back again")
	r.awaitState("back again", "read")
	two.awaitState("back again", "read")
	j.write("to both")
	r.awaitState("to both", "seen")
	two.awaitState("to both", "seen")
	exactly(t, "juliet has", j.bodies("in"), []string{"who is there?", "back again"})
	exactly(t, "romeo has", two.bodies("in"), []string{"before", "while it is frozen", "to both"})
	if n := boundSessions(g); n != 2 {
		t.Errorf("%d sessions for two people", n)
	}
}

// canStore says whether this tab can write, and not another one has a transaction open.
func (c *chat) canStore() bool {
	c.t.Helper()
	return string(c.do(`async () => {
		const names = (await indexedDB.databases()).map((d) => d.name).filter((name) => name.startsWith("holdfast "));
		const probe = (name) => new Promise((resolve, reject) => {
			const r = indexedDB.open(name);
			r.onerror = () => reject(r.error);
			r.onsuccess = () => {
				const tx = r.result.transaction(["messages", "queue", "meta"], "readwrite");
				tx.objectStore("meta").count();
				tx.oncomplete = () => resolve(true);
				r.result.close(); // when that is done
			};
		});
		const late = new Promise((resolve) => setTimeout(() => resolve(false), 5000));
		return await Promise.race([Promise.all(names.map(probe)).then(() => true), late]);
	}`, nil)) == "true"
}

// TestWidgetKeyboard: where a keyboard on the screen covers the page without making it smaller, as iOS has it, the field is above it.
func TestWidgetKeyboard(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, _, _, _ := couple(t, g, "mode", "button", "open", "")
	r.call("look", r.with(map[string]any{"width": 360, "height": 640, "still": true}))
	for _, shown := range [][2]int{{640, 0}, {300, 0}, {300, 120}, {640, 0}} {
		r.do(`(el, [height, top]) => {
			for (const [name, value] of Object.entries({ height, offsetTop: top })) Object.defineProperty(visualViewport, name, { configurable: true, value });
			visualViewport.dispatchEvent(new Event("resize"));
		}`, shown)
		r.until(`(el, [height, top]) => { const field = el.shadowRoot.querySelector("textarea").getBoundingClientRect(), panel = el.shadowRoot.querySelector(".panel").getBoundingClientRect();
			return field.height > 20 && field.top >= top && field.bottom <= top + height && panel.top >= top && panel.bottom <= top + height; }`, shown)
		if shown[0] == 300 && shown[1] == 0 {
			r.picture("keyboard")
		}
	}
}

// TestWidgetOverBOSH: where WebSocket does not come through the widget takes BOSH, shows the same states, and returns to
// WebSocket with the same session when it can.
func TestWidgetOverBOSH(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	g.AddUsers("romeo", "juliet")
	addr, blocked := noWebSockets(t, g)
	all := newPeople(t)
	r := all.person("romeo").at(sitePage(t, addr)("contact", bare("juliet"), "user", "romeo")).login().online()
	j := all.person("juliet").at(sitePage(t, g.Addr())("contact", bare("romeo"), "user", "juliet")).login().online()
	r.until(`(el) => el.connection.via === "bosh"`, nil)
	var fromR, fromJ []string
	talk := func(how string) {
		for i := range 5 {
			a, b := fmt.Sprintf("%s %d from romeo", how, i), fmt.Sprintf("%s %d from juliet", how, i)
			fromR, fromJ = append(fromR, a), append(fromJ, b)
			r.write(a)
			j.write(b)
		}
		r.awaitState(fromR[len(fromR)-1], "read")
		j.awaitState(fromJ[len(fromJ)-1], "read")
	}
	talk("over BOSH")
	r.call("reload", r.with(nil))
	r.login().online()
	talk("reloaded over BOSH")
	blocked.Store(false)
	r.do(`() => dispatchEvent(new Event("online"))`, nil)
	r.until(`(el) => el.connection.via === "websocket"`, nil)
	talk("over WebSocket")
	exactly(t, "juliet has", j.bodies("in"), fromR)
	exactly(t, "romeo has", r.bodies("in"), fromJ)
	if n := boundSessions(g); n != 2 {
		t.Errorf("%d sessions were bound for two people", n)
	}
}

// TestWidgetFailed: with the server gone for long a message fails, visibly, and the user has it sent again or discards it.
func TestWidgetFailed(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, _, _ := couple(t, g, "give-up", "900")
	r.write("before")
	r.awaitState("before", "read")
	g.Pause() // so that this one is under way
	r.write("under way")
	r.awaitState("under way", "sending")
	g.Kill()
	r.until(`(el) => el.connection.state === "waiting"`, nil)
	r.write("first")
	r.write("second")
	r.awaitState("first", "queued")
	r.awaitState("second", "queued")
	r.do(`(el) => el.setAttribute("give-up", "2")`, nil)
	for _, text := range []string{"under way", "first", "second"} {
		r.awaitState(text, "failed")
	}
	r.until(`(el) => [...el.shadowRoot.querySelectorAll("[role=status]")].some((s) => s.textContent.startsWith("Not sent"))`, nil)
	// So that it does not fail another time before the server is back. This makes the widget anew, which then shows them again.
	r.do(`(el) => el.setAttribute("give-up", "900")`, nil)
	r.until(`(el) => el.connection.state === "waiting" && el.shadowRoot.querySelectorAll(".message.failed").length === 3`, nil)
	press := func(text, button string) {
		r.do(`(el, [text, button]) => [...el.shadowRoot.querySelectorAll(".message")].find((m) => m.querySelector(".text").textContent === text).querySelector("button." + button).click()`, []string{text, button})
	}
	press("first", "again")
	r.awaitState("first", "queued")
	press("second", "discard")
	r.until(`(el) => !el.messages.some((m) => m.body === "second")`, nil)
	press("under way", "discard")
	r.until(`(el) => !el.messages.some((m) => m.body === "under way")`, nil)
	g.Run()
	r.online()
	r.awaitState("first", "read")
	r.write("after")
	r.awaitState("after", "read")
	exactly(t, "juliet has", j.bodies("in"), []string{"before", "first", "after"})
}
