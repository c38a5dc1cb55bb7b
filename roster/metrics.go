package roster

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The store's operations, as a label.
const (
	opLoad   = "load"
	opSave   = "save"
	opRemove = "remove"
)

type metrics struct {
	latency map[string]prometheus.Observer
	errors  map[string]prometheus.Counter
	hits    prometheus.Counter
	misses  prometheus.Counter
	changes map[bool]prometheus.Counter // by whether the change was a removal
}

func newMetrics(reg prometheus.Registerer, c *cache) *metrics {
	const namespace, subsystem = "holdfast", "roster"
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "store_seconds",
		Help:    "Time that the roster store took, by operation.",
		Buckets: prometheus.ExponentialBuckets(25e-6, 4, 9),
	}, []string{"op"})
	failed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "store_errors_total",
		Help: "Operations of the roster store that failed.",
	}, []string{"op"})
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "cache_reads_total",
		Help: "Reads of a roster, by whether it was in memory.",
	}, []string{"result"})
	changes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "changes_total",
		Help: "Visible changes of rosters.",
	}, []string{"kind"})
	gauge := func(name, help string, of func(rosters, items, bytes int) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: name, Help: help,
		}, func() float64 { return float64(of(c.sizes())) })
	}
	reg.MustRegister(
		latency, failed, reads, changes,
		gauge("cached_rosters", "Rosters in memory.", func(rosters, _, _ int) int { return rosters }),
		gauge("cached_items", "Contacts of the rosters in memory.", func(_, items, _ int) int { return items }),
		gauge("cached_bytes", "Estimated bytes of the rosters in memory.", func(_, _, bytes int) int { return bytes }),
	)

	m := &metrics{
		latency: make(map[string]prometheus.Observer),
		errors:  make(map[string]prometheus.Counter),
		hits:    reads.WithLabelValues("hit"),
		misses:  reads.WithLabelValues("miss"),
		changes: map[bool]prometheus.Counter{
			false: changes.WithLabelValues("set"),
			true:  changes.WithLabelValues("remove"),
		},
	}
	for _, op := range []string{opLoad, opSave, opRemove} {
		m.latency[op] = latency.WithLabelValues(op)
		m.errors[op] = failed.WithLabelValues(op)
	}
	return m
}

// begin times one operation of the store; the function it returns ends it.
func (m *metrics) begin(op string) func(error) {
	start := time.Now()
	return func(err error) {
		m.latency[op].Observe(time.Since(start).Seconds())
		if err != nil {
			m.errors[op].Inc()
		}
	}
}
