package e2e

import (
	"fmt"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
	"holdfast/internal/testkit/xmppclient"
)

// receiptTime is how long a message waits for its receipt.
const receiptTime = time.Second

// receiptSettings make a message wait so long for its receipt, with nothing else for proof.
func receiptSettings(patience time.Duration) map[string]string {
	return map[string]string{
		"HOLDFAST_PACKETCACHE_TIMEOUT": patience.String(),
		"HOLDFAST_PACKETCACHE_ACTIONS": "offline",
		"HOLDFAST_RECEIPTS_PROOF":      "receipt,marker",
	}
}

func requesting(to, id, body string) string {
	return fmt.Sprintf("<message xmlns='jabber:client' type='chat' id='%s' to='%s'><body>%s</body><request xmlns='urn:xmpp:receipts'/></message>", id, to, body)
}

func receipt(to, id string) string {
	return fmt.Sprintf("<message xmlns='jabber:client' to='%s' id='r-%s'><received xmlns='urn:xmpp:receipts' id='%s'/></message>", to, id, id)
}

// nothingWaits logs a user in and sees that no message comes before the answer to a ping.
func nothingWaits(t *testing.T, g *gatewayproc.Gateway, name string) {
	t.Helper()
	u := available(t, g, name, "later")
	u.send("<iq xmlns='jabber:client' type='get' id='after' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	u.expect("the answer to a ping", func(e *xmppclient.Element) bool {
		if e.Name.Local == "message" {
			t.Errorf("%s got %v", name, e)
		}
		return e.Attr("id") == "after"
	})
	if err := u.Leave(within(t, 5*time.Second)); err != nil {
		t.Error(err)
	}
}

// offlineCopies is how many messages are in offline storage, by the gateway's own word; -1 when it gives none.
func offlineCopies(g *gatewayproc.Gateway) float64 { return metric(g, "holdfast_offline_messages") }

// awaitFallback waits until the gateway has moved a message to offline storage for want of a receipt, and sees that
// it took its time since the message was about to be sent.
func awaitFallback(t *testing.T, g *gatewayproc.Gateway, sent time.Time) {
	t.Helper()
	if !await(within(t, 20*time.Second), func() bool { return offlineCopies(g) == 1 }) {
		t.Fatal("the message does not get into offline storage")
	}
	if took := time.Since(sent); took < receiptTime {
		t.Fatalf("it was in offline storage after %v already", took)
	}
}

// TestReceiptThatNeverComes (XEP-0184, XEP-0160): the message goes offline after the timeout and comes at the next
// login, once; with the receipt it is gone.
func TestReceiptThatNeverComes(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, receiptSettings(receiptTime))
	g.AddUsers("sender", "taker")
	s := available(t, g, "sender", "")
	r := available(t, g, "taker", "now")
	sent := time.Now()
	s.send(requesting(bare("taker"), "m1", "no receipt for this"))
	r.message("no receipt for this")
	awaitFallback(t, g, sent)
	r.alive() // it proves by this that it got the message, but not by a receipt
	if err := r.Leave(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	r = available(t, g, "taker", "next")
	m := r.message("no receipt for this")
	if d := m.Child("urn:xmpp:delay", "delay"); d == nil {
		t.Errorf("%v has no delay stamp (XEP-0203)", m)
	}
	if m.Attr("id") != "m1" || m.Attr("from") != s.JID {
		t.Errorf("%v is not the message that was sent", m)
	}
	r.send(receipt(m.Attr("from"), m.Attr("id")))
	s.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m1" })
	if err := r.Leave(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	nothingWaits(t, g, "taker")
}

// TestLateReceipt: the receipt comes when the message is in offline storage already, and takes it away; also when
// the gateway was killed in between.
func TestLateReceipt(t *testing.T) {
	long(t)
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %v", kill), func(t *testing.T) {
			g := gatewayproc.Start(t, receiptSettings(receiptTime))
			g.AddUsers("sender", "taker")
			s := available(t, g, "sender", "")
			r := available(t, g, "taker", "now")
			sent := time.Now()
			s.send(requesting(bare("taker"), "m2", "the receipt will be late"))
			m := r.message("the receipt will be late")
			awaitFallback(t, g, sent)
			if kill {
				g.Restart()
				s = available(t, g, "sender", "")
				r = login(t, g, "taker", "now") // not available: it is not to get the copy
			}
			r.send(receipt(m.Attr("from"), m.Attr("id")))
			if !kill {
				s.expect("the receipt", func(e *xmppclient.Element) bool {
					return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m2"
				})
			}
			r.alive()
			if err := r.Leave(within(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			nothingWaits(t, g, "taker")
		})
	}
}

// TestReceiptInTime: the receipt closes the entry, and nothing is ever stored.
func TestReceiptInTime(t *testing.T) {
	long(t)
	const patience = 5 * time.Second // on a machine that stalls a second is not in time for sure
	g := gatewayproc.Start(t, receiptSettings(patience))
	g.AddUsers("sender", "taker")
	s := available(t, g, "sender", "")
	r := available(t, g, "taker", "now")
	s.send(requesting(bare("taker"), "m3", "prompt"))
	m := r.message("prompt")
	r.send(receipt(m.Attr("from"), m.Attr("id")))
	s.expect("the receipt", func(e *xmppclient.Element) bool { return e.Child("urn:xmpp:receipts", "received").Attr("id") == "m3" })
	if await(within(t, patience+time.Second), func() bool { return offlineCopies(g) > 0 }) {
		t.Error("the message is in offline storage in spite of its receipt")
	}
	if !await(within(t, 10*time.Second), func() bool { return offlineCopies(g) == 0 }) {
		t.Error("the gateway does not say that nothing is in offline storage")
	}
	if err := r.Leave(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	nothingWaits(t, g, "taker")
}
