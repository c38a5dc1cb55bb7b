package ws

import (
	"net/netip"
	"sync"
)

// Why a handshake was refused, as in the metric's label.
const (
	refusedDraining    = "draining"
	refusedSubprotocol = "subprotocol"
	refusedOrigin      = "origin"
	refusedConnections = "connections"
	refusedUnauth      = "unauthenticated"
	refusedAddress     = "address"
	refusedUpgrade     = "upgrade"
)

// gate counts connections and keeps them under their caps.
type gate struct {
	maxAll, maxOpen, maxPerAddr int

	mu     sync.Mutex
	all    int                // open connections
	open   int                // those that have not authenticated
	byAddr map[netip.Addr]int // the same by address, where the address is known
}

// enter takes a place for an unauthenticated connection; the zero addr stands for nobody in particular. It
// returns the reason to refuse, "" for none.
func (g *gate) enter(addr netip.Addr) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.maxAll > 0 && g.all >= g.maxAll:
		return refusedConnections
	case g.maxOpen > 0 && g.open >= g.maxOpen:
		return refusedUnauth
	case g.maxPerAddr > 0 && addr.IsValid() && g.byAddr[addr] >= g.maxPerAddr:
		return refusedAddress
	}
	g.all++
	g.open++
	if addr.IsValid() && g.maxPerAddr > 0 {
		if g.byAddr == nil {
			g.byAddr = make(map[netip.Addr]int)
		}
		g.byAddr[addr]++
	}
	return ""
}

// authenticated gives back what enter took for the time before authentication.
func (g *gate) authenticated(addr netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.openedLocked(addr)
}

func (g *gate) leave(addr netip.Addr, authed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if !authed {
		g.openedLocked(addr)
	}
}

func (g *gate) openedLocked(addr netip.Addr) {
	g.open--
	if !addr.IsValid() || g.maxPerAddr <= 0 {
		return
	}
	if g.byAddr[addr]--; g.byAddr[addr] <= 0 {
		delete(g.byAddr, addr)
	}
}

func (g *gate) counts() (open, authed int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open, g.all - g.open
}

// bucket is the address that a cap counts: one household of IPv6 addresses is a /64.
func bucket(addr netip.Addr) netip.Addr {
	if addr.Is6() && !addr.Is4In6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}
