package muc

// Namespaces that no other package needs.
const (
	nsAdmin       = "http://jabber.org/protocol/muc#admin"
	nsOwner       = "http://jabber.org/protocol/muc#owner"
	nsRoomConfig  = "http://jabber.org/protocol/muc#roomconfig"
	nsRoomInfo    = "http://jabber.org/protocol/muc#roominfo"
	nsRequest     = "http://jabber.org/protocol/muc#request"
	nsStableID    = "http://jabber.org/protocol/muc#stable_id"
	nsSelfPing    = "http://jabber.org/protocol/muc#self-ping-optimization"
	nsDiscoInfo   = "http://jabber.org/protocol/disco#info"
	nsDiscoItems  = "http://jabber.org/protocol/disco#items"
	nsPing        = "urn:xmpp:ping"
	nsOccupantID  = "urn:xmpp:occupant-id:0"
	nsData        = "jabber:x:data"
	nsResultSet   = "http://jabber.org/protocol/rsm"
	occupantIDTag = "occupant-id"
)

// Status codes (XEP-0045 §16.6.2).
const (
	statusNonAnonymous     = 100 // everybody sees the JIDs of occupants
	statusConfigChanged    = 104
	statusSelf             = 110 // this presence is the recipient's own
	statusNowNonAnonymous  = 172
	statusNowSemiAnonymous = 173
	statusCreated          = 201
	statusBanned           = 301
	statusNickChanged      = 303
	statusKicked           = 307
	statusAffiliationLost  = 321 // removed from a members-only room by a change of affiliation
	statusMembersOnly      = 322 // removed because the room became members-only
	statusError            = 333 // removed because of an error
)

// affiliation is a user's lasting place in a room (§5.2). The order is that of privileges.
type affiliation uint8

const (
	outcast affiliation = iota
	unaffiliated
	member
	admin
	owner
)

var affiliationNames = [...]string{outcast: "outcast", unaffiliated: "none", member: "member", admin: "admin", owner: "owner"}

func (a affiliation) String() string { return affiliationNames[a] }

func parseAffiliation(s string) (affiliation, bool) {
	for a, name := range affiliationNames {
		if name == s {
			return affiliation(a), true
		}
	}
	return 0, false
}

// role is an occupant's place for as long as it is in the room (§5.1). The order is that of privileges.
type role uint8

const (
	roleNone role = iota // not in the room
	visitor
	participant
	moderator
)

var roleNames = [...]string{roleNone: "none", visitor: "visitor", participant: "participant", moderator: "moderator"}

func (r role) String() string { return roleNames[r] }

func parseRole(s string) (role, bool) {
	for r, name := range roleNames {
		if name == s {
			return role(r), true
		}
	}
	return 0, false
}
