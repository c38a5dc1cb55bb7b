package auth

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/sasl"

	"holdfast/stanza"
)

// Service runs SASL and registration over Accounts.
type Service struct {
	// static
	cfg        Config
	accounts   *Accounts
	log        *slog.Logger
	metrics    *metrics
	key        [32]byte // of this process: remembers verified PLAIN passwords
	mechanisms []mechanism

	verified     *lru[stanza.Addr, memory]
	failures     *rate[netip.Addr]
	userFailures *rate[stanza.Addr]
	usual        *lru[place, struct{}] // whence users logged in lately
	registered   *rate[netip.Addr]
	guests       *guests
	tokens       *tokens // nil for none
}

type mechanism struct {
	name   string
	family *family // nil for PLAIN
	sasl   sasl.Mechanism
}

type place struct {
	user stanza.Addr
	from netip.Addr
}

// New makes a Service. cfg is the one that accounts were opened with.
func New(cfg Config, accounts *Accounts, log *slog.Logger, reg prometheus.Registerer) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	s := &Service{
		cfg: cfg, accounts: accounts, log: log,
		verified:     newLRU[stanza.Addr, memory](cfg.Cache),
		failures:     newRate[netip.Addr](cfg.FailureRate, cfg.RateTable),
		userFailures: newRate[stanza.Addr](cfg.UserFailureRate, cfg.RateTable),
		usual:        newLRU[place, struct{}](cfg.RateTable),
		registered:   newRate[netip.Addr](cfg.RegistrationRate, cfg.RateTable),
	}
	if _, err := rand.Read(s.key[:]); err != nil {
		return nil, fmt.Errorf("auth: key: %w", err)
	}
	for _, f := range accounts.hasher.families {
		s.mechanisms = append(s.mechanisms, mechanism{f.name, f, f.mechanism()})
	}
	if slices.Contains(cfg.Mechanisms, Plain) {
		s.mechanisms = append(s.mechanisms, mechanism{Plain, nil, sasl.Plain})
	}
	var err error
	if s.guests, err = newGuests(cfg); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	if s.tokens, err = openTokens(cfg); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	if s.metrics, err = newMetrics(s, reg); err != nil {
		return nil, err
	}
	return s, nil
}

// Mechanisms names what a peer is offered, strongest first. PLAIN is only for a secure one, ANONYMOUS where guests
// may come.
func (s *Service) Mechanisms(secure bool) []string {
	var names []string
	for _, m := range s.mechanisms {
		if secure || m.family != nil {
			names = append(names, m.name)
		}
	}
	if s.tokens != nil && secure {
		names = append(names, OAuthBearer)
	}
	if s.GuestsAllowed() {
		names = append(names, Anonymous)
	}
	return names
}

// Begin starts an exchange for one of the gateway's domains. The error is a Failure.
func (s *Service) Begin(name, domain string, from netip.Addr, secure bool) (*Exchange, error) {
	e := &Exchange{s: s, mechanism: name, domain: domain, from: from}
	if name == Anonymous && s.GuestsAllowed() {
		e.only = guestStep
		return e, nil
	}
	token := name == OAuthBearer && s.tokens != nil
	i := slices.IndexFunc(s.mechanisms, func(m mechanism) bool { return m.name == name })
	if i < 0 && !token {
		s.metrics.attempts.WithLabelValues("other", InvalidMechanism.condition).Inc()
		return nil, InvalidMechanism
	}
	var m mechanism
	if !token {
		m = s.mechanisms[i]
	}
	if m.family == nil && !secure {
		s.metrics.attempts.WithLabelValues(name, MechanismTooWeak.condition).Inc()
		return nil, MechanismTooWeak
	}
	if s.failures.over(network(from)) {
		s.metrics.attempts.WithLabelValues(name, "refused").Inc()
		return nil, TooManyFailures
	}
	if token {
		e.only = tokenStep
		return e, nil
	}
	e.family = m.family
	e.neg = sasl.NewServer(m.sasl, e.plain, sasl.SaltedCredentials(e.salted))
	return e, nil
}

// mayTry refuses a guess before it is checked. Exchanges begun at the same time all passed Begin, so the address is
// asked for again. A user whose name is guessed at from everywhere can still log in from where they did lately.
func (s *Service) mayTry(user stanza.Addr, from netip.Addr) error {
	from = network(from)
	if s.failures.over(from) {
		return TooManyFailures
	}
	if s.userFailures.over(user) {
		if _, ok := s.usual.get(place{user, from}); !ok {
			return TooManyFailures
		}
	}
	return nil
}

// Accounts are the users that the Service checks against.
func (s *Service) Accounts() *Accounts { return s.accounts }
