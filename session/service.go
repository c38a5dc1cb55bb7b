package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"hash/maphash"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/stanza"
)

// Parts are the other rooms, as session needs them.
type Parts struct {
	Auth     Authenticator
	Accounts Accounts
	// NewRouter makes the router that calls back into the Service.
	NewRouter func(*Service) Router
	Roster    Roster
	Subs      Subscriptions
	Mailbox   Mailbox
	Receipts  Receipts
	Journal   Journal
	Ended     Ended
	Cluster   Cluster // nil on one machine
	Moving    Moving  // with Cluster
	Host      Host    // nil where there are no rooms
	// MayReach says whether a user may send something to another one; nil: everybody may.
	MayReach func(user, to stanza.Addr) bool
	Metrics  *Metrics
	Log      *slog.Logger
	// Registration offers XEP-0077 to strangers.
	Registration bool
	// NoStorage: nothing is kept for users who are away, so offline storage is not announced.
	NoStorage bool
	// Version is what XEP-0092 answers.
	Version string
}

// Service holds every session of this gateway and what they share.
type Service struct {
	// static
	cfg      Config
	domains  map[string]stanza.Addr
	ours     func(stanza.Addr) bool // whether an address is one of the domains
	first    stanza.Addr            // the domain that a header without `to` means
	auth     Authenticator
	accounts Accounts
	router   Router
	roster   Roster
	subs     Subscriptions
	mailbox  Mailbox
	receipts Receipts
	journal  Journal
	over     Ended
	cluster  Cluster // nil on one machine
	moving   Moving
	host     Host // nil where there are no rooms
	mayReach func(user, to stanza.Addr) bool
	metrics  *Metrics
	log      *slog.Logger
	register bool
	version  string

	domainInfo, featuresAfterAuth []byte

	iqs   map[iqKey]iqHandler
	caps  capsCache
	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	loops sync.WaitGroup

	hosting     context.Context // ends with StopHosting
	stopHosting context.CancelFunc
	hostLoops   sync.WaitGroup
	noteEvery   int // noteStanzas, fewer in tests
	opening     atomic.Int32

	intake       context.Context // ends with Drain: what waits for room gives up
	refuseIntake context.CancelFunc

	// barrier is held shared by whatever writes to the journal, from before the first record to after the last
	// effect, and exclusively where a checkpoint looks: what it sees is never half done. It comes before all
	// other locks.
	barrier sync.RWMutex

	seed  maphash.Seed
	turns [64]sync.Mutex // see rosterTurn

	ords     atomic.Uint64 // last Session.ord given out
	draining atomic.Bool

	mu        sync.Mutex
	sessions  map[uint64]*Session       // by ord
	tokens    map[string]*Session       // by XEP-0198 id
	sids      map[string]*Session       // by what the client knows its transport as, see Carrier
	gone      []uint64                  // ended since the last checkpoint, which knows them
	removed   map[stanza.Addr]stanza.ID // accounts that were removed, and an id made then
	peers     map[string]*Session       // links from other nodes, see peerFor
	deaths    map[string]time.Time      // of other nodes
	parkedFor map[stanza.Addr]int       // messages of other nodes put aside, see putAside
	proxies   map[string]*proxy         // connections here of sessions elsewhere
	relays    map[string]*relay         // connections elsewhere of sessions here

	settle  settler
	parked  waiting
	wants   wants
	errands errands
}

// New makes a Service for domains; the first is the default. Run must be called before the first stream.
func New(cfg Config, domains []stanza.Addr, p Parts) *Service {
	sv := &Service{
		cfg: cfg, domains: make(map[string]stanza.Addr, len(domains)), first: domains[0],
		auth: p.Auth, accounts: p.Accounts, roster: p.Roster, subs: p.Subs, mailbox: p.Mailbox,
		receipts: p.Receipts, journal: p.Journal, over: p.Ended, metrics: p.Metrics, log: p.Log,
		cluster: p.Cluster, moving: p.Moving, host: p.Host, noteEvery: noteStanzas, mayReach: p.MayReach,
		register: p.Registration, version: p.Version,
		seed: maphash.MakeSeed(), sessions: make(map[uint64]*Session), tokens: make(map[string]*Session), sids: make(map[string]*Session),
		peers: make(map[string]*Session), parkedFor: make(map[stanza.Addr]int), proxies: make(map[string]*proxy), relays: make(map[string]*relay),
	}
	for _, d := range domains {
		sv.domains[d.Domain()] = d
	}
	sv.ours = func(a stanza.Addr) bool { return !a.IsZero() && a == sv.domains[a.Domain()] }
	// No earlier process can have given out what this one does, whatever is still in the journal.
	sv.ords.Store(uint64(time.Now().UnixMilli()) << 16)
	sv.domainInfo, sv.featuresAfterAuth = domainInfoOf(!p.NoStorage, sv.register, cfg.AMP), featuresAfterAuth(cfg.AMP)
	sv.ctx, sv.stop = context.WithCancel(context.Background())
	sv.hosting, sv.stopHosting = context.WithCancel(sv.ctx)
	sv.intake, sv.refuseIntake = context.WithCancel(sv.ctx)
	sv.settle.wake = make(chan struct{}, 1)
	sv.iqs = sv.handlers()
	sv.router = p.NewRouter(sv)
	sv.settle.due = make(chan struct{}, 1)
	sv.loops.Go(sv.settleLoop)
	sv.loops.Go(sv.askLoop)
	sv.wants.waiting, sv.wants.coming = make(map[stanza.Addr]map[string]chan bool), make(map[stanza.Addr]int)
	if sv.cluster != nil {
		sv.errands = errands{sv, make(chan errand, maxErrands)}
		sv.loops.Go(sv.errandLoop)
	}
	sv.journal.OnSendable(sv.unpark)
	return sv
}

// NextOrd gives out a number that names something in the journal, as Session.ord does.
func (sv *Service) NextOrd() uint64 { return sv.ords.Add(1) }

// enter lets a checkpoint wait until leave. Whoever has entered must not enter again.
func (sv *Service) enter() { sv.barrier.RLock() }

func (sv *Service) leave() { sv.barrier.RUnlock() }

// Local reports whether an address is of one of our domains.
func (sv *Service) Local(a stanza.Addr) bool {
	_, ok := sv.domains[a.Domain()]
	return ok
}

// Close ends the background work. Streams must be gone before.
func (sv *Service) Close() {
	sv.stop()
	sv.StopHosting()
	sv.loops.Wait()
	sv.mu.Lock()
	defer sv.mu.Unlock()
	for _, s := range sv.sessions {
		s.mu.Lock()
		if s.expiry != nil {
			s.expiry.Stop()
		}
		s.mu.Unlock()
	}
}

// Drain tells every client to come back and leaves the sessions that can be resumed waiting. New streams are
// refused from now on. It returns when the transports were told, which is spread over a while so that not all clients
// come back in one moment; they end by themselves.
func (sv *Service) Drain(ctx context.Context) {
	sv.draining.Store(true)
	sv.refuseIntake()
	all := sv.all()
	gap := drainGap
	if n := len(all); n > 0 {
		gap = min(gap, sv.cfg.DrainSpread/time.Duration(n))
	}
	for _, s := range all {
		s.mu.Lock()
		st, resumable := s.stream, s.patienceLocked() > 0
		s.mu.Unlock()
		if st == nil {
			continue
		}
		if resumable {
			// The stream is not closed, so the session stays (XEP-0198 §5).
			st.transport.Finish(Restarting)
		} else {
			st.control(stanza.SystemShutdown.Raw())
			st.transport.Finish(Closed)
		}
		if gap > 0 && ctx.Err() == nil {
			sv.sleep(gap)
		}
	}
}

// drainGap is how long the draining of one session may take for those that follow.
const drainGap = 2 * time.Millisecond

// Empty reports whether there is no session.
func (sv *Service) Empty() bool {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return len(sv.sessions) == 0
}

// all returns the sessions of this moment.
func (sv *Service) all() []*Session {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	all := make([]*Session, 0, len(sv.sessions))
	for _, s := range sv.sessions {
		all = append(all, s)
	}
	return all
}

// Users are those who have a session here, connected or waiting for its client; who has several comes several times.
func (sv *Service) Users() iter.Seq[stanza.Addr] {
	return func(yield func(stanza.Addr) bool) {
		for _, s := range sv.all() {
			if s.peer == "" && !yield(s.addr.Bare()) {
				return
			}
		}
	}
}

func (sv *Service) add(s *Session) {
	sv.mu.Lock()
	sv.sessions[s.ord] = s
	sv.mu.Unlock()
}

func (sv *Service) forget(s *Session, token string, stored bool) {
	s.mu.Lock()
	sid := s.carried.sid
	s.mu.Unlock()
	sv.forgetSid(sid)
	sv.mu.Lock()
	delete(sv.sessions, s.ord)
	if token != "" {
		delete(sv.tokens, token)
	}
	if stored {
		sv.gone = append(sv.gone, s.ord)
	}
	sv.mu.Unlock()
}

func (sv *Service) forgetSid(sid string) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	delete(sv.sids, sid)
}

func (sv *Service) byToken(token string) *Session {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return sv.tokens[token]
}

// secret is an unguessable name: 144 random bits.
func secret() string {
	var b [18]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
