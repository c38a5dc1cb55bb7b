package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/cutproxy"
	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// lobby is a gateway with a room for guests, which romeo looks after, and somebody else.
func lobby(t *testing.T, more map[string]string) *gatewayproc.Gateway {
	t.Helper()
	env := map[string]string{"HOLDFAST_GUEST_CONTACTS": roomAddr("lobby"), "HOLDFAST_MUC_ADMINS": bare("romeo") + "," + bare("evil")}
	for k, v := range more {
		env[k] = v
	}
	return gatewayproc.Start(t, anySite(env))
}

// here waits until so many people are in the room.
func (c *chat) here(n int) *chat {
	c.t.Helper()
	c.until(`(el, n) => el.occupants.length === n && el.shadowRoot.querySelector(".here").textContent.includes(n)`, n)
	return c
}

// said is a message as the API has it, by whom.
type said struct{ Direction, Body, State, Nick string }

func (c *chat) said() (all []said) {
	c.t.Helper()
	if err := json.Unmarshal(c.do(`(el) => el.messages`, nil), &all); err != nil {
		c.t.Fatal(err)
	}
	return all
}

// TestWidgetRoom: users and a guest in a room see who is there, what is said and by whom, and that what they said is there.
func TestWidgetRoom(t *testing.T) {
	long(t)
	g := lobby(t, map[string]string{"HOLDFAST_RESUME_TIMEOUT": "3s"})
	g.AddUsers("romeo", "juliet")
	site := sitePage(t, g.Addr())
	all := newPeople(t)
	room := roomAddr("lobby")
	guest := all.person("guest").at(site("room", room, "name", "Lobby")).online().here(1)
	r := all.person("romeo").at(site("room", room, "user", "romeo", "nick", "Romeo")).login().online().here(2)
	j := all.person("juliet").at(site("room", room, "user", "juliet", "nick", "Romeo")).login().online().here(3)
	guest.here(3)
	// The name that juliet wants is romeo's.
	j.until(`(el) => el.occupants.some((o) => o.own && o.nick === "Romeo 2")`, nil)

	r.write("it is the east")
	r.awaitState("it is the east", "delivered")
	for _, c := range []*chat{j, guest} {
		c.awaitState("it is the east", "seen")
		c.until(`(el) => [...el.shadowRoot.querySelectorAll(".message.in")].some((m) => m.querySelector(".nick").textContent === "Romeo" && m.querySelector(".text").textContent === "it is the east")`, nil)
	}
	guest.write("and who is the sun?")
	guest.awaitState("and who is the sun?", "delivered")
	r.awaitState("and who is the sun?", "seen")
	if s := r.said(); len(s) != 2 || !strings.HasPrefix(s[1].Nick, "Guest ") {
		t.Errorf("romeo has %+v", s)
	}

	// The subject, and what is said while nobody looks.
	a := available(t, g, "romeo", "desk")
	a.enter(room, "Romeo", "<history maxstanzas='0'/>")
	a.send("<message xmlns='jabber:client' type='groupchat' to='" + room + "'><subject>Balcony &lt;b&gt;scene&lt;/b&gt;</subject></message>")
	for _, c := range []*chat{r, j, guest} {
		c.until(`(el) => el.shadowRoot.querySelector(".subject").textContent.includes("Balcony <b>scene</b>")`, nil)
	}
	j.awaitState("and who is the sun?", "seen") // else it counts too
	j.visible(false)
	a.send(groupchat(room, "d1", "with &lt;i&gt;markup&lt;/i&gt;"))
	j.until(`(el) => el.unread === 1 && document.title.startsWith("(1) ")`, nil)
	r.awaitState("with <i>markup</i>", "delivered") // it is the same person's, from elsewhere
	j.visible(true)
	j.until(`(el) => el.unread === 0`, nil)

	// Who is there, by keyboard.
	r.do(`(el) => el.shadowRoot.querySelector(".here").focus()`, nil)
	r.call("press", r.with(map[string]any{"key": "Enter"}))
	r.until(`(el) => [...el.shadowRoot.querySelectorAll(".occupants li")].map((li) => li.dataset.nick).sort().join() === [...el.occupants].map((o) => o.nick).sort().join()`, nil)
	r.inspect("room")
	r.call("press", r.with(map[string]any{"key": "Escape"}))
	r.until(`(el) => el.shadowRoot.querySelector(".occupants").hidden !== false || el.shadowRoot.querySelectorAll(".occupants li").length === 0`, nil)

	// Somebody is sent out, and comes in again by choice; somebody is banned.
	admin := func(item string) {
		if e := a.ask("set", room, "<query xmlns='"+nsMUC+"#admin'><item "+item+"/></query>"); e.Attr("type") != "result" {
			t.Errorf("%s: %v", item, e)
		}
	}
	admin("nick='Romeo 2' role='none'")
	j.until(`(el) => el.shadowRoot.querySelector(".notice.bad button")`, nil)
	r.here(2)
	j.inspect("room-kicked")
	j.do(`(el) => el.shadowRoot.querySelector(".notice.bad button").click()`, nil)
	j.here(3)
	j.write("back again")
	j.awaitState("back again", "delivered")
	admin("jid='" + bare("juliet") + "' affiliation='outcast'")
	j.until(`(el) => el.shadowRoot.querySelector(".notice.bad")`, nil)
	r.here(2)
	guest.here(2)

	// When a page is gone for good, the others see that.
	guest.call("close", guest.with(nil))
	r.here(1)
}

// TestWidgetRoomBadNetwork: three people in a room, 150 messages, 20 cuts, kills of the gateway: everybody has everything once,
// and all of it is said to have arrived.
func TestWidgetRoomBadNetwork(t *testing.T) {
	long(t)
	g := lobby(t, nil)
	g.AddUsers("romeo", "juliet")
	all := newPeople(t)
	room := roomAddr("lobby")
	var nets []*cutproxy.Proxy
	var chats []*chat
	for _, name := range []string{"romeo", "juliet", "guest"} {
		net := behind(t, g)
		attributes := []string{"room", room, "nick", name}
		if name != "guest" {
			attributes = append(attributes, "user", name)
		}
		c := all.person(name).at(sitePage(t, net.Addr())(attributes...))
		if name != "guest" {
			c.login()
		}
		nets, chats = append(nets, net), append(chats, c.online().here(len(chats)+1))
	}
	random := rand.New(rand.NewPCG(seed(t), 1))
	const messages, cuts, kills = 150, 20, 3
	var wrote []string
	by := make(map[string]int)
	for i := range messages {
		c := chats[random.IntN(len(chats))]
		text := fmt.Sprintf("%s %03d", c.name, by[c.name])
		by[c.name]++
		wrote = append(wrote, text)
		c.do(`(el, text) => el.send(text)`, text)
		if i%10 == 5 {
			switch net := nets[random.IntN(len(nets))]; random.IntN(4) {
			case 0:
				net.Each((*cutproxy.Link).HalfOpen)
			case 1:
				net.Each((*cutproxy.Link).Stall)
				time.AfterFunc(time.Second, func() { net.Each((*cutproxy.Link).Flow) })
			default:
				net.Each((*cutproxy.Link).Cut)
			}
		}
		if i%(messages/kills) == messages/kills-1 {
			g.Restart()
		}
		if i%(messages/cuts) == 0 {
			time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
		}
	}
	slices.Sort(wrote)
	for _, c := range chats {
		c.until(`(el, n) => el.messages.length === n && el.messages.every((m) => m.direction === "in" || m.state === "delivered")`, messages)
		var texts []string
		last := make(map[string]int)
		for _, s := range c.said() {
			texts = append(texts, s.Body)
			who, number, _ := strings.Cut(s.Body, " ")
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			if n != last[who] {
				t.Errorf("%s has %s where %d comes next", c.name, s.Body, last[who])
			}
			last[who] = n + 1
			if s.Direction == "in" && s.Nick != who {
				t.Errorf("%s takes %q to be by %s", c.name, s.Body, s.Nick)
			}
		}
		slices.Sort(texts)
		exactly(t, c.name+" has", texts, wrote)
	}
}

// TestWidgetRoomReload: pages that are reloaded, or killed, in the middle of sending to a room lose and repeat nothing; nor
// does a session that is over.
func TestWidgetRoomReload(t *testing.T) {
	long(t)
	g := lobby(t, map[string]string{"HOLDFAST_RESUME_TIMEOUT": "2s"})
	g.AddUsers("romeo", "juliet")
	site := sitePage(t, g.Addr())
	all := newPeople(t)
	room := roomAddr("lobby")
	j := all.person("juliet").at(site("room", room, "user", "juliet")).login().online().here(1)
	r := all.person("romeo").at(site("room", room, "user", "romeo")).login().online().here(2)
	var want []string
	send := func(n int) {
		for range n {
			text := fmt.Sprintf("%03d", len(want))
			want = append(want, text)
			r.do(`(el, text) => el.send(text)`, text)
		}
	}
	for round := range 4 {
		send(6)
		if round%2 == 0 {
			r.call("reload", r.with(nil))
		} else {
			r.call("crash", r.with(nil))
		}
		r.login()
		send(2)
	}
	delivered := `(el, n) => el.messages.length === n && el.messages.every((m) => m.direction === "in" || m.state === "delivered")`
	r.until(delivered, len(want))
	// His session ends while he is away; what is said meanwhile is in the history of the room.
	r.call("close", r.with(nil))
	j.here(1)
	j.do(`(el) => el.send("while he was away")`, nil)
	j.awaitState("while he was away", "delivered")
	r = r.at(r.url).login().online().here(2)
	r.awaitState("while he was away", "seen")
	exactly(t, "juliet has", j.bodies("in"), want)
	exactly(t, "romeo wrote", r.bodies("out"), want)
	exactly(t, "romeo has", r.bodies("in"), []string{"while he was away"})
}

// TestWidgetRoomHostile: whatever a name, a subject or a message in a room holds is shown as text.
func TestWidgetRoomHostile(t *testing.T) {
	long(t)
	g := lobby(t, nil)
	g.AddUsers("romeo", "evil")
	room := roomAddr("lobby")
	evil := available(t, g, "evil", "")
	nick := `<img src=x onerror=window.pwned=1>`
	evil.enter(room, nick, "")
	evil.send("<message xmlns='jabber:client' type='groupchat' to='" + room + "'><subject>" + xmppclient.Escape(`<script>window.pwned=1</script>`) + "</subject></message>")
	c := newPeople(t).person("romeo").at(sitePage(t, g.Addr())("room", room, "user", "romeo")).login().online().here(2)
	// A private message, an invitation and somebody else's words are not what was said in the room.
	evil.send("<message xmlns='jabber:client' type='chat' id='p' to='" + room + "/romeo'><body>psst</body></message>")
	evil.send("<message xmlns='jabber:client' type='groupchat' id='f' to='" + room + "'><body>forged</body><delay xmlns='urn:xmpp:delay' from='" + room +
		"' stamp='2001-01-01T00:00:00Z'/><delay xmlns='urn:xmpp:delay' stamp='2099-01-01T00:00:00Z'/><stanza-id xmlns='urn:xmpp:sid:0' by='" + room + "' id='x'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='y'/>" +
		"<x xmlns='" + nsMUCUser + "'><status code='104'/></x></message>")
	evil.send(groupchat(room, "h", xmppclient.Escape(`"'><svg/onload=window.pwned=1> `+"\u202e")+strings.Repeat("W", 3000)))
	c.until(`(el) => el.messages.length === 2`, nil)
	if s := c.said(); s[0].Body != "forged" || s[0].Nick != nick {
		t.Errorf("got %+v", s[0])
	}
	c.do(`(el) => el.shadowRoot.querySelector(".here").click()`, nil)
	c.until(`(el, nick) => [...el.shadowRoot.querySelectorAll(".occupants li")].some((li) => li.dataset.nick === nick)`, nick)
	c.inspect("room-hostile")
	if got := string(c.do(`(el) => window.pwned === undefined && !el.shadowRoot.querySelector("img, script:not([src])")`, nil)); got != "true" {
		t.Error("something was carried out")
	}
}

// TestWidgetDemoRoom: the demo page shows a room too.
func TestWidgetDemoRoom(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, map[string]string{"HOLDFAST_DEMO": "true"})
	visitor := newPeople(t).person("visitor")
	demo := visitor.at("http://" + g.Addr() + "/?room")
	r, j := demo.frame("romeo"), demo.frame("juliet")
	for _, c := range []*chat{r, j} {
		c.online().here(2)
	}
	r.write("is anybody in this room?")
	j.awaitState("is anybody in this room?", "seen")
	r.awaitState("is anybody in this room?", "delivered")
	r.writeCut("said into the dark")
	r.awaitState("said into the dark", "sending")
	j.write("said in the room")
	j.awaitState("said in the room", "delivered")
	demo.picture("demo-room-cut")
	demo.call("click", demo.with(map[string]any{"selector": "#romeo button"}))
	r.awaitState("said into the dark", "delivered")
	r.awaitState("said in the room", "seen")
	j.awaitState("said into the dark", "seen")
	var violations []string
	if err := json.Unmarshal(demo.call("axe", demo.with(nil)), &violations); err != nil || len(violations) > 0 {
		t.Errorf("the demo page: %q, %v", violations, err)
	}
	demo.picture("demo-room")
}
