package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// lineBuffer holds a version 1 line (at most 107 bytes) and the fixed part of version 2.
const lineBuffer = 256

// Listener wraps ln so that connections from trusted addresses may begin with a PROXY line. The line is read when
// the connection's address or first bytes are asked for, not by Accept, so one silent proxy does not hold up the
// others. With TLS, the TLS listener goes around this one.
func (t *Trust) Listener(ln net.Listener) net.Listener {
	return &listener{Listener: ln, trust: t}
}

type listener struct {
	net.Listener
	trust *Trust
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || !l.trust.Trusts(addrOfNet(c.RemoteAddr())) {
		return c, err
	}
	return &Conn{Conn: c, timeout: l.trust.timeout}, nil
}

// Conn is a connection from a trusted proxy. Once its line has been read and what came with it was taken, it is
// nothing but the connection below, which [Conn.Unwrap] returns.
type Conn struct {
	net.Conn
	timeout time.Duration

	once   sync.Once
	err    error
	source net.Addr // the client's, nil without a PROXY line

	br *bufio.Reader // owned by the reader; nil once empty

	mu       sync.Mutex
	deadline time.Time // what the user asked for, put back after the line
}

// readLine reads the PROXY line, if there is one.
func (c *Conn) readLine() {
	c.br = bufio.NewReaderSize(c.Conn, lineBuffer)
	if c.timeout > 0 {
		_ = c.Conn.SetReadDeadline(time.Now().Add(c.timeout)) // the read below meets a broken connection too
	}
	h, err := proxyproto.Read(c.br)
	if c.timeout > 0 {
		c.mu.Lock()
		_ = c.Conn.SetReadDeadline(c.deadline)
		c.mu.Unlock()
	}
	switch {
	case err == nil:
		if h != nil && !h.Command.IsLocal() && h.SourceAddr != nil {
			c.source = h.SourceAddr
		}
	case errors.Is(err, proxyproto.ErrNoProxyProtocol):
	default:
		c.err = fmt.Errorf("proxy: PROXY line: %w", err)
	}
}

// Read reads what follows the PROXY line.
func (c *Conn) Read(p []byte) (int, error) {
	c.once.Do(c.readLine)
	if c.err != nil {
		return 0, c.err
	}
	if c.br != nil {
		if c.br.Buffered() > 0 {
			return c.br.Read(p)
		}
		c.br = nil
	}
	return c.Conn.Read(p)
}

// RemoteAddr is the client's address where a PROXY line gave it. It waits for that line.
func (c *Conn) RemoteAddr() net.Addr {
	c.once.Do(c.readLine)
	if c.source != nil {
		return c.source
	}
	return c.Conn.RemoteAddr()
}

// SetDeadline is [net.Conn]'s.
func (c *Conn) SetDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = at
	return c.Conn.SetDeadline(at)
}

// SetReadDeadline is [net.Conn]'s.
func (c *Conn) SetReadDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = at
	return c.Conn.SetReadDeadline(at)
}

// CloseWrite tells the other end that nothing more comes.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Unwrap returns the connection below once nothing of the client's bytes is held here any more, and c until then.
// It belongs to the goroutine that reads.
func (c *Conn) Unwrap() net.Conn {
	c.once.Do(c.readLine)
	if c.err != nil || c.br != nil && c.br.Buffered() > 0 {
		return c
	}
	return c.Conn
}
