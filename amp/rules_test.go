package amp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"holdfast/amp"
	"holdfast/stanza"
)

func message(t testing.TB, attrs, inner string) *stanza.Stanza {
	t.Helper()
	st, err := stanza.Parse([]byte("<message xmlns='jabber:client' from='a@example.org/x' to='b@example.org/y' "+attrs+">"+inner+"</message>"), stanza.NewID())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func rules(all ...string) string {
	var b strings.Builder
	b.WriteString("<amp xmlns='http://jabber.org/protocol/amp'>")
	for _, r := range all {
		f := strings.Fields(r)
		fmt.Fprintf(&b, "<rule action='%s' condition='%s' value='%s'/>", f[0], f[1], f[2])
	}
	return b.String() + "</amp>"
}

// §3.3.1 and §6: what is refused, and how.
func TestOf(t *testing.T) {
	for _, tt := range []struct {
		name, attrs, inner string
		want               string // "none", "rules", or the error and its specific condition
	}{
		{"no rules", "id='1'", "<body>x</body>", "none"},
		{"another namespace", "id='1'", "<amp xmlns='x'><rule action='drop'/></amp>", "none"},
		{"a report", "id='1'", "<amp xmlns='http://jabber.org/protocol/amp' status='alert'><rule action='alert' condition='deliver' value='stored'/></amp>", "none"},
		{"an error", "id='1' type='error'", rules("bang deliver stored"), "none"},
		{"all that there is", "id='1'", rules("alert deliver direct", "drop deliver none", "error deliver stored", "notify match-resource any",
			"drop match-resource exact", "drop match-resource other", "drop expire-at 2004-01-01T00:00:00Z", "drop expire-at 2004-01-01T00:00:00.123+00:00", "drop deliver forward", "drop deliver gateway"), "rules"},
		{"without id", "", rules("drop deliver stored"), "bad-request"},
		{"without rules", "id='1'", rules(), "bad-request"},
		{"too many", "id='1'", rules(strings.Split(strings.Repeat("drop deliver none,", 33)+"drop deliver none", ",")...), "bad-request"},
		{"per-hop of another kind", "id='1'", strings.Replace(rules("drop deliver stored"), "<amp ", "<amp per-hop='maybe' ", 1), "bad-request"},
		{"unknown action", "id='1'", rules("drop deliver stored", "explode deliver stored"), "bad-request unsupported-actions explode"},
		{"unknown condition", "id='1'", rules("drop deliver stored", "drop weather rain"), "bad-request unsupported-conditions weather"},
		{"value of delivery", "id='1'", rules("drop deliver tomorrow"), "not-acceptable invalid-rules tomorrow"},
		{"value of resource", "id='1'", rules("drop match-resource mine"), "not-acceptable invalid-rules mine"},
		{"no time", "id='1'", rules("drop expire-at soon"), "not-acceptable invalid-rules soon"},
		{"another time zone", "id='1'", rules("drop expire-at 2004-01-01T00:00:00+01:00"), "not-acceptable invalid-rules +01:00"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := message(t, tt.attrs, tt.inner)
			set, refusal, specific := amp.Of(st)
			if refusal == nil {
				if got := map[bool]string{true: "rules", false: "none"}[set != nil]; got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				return
			}
			want := strings.Fields(tt.want)
			if set != nil || string(refusal.Condition) != want[0] {
				t.Errorf("refused with %v, want %s", refusal, want[0])
			}
			reply := amp.Refusal(st, *refusal, specific)
			if reply.Attr("type") != "error" || reply.Attr("id") != st.Attr("id") || reply.From.String() != "example.org" || reply.To.String() != "a@example.org/x" {
				t.Errorf("reply %s", reply.Raw())
			}
			for _, word := range want {
				if !strings.Contains(string(reply.Raw()), word) {
					t.Errorf("reply without %s: %s", word, reply.Raw())
				}
			}
			if _, ok := reply.Find(amp.NS, "amp"); !ok {
				t.Errorf("reply without the rules: %s", reply.Raw())
			}
		})
	}
}

// §4.3: when which condition is met.
func TestConditions(t *testing.T) {
	direct := func(intended, others, bare bool) amp.Outcome {
		return amp.Outcome{Delivery: amp.Direct, Intended: intended, Others: others, Bare: bare}
	}
	stored := func(bare bool) amp.Outcome { return amp.Outcome{Delivery: amp.Stored, Bare: bare} }
	none := amp.Outcome{Delivery: amp.None}
	for _, tt := range []struct {
		rule string
		o    amp.Outcome
		met  bool
	}{
		{"deliver direct", direct(true, false, false), true},
		{"deliver direct", stored(false), false},
		{"deliver stored", stored(true), true},
		{"deliver stored", none, false},
		{"deliver none", none, true},
		{"deliver none", direct(true, false, false), false},
		{"deliver forward", direct(true, false, false), false},
		{"deliver gateway", none, false},
		{"match-resource any", direct(false, true, false), true},
		{"match-resource any", direct(false, true, true), true},
		{"match-resource any", stored(false), false},
		{"match-resource any", none, false},
		{"match-resource exact", direct(true, false, false), true},
		{"match-resource exact", direct(true, true, false), false},
		{"match-resource exact", direct(false, true, false), false},
		{"match-resource exact", stored(false), false},
		{"match-resource exact", stored(true), true},
		{"match-resource exact", direct(false, true, true), false},
		{"match-resource other", direct(true, false, false), false},
		{"match-resource other", direct(false, true, false), true},
		{"match-resource other", stored(false), true},
		{"match-resource other", stored(true), false},
		{"match-resource other", direct(false, true, true), true},
		{"match-resource other", none, false},
	} {
		set, refusal, _ := amp.Of(message(t, "id='1'", rules("drop "+tt.rule)))
		if refusal != nil {
			t.Fatalf("%s: %v", tt.rule, refusal)
		}
		tt.o.At = time.Now()
		if _, _, met := set.Decide(tt.o); met != tt.met {
			t.Errorf("%s with %+v: %v", tt.rule, tt.o, met)
		}
	}
	set, _, _ := amp.Of(message(t, "id='1'", rules("error expire-at 2020-01-01T00:00:00Z")))
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for when, met := range map[time.Time]bool{at: true, at.Add(-1): false, at.Add(time.Hour): true} {
		if _, _, got := set.Decide(amp.Outcome{Delivery: amp.Direct, At: when}); got != met {
			t.Errorf("at %v: %v", when, got)
		}
	}
}

// §4.3.2: a message that waits is looked at again when it would be delivered, for its time alone.
func TestOverdue(t *testing.T) {
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		rules   []string
		expires time.Duration // after at; negative for never
		when    time.Duration
		notify  int
		decides amp.Action // "" for nothing
	}{
		{[]string{"drop deliver stored", "notify match-resource other"}, -1, time.Hour, 0, ""},
		{[]string{"notify expire-at 2020-01-01T00:00:00Z"}, -1, time.Hour, 1, ""},
		{[]string{"notify expire-at 2020-01-01T00:00:00Z"}, -1, -1, 0, ""},
		{[]string{"error expire-at 2020-01-01T00:00:00Z"}, 0, 0, 0, amp.Error},
		{[]string{"error expire-at 2020-01-01T00:00:00Z"}, 0, -time.Millisecond, 0, ""},
		{[]string{"alert deliver stored", "drop expire-at 2020-01-01T00:00:02Z", "error expire-at 2020-01-01T00:00:01Z"}, time.Second, time.Second, 0, amp.Error},
		{[]string{"alert deliver stored", "drop expire-at 2020-01-01T00:00:02Z", "error expire-at 2020-01-01T00:00:01Z"}, time.Second, 2 * time.Second, 0, amp.Drop},
		{[]string{"notify expire-at 2020-01-01T00:00:00Z", "alert expire-at 2020-01-01T00:00:01Z"}, time.Second, time.Second, 1, amp.Alert},
		{[]string{"alert expire-at 2020-01-01T00:00:01Z", "notify expire-at 2020-01-01T00:00:00Z"}, time.Second, time.Second, 0, amp.Alert},
	} {
		set, _, _ := amp.Of(message(t, "id='1'", rules(tt.rules...)))
		if when, ok := set.Expires(); ok != (tt.expires >= 0) || ok && !when.Equal(at.Add(tt.expires)) {
			t.Errorf("%v expires at %v, %v", tt.rules, when, ok)
		}
		notify, decides, ok := set.Overdue(at.Add(tt.when))
		if len(notify) != tt.notify || ok != (tt.decides != "") || decides.Action != tt.decides {
			t.Errorf("%v after %v: %v, then %v %v", tt.rules, tt.when, notify, decides, ok)
		}
	}
}

// §3.3.3: in their order, and notify goes on.
func TestOrder(t *testing.T) {
	set, _, _ := amp.Of(message(t, "id='1'", rules("notify deliver stored", "drop deliver none", "notify match-resource other", "alert deliver stored", "error deliver stored")))
	notify, decides, ok := set.Decide(amp.Outcome{Delivery: amp.Stored, At: time.Now()})
	if len(notify) != 2 || !ok || decides.Action != amp.Alert {
		t.Errorf("%v, then %v %v", notify, decides, ok)
	}
	if notify, _, ok := set.Decide(amp.Outcome{Delivery: amp.Direct, Intended: true, At: time.Now()}); len(notify) != 0 || ok {
		t.Errorf("%v %v", notify, ok)
	}
	if n := len(set.Reports()); n != 4 {
		t.Errorf("%d rules tell something", n)
	}
}

// §4.3.3: in a set for all hops a rule about the resource is ignored.
func TestPerHop(t *testing.T) {
	st := message(t, "id='1'", strings.Replace(rules("drop match-resource any", "error deliver direct"), "<amp ", "<amp per-hop='true' ", 1))
	set, _, _ := amp.Of(st)
	if _, decides, ok := set.Decide(amp.Outcome{Delivery: amp.Direct, At: time.Now()}); !ok || decides.Action != amp.Error {
		t.Errorf("%v %v", decides, ok)
	}
	child, _ := st.Find(amp.NS, "amp")
	marked := string(amp.Marked(st.Raw(), child, st.From, st.To))
	if !strings.Contains(marked, "<amp xmlns='http://jabber.org/protocol/amp' from='a@example.org/x' to='b@example.org/y' per-hop='true'><rule ") {
		t.Errorf("marked %s", marked)
	}
}

// §4.4: the reports.
func TestReport(t *testing.T) {
	st := message(t, "id='&lt;1&gt;' type='chat'", "<body>secret</body>"+rules("alert deliver stored"))
	for _, action := range []amp.Action{amp.Alert, amp.Notify, amp.Error} {
		r := amp.Report(st, amp.Rule{Action: action, Condition: "deliver", Value: "stored"})
		text := string(r.Raw())
		if r.From.String() != "example.org" || r.To.String() != "a@example.org/x" || r.Attr("id") != "<1>" || strings.Contains(text, "secret") {
			t.Errorf("%s: %s", action, text)
		}
		want := fmt.Sprintf("<amp xmlns='http://jabber.org/protocol/amp' status='%s' from='a@example.org/x' to='b@example.org/y'><rule action='%s' condition='deliver' value='stored'/></amp>", action, action)
		if !strings.Contains(text, want) {
			t.Errorf("%s: %s", action, text)
		}
		if failed := strings.Contains(text, "<failed-rules xmlns='http://jabber.org/protocol/amp#errors'><rule xmlns='http://jabber.org/protocol/amp' "); failed != (action == amp.Error) || (r.Attr("type") == "error") != failed {
			t.Errorf("%s: %s", action, text)
		}
	}
	if amp.Report(st, amp.Rule{Action: amp.Drop}) != nil {
		t.Error("drop tells something")
	}
}

// Rules whose prefix is declared elsewhere are answered without being repeated.
func TestPrefixes(t *testing.T) {
	st, err := stanza.Parse([]byte("<message xmlns='jabber:client' xmlns:q='http://jabber.org/protocol/amp' from='a@b/c' to='d@b' id='1'><q:amp><q:rule action='x' condition='deliver' value='none'/></q:amp></message>"), stanza.ID{})
	if err != nil {
		t.Fatal(err)
	}
	_, refusal, specific := amp.Of(st)
	if refusal == nil {
		t.Fatal("not refused")
	}
	if r := amp.Refusal(st, *refusal, specific); !strings.Contains(string(r.Raw()), "unsupported-actions") {
		t.Errorf("%s", r.Raw())
	}
}
