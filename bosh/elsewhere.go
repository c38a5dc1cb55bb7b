package bosh

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"holdfast/session"
)

// Elsewhere is the other nodes of a cluster. Its methods may be called from any number of goroutines.
type Elsewhere interface {
	// Forward has a request served by the node that has the session, and returns what [Server.Serve] there answered. node is
	// where the session began, which is not where it need be now. The error is ErrHere when no other node has the session
	// and this one may go on with it; any other error asks the client to try again.
	Forward(ctx context.Context, sid, node string, request []byte) (response []byte, err error)
}

// lookElsewhere finds the session of a sid that is not served here: another node has it, or an earlier process had. When
// it returns nil the call is answered.
func (s *Server) lookElsewhere(ctx context.Context, c *call) *transport {
	sid := string(c.body.sid)
	if s.door.IsShut() {
		c.answer(&response{kind: unavailable}, false, textXML)
		return nil
	}
	if s.elsewhere != nil && !c.forwarded {
		node, _, _ := strings.Cut(sid, ".")
		if c.line != nil {
			var stop func()
			ctx, stop = c.line.conn.Watch()
			defer stop()
		}
		resp, err := s.elsewhere.Forward(ctx, sid, node, appendRequest(nil, c))
		switch {
		case err == nil && c.readResponse(resp):
			s.met.forwarded.Add(1)
			return nil
		case ctx.Err() != nil:
			c.aborted = true
			return nil
		case !errors.Is(err, ErrHere):
			s.log.Warn("bosh request not forwarded", "error", err)
			c.answer(&response{kind: unavailable}, false, textXML)
			return nil
		}
	}
	t := s.goOn(sid)
	if t == nil {
		c.refuse(itemNotFound, false)
	}
	return t
}

// Serve answers a request that another node forwarded. It may take as long as the request may be held; when ctx ends
// the client's connection is gone.
func (s *Server) Serve(ctx context.Context, request []byte) []byte {
	c := newCall()
	defer c.free()
	c.forwarded = true
	if !c.readRequest(request) {
		c.refuse(badRequest, false)
	} else {
		s.attend(ctx, c)
	}
	return appendResponse(nil, c)
}

const forwardVersion = 1

// appendRequest encodes a request for another node: version, whether the connection is secure, the client's address, the
// body as it came.
func appendRequest(dst []byte, c *call) []byte {
	secure := byte(0)
	if c.peer.Secure {
		secure = 1
	}
	addr, _ := c.peer.Addr.MarshalBinary() // it does not fail
	dst = append(dst, forwardVersion, secure, byte(len(addr)))
	return append(append(dst, addr...), c.buf...)
}

func (c *call) readRequest(b []byte) bool {
	if len(b) < 3 || b[0] != forwardVersion || len(b) < 3+int(b[2]) {
		return false
	}
	var addr netip.Addr
	if addr.UnmarshalBinary(b[3:3+int(b[2])]) != nil {
		return false
	}
	c.peer = session.Peer{Addr: addr, Secure: b[1] == 1, Kind: "bosh"}
	c.buf = append(c.buf[:0], b[3+int(b[2]):]...)
	return true
}

// appendResponse encodes an answer: version, flags, status, Content-Type, body.
func appendResponse(dst []byte, c *call) []byte {
	flags := byte(0)
	if c.retry {
		flags |= 1
	}
	if c.aborted {
		flags |= 2
		c.status, c.content = 0, textXML
	}
	dst = binary.BigEndian.AppendUint16(append(dst, forwardVersion, flags), uint16(c.status))
	dst = append(append(dst, byte(len(c.content))), c.content...)
	if c.out != nil {
		dst = append(dst, c.out.b...)
	}
	return dst
}

func (c *call) readResponse(b []byte) bool {
	if len(b) < 5 || b[0] != forwardVersion || len(b) < 5+int(b[4]) {
		return false
	}
	c.retry, c.aborted = b[1]&1 != 0, b[1]&2 != 0
	c.status = int(binary.BigEndian.Uint16(b[2:]))
	if !c.aborted && (c.status < http.StatusOK || c.status > 599) {
		return false
	}
	c.content = string(b[5 : 5+int(b[4])])
	if c.out == nil {
		c.out = outbufs.Get().(*outbuf)
	}
	c.out.b = append(c.out.b[:0], b[5+int(b[4]):]...)
	return true
}
