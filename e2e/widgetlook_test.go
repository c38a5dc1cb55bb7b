package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// looks are how the widget is looked at.
var looks = []struct {
	name          string
	dark          bool
	width, height int
}{
	{"light-desktop", false, 900, 900},
	{"dark-desktop", true, 900, 900},
	{"light-phone", false, 320, 720},
	{"dark-phone", true, 320, 720},
}

// inspect takes pictures of what a tab shows, in every look, and has axe-core and the page say what is wrong with it.
func (c *chat) inspect(name string) {
	c.t.Helper()
	for _, l := range looks {
		c.call("look", c.with(map[string]any{"dark": l.dark, "width": l.width, "height": l.height, "still": true}))
		var violations []string
		if err := json.Unmarshal(c.call("axe", c.with(nil)), &violations); err != nil {
			c.t.Fatal(err)
		}
		for _, v := range violations {
			c.t.Errorf("%s, %s: %s", name, l.name, v)
		}
		c.glance(name, l.name)
	}
}

// glance takes pictures in some looks, and has the page say whether everything fits.
func (c *chat) glance(name string, some ...string) {
	c.t.Helper()
	for _, l := range looks {
		if !slices.Contains(some, l.name) {
			continue
		}
		c.call("look", c.with(map[string]any{"dark": l.dark, "width": l.width, "height": l.height, "still": true}))
		if wide := string(c.do(`(el) => document.documentElement.scrollWidth > innerWidth || [...el.shadowRoot.querySelectorAll(".panel:not([hidden]), .log")].some((e) => e.scrollWidth > e.clientWidth)`, nil)); wide != "false" {
			c.t.Errorf("%s, %s: it is wider than its place", name, l.name)
		}
		c.picture(name + "-" + l.name)
	}
}

// TestWidgetLooks: every state of a message, and every other thing that the widget shows, in light and dark, at a desk and
// on the smallest phone: pictures of them are kept, and axe-core finds nothing wrong.
func TestWidgetLooks(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	g.AddUsers("romeo", "juliet")
	net := behind(t, g)
	all := newPeople(t)
	romeo, juliet := all.person("romeo"), all.person("juliet")
	site := sitePage(t, net.Addr())
	r := romeo.at(site("contact", bare("juliet"), "name", "Juliet", "user", "romeo", "give-up", "2"))
	r.until(`(el) => el.shadowRoot.querySelector("form.login")`, nil)
	r.inspect("login")
	r.login().online()
	r.inspect("empty")
	// What inspect relies on: axe-core looks into the widget.
	r.do(`(el) => { const bad = document.createElement("img"); el.shadowRoot.querySelector(".panel").append(bad); }`, nil)
	if found := string(r.call("axe", r.with(nil))); !strings.Contains(found, "image-alt") {
		t.Errorf("axe-core does not see a picture without a text: %s", found)
	}
	r.do(`(el) => el.shadowRoot.querySelector(".panel > img").remove()`, nil)
	j := juliet.at(sitePage(t, g.Addr())("contact", bare("romeo"), "name", "Romeo", "user", "juliet")).login().online()
	j.write("O Romeo, Romeo! wherefore art thou Romeo? See https://example.com/verona(1595).")
	r.write("Shall I hear more, or shall I speak at this?")
	r.awaitState("Shall I hear more, or shall I speak at this?", "read")
	j.visible(false)
	r.write("\U0001F339")
	r.awaitState("\U0001F339", "delivered")
	j.call("close", j.with(nil)) // her session waits for ten minutes
	r.write("held by the server")
	r.awaitState("held by the server", "held")
	g.Pause()
	r.write("given to the connection")
	r.awaitState("given to the connection", "sending")
	g.Kill()
	r.until(`(el) => el.connection.state === "waiting"`, nil)
	r.write("it will fail")
	r.awaitState("it will fail", "failed")
	r.awaitState("given to the connection", "failed")
	r.do(`(el) => el.setAttribute("give-up", "900")`, nil)
	r.until(`(el) => el.connection.state === "waiting" && [...el.shadowRoot.querySelectorAll(".message.failed")].length === 2`, nil)
	r.do(`(el) => [...el.shadowRoot.querySelectorAll(".message.failed")].find((m) => m.textContent.includes("given")).querySelector("button.again").click()`, nil)
	r.awaitState("given to the connection", "sending")
	r.write("waits on this device")
	r.awaitState("waits on this device", "queued")
	r.until(`(el) => !el.shadowRoot.querySelector(".notice").hidden`, nil)
	r.do(`(el) => { el.style.blockSize = "calc(100dvh - 100px)"; }`, nil)
	r.inspect("states")
	g.Run()
	r.online()
	r.awaitState("waits on this device", "held")

	// In other words.
	r.do(`(el) => { el.lang = "de"; }`, nil)
	r.until(`(el) => el.shadowRoot.querySelector("textarea").placeholder === "Nachricht schreiben" && el.messages.length > 3`, nil)
	r.inspect("german")
	r.do(`(el) => { el.lang = "fr"; el.strings = { send: "Envoyer", placeholder: "Écrire un message" }; }`, nil)
	r.until(`(el) => el.shadowRoot.querySelector("textarea").placeholder === "Écrire un message" && el.shadowRoot.querySelector(".go").getAttribute("aria-label") === "Envoyer"
		&& el.shadowRoot.querySelector(".log").getAttribute("aria-label") === "Messages with Juliet"`, nil)
}

// TestWidgetButton: as a button in the corner of a page, by keyboard alone.
func TestWidgetButton(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, _, _ := couple(t, g)
	b := r.at(sitePage(t, g.Addr())("contact", bare("juliet"), "name", "Juliet", "user", "romeo", "mode", "button"))
	r.call("close", r.with(nil))
	b.login().online()
	// Else the message may find the session of the closed page only.
	b.until(`(el) => el.shadowRoot.querySelector(".presence").textContent === "online"`, nil)
	j.write("are you there")
	b.until(`(el) => el.unread === 1 && el.shadowRoot.querySelector(".launcher").getAttribute("aria-label").includes("1 unread") && document.title.startsWith("(1) ")`, nil)
	j.awaitState("are you there", "delivered")
	b.inspect("button")
	focused := func(selector string) {
		b.until(`(el, selector) => el.shadowRoot.activeElement?.matches(selector)`, selector)
	}
	press := func(keys ...string) {
		for _, k := range keys {
			b.call("press", b.with(map[string]any{"key": k}))
		}
	}
	press("Tab")
	focused(".launcher")
	press("Enter")
	focused("textarea")
	j.awaitState("are you there", "read")
	b.until(`(el) => el.unread === 0 && !document.title.startsWith("(")`, nil)
	press("y", "e", "s", "Shift+Enter", "!", "Enter")
	b.awaitState("yes\n!", "read")
	b.inspect("open")
	press("Shift+Tab")
	focused(".log")
	press("Shift+Tab")
	focused(".close")
	press("Escape")
	focused(".launcher")
	b.until(`(el) => el.shadowRoot.querySelector(".panel").hidden && !el.hasAttribute("open")`, nil)
}

// TestWidgetHostile: whatever a message holds is shown as text.
func TestWidgetHostile(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(nil))
	r, j, _, _ := couple(t, g)
	j.call("close", j.with(nil))
	evil := available(t, g, "juliet", "evil")
	bodies := []string{
		`<script>window.pwned = 1</script>`,
		`<img src=x onerror="window.pwned = 1"><b>bold</b>`,
		`"'><svg/onload=window.pwned=1>`,
		"javascript:window.pwned=1 data:text/html,<script>1</script> https://user:pass@example.com/ http://ok.example/?a=<b>&c",
		"{{constructor.constructor('window.pwned=1')()}} ${window.pwned=1}",
		"\u202egpj.exe\u2066 \u200f\u05d0\u05d1\u05d2 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
		"\u0085\u007f\u009f\ufeff\u200b\u2028\ufffd a\tb\nc",
		strings.Repeat("W", 5000),
		strings.Repeat("long \U0001F339 ", 11_000), // 110 kB
	}
	for i, b := range bodies {
		evil.send(fmt.Sprintf("<message xmlns='jabber:client' type='chat' to='%s' id='h%d'><body>%s</body>"+
			"<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><script>window.pwned = 1</script></body></html>"+
			"<request xmlns='urn:xmpp:receipts'/></message>", bare("romeo"), i, xmppclient.Escape(b)))
	}
	// It takes its time to show the long one. The receipts are out when that is done.
	r.until(`(el, n) => el.messages.length === n`, len(bodies))
	r.settled()
	for i := range bodies {
		evil.expect("the receipt", func(e *xmppclient.Element) bool {
			return e.Child("urn:xmpp:receipts", "received").Attr("id") == fmt.Sprintf("h%d", i)
		})
	}
	if got := r.bodies("in"); !slices.Equal(got, bodies) {
		t.Errorf("romeo has %q", got)
	}
	var shown []string
	if err := json.Unmarshal(r.do(`(el) => {
		const fold = () => [...el.shadowRoot.querySelectorAll(".more")].forEach((more) => more.click());
		fold();
		const all = [...el.shadowRoot.querySelectorAll(".text")].map((t) => t.textContent);
		fold();
		return all;
	}`, nil), &shown); err != nil {
		t.Fatal(err)
	}
	for i, b := range bodies {
		want := strings.NewReplacer("\u202e", "", "\u2066", "", "\u007f", "\u2421").Replace(b)
		if shown[i] != want {
			t.Errorf("shown is %.100q, want %.100q", shown[i], want)
		}
	}
	var links []string
	if err := json.Unmarshal(r.do(`(el) => [...el.shadowRoot.querySelectorAll(".text *")].map((e) => e.localName + " " + e.getAttribute("href") + " " + e.rel)`, nil), &links); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a http://ok.example/?a= noopener noreferrer nofollow ugc"}; !slices.Equal(links, want) {
		t.Errorf("elements in texts: %q, want %q", links, want)
	}
	if got := string(r.do(`() => window.pwned === undefined && document.querySelectorAll("script").length === 1`, nil)); got != "true" {
		t.Error("something of a message was carried out")
	}
	// What can't be sent is not tried, or is sent as something that can.
	if got := string(r.do(`(el) => el.send("x".repeat(200000)).then(() => "sent", (err) => err.message)`, nil)); !strings.Contains(got, "long") {
		t.Errorf("200 kB: %s", got)
	}
	r.do(`(el) => el.send("a\u0000b\ud800c\u001b[31m")`, nil)
	r.settled()
	evil.expect("it without what XML has not", func(e *xmppclient.Element) bool {
		return e.Child("", "body") != nil && e.Child("", "body").Text == "a\ufffdb\ufffdc\ufffd[31m"
	})
	r.online().glance("hostile", looks[0].name, looks[3].name)
}

// writeCut pulls the switch of a side of the demo and writes in the same moment: soon after, the widget knows that its
// connection is dead.
func (c *chat) writeCut(text string) {
	c.t.Helper()
	c.do(`(el, [who, text]) => {
		parent.document.querySelector("#" + who + " button").click();
		return el.send(text);
	}`, []string{c.who, text})
}

// TestWidgetDemo: what a newcomer sees: two people who chat, with no account, and a switch that can be pulled.
func TestWidgetDemo(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, map[string]string{"HOLDFAST_DEMO": "true"})
	visitor := newPeople(t).person("visitor")
	demo := visitor.at("http://" + g.Addr() + "/")
	r, j := demo.frame("romeo"), demo.frame("juliet")
	for _, c := range []*chat{r, j} {
		c.online()
		c.until(`(el) => el.shadowRoot.querySelector(".presence").textContent === "online"`, nil)
	}
	address := r.do(`(el) => el.address`, nil)
	r.write("But, soft! what light through yonder window breaks?")
	j.awaitState("But, soft! what light through yonder window breaks?", "seen")
	j.write("O Romeo, Romeo! wherefore art thou Romeo?")
	r.awaitState("O Romeo, Romeo! wherefore art thou Romeo?", "seen")
	pull := func(who string) {
		demo.call("click", demo.with(map[string]any{"selector": "#" + who + " button"}))
	}
	r.writeCut("Shall I hear more?")
	r.awaitState("Shall I hear more?", "sending")
	r.until(`(el) => el.connection.state === "waiting"`, nil)
	r.write("Or shall I speak at this?")
	r.awaitState("Or shall I speak at this?", "queued")
	j.write("Romeo, doff thy name")
	j.awaitState("Romeo, doff thy name", "held")
	time.Sleep(300 * time.Millisecond) // nothing comes through
	if got := j.bodies("in"); len(got) != 1 {
		t.Errorf("juliet has %q", got)
	}
	demo.picture("demo-cut")
	var violations []string
	if err := json.Unmarshal(demo.call("axe", demo.with(nil)), &violations); err != nil || len(violations) > 0 {
		t.Errorf("the demo page: %q, %v", violations, err)
	}
	start := time.Now()
	pull("romeo")
	r.awaitState("Or shall I speak at this?", "read")
	j.awaitState("Romeo, doff thy name", "read")
	t.Logf("all read %v after the network was back", time.Since(start).Round(time.Millisecond))
	exactly(t, "juliet has", j.bodies("in"), []string{"But, soft! what light through yonder window breaks?", "Shall I hear more?", "Or shall I speak at this?"})
	exactly(t, "romeo has", r.bodies("in"), []string{"O Romeo, Romeo! wherefore art thou Romeo?", "Romeo, doff thy name"})
	for _, c := range []*chat{r, j} {
		c.until(`(el) => el.shadowRoot.querySelector(".presence").textContent === "online"`, nil)
	}
	demo.picture("demo")
	demo.call("look", demo.with(map[string]any{"dark": true, "width": 320, "height": 640}))
	demo.picture("demo-phone")
	demo.call("reload", demo.with(nil))
	r.online().until(`(el) => el.shadowRoot.querySelector(".presence").textContent === "online"`, nil)
	if again := r.do(`(el) => el.address`, nil); string(again) != string(address) {
		t.Errorf("romeo was %s and is %s after a reload", address, again)
	}
	if n := boundSessions(g); n != 2 {
		t.Errorf("%d sessions were bound for two people", n)
	}
}

// TestWidgetGuestBeforeTheOther: a guest whose contact is another one that the gateway has never seen sees it come.
func TestWidgetGuestBeforeTheOther(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, map[string]string{"HOLDFAST_DEMO": "true"})
	visitor := newPeople(t).person("visitor")
	side := func(who string) *chat { return visitor.at("http://" + g.Addr() + "/demo/side.html?who=" + who) }
	r := side("romeo").online()
	r.write("Is anybody there?") // and is bounced: what the page asked for before has been answered then
	r.awaitState("Is anybody there?", "failed")
	j := side("juliet").online()
	for _, c := range []*chat{r, j} {
		c.until(`(el) => el.shadowRoot.querySelector(".presence").textContent === "online"`, nil)
	}
}

// TestWidgetGuests: strangers write to whom the operator named, to nobody else, and remain who they are.
func TestWidgetGuests(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, anySite(map[string]string{"HOLDFAST_GUEST_CONTACTS": bare("support")}))
	g.AddUsers("support", "boss")
	all := newPeople(t)
	stranger := all.owner("stranger")
	site := sitePage(t, g.Addr())
	guest := stranger.at(site("contact", bare("support"), "name", "Support")).online()
	guest.write("is anybody there")
	guest.awaitState("is anybody there", "held") // support is away
	address := guest.do(`(el) => el.address`, nil)
	var full string
	if err := json.Unmarshal(address, &full); err != nil || !strings.HasPrefix(full, "guest-") {
		t.Fatalf("the guest is %s, %v", address, err)
	}
	who, _, _ := strings.Cut(full, "/")
	support := all.person("support").at(site("contact", who, "user", "support")).login().online()
	guest.awaitState("is anybody there", "read")
	support.write("how can I help")
	support.awaitState("how can I help", "read")

	boss := stranger.at(site("contact", bare("boss"), "name", "Boss"))
	boss.write("I want a refund")
	boss.awaitState("I want a refund", "failed")
	boss.until(`(el) => el.shadowRoot.querySelector(".message.failed").textContent.includes("forbidden")`, nil)

	stranger.restart()
	guest = stranger.at(guest.url).online()
	support.write("still you?")
	guest.awaitState("still you?", "seen")
	if again := guest.do(`(el) => el.address`, nil); !strings.HasPrefix(string(again), `"`+who+`/`) {
		t.Errorf("the guest was %s and is %s", address, again)
	}
	exactly(t, "the guest has", guest.bodies("in"), []string{"how can I help", "still you?"})

	closed := gatewayproc.Start(t, anySite(nil))
	c := all.person("another").at(sitePage(t, closed.Addr())("contact", bare("support")))
	c.until(`(el) => el.shadowRoot.querySelector(".notice.bad")?.textContent.includes("no guests")`, nil)
	c.inspect("no-guests")
}

// TestWidgetToken: the site's own server says who its user is.
func TestWidgetToken(t *testing.T) {
	long(t)
	secret := []byte(strings.Repeat("the site's secret ", 3))
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	g := gatewayproc.Start(t, anySite(map[string]string{"HOLDFAST_AUTH_TOKEN_SECRET_FILE": file}))
	g.AddUsers("support")
	support := available(t, g, "support", "desk")
	sign := func(user string, key []byte) string {
		encode := base64.RawURLEncoding.EncodeToString
		signed := encode([]byte(`{"alg":"HS256"}`)) + "." + encode(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, user, time.Now().Add(time.Minute).Unix()))
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(signed))
		return signed + "." + encode(mac.Sum(nil))
	}
	c := newPeople(t).person("customer").at(sitePage(t, g.Addr())("contact", bare("support"), "user", "customer"))
	login := func(token string) {
		c.do(`(el, token) => el.login({ user: "customer", token })`, token)
	}
	login(sign("customer", []byte(strings.Repeat("a guess ", 8))))
	c.until(`(el) => el.connection.state === "refused" && el.shadowRoot.querySelector(".notice.bad")`, nil)
	login(sign("customer", secret))
	c.online().write("about my order")
	c.awaitState("about my order", "held")
	if m := support.expect("the message", func(e *xmppclient.Element) bool { return e.Child("", "body") != nil }); !strings.HasPrefix(m.Attr("from"), bare("customer")+"/") {
		t.Errorf("it came from %s", m.Attr("from"))
	}
	c.do(`(el) => el.logout()`, nil)
	c.until(`(el) => el.shadowRoot.querySelector("form.login") && el.connection.state === "off"`, nil)
	ended := func() bool {
		return slices.ContainsFunc(strings.Split(g.Log(), "\n"), func(line string) bool {
			return strings.Contains(line, `msg="session ended"`) && strings.Contains(line, "user="+bare("customer"))
		})
	}
	if !await(within(t, 10*time.Second), ended) {
		t.Error("the session waits for a client that logged out")
	}
}

// TestClusterWidgetGuests: a guest is the same one at every gateway, and stays that when the one that it was connected to is
// killed.
func TestClusterWidgetGuests(t *testing.T) {
	long(t)
	needClients(t)
	nodes := startCluster(t, 2, anySite(map[string]string{"HOLDFAST_GUEST_CONTACTS": bare("support")}))
	nodes[0].AddUsers("support")
	all := newPeople(t)
	stranger := all.owner("stranger")
	page := sitePage(t, nodes[0].Addr())("contact", bare("support"), "name", "Support")
	guest := stranger.at(page).online()
	guest.write("is anybody there")
	guest.awaitState("is anybody there", "held")
	address := func(c *chat) (full string) {
		if err := json.Unmarshal(c.until(`(el) => el.address`, nil), &full); err != nil || !strings.HasPrefix(full, "guest-") {
			t.Fatalf("the guest is %q, %v", full, err)
		}
		return full
	}
	was := address(guest)
	who, _, _ := strings.Cut(was, "/")
	support := all.person("support").at(sitePage(t, nodes[1].Addr())("contact", who, "user", "support")).login().online()
	guest.awaitState("is anybody there", "read")
	nodes[0].Kill()
	support.write("how can I help")
	support.awaitState("how can I help", "held")
	nodes[0].Run()
	support.awaitState("how can I help", "read")
	guest.write("it works again")
	guest.awaitState("it works again", "read")
	if now := address(guest); now != was {
		t.Errorf("the guest was %s and is %s", was, now)
	}

	// The same page, where the other gateway is.
	elsewhere := stranger.at(sitePage(t, nodes[1].Addr())("contact", bare("support"), "name", "Support")).online()
	if again := address(elsewhere); !strings.HasPrefix(again, "guest-") {
		t.Errorf("the guest is %s", again)
	}
	exactly(t, "the guest has", guest.bodies("in"), []string{"how can I help"})
	exactly(t, "support has", support.bodies("in"), []string{"is anybody there", "it works again"})
}
