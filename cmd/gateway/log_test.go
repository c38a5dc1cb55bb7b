package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"holdfast/internal/journal"
)

func TestFencedOnce(t *testing.T) {
	fenced := fmt.Errorf("not written: %w", journal.ErrFenced)
	for _, format := range []string{"text", "json"} {
		for _, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug} {
			var out bytes.Buffer
			log := newLogger(&Config{LogFormat: format, LogLevel: level}, &out).With("user", "romeo")
			log.Error("not recorded", "n", 1, "error", fenced)
			if got := out.String(); (got != "") != (level == slog.LevelDebug) || strings.Contains(got, "ERROR") {
				t.Errorf("%s at %v: %q", format, level, got)
			}
			out.Reset()
			log.WithGroup("g").Error("not recorded", "error", errors.New("disk full"))
			if got := out.String(); !strings.Contains(got, "ERROR") || !strings.Contains(got, "romeo") {
				t.Errorf("%s at %v: %q", format, level, got)
			}
		}
	}
}
