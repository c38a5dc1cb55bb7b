package bosh

import (
	"compress/gzip"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// write sends the answer, under a deadline: a client that does not read holds nothing for long.
func (s *Server) write(w http.ResponseWriter, r *http.Request, c *call) {
	rc := http.NewResponseController(w)
	h := w.Header()
	cors(h, r, c.status != http.StatusForbidden || s.allowed(r))
	h["Content-Type"] = c.content
	if c.retry {
		if wait := int(s.cfg.RetryAfter / time.Second); wait > 0 {
			h["Retry-After"] = []string{strconv.Itoa(wait)}
		}
	}
	out := c.out.b
	if s.cfg.Compression {
		h["Vary"] = varyBoth
		if len(out) > 0 && len(out) >= s.cfg.CompressionThreshold && acceptsGzip(r.Header) {
			z := outbufs.Get().(*outbuf)
			z.b = z.b[:0]
			defer outbufs.Put(z)
			if squeeze(z, out) == nil && len(z.b) < len(out) {
				out = z.b
				h["Content-Encoding"] = encodingGzip
			}
		}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(out))}
	if s.cfg.WriteTimeout > 0 {
		_ = rc.SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout)) // without deadlines there is no limit
	}
	w.WriteHeader(c.status)
	if _, err := w.Write(out); err == nil {
		err = rc.Flush()
		if timedOut(err) {
			s.met.slow.Add(1)
		}
	}
	s.met.bytesOut.Add(uint64(len(out)))
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
