package session

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/amp"
	"holdfast/stanza"
)

// in is a moment as a rule has it.
func in(d time.Duration) string { return time.Now().UTC().Add(d).Format("2006-01-02T15:04:05.000Z") }

// overdueOf has what is due taken out, as the mailbox does it.
func (w *world) overdueOf(name string) (gone int) {
	w.t.Helper()
	var due []*stanza.Stanza
	w.box.mu.Lock()
	for _, st := range w.box.boxes[addr(name)] {
		if w.box.Overdue(st) {
			due = append(due, st)
		}
	}
	w.box.mu.Unlock()
	ids, err := w.sv.Expired(addr(name), due)
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	return len(ids)
}

// XEP-0079 §4.3.2: a message in the mailbox whose time comes.
func TestRulesOfWhatWaits(t *testing.T) {
	for _, tt := range []struct {
		rules []string // with a minute to go
		told  []string // when it is over
		late  []string // when it is delivered then
		got   bool
	}{
		{rules: []string{"drop expire-at"}},
		{rules: []string{"error expire-at"}, told: []string{"m error undefined-condition"}},
		{rules: []string{"alert expire-at"}, told: []string{"m alert"}},
		{rules: []string{"notify expire-at"}, late: []string{"m notify"}, got: true},
		{rules: []string{"notify expire-at", "drop expire-at"}, told: []string{"m notify"}},
		{rules: []string{"alert expire-at", "error expire-at"}, told: []string{"m alert"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.stop()
			w.roster.friends(addr("romeo"), addr("juliet"))
			romeo := w.managed("romeo/orchard")
			at := in(time.Minute)
			told := func(want []string) {
				t.Helper()
				synctest.Wait()
				var got []string
				for _, e := range romeo.frames() {
					a, ok := e.Find(amp.NS, "amp")
					if !ok {
						continue
					}
					line := e.Attr("id") + " " + a.Attr("status")
					if c := condition(e); c != "" {
						line += " " + c
					}
					got = append(got, line)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%v: romeo was told %q, want %q", tt.rules, got, want)
				}
			}
			var rules []string
			for _, r := range tt.rules {
				rules = append(rules, r+" "+at)
			}
			romeo.rule("juliet", "m", rules...)
			told(nil)
			if n := w.overdueOf("juliet"); n != 0 || len(w.box.bodies(addr("juliet"))) != 1 {
				t.Errorf("%v: %d are out before their time", tt.rules, n)
			}
			time.Sleep(time.Minute)
			if n := w.overdueOf("juliet"); (n == 0) != tt.got {
				t.Errorf("%v: %d are out", tt.rules, n)
			}
			told(tt.told)
			juliet := w.bound("juliet/balcony")
			juliet.send("<presence xmlns='jabber:client'/>")
			if got := juliet.bodiesOf(); slices.Contains(got, "m") != tt.got {
				t.Errorf("%v: juliet got %q", tt.rules, got)
			}
			told(tt.late)
			if len(w.box.bodies(addr("juliet"))) > 0 && !tt.got {
				t.Errorf("%v: still in the mailbox", tt.rules)
			}
		})
	}
}

// What a session was given in time is left to it; when it ends without having it, nobody else is given it, and its sender
// is told.
func TestExpiredOnTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.roster.friends(addr("romeo"), addr("juliet"))
		romeo := w.managed("romeo/orchard")
		romeo.rule("juliet", "kept", "error expire-at "+in(time.Minute))
		juliet := w.managed("juliet/balcony").available() // with the message, which it does not acknowledge
		romeo.rule("juliet", "live", "alert expire-at "+in(time.Minute))
		juliet.frames()
		time.Sleep(time.Minute)
		if n := w.overdueOf("juliet"); n != 0 {
			t.Errorf("%d taken from a session", n)
		}
		other := w.managed("juliet/chamber").available()
		juliet.cut()
		time.Sleep(time.Hour) // the session ends
		if got := other.bodiesOf(); len(got) > 0 {
			t.Errorf("another session got %q", got)
		}
		if got := w.box.bodies(addr("juliet")); !slices.Equal(got, []string{"kept", "live"}) {
			t.Errorf("the mailbox has %q", got)
		}
		romeo.frames()
		if n := w.overdueOf("juliet"); n != 2 {
			t.Errorf("%d are out", n)
		}
		var ids []string
		for _, e := range romeo.frames() {
			if _, ok := e.Find(amp.NS, "amp"); ok {
				ids = append(ids, e.Attr("id"))
			}
		}
		if !slices.Equal(ids, []string{"kept", "live"}) {
			t.Errorf("romeo was told of %q", ids)
		}
		if got := w.box.bodies(addr("juliet")); len(got) > 0 {
			t.Errorf("the mailbox has %q", got)
		}
	})
}
