package bench

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

// Mechanism is the SASL mechanism that clients log in with.
type Mechanism string

// The mechanisms that the generator speaks.
const (
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	Plain       Mechanism = "PLAIN"
)

// stage is how far a client's negotiation is: what it waits for.
type stage uint8

const (
	idle       stage = iota
	connecting       // the opening handshake
	opening          // <open/> and features before SASL
	challenged       // the server's answer in a SASL exchange
	reopening        // <open/> and features after SASL
	binding          // the result of bind (RFC 6120 §7)
	enabling         // <enabled/> (XEP-0198 §3)
	resuming         // <resumed/> (XEP-0198 §5)
	announcing       // the own presence, coming back (RFC 6121 §4.2.2)
	ready
	leaving
)

// profile is what clients of a scenario do when they log in.
type profile struct {
	mechanism Mechanism
	sm        bool // XEP-0198 with resumption
	presence  bool
	ackEvery  int // <r/> after so many stanzas, 0 for never
	together  int // stanzas in one HTTP request at most, 0 and less for all that wait
}

// carrier takes a client's stanzas to the server and hands the client what comes, one element at a time (frame).
type carrier interface {
	begin() error    // connects; it calls opened when the server may be spoken to
	header()         // opens the stream, and after SASL another one
	text(raw []byte) // sends one element
	end()            // ends the stream properly; at the end the carrier is not open any more
	open() bool
	drop()   // ends it as a network that is gone does
	deafen() // takes nothing more, see socket
}

// client is one user's connection to an XMPP server, or one named connection to a relay.
type client struct {
	carrier
	loop    *loop
	target  *Target
	to      *endpoint
	ordinal int
	account *Account
	how     profile
	stage   stage
	scram   scram
	jid     string // full JID, or a relay's name

	// XEP-0198: smID is set once resumption is enabled. sent counts from <enable/>, handled from <enabled/>.
	smID    string
	counted bool
	sent    uint32
	acked   uint32
	handled uint32
	due     int // stanzas until the next <r/>

	resumeAt int64 // when <resume/> was sent

	// The scenario's: onReady at the end of the login, onMessage with every message (lent), onPresence with every presence
	// after the login (lent), onAck after <a/>, onResumed with <resumed/>, onFail when the login was refused or the
	// connection lost.
	onReady    func()
	onMessage  func([]byte)
	onPresence func([]byte)
	onAck      func()
	onResumed  func()
	onFail     func(error)
}

var (
	frameR        = []byte("<r xmlns='urn:xmpp:sm:3'/>")
	framePresence = []byte("<presence xmlns='jabber:client'/>")
	frameEnable   = []byte("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	frameBind     = []byte("<iq xmlns='jabber:client' type='set' id='bind1'>" +
		"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>bench</resource></bind></iq>")
)

// start connects; the negotiation goes on by itself.
func (c *client) start() {
	c.stage = connecting
	if c.target.Relay {
		c.jid = relayID(c.ordinal)
	}
	if err := c.begin(); err != nil {
		c.fail(err)
	}
}

func relayID(ordinal int) string { return fmt.Sprintf("%08x", ordinal) }

func (c *client) fail(err error) {
	c.stage = idle
	c.drop()
	if c.onFail != nil {
		c.onFail(err)
	}
}

func (c *client) lost(err error) {
	was := c.stage
	c.stage = idle
	if was != leaving && c.onFail != nil {
		c.onFail(fmt.Errorf("bench: %s at stage %d: %w", c.jid, was, err))
	}
}

func (c *client) opened() {
	if c.target.Relay {
		c.becomeReady()
		return
	}
	c.reopen(opening)
}

func (c *client) reopen(next stage) {
	c.stage = next
	c.header()
}

func (c *client) becomeReady() {
	c.stage = ready
	if c.onReady != nil {
		c.onReady()
	}
}

// say sends a stanza, and <r/> behind it when one is due.
func (c *client) say(stanza []byte) {
	c.text(stanza)
	if !c.counted {
		return
	}
	c.sent++
	if c.how.ackEvery > 0 {
		if c.due--; c.due <= 0 {
			c.due = c.how.ackEvery
			c.text(frameR)
		}
	}
}

// ack tells the server how many stanzas were handled (XEP-0198 §4).
func (c *client) ack() {
	var b [64]byte
	a := append(b[:0], "<a xmlns='urn:xmpp:sm:3' h='"...)
	a = strconv.AppendUint(a, uint64(c.handled), 10)
	c.text(append(a, "'/>"...))
}

// leave ends the stream properly, so that the server keeps nothing.
func (c *client) leave() {
	if !c.open() {
		return
	}
	c.stage = leaving
	c.end()
}

// frame takes what the server says. The message path comes first; what is rare is in negotiate.
func (c *client) frame(f []byte) {
	if c.target.Relay {
		if c.onMessage != nil {
			c.onMessage(f)
		}
		return
	}
	switch name := nameOf(f); string(name) {
	case "message":
		c.handled++
		if c.onMessage != nil {
			c.onMessage(f)
		}
	case "r":
		c.ack()
	case "a":
		h, ok := number(attr(f, "h"))
		if !ok || uint32(h)-c.acked > c.sent-c.acked {
			c.fail(fmt.Errorf("bench: %s: acknowledgement %q of %d stanzas", c.jid, f, c.sent))
			return
		}
		c.acked = uint32(h)
		if c.onAck != nil {
			c.onAck()
		}
	case "presence":
		c.handled++
		switch {
		case c.stage == announcing && string(attr(f, "from")) == c.jid:
			c.becomeReady()
		case c.stage == ready && c.onPresence != nil:
			c.onPresence(f)
		}
	case "iq":
		c.handled++
		if c.stage == binding {
			c.bound(f)
		}
	case "close":
		if c.stage != leaving {
			c.fail(fmt.Errorf("bench: %s: the server closed the stream", c.jid))
		}
	case "error":
		c.fail(fmt.Errorf("bench: %s: stream error %q", c.jid, f))
	default:
		c.negotiate(string(name), f)
	}
}

func (c *client) negotiate(name string, f []byte) {
	switch {
	case name == "open":
	case name == "features" && c.stage == opening:
		c.authenticate(f)
	case name == "challenge" && c.stage == challenged:
		c.respond(f)
	case name == "success" && c.stage == challenged:
		c.succeeded(f)
	case name == "features" && c.stage == reopening:
		c.bindOrResume(f)
	case name == "enabled" && c.stage == enabling:
		c.smID = string(attr(f, "id"))
		c.handled = 0
		c.announce()
	case name == "resumed" && c.stage == resuming:
		c.resumed(f)
	case name == "failure" || name == "failed":
		c.fail(fmt.Errorf("bench: %s: refused: %q", c.account.Name, f))
	}
}

func (c *client) authenticate(features []byte) {
	if !bytes.Contains(features, []byte(">"+string(c.how.mechanism)+"<")) {
		c.fail(fmt.Errorf("bench: the server does not offer %s", c.how.mechanism))
		return
	}
	var first []byte
	switch c.how.mechanism {
	case Plain:
		first = []byte("\x00" + c.account.Name + "\x00" + c.account.Password)
	case ScramSHA256:
		first = c.scram.first(c.account.Name, rand.Text())
	}
	c.stage = challenged
	c.text(fmt.Appendf(nil, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='%s'>%s</auth>",
		c.how.mechanism, base64.StdEncoding.EncodeToString(first)))
}

func (c *client) respond(f []byte) {
	challenge, err := base64.StdEncoding.DecodeString(string(content(f, "challenge")))
	if err != nil {
		c.fail(errScram)
		return
	}
	answer, err := c.scram.final(c.account, challenge)
	if err != nil {
		c.fail(err)
		return
	}
	c.text(fmt.Appendf(nil, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>%s</response>",
		base64.StdEncoding.EncodeToString(answer)))
}

func (c *client) succeeded(f []byte) {
	if c.how.mechanism == ScramSHA256 {
		proof, err := base64.StdEncoding.DecodeString(string(content(f, "success")))
		if err == nil {
			err = c.scram.verify(proof)
		}
		if err != nil {
			c.fail(err)
			return
		}
	}
	c.reopen(reopening)
}

func (c *client) bindOrResume(features []byte) {
	if c.how.sm && !bytes.Contains(features, []byte("urn:xmpp:sm:3")) {
		c.fail(errors.New("bench: the server does not offer stream management"))
		return
	}
	if c.smID == "" {
		c.stage = binding
		c.text(frameBind)
		return
	}
	c.stage = resuming
	c.resumeAt = c.loop.now()
	c.text(fmt.Appendf(nil, "<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", c.smID, c.handled))
}

func (c *client) bound(f []byte) {
	jid := content(f, "jid")
	if isError(f) || jid == nil {
		c.fail(fmt.Errorf("bench: %s: bind refused: %q", c.account.Name, f))
		return
	}
	c.jid = string(jid)
	if !c.how.sm {
		c.announce()
		return
	}
	c.stage = enabling
	c.text(frameEnable)
	c.counted, c.sent, c.acked, c.due = true, 0, 0, c.how.ackEvery
}

func (c *client) announce() {
	if !c.how.presence {
		c.becomeReady()
		return
	}
	c.stage = announcing
	c.say(framePresence)
}

// resumed goes on where the old connection ended. Nothing of this side is waiting: scenarios cut only clients whose
// stanzas were acknowledged.
func (c *client) resumed(f []byte) {
	h, ok := number(attr(f, "h"))
	if !ok || uint32(h) != c.sent {
		c.fail(fmt.Errorf("bench: %s: resumed with %q after %d stanzas", c.jid, f, c.sent))
		return
	}
	c.acked = uint32(h)
	c.stage = ready
	if c.onResumed != nil {
		c.onResumed()
	}
}
