package session

import (
	"slices"
	"strings"
	"testing"

	"holdfast/stanza"
)

const (
	forgedDelay = "<delay xmlns='urn:xmpp:delay' from='" + testDomain + "' stamp='2002-09-10T23:08:25Z'/>"
	roomsDelay  = "<delay xmlns='urn:xmpp:delay' from='room@rooms.example' stamp='2002-09-10T23:08:25Z'/>"
	forgedShown = "<offline xmlns='http://jabber.org/protocol/offline'><item node='x'/></offline>"
)

// What only the server can know is not taken from clients: neither that it kept a stanza (XEP-0203) nor that it shows a
// message of the mailbox (XEP-0013 §2.4).
func TestForgedDelays(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		juliet := w.managed("juliet/balcony").available()
		romeo := w.bound("romeo/orchard")
		delays := func(raw []byte) (all []string) {
			for _, d := range strings.Split(string(raw), "<delay ")[1:] {
				_, from, _ := strings.Cut(d, "from='")
				from, _, _ = strings.Cut(from, "'")
				all = append(all, from)
			}
			return all
		}
		next := func(want string) {
			t.Helper()
			got := slices.DeleteFunc(juliet.frames(), func(e *stanza.Element) bool { return e.Kind() == stanza.Other })
			if len(got) != 1 {
				t.Fatalf("%q", briefs(got))
			}
			if from := strings.Join(delays(got[0].Raw()), " "); from != want {
				t.Errorf("delayed by %q, want %q: %s", from, want, got[0].Raw())
			}
			if got[0].Payloads().Has(stanza.Retrieved) {
				t.Errorf("shown as one of the mailbox: %s", got[0].Raw())
			}
		}
		say := func(inner string) {
			t.Helper()
			romeo.send("<message xmlns='jabber:client' to='" + addr("juliet").String() + "' type='chat'><body>x</body>" + inner + "</message>")
		}
		say(forgedDelay + roomsDelay + forgedShown)
		next("room@rooms.example")
		say(strings.Replace(forgedDelay, testDomain, strings.ToUpper(testDomain), 1))
		next("")
		romeo.send("<presence xmlns='jabber:client' to='" + addr("juliet/balcony").String() + "'>" + forgedDelay + "</presence>")
		next("")
		juliet.ack(juliet.count())

		// A delay of somebody else's does not hide that the server kept a message, in the session or in the mailbox.
		juliet.cut()
		say(forgedDelay + roomsDelay)
		juliet = juliet.resumed(juliet.count())
		next("room@rooms.example " + testDomain)
		juliet.ack(juliet.count())
		juliet.close()
		say(forgedDelay + roomsDelay + forgedShown)
		juliet = w.bound("juliet/chamber")
		juliet.send("<presence xmlns='jabber:client'/>")
		if got := juliet.frames(); len(got) != 2 || got[0].Kind() != stanza.Message {
			t.Errorf("%q", briefs(got))
		} else if from := strings.Join(delays(got[0].Raw()), " "); from != "room@rooms.example "+testDomain {
			t.Errorf("delayed by %q: %s", from, got[0].Raw())
		}
	})
}
