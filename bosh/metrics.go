package bosh

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/admit"
)

// Why a request for a session was refused, as in the metric's label, besides the reasons of admit.
const (
	refusedDraining = "draining"
	refusedOrigin   = "origin"
)

// counter is on a cache line of its own: all requests add to it.
type counter struct {
	atomic.Uint64
	_ [56]byte
}

// metrics is what the transport counts. The hot path adds to plain atomics; Prometheus reads them when it scrapes.
type metrics struct {
	requests, responses, repeats, bytesIn, bytesOut, slow, continued, forwarded counter

	refused    *prometheus.CounterVec
	ended      *prometheus.CounterVec
	violations *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Server) (*metrics, error) {
	m := &metrics{}
	const space, sub = "holdfast", "bosh"
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: space, Subsystem: sub, Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	m.refused = vec("sessions_refused_total", "BOSH sessions refused, by reason.", "reason",
		refusedDraining, refusedOrigin, string(admit.All), string(admit.Unauthenticated), string(admit.Address))
	m.violations = vec("rid_violations_total", "Requests that broke the rules of the window of request ids, by kind; all but old ones ended their session.", "kind",
		violationOutside, violationOld, violationOveractive, violationKey)
	var reasons []string
	for _, e := range endings {
		reasons = append(reasons, e.label)
	}
	m.ended = vec("ended_total", "BOSH sessions ended, by reason.", "reason", reasons...)
	count := func(name, help string, labels prometheus.Labels, c *counter) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: space, Subsystem: sub, Name: name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(c.Load()) })
	}
	gauge := func(name, help string, labels prometheus.Labels, f func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: space, Subsystem: sub, Name: name, Help: help, ConstLabels: labels,
		}, func() float64 { return float64(f()) })
	}
	const sessionsHelp, bytesHelp = "BOSH sessions, by state.", "Bytes of BOSH bodies, before compression."
	for _, c := range []prometheus.Collector{
		m.refused, m.ended, m.violations,
		count("requests_total", "BOSH requests.", nil, &m.requests),
		count("responses_total", "BOSH responses fixed; repetitions are not counted.", nil, &m.responses),
		count("repeats_total", "BOSH requests that were sent again.", nil, &m.repeats),
		count("bytes_total", bytesHelp, prometheus.Labels{"direction": "in"}, &m.bytesIn),
		count("bytes_total", bytesHelp, prometheus.Labels{"direction": "out"}, &m.bytesOut),
		count("slow_total", "BOSH exchanges given up because the client was too slow.", nil, &m.slow),
		count("continued_total", "BOSH sessions of an earlier process or another node that were gone on with.", nil, &m.continued),
		count("forwarded_total", "BOSH requests that another node served.", nil, &m.forwarded),
		gauge("sessions", sessionsHelp, prometheus.Labels{"state": "unauthenticated"}, func() int { n, _ := s.gate.Counts(); return n }),
		gauge("sessions", sessionsHelp, prometheus.Labels{"state": "authenticated"}, func() int { _, n := s.gate.Counts(); return n }),
		gauge("held_requests", "BOSH sessions with a request that is held.", nil, s.heldRequests),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("bosh: metrics: %w", err)
		}
	}
	return m, nil
}

// heldRequests counts the sessions that can be answered at once.
func (s *Server) heldRequests() (n int) {
	s.watch.each(func(t *transport) {
		if t.front.Load() != nil {
			n++
		}
	})
	return n
}
