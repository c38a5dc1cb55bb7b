// Package admit counts who is connected and keeps them under caps: all, those that have not authenticated, and the same
// from one address.
package admit

import (
	"net/netip"
	"sync"
)

// Reason is why somebody was refused, as in a metric's label; empty for admitted.
type Reason string

// The reasons of Gate.
const (
	All             Reason = "connections"
	Unauthenticated Reason = "unauthenticated"
	Address         Reason = "address"
)

// Gate counts the connections or sessions of one transport. A cap of 0 is none. The caps must not change.
type Gate struct {
	MaxAll, MaxUnauthenticated, MaxPerAddr int

	mu     sync.Mutex
	all    int
	open   int                // those that have not authenticated
	byAddr map[netip.Addr]int // the same by address, where the address is known
}

// Enter takes a place for somebody who has not authenticated; the zero addr stands for nobody in particular.
func (g *Gate) Enter(addr netip.Addr) Reason {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.MaxAll > 0 && g.all >= g.MaxAll:
		return All
	case g.MaxUnauthenticated > 0 && g.open >= g.MaxUnauthenticated:
		return Unauthenticated
	case g.MaxPerAddr > 0 && addr.IsValid() && g.byAddr[addr] >= g.MaxPerAddr:
		return Address
	}
	g.all++
	g.open++
	if addr.IsValid() && g.MaxPerAddr > 0 {
		if g.byAddr == nil {
			g.byAddr = make(map[netip.Addr]int)
		}
		g.byAddr[addr]++
	}
	return ""
}

// Return takes a place for somebody who was admitted, and authenticated, by an earlier process: no cap refuses it.
func (g *Gate) Return() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all++
}

// Authenticated gives back what Enter took for the time before authentication.
func (g *Gate) Authenticated(addr netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.openedLocked(addr)
}

// Leave gives back the rest.
func (g *Gate) Leave(addr netip.Addr, authenticated bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if !authenticated {
		g.openedLocked(addr)
	}
}

func (g *Gate) openedLocked(addr netip.Addr) {
	g.open--
	if !addr.IsValid() || g.MaxPerAddr <= 0 {
		return
	}
	if g.byAddr[addr]--; g.byAddr[addr] <= 0 {
		delete(g.byAddr, addr)
	}
}

// Counts returns how many there are of both kinds.
func (g *Gate) Counts() (unauthenticated, authenticated int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.all - g.open
}

// Bucket is the address that a cap counts: one household of IPv6 addresses is a /64.
func Bucket(addr netip.Addr) netip.Addr {
	if addr.Is6() && !addr.Is4In6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}
