package auth

import (
	"net/netip"
	"time"
)

const minute = time.Minute

// rate counts events by key in a sliding minute: those of the running minute, and of the one before as much as still
// lies within the last sixty seconds. The table is bounded; the rate 0 lets everything pass.
type rate[K comparable] struct {
	limit int
	table *lru[K, minutes]
}

type minutes struct {
	start     time.Time // of the running minute
	now, last int
}

func newRate[K comparable](limit, table int) *rate[K] {
	return &rate[K]{limit: limit, table: newLRU[K, minutes](table)}
}

// over reports whether key has reached the limit.
func (r *rate[K]) over(key K) bool {
	if r.limit == 0 {
		return false
	}
	m, ok := r.table.get(key)
	return ok && m.at(time.Now()) >= float64(r.limit)
}

// count adds an event.
func (r *rate[K]) count(key K) {
	if r.limit == 0 {
		return
	}
	now := time.Now()
	r.table.change(key, func(m *minutes) { m.add(now) })
}

// take adds an event unless the limit is reached, and reports whether it did.
func (r *rate[K]) take(key K) bool {
	if r.limit == 0 {
		return true
	}
	now, ok := time.Now(), false
	r.table.change(key, func(m *minutes) {
		if ok = m.at(now) < float64(r.limit); ok {
			m.add(now)
		}
	})
	return ok
}

func (m *minutes) add(now time.Time) {
	m.roll(now)
	m.now++
}

func (m *minutes) roll(now time.Time) {
	switch since := now.Sub(m.start); {
	case since >= 2*minute:
		*m = minutes{start: now}
	case since >= minute:
		*m = minutes{start: m.start.Add(minute), last: m.now}
	}
}

func (m minutes) at(now time.Time) float64 {
	m.roll(now)
	left := 1 - float64(now.Sub(m.start))/float64(minute)
	return float64(m.now) + float64(m.last)*left
}

// network is what one client can be expected to have: an IPv4 address, or a /64 of IPv6, in which hosts choose
// their addresses freely.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(64)
	return p.Addr()
}
