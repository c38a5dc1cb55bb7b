package session

import (
	"testing"
	"testing/synctest"
	"time"

	"holdfast/stanza"
)

// The sender hears why the mailbox did not take a message: at once, and when a session that had it has ended.
func TestRefusalSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		romeo := w.bound("romeo/orchard")
		say := func(to, inner string) {
			t.Helper()
			romeo.send("<message xmlns='jabber:client' to='" + addr(to).String() + "' type='chat' id='m'><body>x</body>" + inner + "</message>")
		}
		refused := func(want string) {
			t.Helper()
			synctest.Wait()
			got := romeo.frames()
			if len(got) != 1 {
				t.Fatalf("%q", briefs(got))
			}
			e, _ := got[0].Find(stanza.NSClient, "error")
			var cond struct {
				Text string `xml:"urn:ietf:params:xml:ns:xmpp-stanzas text"`
			}
			if err := e.Decode(&cond); err != nil || condition(got[0]) != "service-unavailable" || cond.Text != want {
				t.Errorf("%s, want the text %q", got[0].Raw(), want)
			}
		}
		const noStore = "<no-store xmlns='urn:xmpp:hints'/>"
		say("juliet", noStore)
		refused("of this kind")
		w.box.limit = 1
		say("juliet", "")
		say("juliet", "")
		refused("full")
		w.box.limit = 0

		juliet := w.managed("juliet/balcony").available()
		juliet.cut()
		say("juliet", noStore)
		say("juliet", "")
		if got := romeo.frames(); len(got) > 0 {
			t.Errorf("while juliet may come back: %q", briefs(got))
		}
		time.Sleep(time.Hour)
		refused("of this kind")
		if n := len(w.box.bodies(addr("juliet"))); n != 2 {
			t.Errorf("%d messages are kept", n)
		}
	})
}
