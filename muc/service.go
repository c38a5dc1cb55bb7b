package muc

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/stanza"
)

// Service is all rooms of a gateway. It is safe for concurrent use.
type Service struct {
	cfg     Config
	admins  []stanza.Addr
	store   Store
	rights  Rights
	log     *slog.Logger
	metrics *metrics
	hosts   map[string]stanza.Addr // of rooms, by the domain of their users
	served  map[string]bool        // the hosts
}

// Rights are what others decide.
type Rights struct {
	// Create reports whether a user may create rooms, where anybody may. What it says of an address may never change.
	Create func(user stanza.Addr) bool
	// Named reports whether a room is one that the operator named: it is there for everybody who enters. A room that is
	// opened from its State keeps to what was said when it was opened without.
	Named func(room stanza.Addr) bool
}

// New returns the rooms of the users of domains. cfg must be valid.
func New(cfg Config, domains []stanza.Addr, store Store, rights Rights, log *slog.Logger, reg prometheus.Registerer) (*Service, error) {
	admins, err := cfg.admins()
	if err != nil {
		return nil, fmt.Errorf("muc: %w", err)
	}
	s := &Service{
		cfg: cfg, admins: admins, store: store, rights: rights, log: log, metrics: newMetrics(reg),
		hosts: make(map[string]stanza.Addr), served: make(map[string]bool),
	}
	if !cfg.Enabled {
		return s, nil
	}
	for _, domain := range domains {
		host, err := stanza.NewAddr("", cfg.Host+"."+domain.Domain(), "")
		if err != nil {
			return nil, fmt.Errorf("muc: MUC_HOST before %s: %w", domain.Domain(), err)
		}
		s.hosts[domain.Domain()] = host
		s.served[host.Domain()] = true
	}
	return s, nil
}

// Serves reports whether the rooms of a domain are here.
func (s *Service) Serves(domain string) bool { return s.served[domain] }

// Host returns where the rooms for the users of a domain are.
func (s *Service) Host(domain string) (stanza.Addr, bool) {
	host, ok := s.hosts[domain]
	return host, ok
}

// secretSize is the bytes of what occupant ids are made with.
const secretSize = 32

// Open returns a room as it was when its State was taken. With nil it is as the store has it, with nobody in it; a
// room that is not kept is one that does not exist yet. Each of those has a secret of its own, so that the State of
// one that was opened without has to be noted before what it sends.
func (s *Service) Open(ctx context.Context, addr stanza.Addr, state []byte) (*Room, error) {
	if addr.Local() == "" || addr.IsFull() || !s.Serves(addr.Domain()) {
		return nil, fmt.Errorf("muc: %v is no room", addr)
	}
	r := s.newRoom(addr)
	if state != nil {
		if err := r.restore(state); err != nil {
			return nil, fmt.Errorf("muc: state of a room: %w", err)
		}
		r.unsure = true
		return r, nil
	}
	r.secret = make([]byte, secretSize)
	_, _ = rand.Read(r.secret) // never fails
	kept, ok, err := s.store.Load(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("muc: load a room: %w", err)
	}
	switch {
	case !ok:
	case !kept.Persistent:
		r.dirty = true // it was left without having been removed
	default:
		if err := r.restore(kept.State); err != nil {
			return nil, fmt.Errorf("muc: kept state of a room: %w", err)
		}
		r.granted = true
		r.history.trim(&r.limits)
	}
	return r, nil
}
