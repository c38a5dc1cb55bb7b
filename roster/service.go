package roster

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/stanza"
)

// Service answers for the rosters of all users. A user is given by any of its addresses; the bare one counts.
type Service struct {
	cfg     Config
	store   Store
	log     *slog.Logger
	metrics *metrics
	cache   *cache
	turns   *turns
}

// New returns a Service over store. cfg must be valid.
func New(cfg Config, store Store, log *slog.Logger, reg prometheus.Registerer) *Service {
	c := newCache(cfg.Cache)
	return &Service{
		cfg:     cfg,
		store:   store,
		log:     log,
		metrics: newMetrics(reg, c),
		cache:   c,
		turns:   newTurns(),
	}
}

// read returns a user's roster as it is now.
func (s *Service) read(ctx context.Context, user stanza.Addr) (*snapshot, error) {
	user = user.Bare()
	if r, ok := s.cache.get(user); ok {
		s.metrics.hits.Inc()
		return r, nil
	}
	s.metrics.misses.Inc()
	done, err := s.turns.take(ctx, user)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.load(ctx, user)
}

// Get returns the items of a user's roster, ordered by contact, and its version (§2.1.4, §2.6).
func (s *Service) Get(ctx context.Context, user stanza.Addr) (items []Item, version string, err error) {
	r, err := s.read(ctx, user)
	if err != nil {
		return nil, "", err
	}
	return r.list(), formatVersion(r.version), nil
}

// Since returns what changed after the version that a client has (§2.6.3), oldest first and only the last change of
// each contact, and the version that leads to. ok is false when that is not known: the client needs the whole roster.
func (s *Service) Since(ctx context.Context, user stanza.Addr, has string) (changed []Change, version string, ok bool, err error) {
	r, err := s.read(ctx, user)
	if err != nil {
		return nil, "", false, err
	}
	version = formatVersion(r.version)
	v, ok := parseVersion(has)
	if !ok {
		return nil, version, false, nil
	}
	changed, ok = r.since(v)
	return changed, version, ok, nil
}

// Subscribers returns the contacts that get the user's presence.
func (s *Service) Subscribers(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	return s.contacts(ctx, user, func(e *entry) bool { return e.Subscription.HasFrom() })
}

// Subscriptions returns the contacts whose presence the user gets: those to probe (§4.3).
func (s *Service) Subscriptions(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	return s.contacts(ctx, user, func(e *entry) bool { return e.Subscription.HasTo() })
}

// Asked returns the contacts that have not answered the user's request. §3.1.2 has it sent again from time to time;
// that also mends a request lost between the user's roster and the contact's.
func (s *Service) Asked(ctx context.Context, user stanza.Addr) ([]stanza.Addr, error) {
	return s.contacts(ctx, user, func(e *entry) bool { return e.Ask })
}

func (s *Service) contacts(ctx context.Context, user stanza.Addr, question func(*entry) bool) ([]stanza.Addr, error) {
	r, err := s.read(ctx, user)
	if err != nil {
		return nil, err
	}
	return r.contacts(question), nil
}

// IsSubscriber reports whether the contact may see the user's presence. Every user may see its own.
func (s *Service) IsSubscriber(ctx context.Context, user, contact stanza.Addr) (bool, error) {
	if user.Bare() == contact.Bare() {
		return true, nil
	}
	r, err := s.read(ctx, user)
	if err != nil {
		return false, err
	}
	e := r.find(contact.Bare())
	return e != nil && e.Subscription.HasFrom(), nil
}

// PendingRequests returns the subscribe stanzas that wait for the user's answer, ordered by contact: they are delivered
// to each resource that becomes available (§3.1.3). The bytes must not be changed.
func (s *Service) PendingRequests(ctx context.Context, user stanza.Addr) ([][]byte, error) {
	r, err := s.read(ctx, user)
	if err != nil || r.waiting == 0 {
		return nil, err
	}
	requests := make([][]byte, 0, r.waiting)
	for _, e := range r.entries {
		if e.PendingIn {
			requests = append(requests, e.Request)
		}
	}
	return requests, nil
}

// Forget drops what is in memory of a user's roster, so that the next use reads the store: for a process that stops
// being, or becomes, the one that works on the user.
func (s *Service) Forget(user stanza.Addr) { s.cache.forget(user.Bare()) }

// now is the next version's lower bound. Taken from the clock, versions go on growing over the life of a name: an
// account removed and made again, or a change lost with a machine, does not bring an old one back.
func now() uint64 { return uint64(max(time.Now().UnixMicro(), 1)) }
