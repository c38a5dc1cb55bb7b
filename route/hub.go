package route

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"

	"holdfast/stanza"
)

// Session is what a Hub needs of a session.
type Session interface {
	comparable
	Addr() stanza.Addr
}

// Backend does what a Hub decided. S is the session type, V the mailbox's verdict. It is called under the user's
// lock, but for Unroutable.
type Backend[S Session, V any] interface {
	// Deliver puts a stanza into outboxes and says how many took it.
	Deliver(from S, st *stanza.Stanza, to []S) (int, error)
	// Store is offline storage; accepted is false when the sender is to be told.
	Store(from S, user stanza.Addr, st *stanza.Stanza) (verdict V, accepted bool, err error)
	// Storable says whether Store would keep the message, limits aside.
	Storable(st *stanza.Stanza) bool
	// Unroutable tells the sender that nobody gets the message. The verdict is Store's, zero when the mailbox
	// was not asked.
	Unroutable(from S, st *stanza.Stanza, verdict V) error
	// Exists reports whether there is such a user.
	Exists(ctx context.Context, user stanza.Addr) (bool, error)
}

// ErrElsewhere says that another node routes to the user: nothing was done.
var ErrElsewhere = errors.New("route: the user is another node's")

// Hub is the routing table of one gateway.
type Hub[S Session, V any] struct {
	backend Backend[S, V]
	here    func(user stanza.Addr) bool // nil where all users are
	seed    maphash.Seed
	shards  [64]shard[S]
}

type shard[S Session] struct {
	mu    sync.Mutex
	users map[stanza.Addr]*user[S]
}

// user is one user's sessions. It exists while somebody uses it.
type user[S Session] struct {
	refs int // guarded by the shard's mu

	mu       sync.Mutex
	sessions []bound[S] // in the order they were bound
	draining S          // is being given the mailbox; the zero S for none
	targets  []S        // scratch
}

type bound[S Session] struct {
	session   S
	available bool
	priority  int8
}

// New makes an empty Hub.
func New[S Session, V any](backend Backend[S, V]) *Hub[S, V] {
	h := &Hub[S, V]{backend: backend, seed: maphash.MakeSeed()}
	for i := range h.shards {
		h.shards[i].users = make(map[stanza.Addr]*user[S])
	}
	return h
}

// Gate has Message and Direct ask, under the user's lock, whether this node routes to a user; they return ErrElsewhere
// when it does not. It is called before the Hub is used.
func (h *Hub[S, V]) Gate(here func(user stanza.Addr) bool) { h.here = here }

func (h *Hub[S, V]) elsewhere(user stanza.Addr) bool { return h.here != nil && !h.here(user) }

// acquire returns a user, locked. release must follow.
func (h *Hub[S, V]) acquire(addr stanza.Addr) *user[S] {
	sh := h.shard(addr)
	sh.mu.Lock()
	u := sh.users[addr]
	if u == nil {
		u = new(user[S])
		sh.users[addr] = u
	}
	u.refs++
	sh.mu.Unlock()
	u.mu.Lock()
	return u
}

func (h *Hub[S, V]) release(addr stanza.Addr, u *user[S]) {
	empty := len(u.sessions) == 0
	u.mu.Unlock()
	sh := h.shard(addr)
	sh.mu.Lock()
	u.refs--
	if empty && u.refs == 0 {
		// Nobody waits for the lock, so nobody can have added a session since.
		delete(sh.users, addr)
	}
	sh.mu.Unlock()
}

func (h *Hub[S, V]) shard(addr stanza.Addr) *shard[S] {
	return &h.shards[maphash.String(h.seed, addr.String())%uint64(len(h.shards))]
}

// Each calls f for every session of a user, under the user's lock.
func (h *Hub[S, V]) Each(addr stanza.Addr, f func(S)) {
	u := h.acquire(addr)
	defer h.release(addr, u)
	for _, b := range u.sessions {
		f(b.session)
	}
}

// Direct hands a stanza to the session with exactly that full address (RFC 6121 §8.5.3.1).
func (h *Hub[S, V]) Direct(to stanza.Addr, from S, st *stanza.Stanza) (bool, error) {
	bare := to.Bare()
	u := h.acquire(bare)
	defer h.release(bare, u)
	if h.elsewhere(bare) {
		return false, ErrElsewhere
	}
	s, ok := u.find(to)
	if !ok {
		return false, nil
	}
	u.targets = append(u.targets[:0], s)
	n, err := h.backend.Deliver(from, st, u.targets)
	return n > 0, err
}

// Table is one user's sessions while the user's lock is held.
type Table[S Session] struct{ u *user[S] }

// Locked runs f under a user's lock.
func (h *Hub[S, V]) Locked(addr stanza.Addr, f func(Table[S])) {
	u := h.acquire(addr)
	defer h.release(addr, u)
	f(Table[S]{u})
}

// Add enters a session, which is not available yet.
func (t Table[S]) Add(s S) { t.u.sessions = append(t.u.sessions, bound[S]{session: s}) }

// Remove takes a session out.
func (t Table[S]) Remove(s S) {
	t.u.sessions = slices.DeleteFunc(t.u.sessions, func(b bound[S]) bool { return b.session == s })
}

// SetPriority says whether a session is available, and with which priority (RFC 6121 §4.7.2.3).
func (t Table[S]) SetPriority(s S, available bool, priority int8) {
	for i := range t.u.sessions {
		if b := &t.u.sessions[i]; b.session == s {
			b.available, b.priority = available, priority
		}
	}
}

// Sessions returns all of the user's sessions.
func (t Table[S]) Sessions() []S {
	all := make([]S, 0, len(t.u.sessions))
	for _, b := range t.u.sessions {
		all = append(all, b.session)
	}
	return all
}

// Receivers appends the sessions that get a message to the bare address.
func (t Table[S]) Receivers(dst []S) []S { return t.u.receivers(dst) }

// Draining is the session that is being given the mailbox.
func (t Table[S]) Draining() S { return t.u.draining }

// SetDraining names it; the zero S for none.
func (t Table[S]) SetDraining(s S) { t.u.draining = s }

func (u *user[S]) find(full stanza.Addr) (s S, ok bool) {
	for _, b := range u.sessions {
		if b.session.Addr() == full {
			return b.session, true
		}
	}
	return s, false
}

// receivers are all available sessions of non-negative priority: of the two ways of RFC 6121 §8.5.2.1.1 the one in
// which no device misses a message.
func (u *user[S]) receivers(dst []S) []S {
	for _, b := range u.sessions {
		if b.available && b.priority >= 0 {
			dst = append(dst, b.session)
		}
	}
	return dst
}
