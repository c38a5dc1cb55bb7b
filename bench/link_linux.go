package bench

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" // RFC 6455 §4.2.2 asks for it
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"

	"golang.org/x/sys/unix"
)

// endpoint is where links go, resolved once.
type endpoint struct {
	addr    unix.Sockaddr
	family  int
	host    string
	path    string
	key     string // Sec-WebSocket-Key
	accept  []byte // and its answer
	sources int    // loopback source addresses to spread links over, 0 for none
}

// resolve looks at a ws:// address. To a target on 127.0.0.0/8 links come from several source addresses, as clients
// of a real server do: it spares ports, and limits per client address do not take the load for one client.
func resolve(raw string) (*endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("bench: target: %w", err)
	}
	if u.Scheme != "ws" {
		return nil, fmt.Errorf("bench: target %q: only ws:// is spoken", raw)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("bench: target: %w", err)
	}
	e := &endpoint{host: u.Host, path: u.RequestURI()}
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

// link is one WebSocket connection: nonblocking, its frames built and cut here.
type link struct {
	loop     *loop
	fd       int
	gen      int32
	upgraded bool
	key      []byte // the Sec-WebSocket-Accept that is expected
	request  []byte // sent once connected
	mask     uint32
	in       []byte // the beginning of a frame that is not whole yet
	whole    []byte // the beginning of a fragmented message
	out      []byte // what the socket would not take yet
	closed   error  // how the server closed

	// onOpen is called after the opening handshake, onText with every message (which is lent), onGone once when
	// the connection is lost; not when it was dropped from this side.
	onOpen func()
	onText func([]byte)
	onGone func(error)
}

// dial starts a connection; ordinal spreads the source addresses.
func (l *loop) dial(e *endpoint, path string, ordinal int, k *link) error {
	fd, err := unix.Socket(e.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bench: socket: %w", err)
	}
	if err := connect(fd, e, ordinal); err != nil {
		unix.Close(fd)
		return err
	}
	l.gen++
	*k = link{
		loop: l, fd: fd, gen: l.gen, mask: uint32(l.gen) * 0x9E3779B1, key: e.accept,
		onOpen: k.onOpen, onText: k.onText, onGone: k.onGone, in: k.in[:0], out: k.out[:0],
	}
	k.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: xmpp\r\n\r\n", path, e.host, e.key)
	event := unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd), Pad: k.gen}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		unix.Close(fd)
		return fmt.Errorf("bench: epoll: %w", err)
	}
	l.links[int32(fd)] = k
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

func (k *link) open() bool { return k.loop != nil && k.fd >= 0 }

// drop ends the connection at once, as a network that is gone does: with a reset, which also leaves no port in
// TIME_WAIT.
func (k *link) drop() {
	if !k.open() {
		return
	}
	_ = unix.SetsockoptLinger(k.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	delete(k.loop.links, int32(k.fd))
	unix.Close(k.fd)
	k.fd = -1
}

// deafen makes this side take nothing more from the connection, which stays open: what comes in lies unread, as it does
// on its way to a client that is out of reach. Only drop is left to do.
func (k *link) deafen() {
	if k.open() {
		_ = unix.EpollCtl(k.loop.ep, unix.EPOLL_CTL_DEL, k.fd, nil)
	}
}

func (k *link) gone(err error) {
	if !k.open() {
		return
	}
	k.drop()
	if k.onGone != nil {
		k.onGone(err)
	}
}

// text sends one message in one frame with one write.
func (k *link) text(payload []byte) { k.send(opText, payload) }

func (k *link) send(op byte, payload []byte) {
	if !k.open() {
		return
	}
	k.mask = k.mask*1664525 + 1013904223
	k.loop.out = appendFrame(k.loop.out[:0], op, payload, k.mask)
	k.write(k.loop.out)
}

func (k *link) write(b []byte) {
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

func (k *link) watch(events uint32) {
	event := unix.EpollEvent{Events: events, Fd: int32(k.fd), Pad: k.gen}
	if err := unix.EpollCtl(k.loop.ep, unix.EPOLL_CTL_MOD, k.fd, &event); err != nil {
		k.gone(err)
	}
}

func (k *link) handle(events uint32) {
	if k.request != nil && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if code, err := unix.GetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			k.gone(errors.Join(err, unix.Errno(code)))
			return
		}
		request := k.request
		k.request = nil
		k.watch(unix.EPOLLIN)
		if k.open() {
			k.write(request)
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

func (k *link) read() {
	n, err := unix.Read(k.fd, k.loop.buf)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return
	case err != nil:
		k.gone(err)
		return
	case n == 0:
		k.gone(errors.Join(io.EOF, k.closed))
		return
	}
	data := k.loop.buf[:n]
	if len(k.in) > 0 {
		k.in = append(k.in, data...)
		data = k.in
	}
	if !k.upgraded {
		head, rest, whole := bytes.Cut(data, []byte("\r\n\r\n"))
		if !whole {
			k.keep(data)
			return
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101")) || !bytes.Contains(head, k.key) {
			line, _, _ := bytes.Cut(head, []byte("\r\n"))
			k.gone(fmt.Errorf("bench: opening handshake refused: %q", line))
			return
		}
		k.upgraded = true
		data = rest
		k.onOpen()
	}
	for k.open() {
		f, size, err := cutFrame(data)
		if err != nil {
			k.gone(err)
			return
		}
		if size == 0 {
			k.keep(data)
			return
		}
		data = data[size:]
		k.take(f)
	}
}

// keep puts the beginning of a frame by; an empty buffer that was large is let go of.
func (k *link) keep(data []byte) {
	if len(data) == 0 && cap(k.in) > 4<<10 {
		k.in = nil
		return
	}
	k.in = append(k.in[:0], data...)
}

func (k *link) take(f frame) {
	switch f.op {
	case opText, opBinary:
		if f.fin {
			k.onText(f.payload)
			return
		}
		k.whole = append(k.whole[:0], f.payload...)
	case opContinuation:
		k.whole = append(k.whole, f.payload...)
		if len(k.whole) > maxFrame {
			k.gone(errBadFrame)
			return
		}
		if f.fin {
			k.onText(k.whole)
			k.whole = nil
		}
	case opPing:
		k.send(opPong, f.payload)
	case opClose:
		// The server drops the connection after the closing handshake (RFC 6455 §7.1.1); this side waits for it.
		k.send(opClose, f.payload[:min(2, len(f.payload))])
		k.closed = closeStatus(f.payload)
	case opPong:
	default:
		k.gone(errBadFrame)
	}
}

func closeStatus(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("bench: the server closed without a status")
	}
	return fmt.Errorf("bench: the server closed with status %d %q", binary.BigEndian.Uint16(payload), payload[2:])
}
