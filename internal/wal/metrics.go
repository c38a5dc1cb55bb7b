package wal

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are read from Stats when they are asked for, so that the message path does not count twice; only flushes
// are observed as they happen. A nil *metrics counts nothing.
type metrics struct {
	reg     prometheus.Registerer
	flushes *prometheus.HistogramVec
	ok, bad prometheus.Observer
	all     []prometheus.Collector
}

func newMetrics(l *Log, reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		return nil, nil
	}
	m := &metrics{reg: reg}
	m.flushes = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "holdfast", Subsystem: "journal", Name: "sync_seconds",
		Help:    "Time to put the journal's tail on stable storage, by outcome.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	}, []string{"outcome"})
	m.ok, m.bad = m.flushes.WithLabelValues("ok"), m.flushes.WithLabelValues("error")
	gauge := func(name, help string, get func(Stats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "holdfast", Subsystem: "journal", Name: name, Help: help,
		}, func() float64 { return get(l.Stats()) })
	}
	counter := func(name, help string, get func(Stats) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "holdfast", Subsystem: "journal", Name: name, Help: help,
		}, func() float64 { return get(l.Stats()) })
	}
	m.all = []prometheus.Collector{
		m.flushes,
		gauge("segments", "Live segments, the current one included.", func(s Stats) float64 { return float64(s.Segments) }),
		gauge("bytes", "Disk space of all segment files.", func(s Stats) float64 { return float64(s.Bytes) }),
		gauge("waiting_appends", "Appends that wait for room now.", func(s Stats) float64 { return float64(s.Waiting) }),
		gauge("unsynced_bytes", "Length of the log's tail that is not on stable storage.",
			func(s Stats) float64 { return float64(s.End - s.Synced) }),
		counter("records_total", "Records appended.", func(s Stats) float64 { return float64(s.Records) }),
		counter("rotations_total", "Segments begun.", func(s Stats) float64 { return float64(s.Rotations) }),
		counter("segment_failures_total", "Segments that could not be made.", func(s Stats) float64 { return float64(s.Failures) }),
		counter("blocked_total", "Appends that had to wait because the journal's disk space was used up.",
			func(s Stats) float64 { return float64(s.Blocked) }),
		gauge("replayed_records", "Records that the last start replayed.", func(Stats) float64 { return float64(l.info.Records) }),
		gauge("replay_gaps", "Places where the last start found records missing.",
			func(Stats) float64 { return float64(l.info.Damage.gaps()) }),
	}
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, errors.Join(errors.New("metrics"), err)
		}
	}
	return m, nil
}

func (e *DamageError) gaps() int {
	if e == nil {
		return 0
	}
	return e.Gaps
}

func (m *metrics) unregister() {
	if m == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

func (m *metrics) flushed(took time.Duration, err error) {
	switch {
	case m == nil:
	case err == nil:
		m.ok.Observe(took.Seconds())
	default:
		m.bad.Observe(took.Seconds())
	}
}
