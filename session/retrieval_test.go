package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/stanza"
)

const (
	askNumber  = "<iq xmlns='jabber:client' type='get' id='n'><query xmlns='" + nsDiscoInfo + "' node='" + nsOffline + "'/></iq>"
	askHeaders = "<iq xmlns='jabber:client' type='get' id='h'><query xmlns='" + nsDiscoItems + "' node='" + nsOffline + "'/></iq>"
)

// retrieve is an <offline/> request.
func retrieve(typ, id, inner string) string {
	return "<iq xmlns='jabber:client' type='" + typ + "' id='" + id + "'><offline xmlns='" + nsOffline + "'>" + inner + "</offline></iq>"
}

func items(action string, nodes ...string) (s string) {
	for _, n := range nodes {
		s += "<item action='" + action + "' node='" + n + "'/>"
	}
	return s
}

type headers struct {
	Items []struct {
		JID  string `xml:"jid,attr"`
		Node string `xml:"node,attr"`
		Name string `xml:"name,attr"`
	} `xml:"item"`
	Set *struct {
		First string `xml:"first"`
		Last  string `xml:"last"`
		Count int    `xml:"count"`
	} `xml:"set"`
}

func (h headers) nodes() (all []string) {
	for _, it := range h.Items {
		all = append(all, it.Node)
	}
	return all
}

// headers asks for them, with something in the query.
func (c *client) headers(inner string) (h headers) {
	c.t.Helper()
	c.send(strings.Replace(askHeaders, "/></iq>", ">"+inner+"</query></iq>", 1))
	for _, e := range c.frames() {
		if q, ok := e.Find(nsDiscoItems, "query"); ok && e.Attr("type") == "result" {
			if err := q.Decode(&h); err != nil {
				c.t.Fatalf("%v", err)
			}
			return h
		}
	}
	c.t.Fatalf("no headers")
	return h
}

// number asks how many there are.
func (c *client) number() string {
	c.t.Helper()
	c.send(askNumber)
	for _, e := range c.frames() {
		if q, ok := e.Find(nsDiscoInfo, "query"); ok {
			_, rest, _ := strings.Cut(string(q.Inner()), "<field var='number_of_messages'><value>")
			n, _, _ := strings.Cut(rest, "<")
			return n
		}
	}
	return ""
}

// everything acknowledges what comes until nothing does any more.
func (c *client) everything() (all []*stanza.Element) {
	c.t.Helper()
	for {
		more := slices.DeleteFunc(c.frames(), func(e *stanza.Element) bool { return e.Kind() == stanza.Other })
		if len(more) == 0 {
			return all
		}
		all = append(all, more...)
		c.ack(c.count())
	}
}

func TestFlexibleRetrieval(t *testing.T) {
	// XEP-0013 §2.2 to §2.7.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 4) {
			romeo.chat("juliet", n)
		}
		c := w.managed("juliet/balcony")
		if n := c.number(); n != "4" {
			t.Errorf("number %q", n)
		}
		h := c.headers("")
		nodes := h.nodes()
		if len(nodes) != 4 || !slices.IsSorted(nodes) || h.Set != nil || h.Items[0].JID != addr("juliet").String() || h.Items[0].Name != addr("romeo/orchard").String() {
			t.Fatalf("headers %+v", h)
		}
		c.available()
		romeo.chat("juliet", "live")
		c.want("message romeo/orchard live") // and nothing of the mailbox (§2.2)

		c.send(retrieve("get", "v", items("view", nodes[2], nodes[0])))
		got := c.frames()
		if b := briefs(got); !slices.Equal(b, []string{"message romeo/orchard 3 delayed", "message romeo/orchard 1 delayed", "iq result v"}) {
			t.Fatalf("view: %q", b)
		}
		if o, ok := got[0].Find(nsOffline, "offline"); !ok || string(o.Inner()) != "<item node='"+nodes[2]+"'/>" {
			t.Errorf("viewed %s", got[0].Raw())
		}
		c.ack(c.count())
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, numbers(1, 4)) {
			t.Errorf("after a view the mailbox has %q", left)
		}

		c.send(retrieve("set", "r", items("remove", nodes[0], nodes[2])))
		c.want("iq result r")
		c.send(retrieve("get", "f", "<fetch/>"))
		c.want("message romeo/orchard 2 delayed", "message romeo/orchard 4 delayed", "iq result f")
		for name, raw := range map[string]string{
			"view":   retrieve("get", "x", items("view", nodes[1], nodes[0])),
			"remove": retrieve("set", "x", items("remove", nodes[1], nodes[0])),
			"word":   retrieve("get", "x", items("view", "2003-02-27T22:52:37.225Z")),
			"disco":  strings.Replace(strings.Replace(askHeaders, nsOffline, nsOffline+"#x", 1), "'h'", "'x'", 1),
		} {
			c.send(raw)
			if got := briefs(c.frames()); !slices.Equal(got, []string{"iq error x item-not-found"}) {
				t.Errorf("%s of what is not there: %q", name, got)
			}
		}
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, []string{"2", "4"}) {
			t.Errorf("mailbox %q", left)
		}
		c.send(retrieve("set", "p", "<purge/>"))
		c.want("iq result p")
		if n, h := c.number(), c.headers(""); n != "0" || len(h.Items) != 0 {
			t.Errorf("after the purge %q, %v", n, h)
		}
	})
}

func TestRetrievalRefused(t *testing.T) {
	// XEP-0013 §2.3, §3: the mailbox is its user's; and what makes no sense is told.
	inWorld(t, func(t *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		at := func(raw, to string) string {
			return strings.Replace(raw, " id=", " to='"+to+"' id=", 1)
		}
		for raw, want := range map[string]string{
			at(askNumber, addr("romeo").String()):                                                                    "iq error n forbidden",
			at(askHeaders, addr("nobody").String()):                                                                  "iq error h forbidden",
			at(retrieve("get", "x", "<fetch/>"), addr("romeo").String()):                                             "iq error x forbidden",
			at(retrieve("set", "x", "<purge/>"), addr("romeo").String()):                                             "iq error x forbidden",
			at(retrieve("get", "x", "<fetch/>"), testDomain):                                                         "iq error x service-unavailable",
			at(askNumber, testDomain):                                                                                "iq error n item-not-found",
			retrieve("set", "x", "<fetch/>"):                                                                         "iq error x bad-request",
			retrieve("get", "x", "<purge/>"):                                                                         "iq error x bad-request",
			retrieve("get", "x", ""):                                                                                 "iq error x bad-request",
			retrieve("get", "x", "<fetch/>"+items("view", "a")):                                                      "iq error x bad-request",
			retrieve("get", "x", items("remove", "a")):                                                               "iq error x bad-request",
			retrieve("get", "x", items("view", slices.Repeat([]string{"a"}, maxNodes+1)...)):                         "iq error x policy-violation",
			strings.Replace(askHeaders, "/></iq>", "><set xmlns='"+nsRSM+"'><max>x</max></set></query></iq>", 1):     "iq error h bad-request",
			strings.Replace(askHeaders, "/></iq>", "><set xmlns='"+nsRSM+"'><before/></set></query></iq>", 1):        "iq error h feature-not-implemented",
			strings.Replace(askHeaders, "/></iq>", "><set xmlns='"+nsRSM+"'><after>x</after></set></query></iq>", 1): "iq error h item-not-found",
		} {
			c.send(raw)
			if got := briefs(c.frames()); !slices.Equal(got, []string{want}) {
				t.Errorf("%.120s: %q, want %q", raw, got, want)
			}
		}
		if c.session().chosen {
			t.Error("a refused request is no choice")
		}
	})
}

func TestHeadersInParts(t *testing.T) {
	// XEP-0059 §2.1, §2.2: a long list is bounded, and the client goes on from its end.
	inTime(t, func(t *testing.T, w *world) {
		w.bound("juliet/x")
		for i := range maxHeaders + 20 {
			st := stanza.New(stanza.Message, "chat", "", addr("romeo/orchard"), addr("juliet"), fmt.Appendf(nil, "<body>%d</body>", i))
			st.ID = stanza.NewID()
			if v, err := w.box.Store(addr("juliet"), st, true); v.Fate != Kept || err != nil {
				t.Fatal(v, err)
			}
		}
		c := w.managed("juliet/balcony")
		h := c.headers("")
		if len(h.Items) != maxHeaders || h.Set == nil || h.Set.Count != maxHeaders+20 || h.Set.Last != h.Items[maxHeaders-1].Node {
			t.Fatalf("%d items, %+v", len(h.Items), h.Set)
		}
		rest := c.headers("<set xmlns='" + nsRSM + "'><max>15</max><after>" + h.Set.Last + "</after></set>")
		last := c.headers("<set xmlns='" + nsRSM + "'><max>15</max><after>" + rest.Set.Last + "</after></set>")
		if len(rest.Items) != 15 || len(last.Items) != 5 || last.Set.Count != maxHeaders+20 {
			t.Errorf("then %d, then %d, %+v", len(rest.Items), len(last.Items), last.Set)
		}
		if none := c.headers("<set xmlns='" + nsRSM + "'><max>0</max></set>"); len(none.Items) != 0 || none.Set.Count != maxHeaders+20 {
			t.Errorf("only the count: %+v", none)
		}
	})
}

func TestFetchInPages(t *testing.T) {
	// A fetch of a long mailbox is shown as it is acknowledged, across connections; requests are answered in their order.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 30) {
			romeo.chat("juliet", n)
		}
		c := w.managed("juliet/balcony")
		c.send(retrieve("get", "f", "<fetch/>"))
		c.send(retrieve("get", "g", "<fetch/>"))
		if n := c.session().out.n; n > 4 {
			t.Errorf("%d stanzas wait to be acknowledged", n)
		}
		c.frames()
		c.cut()
		c = c.resumed(2)
		var got []string
		for _, e := range c.everything() {
			if got = append(got, body(e)); e.Kind() == stanza.IQ {
				got[len(got)-1] = e.Attr("id")
			}
		}
		want := slices.Concat(numbers(3, 30), []string{"f"}, numbers(1, 30), []string{"g"})
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if left := w.box.bodies(addr("juliet")); len(left) != 30 {
			t.Errorf("mailbox %q", left)
		}
		for i := range maxShows + 2 {
			c.send(retrieve("get", fmt.Sprint("m", i), "<fetch/>"))
		}
		if got := briefs(c.everything()); !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "policy-violation") }) {
			t.Errorf("any number of requests may wait: %q", got)
		}
	}, pages)
}

func TestChoiceLasts(t *testing.T) {
	// XEP-0013 §2.2: while the session that chose is there no other one is given the mailbox; a resumption or a kill
	// changes nothing. When it ends, what it left is for the others.
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprint("kill: ", kill), func(t *testing.T) {
			inTime(t, func(t *testing.T, w *world) {
				d := newDisk()
				romeo := w.managed("romeo/orchard")
				for _, n := range numbers(1, 3) {
					romeo.chat("juliet", n)
				}
				c := w.managed("juliet/balcony")
				nodes := c.headers("").nodes()
				c.send(retrieve("get", "v", items("view", nodes[0])))
				c.want("message romeo/orchard 1 delayed", "iq result v")
				c.send(retrieve("set", "r", items("remove", nodes[1])))
				c.want("iq result r")
				h := c.count()
				if kill {
					w.kill(d)
				} else {
					c.cut()
				}
				c = c.resumed(h)
				c.want("resumed 3")
				c.send("<presence xmlns='jabber:client'/>")
				if got := c.bodiesOf(); len(got) > 0 {
					t.Errorf("given %q", got)
				}
				other := w.managed("juliet/chamber")
				other.send("<presence xmlns='jabber:client'/>")
				if got := other.bodiesOf(); len(got) > 0 {
					t.Errorf("the other is given %q", got)
				}
				c.close()
				if got := other.bodiesOf(); !slices.Equal(got, []string{"1", "3"}) {
					t.Errorf("then %q", got)
				}
				other.ack(other.count())
				if left := w.box.bodies(addr("juliet")); len(left) > 0 {
					t.Errorf("mailbox %q", left)
				}
			})
		})
	}
}

func TestChoiceStopsADrain(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 10) {
			romeo.chat("juliet", n)
		}
		a := w.managed("juliet/a")
		a.send("<presence xmlns='jabber:client'/>")
		got := a.bodiesOf()
		b := w.managed("juliet/b")
		if n := b.number(); n != "10" {
			t.Errorf("number %q", n)
		}
		for _, e := range a.everything() {
			if e.Kind() == stanza.Message {
				got = append(got, body(e))
			}
		}
		a.ack(a.count())
		if len(got) == 0 || len(got) > 4 {
			t.Errorf("given %q", got)
		}
		romeo.chat("juliet", "live")
		a.want("message romeo/orchard live")
		b.close()
		a.ack(a.count())
		var rest []string
		for _, e := range a.everything() {
			rest = append(rest, body(e))
		}
		if all := slices.Concat(got, rest); !slices.Equal(all, numbers(1, 10)) {
			t.Errorf("given %q", all)
		}
	}, pages)
}

func TestUnackedMailboxIsNotHandedToWhoChose(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		for _, n := range numbers(1, 3) {
			romeo.chat("juliet", n)
		}
		a, b := w.managed("juliet/a").available(), w.managed("juliet/b")
		b.headers("")
		b.available()
		a.cut()
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		if got := b.bodiesOf(); len(got) > 0 {
			t.Errorf("given %q", got)
		}
		if h := b.headers(""); len(h.Items) != 3 {
			t.Errorf("%d are left", len(h.Items))
		}
	})
}

func TestShownIsNotHandedOn(t *testing.T) {
	// What a session was only shown is in the mailbox, or was removed: it goes nowhere when the session ends.
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		romeo.chat("juliet", "1")
		romeo.chat("juliet", "2")
		other := w.managed("juliet/chamber")
		other.send("<presence xmlns='jabber:client'><priority>-1</priority></presence>")
		c := w.managed("juliet/balcony")
		nodes := c.headers("").nodes()
		c.send(retrieve("get", "v", items("view", nodes...)))
		c.send(retrieve("set", "r", items("remove", nodes[0])))
		c.cut()
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		if left := w.box.bodies(addr("juliet")); !slices.Equal(left, []string{"2"}) {
			t.Errorf("mailbox %q", left)
		}
		if got := other.bodiesOf(); len(got) > 0 {
			t.Errorf("the other got %q", got)
		}
	})
}

func TestRemovalsSurviveAKill(t *testing.T) {
	for name, ask := range map[string]string{"purge": "<purge/>", "remove": ""} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(t *testing.T, w *world) {
				d := newDisk()
				romeo := w.managed("romeo/orchard")
				romeo.chat("juliet", "1")
				c := w.managed("juliet/balcony")
				if ask == "" {
					ask = items("remove", c.headers("").nodes()...)
				}
				c.send(retrieve("set", "p", ask))
				c.want("iq result p")
				romeo.chat("juliet", "2")
				w.kill(d)
				if left := w.box.bodies(addr("juliet")); !slices.Equal(left, []string{"2"}) {
					t.Errorf("mailbox %q", left)
				}
			})
		})
	}
}

func TestRetrievalWithABrokenStore(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		romeo.chat("juliet", "1")
		c := w.managed("juliet/balcony")
		nodes := c.headers("").nodes()
		w.box.err = errJournal
		for _, raw := range []string{ // the last ones fail halfway, and may be sent again
			strings.Replace(askNumber, "'n'", "'x'", 1), strings.Replace(askHeaders, "'h'", "'x'", 1),
			retrieve("get", "x", items("view", nodes...)), retrieve("set", "x", items("remove", nodes...)),
			retrieve("set", "x", "<purge/>"),
		} {
			c.send(raw)
			c.want("iq error x internal-server-error")
		}
	})
}

func TestFetchWaitsForTheStore(t *testing.T) {
	inTime(t, func(t *testing.T, w *world) {
		romeo := w.bound("romeo/orchard")
		romeo.chat("juliet", "1")
		c := w.managed("juliet/balcony")
		w.box.fail(errJournal)
		c.send(retrieve("get", "f", "<fetch/>"))
		c.want()
		w.box.fail(nil)
		time.Sleep(drainRetry + time.Second)
		c.want("message romeo/orchard 1 delayed", "iq result f")
	})
}

func TestChoiceMovesWithTheSession(t *testing.T) {
	// At whatever node the client comes back, the session has chosen, and reads the mailbox there.
	inMesh(t, 3, func(t *testing.T, m *mesh) {
		romeo := m.nodes[0].bound("romeo/orchard")
		romeo.chat("juliet", "1")
		romeo.chat("juliet", "2")
		juliet := m.nodes[1].managed("juliet/balcony")
		nodes := juliet.headers("").nodes()
		if len(nodes) != 2 {
			t.Fatalf("headers %q", nodes)
		}
		h := juliet.count()
		juliet.cut()
		m.rest()
		juliet = juliet.resumedAt(m.nodes[2], h)
		juliet.want("resumed 1")
		m.atHome(m.nodes[2], "juliet", 1)
		juliet.send("<presence xmlns='jabber:client'/>")
		if got := juliet.bodiesOf(); len(got) > 0 {
			t.Errorf("given %q", got)
		}
		juliet.send(retrieve("get", "v", items("view", nodes[1])))
		juliet.want("message romeo/orchard 2 delayed", "iq result v")
		juliet.send(retrieve("set", "r", items("remove", nodes[1])))
		juliet.want("iq result r")
		// One that was shown something in the middle stays at its home, and is served through.
		c := juliet.count()
		juliet.ack(c)
		juliet.cut()
		s := m.nodes[2].sessionsOf("juliet")[0]
		s.mu.Lock()
		s.shows = []*show{{request: stanza.New(stanza.IQ, "get", "f", juliet.addr, addr("juliet"), nil), all: true}}
		s.mu.Unlock()
		juliet = juliet.resumedAt(m.nodes[0], c)
		m.atHome(m.nodes[2], "juliet", 1)
		juliet.send(retrieve("get", "g", "<fetch/>"))
		juliet.want("resumed 4", "message romeo/orchard 1 delayed", "iq result f", "message romeo/orchard 1 delayed", "iq result g")
		// Another client, at another node, is served through the home.
		other := m.nodes[0].managed("juliet/chamber")
		if n := other.number(); n != "1" {
			t.Errorf("number %q", n)
		}
		other.send(retrieve("set", "p", "<purge/>"))
		other.want("iq result p")
		if left := m.nodes[0].world.box.bodies(addr("juliet")); len(left) > 0 {
			t.Errorf("mailbox %q", left)
		}
	})
}
