package session

import (
	"context"
	"errors"
	"net/netip"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// This file holds what the package needs of the other rooms. cmd/gateway fits them together.

// Authenticator runs SASL (RFC 6120 §6).
type Authenticator interface {
	// Mechanisms names what may be offered, strongest first.
	Mechanisms(secure bool) []string
	// Begin starts an exchange. Its error, like those of the Exchange, may have a Condition method that
	// names a condition of RFC 6120 §6.5; any other error is temporary-auth-failure.
	Begin(mechanism, domain string, from netip.Addr, secure bool) (Exchange, error)
}

// Exchange is one run of a SASL mechanism. Bytes are without base64.
type Exchange interface {
	Step(ctx context.Context, response []byte) (challenge []byte, done bool, err error)
	User() stanza.Addr // bare, once done
}

// Accounts knows who exists and, where the operator allows it, lets people register (XEP-0077). Errors may have an
// IQ error as mellium's stanza.Error.
type Accounts interface {
	Exists(ctx context.Context, user stanza.Addr) (bool, error)
	Register(ctx context.Context, domain, name, password string, from netip.Addr) error
	ChangePassword(ctx context.Context, user stanza.Addr, password string) error
	Unregister(ctx context.Context, user stanza.Addr) error
}

// Router knows every session that is bound here, and decides who gets a stanza (RFC 6121 §8). While it decides and
// while it calls back into Service.Deliver and Service.Store, nothing else is routed to that user.
type Router interface {
	// Message routes to a bare or full address of an existing user. Its error, and that of Direct, is ErrElsewhere
	// when another node has to.
	Message(from *Session, st *stanza.Stanza) error
	// Direct hands an IQ or a presence to the session with exactly that full address.
	Direct(to stanza.Addr, from *Session, st *stanza.Stanza) (bool, error)
	// Each calls f for every session of a user under the user's lock.
	Each(user stanza.Addr, f func(*Session))
	// Locked changes the table of a user's sessions: f runs under the user's lock and may call the methods
	// of Table.
	Locked(user stanza.Addr, f func(Table))
}

// Table is one user's sessions, while the user's lock is held.
type Table interface {
	Add(s *Session)
	Remove(s *Session)
	// SetPriority says where the session stands for messages to the bare address.
	SetPriority(s *Session, available bool, priority int8)
	Sessions() []*Session
	// Receivers appends the sessions that get a message to the bare address now.
	Receivers(dst []*Session) []*Session
	// Draining names the session that is being given the mailbox, to which new messages must therefore go.
	Draining() *Session
	SetDraining(s *Session)
}

// Mailbox is offline storage (XEP-0160) with its policy.
type Mailbox interface {
	// Store decides whether st is kept for user. With force, limits do not count: what was once accepted is kept. It
	// waits for nothing: ErrBusy says that it cannot be done now.
	Store(user stanza.Addr, st *stanza.Stanza, force bool) (Verdict, error)
	// Page returns the next messages after an id, each with its delay stamp, oldest first.
	Page(user stanza.Addr, after stanza.ID, count, bytes int) (page []*stanza.Stanza, more bool, err error)
	// Peek is Page for a look at the mailbox, of which nothing is delivered.
	Peek(user stanza.Addr, after stanza.ID, count, bytes int) (page []*stanza.Stanza, more bool, err error)
	// Remove takes messages out; ids that are not there do not matter.
	Remove(user stanza.Addr, ids ...stanza.ID) error
	// Storable says whether the policy would keep st at all.
	Storable(st *stanza.Stanza) bool
	// Overdue says whether a message says itself that it is not worth anything any more (XEP-0023, XEP-0079 §4.3.2).
	Overdue(st *stanza.Stanza) bool
	// Empty is cheap.
	Empty(user stanza.Addr) (bool, error)
	// Count is how many there are; the first time it is asked of a user it may cost a query.
	Count(user stanza.Addr) (int, error)
	// Purge takes everything out.
	Purge(user stanza.Addr) error
	// Upto names up to most messages whose ids are not greater than to, none when there are no more.
	Upto(user stanza.Addr, to stanza.ID, most int) ([]stanza.ID, error)
	// Discard is Remove of what did not have to arrive.
	Discard(user stanza.Addr, ids ...stanza.ID) error
	// Room waits while the store has too much to write. Nothing may be locked.
	Room(ctx context.Context) error
	OwnLimits
}

// OwnLimits are what users choose about their mailboxes.
type OwnLimits interface {
	// MayChoose says whether the operator lets them.
	MayChoose() bool
	// PairLimit is how many messages of one sender are kept for user; limited is false for any number.
	PairLimit(user stanza.Addr) (n int, limited bool, err error)
	// Choose sets that, and returns when it is kept for good. Errors with an IQ error in them (mellium's stanza.Error) are
	// told to the client.
	Choose(user stanza.Addr, n int, limited bool) error
	// Forget is Purge, and forgets what the user chose, for an account that is removed. It returns when that is done for good.
	Forget(user stanza.Addr) error
}

// Verdict is what the mailbox's policy said. The zero Verdict is that of a mailbox that was not asked. It is comparable.
type Verdict struct {
	Fate Fate
	Why  string // for the sender of what is Refused, in English; "" when there is nothing to say
}

// Fate is what becomes of a message.
type Fate uint8

const (
	Dropped Fate = iota // not to be stored and not worth an error
	Kept
	Refused // the sender gets service-unavailable (RFC 6121 §8.5.2.2)
)

// condition is the error for the sender of what is Refused.
func (v Verdict) condition() mstanza.Error {
	cond := serviceUnavailable
	if v.Why != "" {
		cond.Text = map[string]string{"en": v.Why}
	}
	return cond
}

// Receipts is the packet cache: messages that await their receipt (XEP-0184), and the rules for what proves one.
type Receipts interface {
	// Awaits says whether st wants a receipt.
	Awaits(st *stanza.Stanza) bool
	// Waits says whether a receipt is still awaited, or would still be noticed.
	Waits(id stanza.ID) bool
	// Room waits while too many messages await theirs: back-pressure on who sends them.
	Room(ctx context.Context) error
	// Open begins to wait for one.
	Open(st *stanza.Stanza)
	// Received looks whether st is a receipt or a marker, and returns what it closes; stored says that some of it
	// has been moved to offline storage meanwhile.
	Received(st *stanza.Stanza) (closed []stanza.ID, stored bool)
	// Proved closes an entry because the recipient's client, which does not send receipts, acknowledged it,
	// where that counts. It reports whether the message had been moved to offline storage.
	Proved(id stanza.ID) (closed, stored bool)
}

// Journal makes what a stanza did survive the process. Append returns when a kill cannot lose it any more.
type Journal interface {
	// Room waits while the journal is full: back-pressure on clients, asked for before anything is locked.
	Room(ctx context.Context) error
	Stanza(r *journal.Stanza) error
	Count(k journal.Kind, session, count uint64) error
	Session(r *journal.Session) error
	IDs(k journal.Kind, user stanza.Addr, ids []stanza.ID) error
	Directed(session uint64, to stanza.Addr, add bool) error
	// Append is the other methods' common form, for records that go between nodes.
	Append(k journal.Kind, head, tail []byte) error
	// Settle returns when everything appended before is safe from a power cut too.
	Settle(ctx context.Context) error
	Sendable
}

// Sendable tells what a client may see. Where an append takes a way over the network, a stanza is sent only when the
// record of it has arrived, or a kill in between would have it sent again.
type Sendable interface {
	// Appended is the position of the newest record, 0 where appends are at once.
	Appended() uint64
	// Sendable is the position up to which what depends on records may be sent.
	Sendable() uint64
	// OnSendable has f called whenever Sendable grew. It is called once, before anything is appended.
	OnSendable(f func())
}

// Cluster is the other gateways that serve the same domains; Parts has none on one machine. Each user has one home,
// which holds everything of the user; see package cluster.
type Cluster interface {
	ID() string
	Homes
	Links
}

// Homes knows who serves whom.
type Homes interface {
	// Here reports whether this node is the user's home. What it says holds while the user's lock is held.
	Here(user stanza.Addr) bool
	// Locate finds out who serves a user; with claim it is this node when nobody does, else ErrNowhere. Nothing
	// may be locked.
	Locate(ctx context.Context, user stanza.Addr, claim bool) error
	// LocateAll is Locate without claim for many; it returns those whom nobody serves.
	LocateAll(ctx context.Context, users []stanza.Addr) (nowhere []stanza.Addr, err error)
	// Claim returns the user's home as it is now, which is this node when there was none.
	Claim(ctx context.Context, user stanza.Addr) (node string, err error)
	// Where says to which node to send what somebody here has for a user, where that is known.
	Where(user stanza.Addr) (node string, known bool)
	// Ready waits while senders here have to hold back what they have for a user, for a moment, and reports whether it is
	// known where to send it. Nothing may be locked.
	Ready(ctx context.Context, user stanza.Addr) bool
	// Straighten returns when whatever is sent to a user who came here lately comes straight to this node: until then the user is
	// not to be handed over. It gives up after a while.
	Straighten(ctx context.Context, user stanza.Addr)
	// Take makes this node the home of a user whom from, a node, has no more; seen is how far from had got in what
	// this node sent it, 0 if some of that may be elsewhere, and term that of the message which brought the user, if one
	// did. Under the user's lock.
	Take(user stanza.Addr, from string, seen uint32, term uint64)
	// Pin keeps it the home while there are sessions, in place of from; Unpin, under the user's lock, says that there
	// are none.
	Pin(ctx context.Context, user stanza.Addr, from string) error
	Unpin(user stanza.Addr)
	// Moved takes the word of another node that it has passed something on.
	Moved(user stanza.Addr, m Move)
}

// Links carry messages to other nodes.
type Links interface {
	// Forward journals a message for the user's home and sends it, in order and once: to the home itself, or to an
	// earlier one that may have something which it comes behind, and in which term. It returns the own name when that is
	// here, and ErrUnlocated when it is not known.
	Forward(user stanza.Addr, m Message, o Origin) (node string, term uint64, err error)
	// ForwardTo is Forward to a node of which it is known that it can go on with it.
	ForwardTo(node string, user stanza.Addr, m Message, o Origin) error
	// HandOver forwards everything of a user to a node, which is the home from then on. Under the user's lock.
	HandOver(node string, user stanza.Addr, m Message) error
	// Tell sends what may be lost.
	Tell(node string, m Message) bool
	// WhenSent calls f when what was forwarded to a node before has arrived there.
	WhenSent(node string, f func())
	// Room waits while too much waits to be sent. Nothing may be locked.
	Room(ctx context.Context) error
	// Suspect looks whether a node that does not answer is dead.
	Suspect(ctx context.Context, node string)
	// Sync waits until other nodes have carried out what they were sent before.
	Sync(ctx context.Context, nodes ...string)
}

// Message goes from one node to another.
type Message struct {
	Op      uint8
	Seq     uint32 // its place among the journaled ones of its link, 0 for one that may be lost
	Term    uint64 // of the user's home that it was sent to; see TermUnknown
	User    string
	Payload []byte
}

// What Message.Term may be besides a term's number; see package cluster.
const (
	TermUnknown uint64 = 0         // of what a sender here sends
	TermPassed  uint64 = 1         // the least for what came from another node
	TermHome    uint64 = 1<<64 - 1 // for what goes straight to the home
)

// Move is the word of the node From that it has passed on what it got from here up to Seq for its term Was: to Node, for that
// one's Term.
type Move struct {
	From string
	Was  uint64
	Seq  uint32
	Node string
	Term uint64
}

// Origin is the inbound stanza that a message came of, as the journal names it.
type Origin struct {
	Session uint64
	N       uint32
}

var (
	// ErrUnlocated says that it is not known which node serves a user; nothing was done.
	ErrUnlocated = errors.New("session: home of the user not known")
	// ErrElsewhere is what Router says of a user whose home is another node; nothing was done.
	ErrElsewhere = errors.New("session: the user is another node's")
	// ErrNowhere says that no node serves a user.
	ErrNowhere = errors.New("session: nobody serves the user")
	// ErrBusy says that a store cannot take or tell something now; nothing was done.
	ErrBusy = errors.New("session: a store is busy")
)

// Moving is what else there is of a user, and goes from one home to another.
type Moving interface {
	// TakeOut forgets the receipts that are awaited for messages to a user, and returns them.
	TakeOut(user stanza.Addr) []journal.Await
	// PutIn takes over what TakeOut returned elsewhere.
	PutIn(awaited []journal.Await)
	// Awaits reports whether receipts are awaited.
	Awaits(user stanza.Addr) bool
	// Release returns when everything about the user is in the kept stores, and forgets it.
	Release(ctx context.Context, user stanza.Addr) error
}

// Host serves addresses that are no users': rooms (XEP-0045).
type Host interface {
	// Serves says whether a domain's addresses are the Host's. It is cheap.
	Serves(domain string) bool
	// Under names the Host's own address below one of our domains, if it has one there.
	Under(domain string) (addr stanza.Addr, ok bool)
	// Answer answers a request to such an own address, as an iqHandler does.
	Answer(ctx context.Context, iq *stanza.Stanza) (content []byte, err error)
	// Open makes who is at an address of what Resident.State returned, which is all it looks at then; without it, of what
	// is in the kept stores.
	Open(ctx context.Context, addr stanza.Addr, state []byte) (Resident, error)
}

// Resident is who is at an address of a Host. One goroutine at a time calls its methods.
type Resident interface {
	// Handle takes the next stanza and calls send for what is to be sent, with the addresses that it is to have. What
	// that is depends on the stanzas that came before and on nothing else.
	Handle(st *stanza.Stanza, send func(st *stanza.Stanza, from, to stanza.Addr))
	// State is all that is known.
	State() []byte
	// Save brings into the kept stores what is to be there by now and is not, and says whether that changed the State. It
	// gives up within seconds: nothing is handled meanwhile.
	Save(ctx context.Context) (changed bool, err error)
	// Idle says that, when Save succeeded, nothing else has to be remembered.
	Idle() bool
}

// Ended remembers sessions that are over, for <failed h='…'/> (XEP-0198 §5).
type Ended interface {
	Remember(token string, user stanza.Addr, h uint32)
	Recall(token string, user stanza.Addr) (h uint32, ok bool)
}

// Roster keeps contacts (RFC 6121 §2). Errors with an IQ error in them (mellium's stanza.Error) are told to the client.
type Roster interface {
	// Items returns a roster and its version. With has, a version the client knows, only what changed since
	// is returned where that is known, and delta is true.
	Items(ctx context.Context, user stanza.Addr, has string, versioned bool) (items []Contact, version string, delta bool, err error)
	Set(ctx context.Context, user stanza.Addr, item Contact) (Contact, error)
	Remove(ctx context.Context, user, contact stanza.Addr) (Contact, Parting, error)
	// Forget removes a whole roster, and says what its contacts are owed.
	Forget(ctx context.Context, user stanza.Addr) (map[stanza.Addr]Parting, error)
}

// Contact is one roster item as it is shown or pushed.
type Contact struct {
	Addr         stanza.Addr
	Name         string
	Groups       []string
	Subscription string // none, to, from, both; remove
	Ask          bool
	Approved     bool
	Version      string // of a push
}

// Parting is what a contact is owed when it leaves a roster (RFC 6121 §2.5.2), in this order.
type Parting struct {
	Unavailable, Unsubscribe, Unsubscribed bool
}

// Subscriptions decides on presence subscriptions (RFC 6121 §3) and who sees whom.
type Subscriptions interface {
	// Change takes a presence stanza of type subscribe, subscribed, unsubscribe or unsubscribed that user sends
	// to contact, or, when inbound, gets from contact.
	Change(ctx context.Context, user, contact stanza.Addr, inbound bool, st *stanza.Stanza) (Outcome, error)
	// Watchers get the user's presence; Watched are those whose presence the user gets.
	Watchers(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error)
	Watched(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error)
	// Pending are the requests that the user has not answered.
	Pending(ctx context.Context, user stanza.Addr) ([][]byte, error)
}

// Outcome says what becomes of a presence stanza that changes a subscription.
type Outcome struct {
	Route           bool
	Push            *Contact
	AutoReply       string // type of a presence stanza to answer with, "" for none
	SendPresence    bool
	SendUnavailable bool // before anything routed
	AskAgain        bool // the user's own request, behind all that
}
