package roster

import (
	"slices"
	"strconv"

	"mellium.im/xmpp/jid"

	"holdfast/stanza"
)

// Item is what a roster holds of one contact. Groups and Request are shared with the cache: they must not be changed.
type Item struct {
	Contact      stanza.Addr // bare
	Name         string      // the handle; "" for none
	Groups       []string    // in the order they were given
	Subscription Subscription
	Ask          bool   // ask='subscribe': the user asked and waits for an answer
	Approved     bool   // approved='true': the contact's next request is approved in advance (§3.4)
	PendingIn    bool   // the contact asked and waits for the user's answer; never shown
	Request      []byte // the presence stanza the contact asked with, while PendingIn
}

// Change is one roster push (§2.1.6): the item as it now is, or, when Removed, only its Contact with
// subscription='remove'.
//
// A client ends up with what it was pushed last, so the changes of one roster are to be pushed in the order they were
// made. Calls for one user that run at the same time may return in any order: whoever pushes makes them one at a time.
type Change struct {
	Item    Item
	Removed bool
	Version string // the value of the push's ver attribute
}

// Outcome says what becomes of a presence stanza that changes a subscription. When SendUnavailable is set, that comes
// before anything routed, so that the contact still takes it from a subscription (§3.2.2); all else in any order.
type Outcome struct {
	// Route says to pass the stanza on: an outbound one to the contact, an inbound one to the user's resources
	// (a subscribe to the available ones, the others to those that asked for the roster).
	Route bool
	// Push is the roster push owed to the user's resources that asked for the roster, nil when nothing they can
	// see has changed.
	Push *Change
	// AutoReply is sent from the user's bare JID to the contact's: subscribed, unsubscribed, or NoKind. The
	// contact's roster is to process it as inbound.
	AutoReply Kind
	// AskAgain: send the user's own request, which is not answered yet, from the bare JID once more, behind what else is
	// sent. It may have been sent when the contact did not exist, of which nobody is told (§8.5.1); it does now.
	AskAgain bool
	// SendPresence: send the presence of each of the user's available resources to the contact.
	SendPresence bool
	// SendUnavailable: send unavailable presence from each of the user's available resources to the contact.
	SendUnavailable bool
}

// Removed says what a contact is owed when it leaves a roster (§2.5.2). SendUnavailable comes first, as in [Outcome].
type Removed struct {
	Contact         stanza.Addr
	Unsubscribe     bool // the user had or had asked for the contact's presence
	Unsubscribed    bool // the contact had or had asked for the user's presence
	SendUnavailable bool
}

// entry is an Item in its place in a roster. It is immutable once it is part of one.
//
// listed says that the user has the contact in the roster. An entry that is not listed is a removal remembered for
// versioning (version is not 0), a request from a stranger (PendingIn), or both.
type entry struct {
	Item
	listed  bool
	version uint64 // of the last visible change; 0 when there never was one, or the removal is forgotten
}

func (e *entry) state() state {
	return state{sub: e.Subscription, ask: e.Ask, pendingIn: e.PendingIn, approved: e.Approved}
}

func (e *entry) setState(s state) {
	e.Subscription, e.Ask, e.PendingIn, e.Approved = s.sub, s.ask, s.pendingIn, s.approved
	if !s.pendingIn {
		e.Request = nil
	}
}

// void reports whether there is nothing to remember.
func (e *entry) void() bool { return !e.listed && e.version == 0 && !e.PendingIn }

// looks reports whether the roster's owner sees the same in e and o.
func (e *entry) looks(o *entry) bool {
	if e.listed != o.listed || !e.listed {
		return e.listed == o.listed
	}
	return e.Name == o.Name && e.Subscription == o.Subscription && e.Ask == o.Ask && e.Approved == o.Approved &&
		slices.Equal(e.Groups, o.Groups)
}

func (e *entry) change() Change {
	c := Change{Item: e.Item, Version: formatVersion(e.version)}
	if !e.listed {
		c.Item, c.Removed = Item{Contact: e.Contact}, true
	}
	return c
}

func (e *entry) removed() Removed {
	return Removed{
		Contact:         e.Contact,
		Unsubscribe:     e.Subscription.HasTo() || e.Ask,
		Unsubscribed:    e.Subscription.HasFrom() || e.PendingIn,
		SendUnavailable: e.Subscription.HasFrom(),
	}
}

// size estimates the memory an entry takes: its struct, map and slice slots, and what they point to.
func (e *entry) size() int {
	n := 208 + len(e.Contact.String()) + len(e.Name) + len(e.Request)
	for _, g := range e.Groups {
		n += 16 + len(g)
	}
	return n
}

// versions are opaque to clients (§2.6.1). "0" is that of a roster that was never changed.
func formatVersion(v uint64) string { return strconv.FormatUint(v, 36) }

func parseVersion(s string) (uint64, bool) {
	v, err := strconv.ParseUint(s, 36, 64)
	// Only what formatVersion says is a version of ours: other spellings of a number are somebody else's.
	return v, err == nil && formatVersion(v) == s
}

// checkNames holds an item's name and groups against the limits (§2.3.3).
func (c Config) checkNames(name string, groups []string) error {
	if over(len(name), c.Name) {
		return ErrLongName
	}
	if over(len(groups), c.Groups) {
		return ErrManyGroups
	}
	seen := make(map[string]struct{}, len(groups))
	for _, g := range groups {
		if g == "" {
			return ErrEmptyGroup
		}
		if over(len(g), c.Name) {
			return ErrLongName
		}
		key := groupKey(g)
		if _, twice := seen[key]; twice {
			return ErrDuplicateGroup
		}
		seen[key] = struct{}{}
	}
	return nil
}

var groupBase = jid.MustParse("group.invalid")

// groupKey is what two names of the same group have in common: §2.3.3 suggests to compare them as resourceparts.
func groupKey(name string) string {
	for i := range len(name) {
		if name[i] >= 0x80 {
			if j, err := groupBase.WithResource(name); err == nil {
				return j.Resourcepart()
			}
			break
		}
	}
	return name
}
