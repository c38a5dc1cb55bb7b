package ws

import (
	"bufio"
	"io"
	"net"
	"sync"
	"syscall"

	"holdfast/session"
)

// cork is the net.Conn under coder/websocket. Writes gather in a pooled buffer until the writer flushes them with one
// system call. Reads wait for the socket without a buffer and borrow one only once there is something to read.
type cork struct {
	net.Conn            // as net/http handed it over: the socket, or TLS over it. Static
	socket   net.Conn   // what drop closes, because closing TLS may block. Static
	t        *transport // static

	raw   syscall.RawConn       // nil where reads cannot go to the socket directly: TLS, a pipe. Static
	try   func(fd uintptr) bool // c.tryRead, bound once. Static
	br    *bufio.Reader         // coder's reader, to know whether it holds bytes. Static
	in    *block                // owned by the reader: what was read and not yet taken, nil when r == w
	r, w  int
	inErr error

	mu     sync.Mutex // guards what follows
	out    *outbuf    // nil when empty
	held   bool       // the writer is at it and will flush
	shut   bool       // a closing frame is in the buffer: nothing may follow it (RFC 6455 §5.5.1)
	theirs bool       // that frame is coder's: the peer closed first, or broke the protocol
}

// start takes over conn and what net/http had read beyond the request.
func (c *cork) start(conn net.Conn, early []byte) {
	if u, ok := conn.(interface{ Unwrap() net.Conn }); ok {
		conn = u.Unwrap()
	}
	c.Conn, c.socket = conn, conn
	if tls, ok := conn.(interface{ NetConn() net.Conn }); ok {
		c.socket = tls.NetConn()
	}
	size := fallbackSize
	if c.raw = rawConn(conn); c.raw != nil {
		c.try = c.tryRead
		size = headerSize
	} else if c.socket != c.Conn {
		size = headerSize // TLS keeps a buffer of its own
	}
	c.br = bufio.NewReaderSize(nil, size)
	if len(early) > 0 {
		c.in = blocks.Get().(*block)
		c.w = copy(c.in[:], early)
	}
}

const (
	headerSize   = 16 // the smallest that bufio makes; a frame's header, the rest is copied past it
	fallbackSize = 1 << 10
	// coderWriterSize lets a control frame reach Write in one piece, so that none is torn apart by our own.
	coderWriterSize = maxHeader + maxControl
)

// await waits until the peer has sent something, holding nothing.
func (c *cork) await() error {
	if c.raw == nil || c.r < c.w || c.br.Buffered() > 0 {
		return nil
	}
	return c.fill()
}

func (c *cork) fill() error {
	if err := c.raw.Read(c.try); err != nil {
		return err
	}
	if err := c.inErr; err != nil {
		c.inErr = nil
		return err
	}
	c.t.heard(c.w)
	return nil
}

// tryRead reports whether the socket had something to say; the runtime calls it again when it has.
func (c *cork) tryRead(fd uintptr) bool {
	b := blocks.Get().(*block)
	n, again, err := readSocket(fd, b[:])
	if again || err != nil || n <= 0 {
		blocks.Put(b)
		if again {
			return false
		}
		if c.inErr = err; err == nil {
			c.inErr = io.EOF
		}
		return true
	}
	c.in, c.r, c.w = b, 0, n
	return true
}

// Read is coder's.
func (c *cork) Read(p []byte) (int, error) {
	if c.r == c.w {
		if c.raw == nil {
			n, err := c.Conn.Read(p)
			if n > 0 {
				c.t.heard(n)
			}
			return n, err
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.in[c.r:c.w])
	if c.r += n; c.r == c.w {
		blocks.Put(c.in)
		c.in, c.r, c.w = nil, 0, 0
	}
	return n, nil
}

// Write is coder's: a compressed message, or a closing frame when the peer broke the protocol or closed.
func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	loose := false
	if !c.shut {
		o := c.outLocked()
		o.b = append(o.b, p...)
		loose = !c.held
		if !c.t.squash { // then a closing frame is all that coder ever writes
			c.shut, c.theirs = true, true
		}
	}
	c.mu.Unlock()
	if loose {
		c.t.Wake()
	}
	return len(p), nil
}

// Close is coder's, when it has seen both closing frames. The reader closes the connection itself, once what is in
// the buffer is out.
func (c *cork) Close() error { return nil }

func (c *cork) outLocked() *outbuf {
	if c.out == nil {
		c.out = outbufs.Get().(*outbuf)
	}
	return c.out
}

// appendBatch adds the batch's frames, each as one text message.
func (c *cork) appendBatch(b *session.Batch) {
	size := 0
	for _, f := range b.Frames {
		size += len(f) + maxHeader
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return
	}
	o := c.outLocked()
	if need := len(o.b) + size; need > cap(o.b) {
		grown := make([]byte, len(o.b), max(need, 2*cap(o.b)))
		copy(grown, o.b)
		o.b = grown
	}
	for _, f := range b.Frames {
		o.b = appendFrame(o.b, opText, f)
	}
}

func (c *cork) appendControl(op byte, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shut {
		o := c.outLocked()
		o.b = appendFrame(o.b, op, payload)
	}
}

func (c *cork) appendPing(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shut {
		o := c.outLocked()
		o.b = appendPing(o.b, id)
	}
}

// appendClose adds our closing frame, the last thing that is ever written.
func (c *cork) appendClose(code uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.shut {
		o := c.outLocked()
		o.b = appendClose(o.b, code)
		c.shut = true
	}
}

// hold says that the caller will flush; shut says that nothing can be added any more.
func (c *cork) hold() (shut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
	return c.shut
}

func (c *cork) closedByPeer() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.theirs
}

// flush writes what has gathered.
func (c *cork) flush() (int, error) {
	c.mu.Lock()
	o := c.out
	c.out, c.held = nil, false
	c.mu.Unlock()
	if o == nil {
		return 0, nil
	}
	n, err := c.Conn.Write(o.b)
	putOutbuf(o)
	return n, err
}

// drop ends the connection at once. It never blocks; reads and writes under way fail.
func (c *cork) drop() {
	_ = c.socket.Close() // it is gone either way
}

// release gives back what a connection that ended still borrows. The reader and the writer are gone.
func (c *cork) release() {
	if c.in != nil {
		blocks.Put(c.in)
		c.in, c.r, c.w = nil, 0, 0
	}
	c.mu.Lock()
	o := c.out
	c.out = nil
	c.mu.Unlock()
	if o != nil {
		putOutbuf(o)
	}
}
