package session

import (
	"testing"

	"holdfast/stanza"
)

// Guests (XEP-0175 §3): whom they may not reach they can send nothing to, of whatever kind.
func TestGuestsReachWhomTheyMay(t *testing.T) {
	only := func(_ *Config, p *Parts) {
		p.MayReach = func(user, to stanza.Addr) bool {
			return user.Local() != "tybalt" || to.Local() == "nurse" || to.Local() == "tybalt"
		}
	}
	inWorld(t, func(t *testing.T, w *world) {
		juliet, nurse, tybalt := w.bound("juliet/balcony").available(), w.bound("nurse/kitchen").available(), w.bound("tybalt/street").available()
		for _, to := range []string{"juliet", "juliet/balcony", "stranger"} {
			tybalt.chat(to, "hello")
			tybalt.want("message error " + to + " forbidden")
			tybalt.send("<presence xmlns='jabber:client' type='subscribe' to='" + addr(to).String() + "'/>")
			tybalt.want("presence error " + to + " forbidden")
			tybalt.send("<presence xmlns='jabber:client' to='" + addr(to).String() + "'/>")
			tybalt.want("presence error " + to + " forbidden")
			tybalt.send("<iq xmlns='jabber:client' type='get' id='x' to='" + addr(to).String() + "'><ping xmlns='urn:xmpp:ping'/></iq>")
			tybalt.want("iq error x forbidden")
			tybalt.send("<iq xmlns='jabber:client' type='result' id='x' to='" + addr(to).String() + "'/>")
			tybalt.want()
		}
		tybalt.chat("nurse", "hello")
		nurse.want("message tybalt/street hello")
		tybalt.send("<iq xmlns='jabber:client' type='get' id='z' to='" + testDomain + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		tybalt.want("iq result z")
		juliet.want()
		juliet.chat("tybalt/street", "and back")
		tybalt.want("message juliet/balcony and back")
	}, only)
}
