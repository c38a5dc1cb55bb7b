package cluster

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what goes between nodes.
type metrics struct {
	sent, sentBytes, sendErrors, received prometheus.Counter
	locateErrors, adoptions, hastyMoves   prometheus.Counter
	adoptTime                             prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, n *Node) *metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "cluster", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "holdfast", Subsystem: "cluster", Name: name, Help: help}, f))
	}
	m := &metrics{
		sent:         counter("entries_sent_total", "Entries put into mailboxes of other nodes."),
		sentBytes:    counter("sent_bytes_total", "Bytes put into mailboxes of other nodes."),
		sendErrors:   counter("send_errors_total", "Tries to reach a mailbox that failed."),
		received:     counter("messages_received_total", "Messages that came through the mailbox."),
		locateErrors: counter("locate_errors_total", "Questions for a user's home that failed."),
		adoptions:    counter("adoptions_total", "Dead nodes whose estate this node took over."),
		hastyMoves:   counter("hasty_moves_total", "Users handed over before all nodes had said that what they send goes straight."),
		adoptTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "holdfast", Subsystem: "cluster", Name: "adoption_seconds",
			Help: "How long it took to take over a dead node's estate.", Buckets: prometheus.ExponentialBuckets(.01, 2, 12),
		}),
	}
	reg.MustRegister(m.adoptTime)
	gauge("members", "Nodes of the cluster as this one sees it, itself included.", func() float64 { return float64(len(n.Members()) + 1) })
	gauge("pending_bytes", "Bytes of messages that wait for other nodes.", func() float64 { return float64(n.queued.Load()) })
	gauge("homes", "Users whose home this node is.", func() float64 { here, _, _ := n.homes.Counts(); return float64(here) })
	gauge("homes_idle", "Users without sessions whose home this node is.", func() float64 { _, idle, _ := n.homes.Counts(); return float64(idle) })
	gauge("locations", "Users of other nodes whose home this node remembers.", func() float64 { _, _, away := n.homes.Counts(); return float64(away) })
	return m
}
