package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"holdfast/amp"
	"holdfast/stanza"
)

// rule is a message with one rule.
func (c *client) rule(to, text string, rules ...string) {
	c.t.Helper()
	var b strings.Builder
	for _, r := range rules {
		f := strings.Fields(r)
		fmt.Fprintf(&b, "<rule action='%s' condition='%s' value='%s'/>", f[0], f[1], f[2])
	}
	c.send(fmt.Sprintf("<message xmlns='jabber:client' type='chat' to='%s' id='%s'><body>%s</body><amp xmlns='%s'>%s</amp></message>",
		addr(to), text, text, amp.NS, b.String()))
}

// reports is what AMP told, as id, status and rule.
func reports(all []*stanza.Element) (told []string) {
	for _, e := range all {
		a, ok := e.Find(amp.NS, "amp")
		if !ok || !a.HasAttr("status") && e.Attr("type") != "error" {
			continue
		}
		inner := string(a.Inner())
		told = append(told, strings.Join(strings.Fields(e.Attr("id")+" "+a.Attr("status")+" "+condition(e)+" "+inner[strings.Index(inner, "value='")+7:strings.LastIndex(inner, "'")]), " "))
	}
	return told
}

// XEP-0079: romeo, whom juliet lets see her presence, sends messages with rules to her.
func TestRules(t *testing.T) {
	const away, here, detached = "away", "here", "detached"
	for _, tt := range []struct {
		juliet string
		to     string
		rules  []string
		told   []string
		stored bool
		got    bool
	}{
		{here, "juliet", []string{"notify deliver direct"}, []string{"m notify direct"}, false, true},
		{here, "juliet", []string{"alert deliver direct"}, []string{"m alert direct"}, false, false},
		{here, "juliet", []string{"drop deliver direct"}, nil, false, false},
		{here, "juliet", []string{"error deliver direct"}, []string{"m error undefined-condition direct"}, false, false},
		{here, "juliet", []string{"drop deliver stored", "error deliver none"}, nil, false, true},
		{here, "juliet/balcony", []string{"error match-resource other"}, nil, false, true},
		{here, "juliet/elsewhere", []string{"error match-resource other"}, []string{"m error undefined-condition other"}, false, false},
		{here, "juliet/balcony", []string{"notify match-resource exact", "drop expire-at 2004-01-01T00:00:00Z"}, []string{"m notify exact"}, false, false},
		{here, "juliet", []string{"drop expire-at 2104-01-01T00:00:00Z"}, nil, false, true},
		{away, "juliet", []string{"notify deliver stored"}, []string{"m notify stored"}, true, false},
		{away, "juliet", []string{"alert deliver stored"}, []string{"m alert stored"}, false, false},
		{away, "juliet", []string{"drop deliver stored"}, nil, false, false},
		{away, "juliet", []string{"drop deliver direct"}, nil, true, false},
		{away, "juliet/balcony", []string{"error match-resource other"}, []string{"m error undefined-condition other"}, false, false},
		{detached, "juliet", []string{"notify deliver stored"}, []string{"m notify stored"}, false, true},
		{detached, "juliet", []string{"drop deliver stored"}, nil, false, false},
	} {
		w := newWorld(t)
		w.roster.friends(addr("romeo"), addr("juliet"))
		romeo := w.bound("romeo/orchard")
		var juliet *client
		if tt.juliet != away {
			juliet = w.managed("juliet/balcony").available()
		}
		if tt.juliet == detached {
			juliet.cut()
		}
		waiting := 0
		if juliet != nil {
			waiting = juliet.session().queued()
		}
		romeo.rule(tt.to, "m", tt.rules...)
		name := fmt.Sprint(tt.juliet, " ", tt.to, " ", tt.rules)
		if told := reports(romeo.frames()); !slices.Equal(told, tt.told) {
			t.Errorf("%s: told %q, want %q", name, told, tt.told)
		}
		if n := len(w.box.boxes[addr("juliet")]); (n == 1) != tt.stored {
			t.Errorf("%s: %d stored", name, n)
		}
		got := false
		switch tt.juliet {
		case here:
			got = slices.Contains(briefs(juliet.frames()), "message romeo/orchard m")
		case detached:
			got = juliet.session().queued() > waiting
		}
		if got != tt.got {
			t.Errorf("%s: delivered %v", name, got)
		}
		w.stop()
	}
}

// What nobody gets: a rule may put its answer in the place of the usual one.
func TestRulesOfNone(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	w.box.limit = 1
	w.roster.friends(addr("romeo"), addr("juliet"))
	romeo := w.bound("romeo/orchard")
	romeo.rule("juliet", "1", "drop deliver none")
	romeo.rule("juliet", "2", "drop deliver none") // the box is full
	romeo.rule("juliet", "3", "alert deliver none")
	romeo.rule("juliet", "4", "notify deliver none")
	romeo.rule("juliet", "5", "drop deliver direct")
	var got []string
	for _, e := range romeo.frames() {
		got = append(got, e.Attr("id")+" "+condition(e))
	}
	if want := []string{"3 ", "4 ", "4 service-unavailable", "5 service-unavailable"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := len(w.box.boxes[addr("juliet")]); n != 1 {
		t.Errorf("%d stored", n)
	}
}

// §8: who may not see the recipient's presence learns nothing of it.
func TestRulesOfStrangers(t *testing.T) {
	for _, open := range []bool{false, true} {
		w := newWorld(t, func(c *Config, _ *Parts) { c.AMPStrangers = open })
		romeo := w.bound("romeo/orchard")
		for i, to := range []string{"juliet", "nobody"} {
			for j, r := range []string{"alert deliver stored", "notify match-resource any", "error expire-at 2004-01-01T00:00:00Z"} {
				romeo.rule(to, fmt.Sprint("m", i, j), r)
			}
		}
		romeo.rule("juliet", "own", "drop deliver none")
		romeo.rule("romeo", "self", "notify deliver direct")
		refused := 0
		for _, e := range romeo.frames() {
			if condition(e) == "not-acceptable" {
				refused++
			}
		}
		if want := map[bool]int{false: 6, true: 0}[open]; refused != want {
			t.Errorf("open %v: %d refused, want %d", open, refused, want)
		}
		if n := len(w.box.boxes[addr("juliet")]); n != map[bool]int{false: 1, true: 2}[open] {
			t.Errorf("open %v: %d stored", open, n)
		}
		w.stop()
	}
}

// A message with rules that can't be followed goes nowhere, and one with rules has the addresses in them.
func TestRulesRefusedAndMarked(t *testing.T) {
	w := newWorld(t)
	defer w.stop()
	romeo, juliet := w.bound("romeo/orchard"), w.bound("juliet/balcony").available()
	romeo.rule("juliet", "1", "explode deliver direct")
	romeo.rule("juliet", "2", "drop deliver stored")
	if got := briefs(romeo.frames()); !slices.Equal(got, []string{"message error " + testDomain + " bad-request"}) {
		t.Errorf("romeo got %q", got)
	}
	frames := juliet.frames()
	if len(frames) != 1 {
		t.Fatalf("juliet got %q", briefs(frames))
	}
	if a, _ := frames[0].Find(amp.NS, "amp"); a.Attr("from") != romeo.addr.String() || a.Attr("to") != addr("juliet").String() {
		t.Errorf("juliet got %s", frames[0].Raw())
	}
}

// Without AMP rules are content like any other.
func TestRulesSwitchedOff(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Parts) { c.AMP = false })
	defer w.stop()
	romeo := w.connected()
	romeo.stream.Open(Open{To: testDomain, Version: "1.0"})
	romeo.want("open", "features SCRAM-SHA-1 PLAIN")
	romeo.send(auth("romeo"))
	romeo.want("success")
	romeo.stream.Open(Open{To: testDomain, Version: "1.0"})
	romeo.want("open", "features bind session sm ver sub")
}

// In a cluster the recipient's home looks at the rules, and its reports find the sender.
func TestRulesAcrossNodes(t *testing.T) {
	inMesh(t, 2, func(t *testing.T, m *mesh) {
		for _, n := range m.nodes {
			n.roster.friends(addr("romeo"), addr("juliet"))
		}
		juliet, romeo := two(m)
		juliet.frames()
		romeo.rule("juliet", "1", "notify deliver direct")
		romeo.rule("juliet", "2", "alert deliver direct")
		m.rest()
		if told := reports(romeo.frames()); !slices.Equal(told, []string{"1 notify direct", "2 alert direct"}) {
			t.Errorf("told %q", told)
		}
		if got := briefs(juliet.frames()); !slices.Contains(got, "message romeo/orchard 1") || slices.Contains(got, "message romeo/orchard 2") {
			t.Errorf("juliet got %q", got)
		}
	})
}
