package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Client is what is known of the other end.
type Client struct {
	// Addr is the client's address. It is a trusted proxy's own where that proxy does not say whom it speaks for.
	Addr netip.Addr
	// Secure says that nobody on the way could read along: TLS up to the client, or a client on this machine.
	Secure bool
	// Known says that Addr is the client's own and not that of a proxy, as far as can be told. A client that is
	// itself in the trusted list is not known: it may be a proxy that says nothing.
	Known bool
}

// Trust decides whose word counts. It is immutable.
type Trust struct {
	prefixes []netip.Prefix
	header   string
	timeout  time.Duration
}

// New makes a Trust of valid settings; the error is that of [Config.Validate].
func New(cfg Config) (*Trust, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	prefixes, err := cfg.prefixes()
	if err != nil {
		return nil, err
	}
	return &Trust{prefixes: prefixes, header: cfg.Header, timeout: cfg.LineTimeout}, nil
}

// Trusts reports whether what comes from addr is believed.
func (t *Trust) Trusts(addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range t.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Client tells who sent r.
func (t *Trust) Client(r *http.Request) Client {
	peer := addrOf(r.RemoteAddr)
	if !t.Trusts(peer) {
		return Client{Addr: peer, Secure: r.TLS != nil || peer.IsLoopback(), Known: peer.IsValid()}
	}
	said := t.forwarded(r.Header)
	addr := said.addr
	if !addr.IsValid() {
		addr = peer
	}
	c := Client{Addr: addr, Known: said.addr.IsValid() && !t.Trusts(said.addr)}
	switch {
	case addr.IsLoopback() && !said.hidden:
		c.Secure = true
	case said.proto != "":
		c.Secure = said.proto == "https"
	default:
		c.Secure = r.TLS != nil
	}
	return c
}

// addrOf reads the address of a host:port pair or a bare address; the zero Addr when there is none in it.
func addrOf(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
		s = s[1 : n-1]
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

func addrOfNet(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case nil:
		return netip.Addr{}
	default:
		return addrOf(a.String())
	}
}

// TLS reports whether the client's side of r is TLS. It differs from [Client.Secure], which also holds on loopback.
func (t *Trust) TLS(r *http.Request) bool {
	if t.Trusts(addrOf(r.RemoteAddr)) {
		if proto := t.forwarded(r.Header).proto; proto != "" {
			return proto == "https"
		}
	}
	return r.TLS != nil
}
