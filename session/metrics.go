package session

import (
	"github.com/prometheus/client_golang/prometheus"

	"holdfast/stanza"
)

// Metrics counts what streams and sessions do. Labels come from fixed sets: conditions of the RFCs and XEPs, kinds of
// stanzas.
type Metrics struct {
	logins       *prometheus.CounterVec
	streamErrors *prometheus.CounterVec
	opened       prometheus.Counter
	closed       prometheus.Counter
	restored     prometheus.Counter
	expired      prometheus.Counter
	spilled      prometheus.Counter
	resumes      *prometheus.CounterVec
	resumeAge    prometheus.Histogram
	settleTime   prometheus.Histogram
	bounced      *prometheus.CounterVec
	inbound      [4]prometheus.Counter // by stanza.Kind
	outcomes     [outcomeCount]prometheus.Counter
	rules        *prometheus.CounterVec

	handedOver, takenOver, proxied, errandsLost, parked prometheus.Counter
}

// NewMetrics registers the package's metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "session", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "session", Name: name, Help: help}, []string{label})
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "holdfast", Subsystem: "session", Name: name, Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	m := &Metrics{
		logins:       vec("sasl_total", "SASL exchanges by outcome: success or the failure's condition.", "outcome"),
		streamErrors: vec("stream_errors_total", "Stream errors sent, by condition.", "condition"),
		opened:       counter("opened_total", "Sessions bound."),
		closed:       counter("ended_total", "Sessions ended."),
		restored:     counter("restored_total", "Sessions brought back after a restart."),
		expired:      counter("expired_total", "Sessions whose client did not come back in time."),
		spilled:      counter("spilled_total", "Sessions ended because too much waited to be acknowledged."),
		resumes:      vec("resumes_total", "Resumptions by result: resumed, ended, unknown, too-high.", "result"),
		resumeAge: histogram("resume_age_seconds", "How long a resumed session had waited for its client.",
			[]float64{.1, .5, 1, 5, 15, 60, 300, 900, 3600}),
		settleTime: histogram("settle_seconds", "How long the journal took to be safe.", prometheus.ExponentialBuckets(.0001, 4, 9)),
		bounced:    vec("stanza_errors_total", "Stanzas answered with an error, by condition.", "condition"),
	}
	m.rules = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "holdfast", Subsystem: "session", Name: "amp_rules_total", Help: "Rules of messages (XEP-0079) that were met, by condition and action.",
	}, []string{"condition", "action"})
	reg.MustRegister(m.rules)
	m.handedOver = counter("users_handed_over_total", "Users given to another node, which their client came to.")
	m.takenOver = counter("users_taken_over_total", "Users got from another node.")
	m.proxied = counter("proxied_connections_total", "Connections that were served through to another node, where the user has another one.")
	m.parked = counter("messages_parked_total", "Messages from other nodes put aside because the database was away.")
	m.errandsLost = counter("errands_dropped_total", "Presence for other nodes that was dropped because too much waited.")
	in := vec("stanzas_in_total", "Stanzas taken from clients, by kind.", "kind")
	for kind := stanza.Message; kind <= stanza.IQ; kind++ {
		m.inbound[kind] = in.WithLabelValues(kind.String())
	}
	out := vec("messages_total", "Messages by what became of them: delivered to outboxes, stored, dropped, or refused.", "outcome")
	for o, name := range outcomeNames {
		m.outcomes[o] = out.WithLabelValues(name)
	}
	return m
}

// outcome is what became of a routed message.
type outcome int

const (
	delivered outcome = iota
	stored
	dropped
	refused
	outcomeCount
)

var outcomeNames = [outcomeCount]string{"delivered", "stored", "dropped", "refused"}

// Register adds the gauges that are read from a Service when they are asked for.
func (sv *Service) Register(reg prometheus.Registerer) {
	desc := prometheus.NewDesc("holdfast_session_sessions", "Sessions by state: attached to a transport, or detached and waiting.", []string{"state"}, nil)
	queued := prometheus.NewDesc("holdfast_session_outbox_stanzas", "Stanzas that wait for an acknowledgement.", nil, nil)
	bytes := prometheus.NewDesc("holdfast_session_outbox_bytes", "Bytes of stanzas that wait for an acknowledgement.", nil, nil)
	hosted := prometheus.NewDesc("holdfast_session_hosted", "Addresses that the gateway itself serves at present: rooms in use.", nil, nil)
	reg.MustRegister(gauges{sv, desc, hosted, queued, bytes})
}

type gauges struct {
	sv                             *Service
	sessions, hosted, queued, size *prometheus.Desc
}

func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- g.sessions
	ch <- g.hosted
	ch <- g.queued
	ch <- g.size
}

func (g gauges) Collect(ch chan<- prometheus.Metric) {
	var attached, detached, hosted, stanzas, size int
	for _, s := range g.sv.all() {
		s.mu.Lock()
		switch {
		case s.hosted != nil:
			hosted++
		case s.stream != nil:
			attached++
		default:
			detached++
		}
		stanzas += s.out.n
		size += s.out.bytes
		s.mu.Unlock()
	}
	ch <- prometheus.MustNewConstMetric(g.sessions, prometheus.GaugeValue, float64(attached), "attached")
	ch <- prometheus.MustNewConstMetric(g.sessions, prometheus.GaugeValue, float64(detached), "detached")
	if g.sv.host != nil {
		ch <- prometheus.MustNewConstMetric(g.hosted, prometheus.GaugeValue, float64(hosted))
	}
	ch <- prometheus.MustNewConstMetric(g.queued, prometheus.GaugeValue, float64(stanzas))
	ch <- prometheus.MustNewConstMetric(g.size, prometheus.GaugeValue, float64(size))
}
