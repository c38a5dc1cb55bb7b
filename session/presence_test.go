package session

import (
	"testing"
	"time"
)

func TestPresence(t *testing.T) {
	inTime(t, func(_ *testing.T, w *world) {
		w.roster.friends(addr("juliet"), addr("romeo"))
		romeo := w.bound("romeo/orchard").available()
		tybalt := w.bound("tybalt/street").available()
		c, other := w.managed("juliet/balcony"), w.bound("juliet/chamber").available()
		romeo.want("presence juliet/chamber")

		// RFC 6121 §4.2: to the contacts and one's own, and what they last said comes back (§4.3).
		c.send("<presence xmlns='jabber:client'><show>away</show></presence>")
		romeo.want("presence juliet/balcony")
		other.want("presence juliet/balcony")
		c.want("presence juliet/balcony", "presence romeo/orchard", "presence juliet/chamber")
		c.send("<presence xmlns='jabber:client'/>") // §4.4: a change, not a beginning
		romeo.want("presence juliet/balcony")
		other.want("presence juliet/balcony")
		c.want("presence juliet/balcony")

		// §4.3.2: only who may see it learns anything.
		probe := "<presence xmlns='jabber:client' type='probe' to='" + addr("juliet").String() + "'/>"
		romeo.send(probe)
		romeo.want("presence juliet/balcony", "presence juliet/chamber")
		tybalt.send(probe)
		tybalt.want()

		// §4.6: directed presence, and the end of it.
		c.send("<presence xmlns='jabber:client' to='" + addr("tybalt/street").String() + "'/>")
		tybalt.want("presence juliet/balcony")
		c.cut()
		romeo.want()
		tybalt.want()
		time.Sleep(w.cfg.ResumeTimeout + time.Second)
		romeo.want("presence unavailable juliet/balcony")
		tybalt.want("presence unavailable juliet/balcony")
		other.want("presence unavailable juliet/balcony")

		// §4.5: unavailable presence ends what others see, not the session.
		other.send("<presence xmlns='jabber:client' to='" + addr("tybalt").String() + "'/>")
		tybalt.want("presence juliet/chamber")
		other.send("<presence xmlns='jabber:client' type='unavailable'><status>gone</status></presence>")
		romeo.want("presence unavailable juliet/chamber")
		tybalt.want("presence unavailable juliet/chamber")
		other.want()
		romeo.send(probe)
		romeo.want("presence unavailable juliet")
		other.close()
		romeo.want()
		tybalt.want()
	})
}

func TestDirectedPresenceLimit(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		for _, to := range []string{"romeo", "nurse", "romeo"} {
			c.send("<presence xmlns='jabber:client' to='" + addr(to).String() + "'/>")
			c.want()
		}
		c.send("<presence xmlns='jabber:client' to='" + addr("tybalt").String() + "'/>")
		c.want("presence error tybalt policy-violation")
		c.send("<presence xmlns='jabber:client' type='unavailable' to='" + addr("romeo").String() + "'/>")
		c.send("<presence xmlns='jabber:client' to='" + addr("tybalt").String() + "'/>")
		c.want()
	}, func(c *Config, _ *Parts) { c.DirectedLimit = 2 })
}

func TestRosterPushes(t *testing.T) {
	// RFC 6121 §2.1.6: to those who asked for the roster.
	inWorld(t, func(_ *testing.T, w *world) {
		a, b := w.bound("juliet/a"), w.bound("juliet/b")
		a.send("<iq xmlns='jabber:client' type='get' id='g'><query xmlns='jabber:iq:roster'/></iq>")
		a.want("iq result roster")
		set := "<iq xmlns='jabber:client' type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='" + addr("romeo").String() + "' name='R'/></query></iq>"
		b.send(set)
		a.want("iq set roster [romeo none R]")
		b.want("iq result s")
		for _, bad := range []string{"", "<item jid='@'/>", "<item jid='a@b'/><item jid='c@d'/>"} {
			a.send("<iq xmlns='jabber:client' type='set' id='s'><query xmlns='jabber:iq:roster'>" + bad + "</query></iq>")
			got := a.frames()
			if len(got) != 1 || got[0].Attr("type") != "error" {
				a.t.Errorf("%s: got %q", bad, briefs(got))
			}
		}
	})
}
