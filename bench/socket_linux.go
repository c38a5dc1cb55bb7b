package bench

import (
	"crypto/rand"
	"crypto/sha1" // RFC 6455 §4.2.2 asks for it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	"golang.org/x/sys/unix"
)

// endpoint is where connections go, resolved once.
type endpoint struct {
	addr    unix.Sockaddr
	family  int
	host    string
	path    string
	http    bool   // XMPP is in HTTP requests (XEP-0124), or in a long poll
	key     string // Sec-WebSocket-Key
	accept  []byte // and its answer
	sources int    // loopback source addresses to spread connections over, 0 for none
}

// resolve looks at a ws:// or http:// address. To a target on 127.0.0.0/8 connections come from several source addresses, as clients
// of a real server do: it spares ports, and limits per client address do not take the load for one client.
func resolve(raw string) (*endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("bench: target: %w", err)
	}
	if u.Scheme != "ws" && u.Scheme != "http" {
		return nil, fmt.Errorf("bench: target %q: only ws:// and http:// are spoken", raw)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("bench: target: %w", err)
	}
	e := &endpoint{host: u.Host, path: u.RequestURI(), http: u.Scheme == "http"}
	if ip := addr.IP.To4(); ip != nil {
		e.family, e.addr = unix.AF_INET, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(ip)}
		if ip[0] == 127 {
			e.sources = 63
		}
	} else {
		e.family, e.addr = unix.AF_INET6, &unix.SockaddrInet6{Port: addr.Port, Addr: [16]byte(addr.IP.To16())}
	}
	var key [16]byte
	rand.Read(key[:])
	e.key = base64.StdEncoding.EncodeToString(key[:])
	hash := sha1.Sum([]byte(e.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	e.accept = []byte(base64.StdEncoding.EncodeToString(hash[:]))
	return e, nil
}

// socket is one TCP connection: nonblocking, and turned by a loop.
type socket struct {
	loop       *loop
	fd         int
	gen        int32
	connecting bool
	greeting   []byte // sent once connected
	in         []byte // the beginning of something that is not whole yet
	out        []byte // what the system would not take yet

	// onData is called with everything that came in (lent) and returns what it cannot take yet; onGone once when the
	// connection is lost, not when it was dropped from this side.
	onData func([]byte) []byte
	onGone func(error)
}

// dial starts a connection, which says greeting first; ordinal spreads the source addresses.
func (k *socket) dial(l *loop, e *endpoint, ordinal int, greeting []byte) error {
	fd, err := unix.Socket(e.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bench: socket: %w", err)
	}
	if err := connect(fd, e, ordinal); err != nil {
		unix.Close(fd)
		return err
	}
	l.gen++
	*k = socket{
		loop: l, fd: fd, gen: l.gen, connecting: true, greeting: greeting,
		onData: k.onData, onGone: k.onGone, in: k.in[:0], out: k.out[:0],
	}
	event := unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd), Pad: k.gen}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		unix.Close(fd)
		k.fd = -1
		return fmt.Errorf("bench: epoll: %w", err)
	}
	l.sockets[int32(fd)] = k
	return nil
}

func connect(fd int, e *endpoint, ordinal int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("bench: TCP_NODELAY: %w", err)
	}
	if e.sources > 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return fmt.Errorf("bench: IP_BIND_ADDRESS_NO_PORT: %w", err)
		}
		from := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + ordinal%e.sources)}}
		if err := unix.Bind(fd, from); err != nil {
			return fmt.Errorf("bench: bind: %w", err)
		}
	}
	if err := unix.Connect(fd, e.addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("bench: connect: %w", err)
	}
	return nil
}

func (k *socket) open() bool { return k.loop != nil && k.fd >= 0 }

// drop ends the connection at once, as a network that is gone does: with a reset, which also leaves no port in
// TIME_WAIT.
func (k *socket) drop() {
	if !k.open() {
		return
	}
	_ = unix.SetsockoptLinger(k.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	delete(k.loop.sockets, int32(k.fd))
	unix.Close(k.fd)
	k.fd = -1
}

// deafen makes this side take nothing more from the connection, which stays open: what comes in lies unread, as it does
// on its way to a client that is out of reach. Only drop is left to do.
func (k *socket) deafen() {
	if k.open() {
		_ = unix.EpollCtl(k.loop.ep, unix.EPOLL_CTL_DEL, k.fd, nil)
	}
}

func (k *socket) gone(err error) {
	if !k.open() {
		return
	}
	k.drop()
	if k.onGone != nil {
		k.onGone(err)
	}
}

func (k *socket) write(b []byte) {
	if len(k.out) > 0 {
		k.out = append(k.out, b...)
		return
	}
	n, err := unix.Write(k.fd, b)
	switch {
	case errors.Is(err, unix.EAGAIN):
		n = 0
	case err != nil:
		k.gone(err)
		return
	}
	if n < len(b) {
		k.out = append(k.out, b[n:]...)
		k.watch(unix.EPOLLIN | unix.EPOLLOUT)
	}
}

func (k *socket) watch(events uint32) {
	event := unix.EpollEvent{Events: events, Fd: int32(k.fd), Pad: k.gen}
	if err := unix.EpollCtl(k.loop.ep, unix.EPOLL_CTL_MOD, k.fd, &event); err != nil {
		k.gone(err)
	}
}

func (k *socket) handle(events uint32) {
	if k.connecting && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if code, err := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			k.gone(errors.Join(err, unix.Errno(code)))
			return
		}
		greeting := k.greeting
		k.connecting, k.greeting = false, nil
		k.watch(unix.EPOLLIN)
		if k.open() {
			k.write(greeting)
		}
		return
	}
	if events&unix.EPOLLOUT != 0 && len(k.out) > 0 {
		rest := k.out
		k.out = nil
		k.watch(unix.EPOLLIN)
		if k.open() {
			k.write(rest)
		}
	}
	if events&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 && k.open() {
		k.read()
	}
}

func (k *socket) read() {
	n, err := unix.Read(k.fd, k.loop.buf)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return
	case err != nil:
		k.gone(err)
		return
	case n == 0:
		k.gone(io.EOF)
		return
	}
	data := k.loop.buf[:n]
	if len(k.in) > 0 {
		k.in = append(k.in, data...)
		data = k.in
	}
	gen := k.gen
	rest := k.onData(data)
	if k.open() && k.gen == gen { // it may have been dropped, and dialed again
		k.keep(rest)
	}
}

// keep puts the beginning of something by; an empty buffer that was large is let go of.
func (k *socket) keep(data []byte) {
	if len(data) == 0 && cap(k.in) > 4<<10 {
		k.in = nil
		return
	}
	k.in = append(k.in[:0], data...)
}
