package packetcache

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outcome is what became of an entry, or a step on its way there.
type outcome uint8

const (
	outcomeReceipt outcome = iota + 1 // an end: proven by a receipt
	outcomeMarker                     // an end: by a chat marker
	outcomeAck                        // an end: by an acknowledgement
	outcomeResend                     // a step: delivered again
	outcomeOffline                    // an end: in the mailbox
	outcomeBounce                     // an end
	outcomeDrop                       // an end
	outcomeEvicted                    // a step: over the caps, the last action runs early
	outcomeLate                       // after offline: proven late, the copy is removed
	outcomeClosed                     // an end: Close
	outcomes
)

var outcomeNames = [outcomes]string{
	outcomeReceipt: "receipt", outcomeMarker: "marker", outcomeAck: "ack", outcomeResend: "resend",
	outcomeOffline: "offline", outcomeBounce: "bounce", outcomeDrop: "drop", outcomeEvicted: "evicted",
	outcomeLate: "late", outcomeClosed: "closed",
}

func (o outcome) proof() bool { return o >= outcomeReceipt && o <= outcomeAck }

// ageBounds are the upper bounds of the age histogram's buckets: fast receipts, slow ones, and timeouts.
var ageBounds = [...]time.Duration{
	10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
	30 * time.Second, time.Minute, 5 * time.Minute, time.Hour,
}

// counts is what the metrics show. It is guarded by Cache.mu, which is held anyway where things are counted: that is
// cheaper than a prometheus.Histogram on the way of every message.
type counts struct {
	outcomes [outcomes]uint64
	failures uint64
	ages     [len(ageBounds) + 1]uint64
	ageSum   time.Duration
}

// end counts an outcome that is an end, of an entry of the given age in ticks.
func (n *counts) end(how outcome, age int64) {
	n.outcomes[how]++
	i, d := 0, time.Duration(max(age, 0))
	for i < len(ageBounds) && d > ageBounds[i] {
		i++
	}
	n.ages[i]++
	n.ageSum += d
}

// metrics exports a Cache. It implements prometheus.Collector.
type metrics struct {
	c           *Cache
	reg         prometheus.Registerer
	all         []prometheus.Collector
	load, apply prometheus.Observer

	entries, bytes, late, outcomes, failures, age *prometheus.Desc
}

func newMetrics(c *Cache) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName("holdfast", "packetcache", name), help, labels, nil)
	}
	store := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "holdfast", Subsystem: "packetcache", Name: "store_seconds",
		Help:    "Duration of the store's operations.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
	}, []string{"op"})
	m := &metrics{
		c:        c,
		load:     store.WithLabelValues("load"),
		apply:    store.WithLabelValues("apply"),
		entries:  desc("entries", "Messages that await a receipt."),
		bytes:    desc("bytes", "Memory of the messages that await a receipt."),
		late:     desc("late_entries", "Messages in offline storage for which a late receipt is awaited."),
		outcomes: desc("outcomes_total", "What became of messages; resend and evicted are steps, the others ends.", "outcome"),
		failures: desc("action_failures_total", "Actions that failed and were put off."),
		age:      desc("age_seconds", "Age of messages when they left: proven, or by a terminal action."),
	}
	m.all = []prometheus.Collector{m, store}
	return m
}

func (m *metrics) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	for i, col := range m.all {
		if err := reg.Register(col); err != nil {
			for _, done := range m.all[:i] {
				reg.Unregister(done)
			}
			return err
		}
	}
	m.reg = reg
	return nil
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, col := range m.all {
		m.reg.Unregister(col)
	}
	m.reg = nil
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.entries, m.bytes, m.late, m.outcomes, m.failures, m.age} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.c.mu.Lock()
	open, bytes, late, n := m.c.open, m.c.bytes, m.c.late.n, m.c.counts
	m.c.mu.Unlock()

	ch <- prometheus.MustNewConstMetric(m.entries, prometheus.GaugeValue, float64(open))
	ch <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(bytes))
	ch <- prometheus.MustNewConstMetric(m.late, prometheus.GaugeValue, float64(late))
	for o := outcomeReceipt; o < outcomes; o++ {
		ch <- prometheus.MustNewConstMetric(m.outcomes, prometheus.CounterValue, float64(n.outcomes[o]), outcomeNames[o])
	}
	ch <- prometheus.MustNewConstMetric(m.failures, prometheus.CounterValue, float64(n.failures))
	var count uint64
	buckets := make(map[float64]uint64, len(ageBounds))
	for i, bound := range ageBounds {
		count += n.ages[i]
		buckets[bound.Seconds()] = count
	}
	count += n.ages[len(ageBounds)]
	ch <- prometheus.MustNewConstHistogram(m.age, count, n.ageSum.Seconds(), buckets)
}
