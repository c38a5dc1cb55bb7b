package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// admin is the operator's listener.
func (g *gateway) admin() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(g.reg, promhttp.HandlerOpts{}))
	// Alive as long as it answers.
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := g.readiness(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if g.cfg.Profile {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// readiness says why no clients should be sent here.
func (g *gateway) readiness(ctx context.Context) error {
	g.mu.Lock()
	why := g.ready
	g.mu.Unlock()
	if why != nil {
		return why
	}
	if err := errors.Join(g.store.Healthy(), g.cluster.healthy()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := g.kept.Ping(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	if g.db != nil {
		if err := g.db.Read.PingContext(ctx); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	return nil
}
