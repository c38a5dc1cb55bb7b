package stanza

// Payload is a set of the direct children that rules look at, found during the one scan.
type Payload uint64

// The children of a stanza, by their full names. Unknown stands for any other child.
const (
	Body                 Payload = 1 << iota // <body/> jabber:client, not empty
	Subject                                  // <subject/> jabber:client
	Thread                                   // <thread/> jabber:client
	Error                                    // <error/> jabber:client
	Delay                                    // urn:xmpp:delay delay (XEP-0203)
	StanzaID                                 // urn:xmpp:sid:0 stanza-id (XEP-0359)
	OriginID                                 // urn:xmpp:sid:0 origin-id
	ReceiptRequest                           // urn:xmpp:receipts request (XEP-0184)
	ReceiptReceived                          // urn:xmpp:receipts received
	Markable                                 // urn:xmpp:chat-markers:0 markable (XEP-0333)
	MarkerReceived                           // urn:xmpp:chat-markers:0 received
	MarkerDisplayed                          // urn:xmpp:chat-markers:0 displayed
	MarkerAcknowledged                       // urn:xmpp:chat-markers:0 acknowledged
	ChatState                                // http://jabber.org/protocol/chatstates, any (XEP-0085)
	HintNoStore                              // urn:xmpp:hints no-store (XEP-0334)
	HintNoPermanentStore                     // urn:xmpp:hints no-permanent-store
	HintNoCopy                               // urn:xmpp:hints no-copy
	HintStore                                // urn:xmpp:hints store
	LegacyEvent                              // jabber:x:event x (XEP-0022)
	MUC                                      // http://jabber.org/protocol/muc and #user, x (XEP-0045)
	Caps                                     // http://jabber.org/protocol/caps c (XEP-0115)
	AMP                                      // http://jabber.org/protocol/amp amp (XEP-0079)
	Expire                                   // jabber:x:expire x (XEP-0023)
	Retrieved                                // http://jabber.org/protocol/offline offline (XEP-0013)
	Unknown                                  // at least one child that is none of these
)

// Has reports whether all of q is in p.
func (p Payload) Has(q Payload) bool { return p&q == q }

// classify names a direct child. An empty <body/> is taken out by the scanner, which sees the end tag.
func classify(local, space []byte) Payload {
	switch string(space) {
	case NSClient:
		switch string(local) {
		case "body":
			return Body
		case "subject":
			return Subject
		case "thread":
			return Thread
		case "error":
			return Error
		}
	case NSReceipts:
		switch string(local) {
		case "request":
			return ReceiptRequest
		case "received":
			return ReceiptReceived
		}
	case NSStanzaID:
		switch string(local) {
		case "stanza-id":
			return StanzaID
		case "origin-id":
			return OriginID
		}
	case NSMarkers:
		switch string(local) {
		case "markable":
			return Markable
		case "received":
			return MarkerReceived
		case "displayed":
			return MarkerDisplayed
		case "acknowledged":
			return MarkerAcknowledged
		}
	case NSHints:
		switch string(local) {
		case "no-store":
			return HintNoStore
		case "no-permanent-store":
			return HintNoPermanentStore
		case "no-copy":
			return HintNoCopy
		case "store":
			return HintStore
		}
	case NSDelay:
		if string(local) == "delay" {
			return Delay
		}
	case NSChatStates:
		return ChatState
	case NSEvent:
		if string(local) == "x" {
			return LegacyEvent
		}
	case NSMUC, NSMUCUser:
		if string(local) == "x" {
			return MUC
		}
	case NSAMP:
		if string(local) == "amp" {
			return AMP
		}
	case NSExpire:
		if string(local) == "x" {
			return Expire
		}
	case NSOffline:
		if string(local) == "offline" {
			return Retrieved
		}
	case NSCaps:
		if string(local) == "c" {
			return Caps
		}
	}
	return Unknown
}
