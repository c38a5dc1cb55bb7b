package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"holdfast/internal/testkit/xmppclient"
)

// This file sends every combination of what a policy looks at to somebody who is away, over a socket, and holds what
// happens to each against a table that was written down from the documents.

// letter is one combination. Each field names a value of one dimension.
type letter struct{ typ, content, state, hint, delay, proof string }

// The dimensions: what a value looks like on the wire.
var (
	letterTypes    = []string{"chat", "normal", "", "x-unheard-of", "headline", "groupchat", "error"}
	letterContents = map[string]string{
		"": "", "body": "<body>text</body>", "subject": "<subject>text</subject>", "body and subject": "<subject>a</subject><body>b</body>",
		"other": "<data xmlns='urn:example:data'>text</data>",
	}
	letterStates = map[string]string{"": "", "composing": "<composing xmlns='http://jabber.org/protocol/chatstates'/>"}
	letterHints  = map[string]string{
		"": "", "store": hint("store"), "no-store": hint("no-store"), "no-permanent-store": hint("no-permanent-store"), "no-copy": hint("no-copy"),
		"store and no-store": hint("store") + hint("no-store"),
	}
	letterDelays = map[string]string{"": "", "delay": "<delay xmlns='urn:xmpp:delay' from='elsewhere.example' stamp='2020-02-02T02:02:02Z'/>"}
	letterProofs = map[string]string{
		"": "", "request": "<request xmlns='urn:xmpp:receipts'/>", "received": "<received xmlns='urn:xmpp:receipts' id='r'/>",
		"markable": "<markable xmlns='urn:xmpp:chat-markers:0'/>", "displayed": "<displayed xmlns='urn:xmpp:chat-markers:0' id='r'/>",
	}
)

func hint(name string) string { return "<" + name + " xmlns='urn:xmpp:hints'/>" }

func (l letter) xml(id string) string {
	typ := ""
	if l.typ != "" {
		typ = " type='" + l.typ + "'"
	}
	// Markers are about a thread (XEP-0333), of which each has its own here.
	return "<message xmlns='jabber:client' to='bob@localhost' id='" + id + "'" + typ + "><thread>" + id + "</thread>" +
		letterContents[l.content] + letterStates[l.state] + letterHints[l.hint] + letterDelays[l.delay] + letterProofs[l.proof] + "</message>"
}

// letters is every combination, in some order that stays.
func letters() (all []letter) {
	sorted := func(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
	for _, typ := range letterTypes {
		for _, content := range sorted(letterContents) {
			for _, state := range sorted(letterStates) {
				for _, hint := range sorted(letterHints) {
					for _, delay := range sorted(letterDelays) {
						for _, proof := range sorted(letterProofs) {
							all = append(all, letter{typ, content, state, hint, delay, proof})
						}
					}
				}
			}
		}
	}
	return all
}

// fate is an action and its reason, as the metric has them.
type fate string

// law is a line of the table: the first whose patterns all fit tells the fate. A pattern is a comma-separated list of
// values, where "-" is the value "", and "*" any.
type law struct {
	typ, content, state, hint, proof string // a delay never matters (XEP-0203 §3: it is about another delivery)
	fate                             fate
	source                           string
}

const talk = "chat,normal,-,x-unheard-of" // RFC 6121 §5.2.2: what is not known is normal

// laws is what holds when nothing is set.
var laws = []law{
	{"error", "*", "*", "*", "*", "drop error", "RFC 6121 §8.5.2.2.1: silently ignore; XEP-0160 §3"},
	{"groupchat", "*", "*", "*", "*", "bounce groupchat", "RFC 6121 §8.5.2.2.1: return an error"},
	{"headline", "*", "*", "store", "*", "store hint_store", "XEP-0334 §4.4: also what otherwise would not be"},
	{"headline", "*", "*", "*", "*", "drop headline", "RFC 6121 §8.5.2.2.1: silently ignore; XEP-0160 §3: not stored"},

	{talk, "-", "composing", "no-store,store and no-store", "-", "drop chat_state", "XEP-0160 §3: a chat state alone is not stored"},
	{talk, "-", "*", "no-store,store and no-store", "*", "drop hint_no_store", "XEP-0334 §4.2, and there is nothing that a human would miss"},
	{talk, "*", "*", "no-store,store and no-store", "*", "bounce hint_no_store", "XEP-0334 §4.2; RFC 6121 §8.5.2.2.1: or return an error"},

	{talk, "*", "*", "store", "*", "store hint_store", "XEP-0334 §4.4"},
	{talk, "body,subject,body and subject", "*", "*", "*", "store body", "XEP-0160 §3"},
	{talk, "*", "*", "*", "request,received", "store receipt", "XEP-0184 §8.3: receipts may go by offline storage"},
	{talk, "*", "*", "*", "markable,displayed", "store marker", "XEP-0333"},
	{talk, "-", "composing", "*", "-", "drop chat_state", "XEP-0160 §3"},
	{talk, "-", "-", "*", "-", "drop empty", "there is nothing to be kept"},
	{talk, "other", "*", "*", "-", "bounce bodiless", "RFC 6121 §8.5.2.2.1: return an error"},
}

// strictLaws is what holds with OFFLINE_STORE_NO_PERMANENT=false, OFFLINE_STORE_BODILESS=true and OFFLINE_GROUPCHAT=true.
var strictLaws = func() (all []law) {
	const talk = talk + ",groupchat"
	for _, l := range laws {
		switch {
		case l.fate == "bounce groupchat":
			continue
		case l.fate == "bounce bodiless":
			l.fate = "store bodiless"
		}
		if strings.HasPrefix(l.typ, "chat") {
			l.typ = talk
		}
		all = append(all, l)
		if l.fate == "bounce hint_no_store" { // and for no-permanent-store the same as for no-store
			all = append(all,
				law{talk, "-", "composing", "no-permanent-store", "-", "drop chat_state", "XEP-0160 §3"},
				law{talk, "-", "*", "no-permanent-store", "*", "drop hint_no_permanent_store", "XEP-0334 §4.1"},
				law{talk, "*", "*", "no-permanent-store", "*", "bounce hint_no_permanent_store", "XEP-0334 §4.1"})
		}
	}
	return all
}()

func fits(pattern, value string) bool {
	if value == "" {
		value = "-"
	}
	return pattern == "*" || slices.Contains(strings.Split(pattern, ","), value)
}

func fateOf(t *testing.T, laws []law, l letter) fate {
	t.Helper()
	for _, w := range laws {
		if fits(w.typ, l.typ) && fits(w.content, l.content) && fits(w.state, l.state) && fits(w.hint, l.hint) && fits(w.proof, l.proof) {
			return w.fate
		}
	}
	t.Fatalf("no law for %+v", l)
	return ""
}

var decision = regexp.MustCompile(`(?m)^holdfast_offline_decisions_total\{action="(\w+)",reason="(\w+)"\} (\d+)`)

// decisions reads the counters of all decisions so far.
func (n *node) decisions() map[fate]int {
	n.t.Helper()
	all := map[fate]int{}
	_, text := n.body("/metrics")
	for _, m := range decision.FindAllStringSubmatch(text, -1) {
		all[fate(m[1]+" "+m[2])], _ = strconv.Atoi(m[3])
	}
	if len(all) == 0 {
		n.t.Fatal("there is no metric of decisions")
	}
	return all
}

// answered pings and returns the ids of the errors that came before the answer; all else is wrong.
func (c *client) answered() (ids []string) {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='get' id='answered'><ping xmlns='urn:xmpp:ping'/></iq>")
	for {
		e := c.next()
		switch {
		case e.Name.Local == "iq" && e.Attr("id") == "answered":
			return ids
		case e.Name.Local == "message" && e.StanzaError() == "service-unavailable":
			ids = append(ids, e.Attr("id"))
		default:
			c.t.Errorf("unexpected: %v", e)
		}
	}
}

// Each fate's letters are sent together, so that the counter of that fate, and no other, has to count each of them.
func TestMatrix(t *testing.T) {
	onBothBackends(t, func(t *testing.T, env map[string]string) { testMatrix(t, env, laws) })
	t.Run("other settings", func(t *testing.T) {
		testMatrix(t, map[string]string{
			"OFFLINE_STORE_NO_PERMANENT": "false", "OFFLINE_STORE_BODILESS": "true", "OFFLINE_GROUPCHAT": "true",
		}, strictLaws)
	})
}

func testMatrix(t *testing.T, env map[string]string, laws []law) {
	env = maps.Clone(env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, map[string]string{
		"OFFLINE_LIMIT": "0", "OFFLINE_USER_LIMIT": "0", "OFFLINE_USER_BYTES": "0", "PACKETCACHE_TIMEOUT": "5m",
	})
	n := startNode(t, t.TempDir(), env)
	n.addUsers("alice", "bob")
	alice := n.bound("alice")
	byFate := map[fate][]string{} // ids
	all := map[string]letter{}
	for i, l := range letters() {
		id := fmt.Sprint("m", i)
		all[id] = l
		f := fateOf(t, laws, l)
		byFate[f] = append(byFate[f], id)
	}
	var stored []string
	for _, f := range slices.Sorted(maps.Keys(byFate)) {
		for ids := range slices.Chunk(byFate[f], 200) {
			before := n.decisions()
			for _, id := range ids {
				alice.send(all[id].xml(id))
			}
			got, want := alice.answered(), []string(nil)
			switch action, _, _ := strings.Cut(string(f), " "); action {
			case "bounce":
				want = ids
			case "store":
				stored = append(stored, ids...)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %d errors came, want %d; for example %+v", f, len(got), len(want), all[firstDifference(got, want)])
			}
			for other, count := range n.decisions() {
				more := 0
				if other == f {
					more = len(ids)
				}
				if count != before[other]+more {
					t.Errorf("%d letters whose fate should be %s: %d were %s; for example %+v", len(ids), f, count-before[other], other, all[ids[0]])
				}
			}
		}
	}
	t.Logf("%d letters, %d fates, %d stored", len(all), len(byFate), len(stored))

	bob := n.managed("bob", "")
	bob.send("<presence xmlns='jabber:client'/>")
	var got []string
	take := func(e *xmppclient.Element) bool {
		if e.Name.Local != "message" {
			return false
		}
		got = append(got, e.Attr("id"))
		stamps := 0
		for _, c := range e.Children {
			if c.Is("urn:xmpp:delay", "delay") && c.Attr("from") == "localhost" {
				stamps++
			}
		}
		if stamps != 1 {
			t.Errorf("%+v came with %d stamps of ours: %v", all[e.Attr("id")], stamps, e)
		}
		if len(got)%50 == 0 {
			bob.ack()
		}
		return len(got) == len(stored)
	}
	bob.until(take)
	bob.ack()
	bob.send("<iq xmlns='jabber:client' type='get' id='end'><ping xmlns='urn:xmpp:ping'/></iq>")
	bob.until(func(e *xmppclient.Element) bool { take(e); return e.Attr("id") == "end" })
	if !slices.Equal(got, stored) {
		t.Errorf("%d letters were delivered, want %d; for example %+v", len(got), len(stored), all[firstDifference(got, stored)])
	}
}

// firstDifference is the first id that is in one and not in the same place of the other.
func firstDifference(a, b []string) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return b[i]
		case i >= len(b) || a[i] != b[i]:
			return a[i]
		}
	}
	return ""
}
