package offline

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	decisions [len(actionNames)][reasons]prometheus.Counter // nil where never decided so far; see decided
	vec       *prometheus.CounterVec
	written   prometheus.Histogram
	popped    prometheus.Histogram
	sizes     prometheus.Histogram
	ages      prometheus.Histogram
	commits   prometheus.Observer
	pages     prometheus.Observer
	loads     prometheus.Observer
	retries   prometheus.Counter
	rejected  prometheus.Counter

	expired, expiredSeconds, expiredRule prometheus.Counter // by reason
}

// newMetrics registers what m tells. Its gauges are read from m when they are collected.
func newMetrics(reg prometheus.Registerer, m *Mailbox) (*metrics, error) {
	const namespace, subsystem = "holdfast", "offline"
	expired := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "expired_total",
		Help: "Messages removed because their time was over: that of OFFLINE_LIFETIME (lifetime), of jabber:x:expire (seconds), or of a rule of XEP-0079 (expire_at).",
	}, []string{"reason"})
	counts := []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000}
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "store_seconds",
		Help:    "Time the store took, by operation: commit (one transaction), page, load (counting a mailbox on first use).",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	}, []string{"operation"})
	mt := &metrics{
		vec: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "decisions_total",
			Help: "Messages for users who were not there, by what was done with them and why.",
		}, []string{"action", "reason"}),
		written: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "write_messages",
			Help: "New messages in one write to the store.", Buckets: counts,
		}),
		popped: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "pop_messages",
			Help: "Messages handed out of a mailbox at once.", Buckets: counts,
		}),
		sizes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "message_bytes",
			Help: "Sizes of messages put into a mailbox.", Buckets: prometheus.ExponentialBuckets(256, 4, 8), // to 4 MiB
		}),
		ages: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "age_seconds",
			Help: "How long ago messages were sent that their recipient now proved to have got out of a mailbox.",
			// A second, ten, a minute, ten, an hour, six, a day, a week, a month, three months, a year.
			Buckets: []float64{1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 90 * 86400, 365 * 86400},
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "write_retries_total",
			Help: "Transactions that failed and were tried again.",
		}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "write_rejected_total",
			Help: "Writes that the store refused for good; they stay in memory and the journal.",
		}),
		expired:        expired.WithLabelValues("lifetime"),
		expiredSeconds: expired.WithLabelValues("seconds"),
		expiredRule:    expired.WithLabelValues("expire_at"),
		commits:        seconds.WithLabelValues("commit"),
		pages:          seconds.WithLabelValues("page"),
		loads:          seconds.WithLabelValues("load"),
	}
	stored := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "messages",
		Help: "Messages in all mailboxes; with a database that gateways share an estimate, of the last minute.",
	}, func() float64 { return float64(m.stored.Load()) })
	pending := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "pending_bytes",
		Help: "Writes that the store has not committed yet.",
	}, func() float64 { return float64(m.gate.inside()) })
	for a := range mt.decisions {
		for r := range mt.decisions[a] {
			if possible(Action(a), Reason(r)) {
				mt.decisions[a][r] = mt.vec.WithLabelValues(Action(a).String(), Reason(r).String())
			}
		}
	}
	if reg == nil {
		return mt, nil
	}
	for _, c := range []prometheus.Collector{
		mt.vec, mt.written, mt.popped, mt.sizes, mt.ages, mt.retries, mt.rejected, expired, seconds, stored, pending,
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return mt, nil
}

// possible reports whether Decide or a limit can come to this, so that only series that mean something exist.
func possible(a Action, r Reason) bool {
	switch r {
	case HasBody, HasReceipt, HasMarker, HintStore:
		return a == Store
	case Matcher:
		return true
	case HintNoStore, HintNoPermanent:
		return a != Store
	case Bodiless:
		return a != Drop
	case Disabled, PairFull, Declined, MessagesFull, BytesFull:
		return a != Store
	case ChatStateOnly, Empty, Overdue, Superseded, TypeError, TypeHeadline, NotMessage:
		return a == Drop
	}
	return a == Bounce
}

func (mt *metrics) decided(v Verdict) { mt.decisions[v.Action][v.Reason].Inc() }

func since(o prometheus.Observer, start time.Time) { o.Observe(time.Since(start).Seconds()) }
