package resume

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	seconds  prometheus.Histogram
	failures prometheus.Counter
	waits    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "holdfast", Subsystem: "resume", Name: "checkpoint_seconds",
			Help: "How long checkpoints took.", Buckets: prometheus.ExponentialBuckets(.001, 4, 8),
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "holdfast", Subsystem: "resume", Name: "checkpoint_failures_total",
			Help: "Checkpoints that failed and were tried again.",
		}),
	}
	m.waits = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "holdfast", Subsystem: "resume", Name: "journal_full_total",
		Help: "Stanzas that waited because the journal was at its cap.",
	})
	reg.MustRegister(m.seconds, m.failures, m.waits)
	return m
}
