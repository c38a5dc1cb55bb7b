package session

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"holdfast/stanza"
)

// exodus and psi are the clients of XEP-0115 §5.2 and §5.3.
const (
	exodus = `<identity category='client' type='pc' name='Exodus 0.9.1'/>` +
		`<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#items'/>` +
		`<feature var='http://jabber.org/protocol/muc'/><feature var='http://jabber.org/protocol/disco#info'/>`
	psi = `<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/><identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>` +
		`<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>` +
		`<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>` +
		`<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>` +
		`<field var='ip_version'><value>ipv4</value><value>ipv6</value></field><field var='os'><value>Mac</value></field>` +
		`<field var='os_version'><value>10.5.1</value></field><field var='software'><value>Psi</value></field>` +
		`<field var='software_version'><value>0.11</value></field></x>`
)

func TestVerificationString(t *testing.T) {
	for _, tt := range []struct{ name, info, want string }{
		{"XEP-0115 §5.2", exodus, "QgayPKawpkPSDYmwT/WM94uAlu0="},
		{"§5.3", psi, "q07IKJEyjvHSyhy//CH0CxmKi8w="},
		{"§8.1 receipts that are no feature", strings.Replace(exodus, "Exodus", "urn:xmpp:receipts", 1), ""},
	} {
		var d discoResult
		if err := xml.Unmarshal([]byte("<query>"+tt.info+"</query>"), &d); err != nil {
			t.Fatal(err)
		}
		if got := d.hash(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// verOf hashes what XEP-0115 §5.1 puts together.
func verOf(s string) string {
	sum := sha1.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// withCaps sends presence with a hash, and returns the id under which the gateway asks what it stands for, "" when it
// does not.
func (c *client) withCaps(ver string) (id string) {
	c.t.Helper()
	c.send("<presence xmlns='jabber:client'><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://client.example' ver='" + ver + "'/></presence>")
	for _, e := range c.frames() {
		if q, ok := e.Find(nsDiscoInfo, "query"); ok {
			if id != "" {
				c.t.Errorf("asked twice: %s", e.Raw())
			}
			id = e.Attr("id")
			if e.Attr("from") != testDomain || e.Attr("to") != c.addr.String() || q.Attr("node") != "http://client.example#"+ver {
				c.t.Errorf("asked with %s", e.Raw())
			}
		}
	}
	return id
}

func (c *client) inform(id, info string) {
	c.t.Helper()
	c.send("<iq xmlns='jabber:client' type='result' id='" + id + "' to='" + testDomain + "'><query xmlns='" + nsDiscoInfo + "'>" + info + "</query></iq>")
	c.want()
}

func TestCapabilitiesAreShared(t *testing.T) {
	const id = "<identity category='client' type='pc' name='C'/>"
	feature := func(all ...string) (s string) {
		for _, f := range all {
			s += "<feature var='" + f + "'/>"
		}
		return s
	}
	form := func(name string) string {
		return "<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>" + name + "</value></field></x>"
	}
	with := verOf("client/pc//C<urn:example:a<urn:xmpp:receipts<")
	without := verOf("client/pc//C<urn:example:a<")
	for _, tt := range []struct {
		name, ver, info string
		shared, sent    bool // whether another client with the hash is believed to have said the same, and what
	}{
		{"XEP-0115 §5.4 verified, receipts", with, id + feature("urn:xmpp:receipts", "urn:example:a"), true, true},
		{"verified, no receipts", without, id + feature("urn:example:a"), true, false},
		{"another hash", with, id + feature("urn:example:a"), false, false},
		{"another hash, receipts", without, id + feature("urn:example:a", "urn:xmpp:receipts"), false, true},
		{"§5.4 no hash at all", "v", id + feature("urn:xmpp:receipts"), false, true},
		// §8.1: lists that hash as another client's and leave the receipts out.
		{"forged feature", with, id + feature("urn:example:a&lt;urn:xmpp:receipts"), false, false},
		{"forged form", with, id + feature("urn:example:a") + form("urn:xmpp:receipts"), false, false},
		{"forged identity", with, "<identity category='client' type='pc' name='C&lt;urn:example:a&lt;urn:xmpp:receipts'/>", false, false},
		{"forged form value", verOf("client/pc//C<urn:example:a<x<y<urn:xmpp:receipts<"), id + feature("urn:example:a") +
			"<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>x</value></field><field var='y'><value>urn:xmpp:receipts</value></field></x>", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				first, second := w.managed("juliet/balcony"), w.managed("nurse/door")
				asked := first.withCaps(tt.ver)
				if asked == "" {
					t.Fatal("the first client was not asked")
				}
				first.inform(asked, tt.info)
				if got := first.session().receipts() == receiptsSent; got != tt.sent {
					t.Errorf("the client is taken to send receipts: %v", got)
				}
				if first.withCaps(tt.ver) != "" && tt.shared {
					t.Error("asked again")
				}
				asked = second.withCaps(tt.ver)
				if shared := asked == ""; shared != tt.shared {
					t.Fatalf("shared: %v", shared)
				}
				if got := second.session().receipts(); tt.shared && (got == receiptsSent) != tt.sent || !tt.shared && got != receiptsAsked {
					t.Errorf("the second client's receipts: %d", got)
				}
			})
		})
	}
}

func TestNoAnswerAboutCapabilities(t *testing.T) {
	for name, answer := range map[string]string{
		"an error":     "<iq xmlns='jabber:client' type='error' id='%s' to='" + testDomain + "'><error type='cancel'><item-not-found xmlns='" + stanza.NSStanzaErrors + "'/></error></iq>",
		"nothing":      "<iq xmlns='jabber:client' type='result' id='%s'/>",
		"to itself":    "<iq xmlns='jabber:client' type='error' id='%s' to='juliet@" + testDomain + "'/>",
		"another list": "<iq xmlns='jabber:client' type='result' id='%s'><query xmlns='jabber:iq:version'/></iq>",
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(_ *testing.T, w *world) {
				romeo, c := w.bound("romeo/orchard"), w.managed("juliet/balcony")
				id := c.withCaps("v")
				romeo.send(asking("juliet", "1"))
				c.want("message romeo/orchard 1")
				c.ack(3)
				if len(w.receipts.waiting()) != 1 {
					t.Error("proved before it is known whether the client sends receipts")
				}
				c.send(fmt.Sprintf(answer, id))
				c.want()
				if len(w.receipts.waiting()) != 0 {
					t.Error("not proved")
				}
			})
		})
	}
}

func TestUnprovedIsBounded(t *testing.T) {
	// A client that never says what it can: its acknowledgements prove no more than so many at the end.
	inWorld(t, func(t *testing.T, w *world) {
		romeo, c := w.bound("romeo/orchard"), w.managed("juliet/balcony")
		id := c.withCaps("v")
		for i := range maxUnproved + 10 {
			romeo.send(asking("juliet", fmt.Sprint(i)))
		}
		c.frames()
		c.ack(maxUnproved + 12)
		if n := len(c.session().unproved); n != maxUnproved {
			t.Errorf("%d are remembered", n)
		}
		c.inform(id, "<feature var='urn:example:a'/>")
		if n := len(w.receipts.waiting()); n != 10 {
			t.Errorf("%d wait for their deadline", n)
		}
	})
}

func TestKnownReceipts(t *testing.T) {
	// XEP-0184 §3: where the client is known to send receipts, its acknowledgement is no proof, from the first message
	// on; and a mailbox keeps what is not proved.
	inWorld(t, func(t *testing.T, w *world) {
		w.sv.caps.put("known", true)
		romeo := w.bound("romeo/orchard")
		romeo.send(asking("juliet", "1"))
		c := w.managed("juliet/balcony")
		if c.withCaps("known") != "" {
			t.Fatal("asked")
		}
		romeo.send(asking("juliet", "2"))
		c.frames()
		c.ack(3)
		if n := len(w.receipts.waiting()); n != 2 {
			t.Errorf("%d await a receipt, want 2", n)
		}
		if left := w.box.bodies(addr("juliet")); len(left) != 1 {
			t.Errorf("mailbox %q", left)
		}
		c.send(receiptFor("romeo/orchard", "1"))
		c.send(receiptFor("romeo/orchard", "2"))
		if n, left := len(w.receipts.waiting()), w.box.bodies(addr("juliet")); n != 0 || len(left) != 0 {
			t.Errorf("%d await a receipt, mailbox %q", n, left)
		}
	})
}

func TestCapsCacheIsBounded(t *testing.T) {
	var c capsCache
	for i := range maxCaps + 1 {
		c.put(fmt.Sprint(i), true)
	}
	if n := len(c.known); n != 1 {
		t.Errorf("%d hashes are kept", n)
	}
}
