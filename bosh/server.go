package bosh

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/internal/admit"
	"holdfast/internal/httpconn"
	"holdfast/internal/origin"
	"holdfast/internal/proxy"
	"holdfast/session"
	"holdfast/stanza"
)

// Streams makes what is behind a session.
type Streams struct {
	// New is called once for every session that a client begins.
	New func(session.Transport, session.Peer) session.CarriedStream
	// Continue looks for a session that an earlier process noted, as session.Service.Continue. It may be nil.
	Continue func(sid string, attach func(state []byte) (session.Transport, session.Peer, uint64, error)) (s session.CarriedStream, handled uint64, ok bool)
	// Elsewhere is the rest of a cluster, nil on one machine.
	Elsewhere Elsewhere
}

// Server has the BOSH sessions. It is the http.Handler of /http-bind.
type Server struct {
	cfg       Config
	log       *slog.Logger
	streams   Streams
	elsewhere Elsewhere
	trust     *proxy.Trust
	origins   origin.Policy
	gate      *admit.Gate
	met       *metrics
	watch     *watch
	waiters   sync.Pool
	conns     *httpconn.Pool

	smu      sync.RWMutex
	sessions map[string]*transport    // guarded by smu
	begun    map[string]chan struct{} // guarded by smu: sids for which goOn looks

	door admit.Door // for sessions
}

// Connections are net/http's until their first request has come in; cmd/gateway gives it the same limits.
const (
	idleTimeout = time.Minute
	headTimeout = 10 * time.Second
)

// New makes a Server and starts its watch, which [Server.Drain] and [Server.Close] end.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer, streams Streams) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	trust := cfg.Trust
	if trust == nil {
		var err error
		if trust, err = proxy.New(proxy.DefaultConfig()); err != nil {
			return nil, err
		}
	}
	s := &Server{
		cfg: cfg, log: log, streams: streams, elsewhere: streams.Elsewhere, trust: trust,
		origins:  origin.New(cfg.Origins),
		gate:     &admit.Gate{MaxAll: cfg.MaxSessions, MaxUnauthenticated: cfg.MaxUnauthenticated, MaxPerAddr: cfg.MaxUnauthenticatedPerAddr},
		watch:    newWatch(),
		waiters:  sync.Pool{New: newWaiter},
		sessions: make(map[string]*transport),
		begun:    make(map[string]chan struct{}),
	}
	var err error
	if s.met, err = newMetrics(reg, s); err != nil {
		return nil, err
	}
	go s.watch.run()
	s.conns = httpconn.NewPool(httpconn.Config{Path: Path, Idle: idleTimeout, Head: headTimeout, Write: cfg.WriteTimeout})
	return s, nil
}

func (s *Server) limits(size int) stanza.Limits {
	return stanza.Limits{Size: size, Depth: s.cfg.MaxDepth, Attrs: s.cfg.MaxAttrs, Children: s.cfg.MaxChildren}
}

func (s *Server) find(sid string) *transport {
	s.smu.RLock()
	defer s.smu.RUnlock()
	return s.sessions[sid]
}

func (s *Server) add(t *transport) {
	s.watch.add(t)
	s.smu.Lock()
	defer s.smu.Unlock()
	s.sessions[t.sid] = t
}

func (s *Server) forget(t *transport) {
	s.smu.Lock()
	delete(s.sessions, t.sid)
	s.smu.Unlock()
	s.watch.remove(t)
}

// begin takes the sole right to go on with a session. It reports false when somebody else had it, after they are done.
func (s *Server) begin(sid string) bool {
	s.smu.Lock()
	done := s.begun[sid]
	if done == nil {
		s.begun[sid] = make(chan struct{})
	}
	s.smu.Unlock()
	if done != nil {
		<-done
	}
	return done == nil
}

func (s *Server) began(sid string) {
	s.smu.Lock()
	defer s.smu.Unlock()
	close(s.begun[sid])
	delete(s.begun, sid)
}

// Drain refuses new sessions, lets go of those that the session layer has not, and waits for all to end. Their clients come
// back to who is here next, with the same sid. When ctx ends first, what is left is dropped and ctx's error returned. Drain
// and Close end the Server; it cannot be used afterwards.
func (s *Server) Drain(ctx context.Context) error {
	s.door.Shut()
	s.watch.each(func(t *transport) {
		t.Finish(session.Restarting)
		go t.stopWaiting()
	})
	err := s.door.Wait(ctx, s.dropAll, time.Second) // not for ever for a stream that does not return
	if err != nil {
		err = fmt.Errorf("bosh: drain: %w", err)
	}
	s.watch.close()
	s.conns.Drain(ctx)
	return err
}

// lastAnswers is how long Close waits for clients to read that their session is gone.
const lastAnswers = time.Second

// Close drops all sessions and waits for their streams.
func (s *Server) Close() error {
	s.door.Shut()
	s.dropAll()
	err := s.door.Wait(context.Background(), nil, 0)
	s.watch.close()
	soon, cancel := context.WithTimeout(context.Background(), lastAnswers)
	defer cancel()
	s.conns.Drain(soon)
	return err
}

func (s *Server) dropAll() {
	s.watch.each(func(t *transport) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.over {
			t.answerAll(response{kind: unavailable}, response{kind: unavailable})
			t.endLocked(endServer)
		}
	})
}
