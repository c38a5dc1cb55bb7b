package session

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/internal/journal"
	"holdfast/stanza"
)

// Session is what survives transports: the address, presence, counters and outbox of one client.
//
// Lock order: the user's lock in Router, then Session.mu, then the locks of the stores.
type Session struct {
	// static
	sv      *Service
	ord     uint64 // identity in the journal, never used twice
	addr    stanza.Addr
	log     *slog.Logger
	created time.Time

	// in counts inbound stanzas since XEP-0198 was enabled, the one being handled included. It belongs to the
	// goroutine that holds inMu of the attached stream.
	in       uint32
	recorded bool        // the stanza being handled is in a journal record already
	nowhere  stanza.Addr // a user whom the stanza being handled is for and whom nobody serves

	// A link to another node is a session as far as the journal goes: peer is that node. heir says that it carries
	// out what was meant for a dead one.
	peer string
	heir bool

	hosted *hosted // of an address that is no client's

	// receiptsKnown tells what is known of the client's support for XEP-0184.
	receiptsKnown atomic.Uint32

	mu       sync.Mutex // guards what follows
	out      outbox
	stream   *stream // the attached one, nil while detached
	ended    bool
	moved    bool // ended here, and goes on at another node
	rebuilt  bool // made of what another process left, or handed over
	leaving  bool // ended, its client closed the stream, the transport has not closed yet
	holds    bool // ended, and its user stays here until it is buried
	spilling bool // over its caps, about to end
	managed  bool // XEP-0198 is on
	token    string
	max      time.Duration // how long a resumption is possible
	base     uint64        // outbox place at which the client's count began
	asked    uint64        // outbox place up to which <r/> was sent
	asking   bool          // in the service's list of sessions to be asked for an acknowledgement
	probing  bool          // the transport was asked for a sign of life, at probed
	probed   time.Time
	handled  uint32 // inbound stanzas whose effects are in the journal
	settled  uint32 // inbound stanzas that a power cut cannot lose either: what <a h/> says
	owed     bool   // the client asked for more than was settled
	settling bool   // in the service's list of sessions that wait for the journal
	detached time.Time
	expiry   *time.Timer // of a detached session
	carried  carried     // what the transport noted
	earlier  uint64      // inbound stanzas from before XEP-0198 was enabled
	unproved []stanza.ID // acknowledged while it was not known whether the client sends receipts

	presence   *stanza.Stanza // last broadcast, nil while unavailable
	priority   int8
	since      stanza.ID // made when it began to get messages to the bare address: older messages it never had live
	interested bool      // asked for the roster, so it gets pushes (RFC 6121 §2.1.6)
	directed   map[stanza.Addr]struct{}
	capsID     string               // of the request for its features that is under way
	capsVer    string               // the hash that it is about (XEP-0115)
	taken      stanza.ID            // newest message that was given to this session out of the mailbox
	passed     []stanza.ID          // older ones that it was not given, because another session held them; bounded by what that held
	paging     bool                 // more of the mailbox is to come
	chosen     bool                 // reads the mailbox by itself (XEP-0013)
	shows      []*show              // its requests to be shown messages, the first one under way
	caughtUp   bool                 // was told its contacts' presence since it became available
	had        []stanza.ID          // messages awaiting receipts that it was given later than the others of its user
	sentTo     map[string]time.Time // other nodes that it sent something to, and when last

	kept   uint64 // newest outbox place that the checkpoint store has
	stored bool   // the checkpoint store knows the session
	dirty  bool   // it differs from what the checkpoint store has
}

// Addr is the session's full address.
func (s *Session) Addr() stanza.Addr { return s.addr }

// send puts a stanza of the gateway's own, or one that was routed to this session alone, into the outbox.
func (s *Session) send(from *Session, st *stanza.Stanza) error {
	targets := [1]*Session{s}
	_, err := s.sv.deliver(from, st, targets[:], 0)
	return err
}

// h is what XEP-0198 calls the count of an outbox place. The caller holds mu.
func (s *Session) hLocked(place uint64) uint32 { return uint32(place - s.base) }

// ackLocked drops what the client has, up to place, and returns the entries for afterAck. It appends to dst.
func (s *Session) ackLocked(place uint64, dst []entry) []entry {
	for s.out.n > 0 && s.out.acked < place {
		e := s.out.pop()
		if e.copies != nil {
			e.copies.acked.Store(true)
		}
		if e.flags&(fromMailbox|awaits) != 0 {
			dst = append(dst, e)
		}
	}
	s.dirty = true
	return dst
}

// ack takes the client's word for everything up to place.
func (s *Session) ack(place uint64) error {
	s.mu.Lock()
	if place <= s.out.acked || s.ended && !s.leaving {
		s.mu.Unlock()
		return nil
	}
	if err := s.sv.journal.Count(journal.KindAcked, s.ord, place); err != nil {
		s.mu.Unlock()
		return err
	}
	done := s.ackLocked(place, nil)
	paging := s.paging
	showing := len(s.shows) > 0 && s.out.n <= s.sv.cfg.PageMessages/2
	s.mu.Unlock()
	s.afterAck(done)
	if paging {
		s.sv.drainMore(s)
	}
	if showing {
		s.sv.showMore(s)
	}
	return nil
}

// afterAck does what the stores need to know of entries that the client has. No lock is held.
func (s *Session) afterAck(done []entry) {
	if len(done) == 0 {
		return
	}
	var unstore []stanza.ID
	for _, e := range done {
		proof := true
		if e.flags&awaits != 0 {
			switch s.receipts() {
			case receiptsSent:
				proof = false // only the receipt proves (XEP-0184 §3)
			case receiptsAsked:
				proof = false
				s.remember(e.st.ID)
			default:
				if s.provedByAck(e.st.ID) && e.flags&fromMailbox == 0 {
					unstore = append(unstore, e.st.ID)
				}
			}
		}
		if proof && e.flags&fromMailbox != 0 {
			unstore = append(unstore, e.st.ID)
		}
	}
	s.sv.unstore(s.addr.Bare(), unstore)
}

// maxUnproved bounds what remember keeps; older ones wait for their deadline.
const maxUnproved = 256

func (s *Session) remember(id stanza.ID) {
	s.mu.Lock()
	if len(s.unproved) < maxUnproved {
		s.unproved = append(s.unproved, id)
	}
	s.mu.Unlock()
}

// What is known of the client and receipts (XEP-0184 §6).
const (
	receiptsNo    = iota // it does not say so
	receiptsAsked        // its disco#info is on its way
	receiptsSent         // it advertises them, or sent one
)

func (s *Session) receipts() uint32 { return s.receiptsKnown.Load() }

// knowReceipts settles whether the client sends receipts.
func (s *Session) knowReceipts(yes bool) {
	if yes {
		s.receiptsKnown.Store(receiptsSent)
	} else {
		s.receiptsKnown.CompareAndSwap(receiptsAsked, receiptsNo)
	}
	s.mu.Lock()
	ids := s.unproved
	s.unproved = nil
	s.mu.Unlock()
	if yes {
		return
	}
	var unstore []stanza.ID
	for _, id := range ids {
		s.provedByAck(id)
		unstore = append(unstore, id) // it may have come out of the mailbox
	}
	s.sv.unstore(s.addr.Bare(), unstore)
}

// provedByAck tells the packet cache, and reports whether the mailbox has a copy.
func (s *Session) provedByAck(id stanza.ID) (stored bool) {
	closed, stored := s.sv.receipts.Proved(id)
	if closed {
		if err := s.sv.journal.IDs(journal.KindProved, stanza.Addr{}, []stanza.ID{id}); err != nil {
			s.log.Error("acknowledgement of a message not recorded", "error", err)
		}
	}
	return stored
}

// stateLocked describes the session for the journal and the checkpoint store.
func (s *Session) stateLocked() *journal.Session {
	r := &journal.Session{
		Ord: s.ord, Addr: s.addr, Token: s.token, Managed: s.managed, Base: s.base, Max: s.max,
		Sid: s.carried.sid, Linger: s.carried.linger, Carried: s.carried.state, Earlier: s.earlier,
		Priority: s.priority, Detached: s.detached, CreatedAt: s.created, Since: s.since, Taken: s.taken,
	}
	if s.presence != nil {
		r.Presence = s.presence.Raw()
	}
	if s.interested {
		r.Flags |= stateInterested
	}
	if s.receipts() == receiptsSent {
		r.Flags |= stateReceipts
	}
	if s.chosen {
		r.Flags |= stateChosen
	}
	if s.peer != "" {
		r.Flags |= journal.FlagLink
	}
	return r
}

// Bits of journal.Session.Flags.
const (
	stateInterested uint8 = 1 << iota
	stateReceipts
	stateChosen
)

// noteLocked writes the session's state to the journal.
func (s *Session) noteLocked() error {
	s.dirty = true
	return s.sv.journal.Session(s.stateLocked())
}
