// Package pipes is a listener whose connections are pipes in memory, for servers in virtual time.
package pipes

import (
	"io"
	"net"
	"sync"
)

// Listener hands out one end of each pipe that Dial makes.
type Listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// New makes a Listener.
func New() *Listener { return &Listener{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept is [net.Listener]'s.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, io.EOF
	}
}

// Close is [net.Listener]'s. Connections stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is [net.Listener]'s.
func (l *Listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// Dial connects; to the other end the connection comes from this machine.
func (l *Listener) Dial() (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case l.conns <- local{a}:
		return b, nil
	case <-l.done:
		return nil, io.EOF
	}
}

type local struct{ net.Conn }

func (local) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
