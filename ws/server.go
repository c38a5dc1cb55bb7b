package ws

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/admit"
	"holdfast/internal/origin"
	"holdfast/internal/proxy"
	"holdfast/session"
	"holdfast/stanza"
)

// subprotocol is what both sides must speak (RFC 7395 §3.1).
const subprotocol = "xmpp"

// Server accepts WebSocket connections. It is the http.Handler of /xmpp-websocket.
type Server struct {
	cfg       Config
	log       *slog.Logger
	newStream func(session.Transport, session.Peer) session.Stream
	trust     *proxy.Trust
	origins   origin.Policy
	squash    websocket.CompressionMode
	gate      *admit.Gate
	met       *metrics
	watch     *watch
	squeezing atomic.Int64 // connections that hold compression state

	door admit.Door // for handshakes and readers
}

// New makes a Server and starts its watch, which [Server.Drain] and [Server.Close] end. newStream is called once for
// every connection, before anything is read from it.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer, newStream func(session.Transport, session.Peer) session.Stream) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	trust, err := trustOf(cfg)
	if err != nil {
		return nil, err
	}
	mode, _ := compressionMode(cfg.Compression)
	s := &Server{
		cfg: cfg, log: log, newStream: newStream, trust: trust, squash: mode,
		origins: origin.New(cfg.Origins),
		gate:    &admit.Gate{MaxAll: cfg.MaxConnections, MaxUnauthenticated: cfg.MaxUnauthenticated, MaxPerAddr: cfg.MaxUnauthenticatedPerAddr},
		watch:   newWatch(cfg),
	}
	if s.met, err = newMetrics(reg, s.gate); err != nil {
		return nil, err
	}
	go s.watch.run()
	return s, nil
}

func trustOf(cfg Config) (*proxy.Trust, error) {
	if cfg.Trust != nil {
		return cfg.Trust, nil
	}
	return proxy.New(proxy.DefaultConfig())
}

func (s *Server) limits(size int) stanza.Limits {
	return stanza.Limits{Size: size, Depth: s.cfg.MaxDepth, Attrs: s.cfg.MaxAttrs, Children: s.cfg.MaxChildren}
}

// ServeHTTP checks a handshake and makes a connection of it. It returns at once; the connection goes on by itself.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.door.Join() {
		s.refuse(w, refusedDraining, http.StatusServiceUnavailable, "shutting down")
		return
	}
	defer s.door.Leave()
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		s.met.refused.WithLabelValues(refusedUpgrade).Inc()
		_, _ = websocket.Accept(w, r, nil) // it writes what RFC 6455 §4.2 asks for
		return
	}
	if !offers(r.Header, subprotocol) {
		s.refuse(w, refusedSubprotocol, http.StatusBadRequest, "the xmpp subprotocol is required")
		return
	}
	if !s.origins.Allow(r) {
		s.refuse(w, refusedOrigin, http.StatusForbidden, "origin not allowed")
		return
	}
	client := s.trust.Client(r)
	addr := netip.Addr{}
	if client.Known {
		addr = admit.Bucket(client.Addr)
	}
	switch reason := s.gate.Enter(addr); reason {
	case "":
	case admit.Address:
		s.refuse(w, string(reason), http.StatusTooManyRequests, "too many unauthenticated connections")
		return
	default:
		s.refuse(w, string(reason), http.StatusServiceUnavailable, "too many connections")
		return
	}
	if err := s.accept(w, r, client, addr); err != nil {
		s.gate.Leave(addr, false)
		s.met.refused.WithLabelValues(refusedUpgrade).Inc()
		s.log.Debug("websocket handshake failed", "error", err)
	}
}

func (s *Server) refuse(w http.ResponseWriter, reason string, status int, text string) {
	s.met.refused.WithLabelValues(reason).Inc()
	if wait := int(s.cfg.RetryAfter / time.Second); wait > 0 && (status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests) {
		w.Header().Set("Retry-After", strconv.Itoa(wait))
	}
	http.Error(w, text, status)
}

// offers reports whether the client speaks the subprotocol.
func offers(h http.Header, name string) bool {
	for _, v := range h["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(p), name) {
				return true
			}
		}
	}
	return false
}

// accept upgrades and starts the connection's reader. Nothing of the request outlives it.
func (s *Server) accept(w http.ResponseWriter, r *http.Request, client proxy.Client, addr netip.Addr) error {
	t := &transport{srv: s, addr: addr, born: s.watch.now()}
	t.conn.t = t
	t.run = t.write
	t.lastHeard.Store(t.born)
	opts := &websocket.AcceptOptions{
		Subprotocols:         []string{subprotocol},
		InsecureSkipVerify:   true, // the origin has been looked at
		CompressionMode:      websocket.CompressionDisabled,
		CompressionThreshold: s.cfg.CompressionThreshold,
		OnPingReceived:       t.gotPing,
		OnPongReceived:       t.gotPong,
	}
	held := s.squash != websocket.CompressionDisabled && s.holdCompression()
	if held {
		opts.CompressionMode = s.squash
	}
	c, err := websocket.Accept(&upgrade{ResponseWriter: w, t: t}, r, opts)
	t.squash = err == nil && w.Header().Get("Sec-WebSocket-Extensions") != ""
	if held && !t.squash {
		s.squeezing.Add(-1)
	}
	if err != nil {
		if t.conn.Conn != nil {
			t.conn.drop()
		}
		return fmt.Errorf("ws: handshake: %w", err)
	}
	c.SetReadLimit(-1) // ours says more than to close
	t.ws = c
	t.wmu.Lock() // a stream that wakes us while it is made is not pulled before it is here
	t.stream = s.newStream(t, session.Peer{Addr: client.Addr, Secure: client.Secure, Kind: "websocket"})
	t.wmu.Unlock()
	s.watch.add(t)
	s.door.Bring()
	go t.read()
	if s.door.IsShut() { // too late for Drain or Close to have seen it
		t.end(endServer)
	}
	return nil
}

// holdCompression takes one of the places for compression state.
func (s *Server) holdCompression() bool {
	if n := s.squeezing.Add(1); s.cfg.CompressionConnections > 0 && n > int64(s.cfg.CompressionConnections) {
		s.squeezing.Add(-1)
		return false
	}
	return true
}

// remove forgets a connection that is closed.
func (s *Server) remove(t *transport) {
	s.watch.remove(t)
	s.gate.Leave(t.addr, t.authed.Load())
	if t.squash {
		s.squeezing.Add(-1)
	}
}

// upgrade hands coder/websocket the corked connection instead of net/http's with its two 4 KiB buffers.
type upgrade struct {
	http.ResponseWriter
	t *transport
}

// Hijack is [http.Hijacker]'s.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // cannot fail: they are there
	c := &u.t.conn
	if len(early) > blockSize {
		_ = conn.Close()
		return nil, nil, errors.New("too much data ahead of the handshake's answer")
	}
	c.start(conn, early)
	return c, bufio.NewReadWriter(c.br, bufio.NewWriterSize(c, coderWriterSize)), nil
}

// Drain refuses new connections, sends those away that the session layer has not, and waits for all to end. The session
// layer does so before, for those that have a session. When ctx ends first, what is left is dropped and ctx's error returned.
// Drain and Close end the Server; it cannot be used afterwards.
func (s *Server) Drain(ctx context.Context) error {
	s.door.Shut()
	s.watch.each(func(t *transport) { t.Finish(session.Restarting) })
	err := s.door.Wait(ctx, s.dropAll, s.cfg.CloseTimeout+lastWords) // not for ever for a stream that does not return
	if err != nil {
		err = fmt.Errorf("ws: drain: %w", err)
	}
	s.watch.close()
	return err
}

// Close drops all connections and waits for their goroutines.
func (s *Server) Close() error {
	s.door.Shut()
	s.dropAll()
	err := s.door.Wait(context.Background(), nil, 0)
	s.watch.close()
	return err
}

func (s *Server) dropAll() {
	s.watch.each(func(t *transport) { t.end(endServer) })
}
