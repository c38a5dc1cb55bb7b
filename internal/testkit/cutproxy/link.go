package cutproxy

import (
	"net"
	"sync"
	"time"
)

// mode is what a link does with the bytes it reads.
type mode uint8

const (
	flowing  mode = iota
	stalled       // nothing is read any more; both ends see a connection on which nothing moves
	halfOpen      // everything is read and thrown away, and neither end hears that the other one left
	cut
)

// Link is one client's connection through the proxy.
type Link struct {
	client, server *net.TCPConn

	mu      sync.Mutex
	changed sync.Cond
	mode    mode
	rate    int // bytes a second in each direction, 0 for no bound
	pumps   int
	done    chan struct{} // closed by Cut, so that a slow write ends
}

func newLink(client, server *net.TCPConn) *Link {
	l := &Link{client: client, server: server, pumps: 2, done: make(chan struct{})}
	l.changed.L = &l.mu
	return l
}

// Cut resets both ends at once: what was under way is lost.
func (l *Link) Cut() {
	if l.set(cut) {
		close(l.done)
	}
	reset(l.client)
	reset(l.server)
}

// Stall holds back everything until Flow: a network that is there but moves nothing. Nothing is lost.
func (l *Link) Stall() { l.set(stalled) }

// Flow ends a stall and a slowness.
func (l *Link) Flow() {
	l.set(flowing)
	l.Slow(0)
}

// HalfOpen makes both ends believe in a connection that carries nothing any more: a NAT that forgot it, a phone
// that left. It cannot be undone.
func (l *Link) HalfOpen() { l.set(halfOpen) }

// Slow bounds each direction to rate bytes a second; 0 lifts the bound.
func (l *Link) Slow(rate int) {
	l.mu.Lock()
	l.rate = rate
	l.mu.Unlock()
}

func (l *Link) live() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pumps == 2 && l.mode < halfOpen
}

// set changes the mode, which only gets worse except for the end of a stall, and reports whether it changed.
func (l *Link) set(m mode) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mode == m || l.mode > m && l.mode != stalled {
		return false
	}
	l.mode = m
	l.changed.Broadcast()
	return true
}

// leave counts a pump out and reports whether it was the last. When one direction of a healthy link has ended, the
// other one has too; a half-open link keeps the end that is left in its belief.
func (l *Link) leave() (last bool) {
	l.mu.Lock()
	l.pumps--
	last, m := l.pumps == 0, l.mode
	l.mu.Unlock()
	if !last && m != halfOpen {
		_ = l.client.Close()
		_ = l.server.Close()
	}
	return last
}

func (l *Link) carry(dst, src *net.TCPConn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		m, rate := l.await()
		switch {
		case m == cut:
			return
		case m == flowing && n > 0:
			if !l.write(dst, buf[:n], rate) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// await waits for the end of a stall.
func (l *Link) await() (mode, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mode == stalled {
		l.changed.Wait()
	}
	return l.mode, l.rate
}

func (l *Link) write(dst *net.TCPConn, b []byte, rate int) bool {
	for len(b) > 0 {
		n := len(b)
		if rate > 0 {
			n = min(n, max(1, rate/50))
			select {
			case <-time.After(time.Second * time.Duration(n) / time.Duration(rate)):
			case <-l.done:
				return false
			}
		}
		if _, err := dst.Write(b[:n]); err != nil {
			return false
		}
		b = b[n:]
		var m mode
		if m, rate = l.await(); m != flowing {
			return m == halfOpen
		}
	}
	return true
}

// reset closes a connection with RST instead of FIN.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails only on a closed connection
	_ = c.Close()
}
