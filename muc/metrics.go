package muc

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	joins    prometheus.Counter
	messages prometheus.Counter
	refused  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "muc", Name: name, Help: help})
	}
	m := &metrics{
		joins:    counter("joins_total", "Sessions that entered a room."),
		messages: counter("messages_total", "Messages that rooms sent to all of their occupants."),
		refused:  counter("persistence_refused_total", "Rooms that were not kept because their creator has too many."),
	}
	reg.MustRegister(m.joins, m.messages, m.refused)
	return m
}
