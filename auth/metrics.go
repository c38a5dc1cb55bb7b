package auth

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	attempts      *prometheus.CounterVec
	registrations *prometheus.CounterVec
	remembered    prometheus.Counter
}

func newMetrics(s *Service, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "holdfast", Subsystem: "auth", Name: "attempts_total",
			Help: "Authentications by mechanism and outcome: success, a condition of RFC 6120 section 6.5, or refused (the address failed too often).",
		}, []string{"mechanism", "outcome"}),
		registrations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "holdfast", Subsystem: "auth", Name: "registrations_total",
			Help: "In-band registration by request (register, password, remove) and outcome: success or the stanza error's condition.",
		}, []string{"request", "outcome"}),
		remembered: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "holdfast", Subsystem: "auth", Name: "remembered_total",
			Help: "PLAIN authentications that did not need the password to be hashed slowly.",
		}),
	}
	cs := []prometheus.Collector{m.attempts, m.registrations, m.remembered}
	for i, cache := range []string{"credentials", "exists"} {
		for outcome, n := range map[string]func() uint64{"hit": s.accounts.hits[i].Load, "miss": s.accounts.miss[i].Load} {
			cs = append(cs, prometheus.NewCounterFunc(prometheus.CounterOpts{
				Namespace: "holdfast", Subsystem: "auth", Name: "cache_total",
				Help:        "Lookups in the caches of accounts.",
				ConstLabels: prometheus.Labels{"cache": cache, "outcome": outcome},
			}, func() float64 { return float64(n()) }))
		}
	}
	var errs []error
	for _, c := range cs {
		errs = append(errs, reg.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("auth: metrics: %w", err)
	}
	return m, nil
}
