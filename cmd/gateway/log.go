package main

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"holdfast/internal/journal"
	"holdfast/internal/sqlx"
	"holdfast/packetcache"
)

func newLogger(cfg *Config, out io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	var h slog.Handler = slog.NewTextHandler(out, opts)
	if cfg.LogFormat == "json" {
		h = slog.NewJSONHandler(out, opts)
	}
	return slog.New(fencedOnce{h})
}

// fencedOnce leaves it to the cluster to say that others have taken over what this process had: each session that can write
// nothing any more would say it again. That is for who debugs.
type fencedOnce struct{ slog.Handler }

func (h fencedOnce) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		err, ok := a.Value.Any().(error)
		if ok && isFenced(err) {
			r.Level = slog.LevelDebug
		}
		return r.Level != slog.LevelDebug
	})
	if !h.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h fencedOnce) WithAttrs(attrs []slog.Attr) slog.Handler {
	return fencedOnce{h.Handler.WithAttrs(attrs)}
}

func (h fencedOnce) WithGroup(name string) slog.Handler { return fencedOnce{h.Handler.WithGroup(name)} }

// isFenced reports whether a store refused something because others have taken over what this process had.
func isFenced(err error) bool {
	return errors.Is(err, journal.ErrFenced) || errors.Is(err, packetcache.ErrFenced) || errors.Is(err, sqlx.ErrFenced)
}
