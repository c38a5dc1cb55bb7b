package bosh

import (
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/internal/httpconn"
)

const mostFields = 6

// render appends the fields of the answer, and returns them with its body: compressed into z, if it is that. z is nil
// otherwise.
func (s *Server) render(c *call, all []httpconn.Field) (_ []httpconn.Field, body []byte, z *outbuf) {
	body = c.out.b
	all = append(all, httpconn.Field{Name: "Content-Type", Value: c.content})
	if by := readableBy(c.origin, c.may); by != "" {
		all = append(all, httpconn.Field{Name: "Access-Control-Allow-Origin", Value: by})
	}
	if wait := int(s.cfg.RetryAfter / time.Second); c.retry && wait > 0 {
		all = append(all, httpconn.Field{Name: "Retry-After", Value: strconv.Itoa(wait)})
	}
	if !s.cfg.Compression {
		return append(all, httpconn.Field{Name: "Vary", Value: "Origin"}), body, nil
	}
	all = append(all, httpconn.Field{Name: "Vary", Value: "Origin, Accept-Encoding"})
	if c.gzip && len(body) > 0 && len(body) >= s.cfg.CompressionThreshold {
		z = outbufs.Get().(*outbuf)
		z.b = z.b[:0]
		if squeeze(z, body) == nil && len(z.b) < len(body) {
			return append(all, httpconn.Field{Name: "Content-Encoding", Value: "gzip"}), z.b, z
		}
		z.put()
	}
	return all, body, nil
}

// sent counts an answer.
func (s *Server) sent(c *call, body []byte, z *outbuf, slow bool) {
	if slow {
		s.met.slow.Add(1)
	}
	s.met.bytesOut.Add(uint64(len(body)))
	if z != nil {
		z.put()
	}
}

// reply sends the answer over the request's own connection. It reports false when nothing comes after it.
func (s *Server) reply(c *call) bool {
	defer c.free()
	if c.aborted {
		return false
	}
	var room [mostFields]httpconn.Field
	all, body, z := s.render(c, room[:0])
	err := c.line.conn.Reply(c.status, all, body)
	s.sent(c, body, z, err == httpconn.ErrSlow)
	return err == nil
}

// write sends the answer by net/http, under a deadline: a client that does not read holds nothing for long.
func (s *Server) write(w http.ResponseWriter, c *call) {
	rc := http.NewResponseController(w)
	var room [mostFields]httpconn.Field
	all, body, z := s.render(c, room[:0])
	h := w.Header()
	for _, field := range all {
		h.Set(field.Name, field.Value)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if s.cfg.WriteTimeout > 0 {
		_ = rc.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)) // without deadlines there is no limit
	}
	w.WriteHeader(c.status)
	_, err := w.Write(body)
	if err == nil {
		err = rc.Flush()
	}
	s.sent(c, body, z, timedOut(err))
	if s.cfg.WriteTimeout > 0 {
		_ = rc.SetWriteDeadline(time.Time{}) // it would hit whatever comes next on this connection
	}
}

// acceptsGzip reads Accept-Encoding (RFC 9110 §12.5.3).
func acceptsGzip(h http.Header) bool {
	for _, v := range h["Accept-Encoding"] {
		for item := range strings.SplitSeq(v, ",") {
			name, params, _ := strings.Cut(item, ";")
			if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && name != "*" {
				continue
			}
			q, found := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			if weight, err := strconv.ParseFloat(q, 64); !found || err == nil && weight > 0 {
				return true
			}
			return false
		}
	}
	return false
}

var squeezers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one that exists
	return z
}}

func squeeze(to *outbuf, b []byte) error {
	z := squeezers.Get().(*gzip.Writer)
	defer squeezers.Put(z)
	z.Reset(to)
	if _, err := z.Write(b); err != nil {
		return err
	}
	return z.Close()
}

// Write is [io.Writer]'s.
func (o *outbuf) Write(p []byte) (int, error) {
	o.b = append(o.b, p...)
	return len(p), nil
}
