package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/bosh"
	"holdfast/cluster"
	"holdfast/session"
)

// This file fits the BOSH transport to the sessions and, in a cluster, to the other nodes: a request is served where its
// session is, and answered where it came in.

func (g *gateway) openBOSH(log *slog.Logger, reg prometheus.Registerer) (err error) {
	cfg := g.cfg.BOSH
	cfg.Origins, cfg.Trust = g.cfg.WS.Origins, g.trust
	if cfg.MaxBody == 0 {
		cfg.MaxBody = g.cfg.largestMessage()
	}
	streams := bosh.Streams{New: g.sessions.NewCarriedStream, Continue: g.sessions.Continue}
	if g.cluster != nil {
		cfg.Node, streams.Elsewhere = g.cluster.node.ID(), nodes{g.cluster.node}
	}
	g.bosh, err = bosh.New(cfg, log, reg, streams)
	return err
}

// nodes is package cluster for bosh.
type nodes struct{ node *cluster.Node }

func (n nodes) Forward(ctx context.Context, sid, node string, request []byte) ([]byte, error) {
	answer, err := n.node.Call(ctx, sid, node, request)
	if errors.Is(err, cluster.ErrHere) || errors.Is(err, cluster.ErrNobody) {
		return nil, bosh.ErrHere
	}
	return answer, err
}

// callee is bosh for package cluster.
type callee struct {
	srv      *bosh.Server
	sessions *session.Service
}

func (c callee) Knows(sid string) cluster.Knowledge {
	here, leaving := c.srv.Knows(sid)
	carried, free := c.sessions.Carries(sid)
	switch {
	case leaving:
		return cluster.Leaving
	case here, free:
		return cluster.Known
	case carried: // its connection is at a node that knows it, or is dead
		return cluster.Leaving
	}
	return cluster.Unknown
}

func (c callee) Answer(ctx context.Context, _ string, request []byte) []byte {
	return c.srv.Serve(ctx, request)
}
