package muc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"holdfast/stanza"
)

// XEP-0045 §7.4.
func TestGroupchat(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.join("bob/2", "bob")
	outs := h.handle("bob/b", "", "<message type='groupchat' id='m1'><body>hello</body><origin-id xmlns='urn:xmpp:sid:0' id='m1'/></message>")
	if len(outs) != 3 {
		t.Fatalf("%q", lines(t, outs))
	}
	st := outs[0].Stanza
	for _, o := range outs {
		if o.Stanza != st {
			t.Error("not one stanza for all")
		}
	}
	if st.Attr("id") != "m1" || !st.Payloads().Has(stanza.OriginID|stanza.StanzaID) || st.ID.IsZero() {
		t.Errorf("%s", st.Raw())
	}
	if c, _ := st.Find(stanza.NSStanzaID, "stanza-id"); c.Attr("by") != coven.String() || c.Attr("id") != st.ID.String() {
		t.Errorf("%s", st.Raw())
	}
}

func TestGroupchatRefused(t *testing.T) {
	const hello = "<message type='groupchat'><body>hello</body></message>"
	h := newHall(t)
	h.expect("bob/b", "", hello, "bob/b < room: message error item-not-found")
	h.joinAll("alice/a")
	h.expect("bob/b", "", hello, "bob/b < room: message error not-acceptable")
	h.expect("alice/a", "alice", hello, "alice/a < alice: message error bad-request")
	h.expect("alice/a", "", "<message type='chat'><body>hello</body></message>", "alice/a < room: message error bad-request")
	h.configure("moderatedroom=1")
	h.joinAll("bob/b")
	h.expect("bob/b", "", hello, "bob/b < room: message error forbidden")
}

// What only the room says is taken out, wherever its prefix is declared and whatever stands in the text around it.
func TestGroupchatForged(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	outs := h.handle("bob/b", "", "<message type='groupchat' xml:lang='en' xmlns:u='http://jabber.org/protocol/muc#user' xmlns:k='kept'>"+
		"<![CDATA[<u:x><u:status code='104'/></u:x>]]><u:x><u:status code='104'/></u:x><k:k/>"+
		"<occupant-id xmlns='urn:xmpp:occupant-id:0' id='alice'/><body>hello</body>"+
		"<stanza-id xmlns='urn:xmpp:sid:0' by='coven@conference.localhost' id='forged'/>"+
		"<delay xmlns='urn:xmpp:delay' from='coven@conference.localhost' stamp='2002-01-01T00:00:00Z'/></message>")
	st := wire(outs[0])
	s := look(t, st)
	if s.X != nil || len(s.Delay) > 0 || len(s.Occupant) != 1 || s.Occupant[0].ID == "alice" || s.Body != "hello" || strings.Contains(string(st.Raw()), "forged") {
		t.Errorf("%s", st.Raw())
	}
	if _, ok := st.Find("kept", "k"); !ok || st.Attr("xml:lang") != "en" {
		t.Errorf("the rest is lost: %s", st.Raw())
	}
}

// §8.1, §7.2.15.
func TestSubject(t *testing.T) {
	const change = "<message type='groupchat'><subject>fire</subject></message>"
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	h.expect("bob/b", "", change, "bob/b < room: message error forbidden")
	h.configure("changesubject=1")
	h.expect("bob/b", "", change,
		"alice/a < bob: message groupchat subject=fire",
		"bob/b < bob: message groupchat subject=fire")
	h.do("bob/b", "", "<message type='groupchat'><subject>smoke</subject><body>is no subject</body></message>")
	got := h.join("carol/c", "carol")
	if last := got[len(got)-1]; last != "carol/c < bob: message groupchat subject=fire delayed" {
		t.Errorf("%s", last)
	}
	h.expect("alice/a", "", "<message type='groupchat'><subject>"+strings.Repeat("x", maxSubject)+"</subject></message>",
		"alice/a < room: message error not-acceptable")
	h.do("alice/a", "", "<message type='groupchat'><subject/></message>")
	got = h.join("dave/d", "dave")
	if last := got[len(got)-1]; last != "dave/d < alice: message groupchat subject delayed" {
		t.Errorf("%s", last)
	}
}

// §7.2.13, §7.2.14.
func TestHistory(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	for i := range 30 {
		h.do("alice/a", "", fmt.Sprintf("<message type='groupchat'><body>%02d</body></message>", i))
	}
	h.do("alice/a", "", "<message type='groupchat'><body>secret</body><no-store xmlns='urn:xmpp:hints'/></message>")
	h.do("alice/a", "", "<message type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
	size := len(h.room.history.entries()[0].told(coven).Raw())
	newest := h.room.history.entries()[29].at
	for _, c := range []struct {
		attrs string
		want  int
	}{
		{"", 25},
		{"maxstanzas='3'", 3},
		{"maxstanzas='0'", 0},
		{"maxstanzas='1000'", 30},
		{"maxstanzas='x'", 25},
		{"maxchars='0'", 0},
		{fmt.Sprintf("maxchars='%d'", 4*size+1), 4},
		{"seconds='9'", 10},
		{"seconds='9' maxstanzas='4'", 4},
		{"seconds='86400'", 30},
		{"since='" + newest.Add(-4*time.Second).Format(time.RFC3339) + "'", 5},
		{"since='" + newest.Add(time.Second).Format(time.RFC3339) + "'", 0},
		{"since='1970-01-01T00:00:00Z'", 30},
		{"since='yesterday'", 30},
	} {
		request := "<history " + c.attrs + "/>"
		if c.attrs == "" {
			request = ""
		}
		got := h.do("bob/b", "bob", "<presence><x xmlns='http://jabber.org/protocol/muc'>"+request+"</x></presence>")
		n := 0
		for _, l := range got {
			if strings.Contains(l, "body=") {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d messages, want %d", c.attrs, n, c.want)
		}
		if c.want > 0 && got[len(got)-2] != "bob/b < alice: message groupchat body=29 delayed" {
			t.Errorf("%s: %s", c.attrs, got[len(got)-2])
		}
	}
	h.configure("muc#maxhistoryfetch=2")
	if got := h.join("carol/c", "carol"); len(got) != 8 {
		t.Errorf("%q", got)
	}
}

func TestHistoryDelay(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	said := h.handle("alice/a", "", "<message type='groupchat'><body>hello</body></message>")[0].Stanza
	outs := h.handle("bob/b", "bob", enter)
	told := wire(outs[len(outs)-2])
	c, _ := told.Find(stanza.NSDelay, "delay")
	if c.Attr("from") != coven.String() || c.Attr("stamp") != said.ID.Time().UTC().Format("2006-01-02T15:04:05.000Z") {
		t.Errorf("%s", told.Raw())
	}
	if told.ID != said.ID || !told.Payloads().Has(stanza.StanzaID) {
		t.Errorf("another message: %s", told.Raw())
	}
}

// A message without a stanza id is as old as the one before it.
func TestHistoryWithoutID(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	say := func(id stanza.ID) time.Time {
		st := h.parse("alice/a", "", "<message type='groupchat'><body>h\u00e9llo\u2028\U0001f9d9</body></message>")
		st.ID = id
		h.room.Handle(st)
		entries := h.room.history.entries()
		return entries[len(entries)-1].at
	}
	first, second, third := say(stanza.ID{}), say(at(start, 0)), say(stanza.ID{})
	if first.Unix() != 0 || !second.Equal(start) || !third.Equal(start) {
		t.Errorf("%v, %v, %v", first, second, third)
	}
	state := string(h.room.State())
	h.open([]byte(state))
	if again := string(h.room.State()); again != state {
		t.Errorf("%s\n%s", state, again)
	}
}

func TestHistoryBounds(t *testing.T) {
	h := newHall(t, func(c *Config) { c.History = 10 })
	h.joinAll("alice/a")
	say := func(n int) {
		h.do("alice/a", "", "<message type='groupchat'><body>"+strings.Repeat("x", n)+"</body></message>")
	}
	check := func(want int) {
		t.Helper()
		r, size := h.room, 0
		for _, e := range r.history.entries() {
			size += len(e.st.Raw())
		}
		if n := len(r.history.entries()); n != want || r.history.bytes != size || size > maxHistoryBytes {
			t.Errorf("%d messages, want %d; %d bytes, counted %d", n, want, size, r.history.bytes)
		}
	}
	for range 100 {
		say(10)
	}
	check(10)
	if n := cap(h.room.history.all); n > 64 {
		t.Errorf("room for %d messages", n)
	}
	for range 5 {
		say(100 << 10)
	}
	check(2)
	say(300 << 10)
	check(0)
	say(10)
	check(1)
}

// A room that was opened again lets go of the same messages, whether they were told to somebody or not.
func TestHistoryBytesOpenedAgain(t *testing.T) {
	h := newHall(t)
	h.joinAll("alice/a")
	h.room.limits.HistoryBytes = 2500
	say := func() {
		h.do("alice/a", "", "<message type='groupchat'><body>"+strings.Repeat("x", 100)+"</body></message>")
	}
	for range 10 {
		say()
	}
	h.joinAll("bob/b") // is told them, by which they grow
	original, now := h.room, h.now
	h.open(original.State())
	again := h.room
	for _, r := range []*Room{original, again} {
		h.room, h.now = r, now
		for range 15 {
			say()
		}
	}
	if diff := cmp.Diff(string(original.State()), string(again.State())); diff != "" {
		t.Errorf("-original +opened again\n%s", diff)
	}
	sizes := 0
	for _, e := range original.history.entries() {
		sizes += e.size
	}
	if original.history.bytes != sizes || sizes > 2500 || sizes < 2000 {
		t.Errorf("%d bytes, counted %d", sizes, original.history.bytes)
	}
}

func TestHistoryOff(t *testing.T) {
	h := newHall(t, func(c *Config) { c.History = 0 })
	h.joinAll("alice/a")
	h.do("alice/a", "", "<message type='groupchat'><body>hello</body></message>")
	if got := h.join("bob/b", "bob"); len(got) != 4 {
		t.Errorf("%q", got)
	}
}

// §7.5.
func TestPrivateMessage(t *testing.T) {
	const whisper = "<message type='chat' id='p'><body>psst</body></message>"
	h := newHall(t)
	h.expect("bob/b", "alice", whisper, "bob/b < alice: message error item-not-found")
	h.joinAll("alice/a", "bob/b")
	h.join("alice/2", "alice")
	h.expect("bob/b", "alice", whisper,
		"alice/a < bob: message chat body=psst",
		"alice/2 < bob: message chat body=psst")
	h.expect("bob/b", "nobody", whisper, "bob/b < nobody: message error item-not-found")
	h.expect("carol/c", "alice", whisper, "carol/c < alice: message error not-acceptable")
	h.expect("bob/b", "alice", strings.Replace(whisper, "chat", "groupchat", 1), "bob/b < alice: message error bad-request")

	st := wire(h.handle("bob/b", "alice", "<message><x xmlns='http://jabber.org/protocol/muc#user'><invite from='alice@localhost'/></x><body>psst</body></message>")[0])
	if s := look(t, st); s.X == nil || s.X.Invite != nil || len(s.Occupant) != 1 {
		t.Errorf("%s", st.Raw())
	}
	for _, c := range []struct {
		allow string
		bob   bool
	}{{"anyone", true}, {"participants", true}, {"moderators", false}, {"none", false}} {
		h.configure("allowpm=" + c.allow)
		if got := h.do("bob/b", "alice", whisper); (len(got) == 2) != c.bob {
			t.Errorf("%s: %q", c.allow, got)
		}
	}
}

// What is said to one is not made to look like the room's history, either.
func TestDelayForged(t *testing.T) {
	const delays = "<delay xmlns='urn:xmpp:delay' from='coven@conference.localhost' stamp='2002-01-01T00:00:00Z'/>" +
		"<delay xmlns='urn:xmpp:delay' from='conference.localhost' stamp='2002-01-01T00:00:00Z'/>" +
		"<delay xmlns='urn:xmpp:delay' stamp='2099-01-01T00:00:00Z'/>" +
		"<delay xmlns='urn:xmpp:delay' from='bob@localhost/b' stamp='2002-01-01T00:00:00Z'/>"
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	if s := look(t, wire(h.handle("bob/b", "", "<message type='groupchat'><body>x</body><no-store xmlns='urn:xmpp:hints'/>"+delays+"</message>")[0])); len(s.Delay) != 1 {
		t.Errorf("to all: %+v", s)
	}
	for _, raw := range []string{
		"<message type='chat'><body>psst</body>" + delays + "</message>",
		"<message>" + delays + "<body>psst</body></message>",
	} {
		if s := look(t, wire(h.handle("bob/b", "alice", raw)[0])); len(s.Delay) != 1 || s.Body != "psst" {
			t.Errorf("%s: %+v", raw, s)
		}
	}
	for _, raw := range []string{
		"<presence><show>away</show>" + delays + "</presence>",
		"<presence>" + delays + "<x xmlns='http://jabber.org/protocol/muc'/></presence>",
		"<presence type='unavailable'>" + delays + "</presence>",
	} {
		for _, o := range h.handle("bob/b", "bob", raw) {
			if s := look(t, wire(o)); o.From.Resource() == "bob" && len(s.Delay) != 1 {
				t.Errorf("%s: %s", raw, wire(o).Raw())
			}
		}
	}
}

// An answer with an error is no way to say something.
func TestErrorPassedOn(t *testing.T) {
	const raw = "<message type='error' id='p'><body>psst</body><x xmlns='jabber:x:oob'/>" +
		"<error type='cancel'><not-allowed xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
	h := newHall(t)
	h.joinAll("alice/a", "bob/b")
	outs := h.handle("bob/b", "alice", raw)
	if got := strings.Join(lines(t, outs), "\n"); got != "alice/a < bob: message error not-allowed" {
		t.Fatal(got)
	}
	st := wire(outs[0])
	if s := look(t, st); st.NumChildren() != 3 || st.Attr("id") != "p" || st.ID.IsZero() || s.X == nil || len(s.Occupant) != 1 {
		t.Errorf("%s", st.Raw())
	}
	h.expect("bob/b", "", raw)
	h.expect("bob/b", "nobody", raw)
	// Its prefix is declared where it does not go along.
	h.expect("bob/b", "alice", "<message type='error' xmlns:s='urn:ietf:params:xml:ns:xmpp-stanzas'><error type='cancel'><s:not-allowed/></error></message>")
	h.configure("allowpm=moderators")
	h.expect("bob/b", "alice", raw)
	h.expect("alice/a", "bob", raw, "bob/b < alice: message error not-allowed")
}

// Errors of those who are not in the room are not even read.
func TestErrorOfStranger(t *testing.T) {
	const inner = " type='error' id='e'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></"
	h := newHall(t)
	for _, name := range []string{"empty", "used"} {
		before := string(h.room.State())
		for _, kind := range []string{"message", "presence", "iq"} {
			for _, to := range []string{"", "alice"} {
				st := h.parse("carol/c", to, "<"+kind+inner+kind+">")
				if n := testing.AllocsPerRun(100, func() {
					if outs := h.room.Handle(st); outs != nil {
						t.Fatalf("%q", lines(t, outs))
					}
				}); n > 0 && testing.CoverMode() == "" {
					t.Errorf("%s to %q of a room that is %s: %v allocations", kind, to, name, n)
				}
			}
		}
		if string(h.room.State()) != before {
			t.Errorf("the room that was %s is another one", name)
		}
		h.joinAll("alice/a")
	}
}

// A message to all costs one stanza and one list, however many there are.
func TestGroupchatAllocations(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("counts allocations")
	}
	h := newHall(t)
	h.joinAll("alice/a")
	for i := range 199 {
		h.join(fmt.Sprintf("user%d/r", i), fmt.Sprintf("nick%d", i))
	}
	st := h.parse("alice/a", "", "<message type='groupchat' id='m'><body>hello</body><markable xmlns='urn:xmpp:chat-markers:0'/></message>")
	if n := testing.AllocsPerRun(1000, func() {
		if outs := h.room.Handle(st); len(outs) != 200 {
			t.Fatal(len(outs))
		}
	}); n > 2 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGroupchat(b *testing.B) {
	h := newHall(b)
	h.joinAll("alice/a")
	for i := range 199 {
		h.join(fmt.Sprintf("user%d/r", i), fmt.Sprintf("nick%d", i))
	}
	st := h.parse("alice/a", "", "<message type='groupchat' id='m'><body>hello</body></message>")
	b.ReportAllocs()
	for b.Loop() {
		h.room.Handle(st)
	}
}

func BenchmarkState(b *testing.B) {
	h := newHall(b)
	h.joinAll("alice/a")
	for i := range 199 {
		h.join(fmt.Sprintf("user%d/r", i), fmt.Sprintf("nick%d", i))
	}
	for range 100 {
		h.do("alice/a", "", "<message type='groupchat' id='m'><body>hello</body></message>")
	}
	b.ReportAllocs()
	for b.Loop() {
		h.room.State()
	}
}
