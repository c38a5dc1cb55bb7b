//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"holdfast/bench"
)

// figure is everything that is known of one kind of chat, of all rounds.
type figure struct {
	Kind string `json:"kind"`
	Load string `json:"load"`

	PerSecond []float64 `json:"messages_per_second"`
	P50       []float64 `json:"p50_ms"`
	P99       []float64 `json:"p99_ms"`
	Gateways  []float64 `json:"gateways_us"` // CPU for each message, like the two below
	Redis     []float64 `json:"redis_us"`
	Postgres  []float64 `json:"postgres_us"`
	Commands  []float64 `json:"redis_commands"` // for each message, like the bytes
	In        []float64 `json:"redis_bytes_in"`
	Out       []float64 `json:"redis_bytes_out"`

	ByCommand []map[string]float64 `json:"by_command"`
}

// add takes a round.
func (f *figure) add(r *bench.ChatResult) {
	n := float64(max(r.Done, 1))
	for _, c := range []struct {
		to    *[]float64
		value float64
	}{
		{&f.PerSecond, float64(r.Done) / r.Wall.Seconds()},
		{&f.P50, millis(r.Latency.Quantile(0.5))},
		{&f.P99, millis(r.Latency.Quantile(0.99))},
		{&f.Gateways, micros(r.PerMessage())},
		{&f.Redis, r.Beside[redisCPU] / n},
		{&f.Postgres, r.Beside[postgresCPU] / n},
		{&f.Commands, r.Beside[commands] / n},
		{&f.In, r.Beside[bytesIn] / n},
		{&f.Out, r.Beside[bytesOut] / n},
	} {
		*c.to = append(*c.to, c.value)
	}
	f.ByCommand = append(f.ByCommand, perMessage(r.Beside, n))
}

// printFigures writes the medians, one line for each kind of chat.
func (t *table) printFigures(out io.Writer) {
	if len(t.figures) == 0 {
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\t\tmessages\tms\tms\tCPU, µs for each message\t\t\tRedis, for each message\t\t")
	fmt.Fprintln(w, "chat\tload\ta second\tp50\tp99\tgateways\tRedis\tPostgreSQL\tcommands\tbytes in\tbytes out")
	for _, f := range t.figures {
		fmt.Fprintf(w, "%s\t%s", f.Kind, f.Load)
		for _, all := range [][]float64{
			f.PerSecond, f.P50, f.P99, f.Gateways, f.Redis, f.Postgres, f.Commands, f.In, f.Out,
		} {
			fmt.Fprintf(w, "\t%s", number(median(all)))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Fprintln(out)
}

// line is a row as it is reported.
type line struct {
	Work     string    `json:"work"`
	Unit     string    `json:"unit"`
	Figures  []float64 `json:"figures"`
	Base     []float64 `json:"base,omitempty"` // what they are divided by
	Held     float64   `json:"held"`           // against the bound: the median, or its ratio to the base's
	Bound    *float64  `json:"bound"`
	Passed   bool      `json:"passed"`
	Measured bool      `json:"measured"`
	Error    string    `json:"error,omitempty"`
}

// writeReport writes all figures of all rounds as JSON.
func (t *table) writeReport(path string) error {
	report := struct {
		Time   time.Time    `json:"time"`
		Lines  []line       `json:"lines"`
		Chat   []*figure    `json:"chat,omitempty"`
		Counts bench.Counts `json:"counts"`
		Notes  []string     `json:"notes"`
	}{time.Now().UTC(), nil, t.figures, t.counts, t.notes}
	for _, r := range t.rows {
		held, _, measured := r.held()
		l := line{Work: r.work, Unit: r.unit, Figures: r.server, Base: r.relay, Held: held, Passed: r.passes(), Measured: measured}
		if !r.free {
			l.Bound = &r.bound
		}
		if r.err != nil {
			l.Error = r.err.Error()
		}
		report.Lines = append(report.Lines, l)
	}
	raw, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := os.WriteFile(path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
