package resume

import "github.com/prometheus/client_golang/prometheus"

// redisMetrics are those of a journal in Redis.
type redisMetrics struct {
	*metrics
	degraded       prometheus.Gauge
	flush          prometheus.Histogram
	records, bytes prometheus.Counter
	retries        prometheus.Counter
}

func newRedisMetrics(reg prometheus.Registerer) *redisMetrics {
	const namespace, subsystem = "holdfast", "resume"
	m := &redisMetrics{
		metrics: newMetrics(reg),
		degraded: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "degraded",
			Help: "1 while Redis does not answer and local messages go on without it.",
		}),
		flush: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "flush_seconds",
			Help: "How long writing a batch of the journal to Redis took.", Buckets: prometheus.ExponentialBuckets(.0001, 3, 10),
		}),
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "flushed_records_total",
			Help: "Records of the journal that Redis has taken.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "flushed_bytes_total",
			Help: "Bytes of the journal that Redis has taken.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "flush_retries_total",
			Help: "Writes to the journal that failed and were tried again.",
		}),
	}
	reg.MustRegister(m.degraded, m.flush, m.records, m.bytes, m.retries)
	return m
}

func (m *redisMetrics) watch(reg prometheus.Registerer, q *groupCommit) {
	gauge := func(name, help string, value func() int64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "holdfast", Subsystem: "resume", Name: name, Help: help,
		}, func() float64 { return float64(value()) }))
	}
	gauge("pending_bytes", "Bytes of the journal that wait to go to Redis.", q.pending.Load)
	gauge("journal_bytes", "Bytes of the journal since the last checkpoint.", q.used)
}
