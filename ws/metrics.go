package ws

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/admit"
)

// counter is on a cache line of its own: readers and writers of all connections add to it.
type counter struct {
	atomic.Uint64
	_ [56]byte
}

// Why a handshake was refused, as in the metric's label, besides the reasons of admit.
const (
	refusedDraining    = "draining"
	refusedSubprotocol = "subprotocol"
	refusedOrigin      = "origin"
	refusedUpgrade     = "upgrade"
)

// metrics is what the transport counts. The hot path adds to plain atomics; Prometheus reads them when it scrapes.
type metrics struct {
	framesIn, bytesIn, framesOut, bytesOut, pingsSent, pingsAnswered counter

	refused *prometheus.CounterVec
	ended   *prometheus.CounterVec
	batches prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, g *admit.Gate) (*metrics, error) {
	m := &metrics{}
	const space, sub = "holdfast", "ws"
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: space, Subsystem: sub, Name: "handshakes_refused_total", Help: "WebSocket handshakes refused, by reason.",
	}, []string{"reason"})
	m.ended = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: space, Subsystem: sub, Name: "ended_total", Help: "WebSocket connections ended, by reason.",
	}, []string{"reason"})
	m.batches = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: space, Subsystem: sub, Name: "batch_frames", Help: "Frames written with one system call.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 9),
	})
	for _, r := range []string{refusedDraining, refusedSubprotocol, refusedOrigin, string(admit.All), string(admit.Unauthenticated), string(admit.Address), refusedUpgrade} {
		m.refused.WithLabelValues(r)
	}
	for e := range endings {
		m.ended.WithLabelValues(endings[e].label)
	}
	of := func(name, help, label, value string, c *counter) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: space, Subsystem: sub, Name: name, Help: help, ConstLabels: prometheus.Labels{label: value},
		}, func() float64 { return float64(c.Load()) })
	}
	state := func(value string, count func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: space, Subsystem: sub, Name: "connections", Help: "Open WebSocket connections, by state.",
			ConstLabels: prometheus.Labels{"state": value},
		}, func() float64 { return float64(count()) })
	}
	const framesHelp, bytesHelp, pingsHelp = "WebSocket messages carried.", "Bytes on WebSocket sockets, handshakes excepted.", "WebSocket pings of the gateway."
	for _, c := range []prometheus.Collector{
		m.refused, m.ended, m.batches,
		of("frames_total", framesHelp, "direction", "in", &m.framesIn),
		of("frames_total", framesHelp, "direction", "out", &m.framesOut),
		of("bytes_total", bytesHelp, "direction", "in", &m.bytesIn),
		of("bytes_total", bytesHelp, "direction", "out", &m.bytesOut),
		of("pings_total", pingsHelp, "result", "sent", &m.pingsSent),
		of("pings_total", pingsHelp, "result", "answered", &m.pingsAnswered),
		state("unauthenticated", func() int { open, _ := g.Counts(); return open }),
		state("authenticated", func() int { _, authed := g.Counts(); return authed }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("ws: metrics: %w", err)
		}
	}
	return m, nil
}
