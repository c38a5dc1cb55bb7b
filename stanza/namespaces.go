package stanza

// Namespaces of the core protocol, and of the children that every room looks at.
const (
	NSClient       = "jabber:client"
	NSStream       = "http://etherx.jabber.org/streams"
	NSFraming      = "urn:ietf:params:xml:ns:xmpp-framing"
	NSStreamErrors = "urn:ietf:params:xml:ns:xmpp-streams"
	NSStanzaErrors = "urn:ietf:params:xml:ns:xmpp-stanzas"
	NSSASL         = "urn:ietf:params:xml:ns:xmpp-sasl"
	NSBind         = "urn:ietf:params:xml:ns:xmpp-bind"
	NSSession      = "urn:ietf:params:xml:ns:xmpp-session"
	NSRoster       = "jabber:iq:roster"
	NSSM           = "urn:xmpp:sm:3"

	NSDelay      = "urn:xmpp:delay"
	NSStanzaID   = "urn:xmpp:sid:0"
	NSReceipts   = "urn:xmpp:receipts"
	NSMarkers    = "urn:xmpp:chat-markers:0"
	NSHints      = "urn:xmpp:hints"
	NSChatStates = "http://jabber.org/protocol/chatstates"
	NSEvent      = "jabber:x:event"
	NSMUC        = "http://jabber.org/protocol/muc"
	NSMUCUser    = "http://jabber.org/protocol/muc#user"
	NSCaps       = "http://jabber.org/protocol/caps"
	NSAMP        = "http://jabber.org/protocol/amp"
	NSExpire     = "jabber:x:expire"
	NSOffline    = "http://jabber.org/protocol/offline"

	// NSXML and NSXMLNS are bound to the prefixes xml and xmlns without a declaration (XML-NAMES §3).
	NSXML   = "http://www.w3.org/XML/1998/namespace"
	NSXMLNS = "http://www.w3.org/2000/xmlns/"
)
