//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"holdfast/bench"
)

// row is one line of the table: figures of all rounds, and what the median is held against.
type row struct {
	work   string
	unit   string
	server []float64
	relay  []float64
	// versus is what the figure is divided by, which stands in the relay's column; empty when the bound is a figure.
	versus string
	bound  float64
	below  bool // the bound itself misses
	free   bool // there is no bound: it is only shown
	err    error
}

// table is all that a run found out.
type table struct {
	columns [2]string // what is measured, and what it is compared with
	rows    []*row
	figures []*figure // of a cluster
	counts  bench.Counts
	notes   []string
}

// compare adds a row whose bound is a multiple of the relay's figure.
func (t *table) compare(work, unit string, bound float64) *row {
	r := &row{work: work, unit: unit, bound: bound, versus: "relay"}
	t.rows = append(t.rows, r)
	return r
}

// limit adds a row whose bound is a figure.
func (t *table) limit(work, unit string, bound float64) *row {
	r := &row{work: work, unit: unit, bound: bound}
	t.rows = append(t.rows, r)
	return r
}

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// held is the figure that is held against the bound.
func (r *row) held() (figure float64, ratio, measured bool) {
	switch {
	case r.err != nil || len(r.server) == 0:
		return 0, false, false
	case r.versus == "":
		return median(r.server), false, true
	case median(r.relay) == 0:
		return 0, true, false
	}
	return median(r.server) / median(r.relay), true, true
}

func (r *row) passes() bool {
	figure, _, measured := r.held()
	return measured && (r.free || figure < r.bound || figure == r.bound && !r.below)
}

// print writes the table and reports whether everything passed.
func (t *table) print(out io.Writer) bool {
	ok := true
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	t.printFigures(out)
	fmt.Fprintf(w, "work\tunit\t%s\t%s\tratio\tbound\tverdict\n",
		cmp.Or(t.columns[0], "gateway"), cmp.Or(t.columns[1], "relay"))
	for _, r := range t.rows {
		figure, ratio, measured := r.held()
		relay, times, bound := "", "", fmt.Sprintf("%.4g %s", r.bound, r.unit)
		if r.below {
			bound = "under " + bound
		}
		if r.versus != "" {
			bound = fmt.Sprintf("%.4g x %s", r.bound, r.versus)
		}
		if r.free {
			bound = ""
		}
		if ratio {
			relay, times = number(median(r.relay)), fmt.Sprintf("%.2f", figure)
		}
		server, verdict := number(median(r.server)), "pass"
		if r.free {
			verdict = ""
		}
		if !r.passes() {
			ok, verdict = false, "FAIL"
		}
		if !measured {
			server, times, verdict = "-", "", "NOT MEASURED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.work, r.unit, server, relay, times, bound, verdict)
	}
	c := t.counts
	verdict := "pass"
	if !c.Clean() || c.Sent == 0 {
		ok, verdict = false, "FAIL"
	}
	fmt.Fprintf(w, "messages lost, repeated, out of order, unexpected\t\t%d, %d, %d, %d\t\t\t0\t%s\n",
		c.Lost, c.Repeated, c.OutOfOrder, c.Unknown, verdict)
	w.Flush()
	fmt.Fprintf(out, "\n%s: %d messages sent, %d delivered, %d answered with errors, %d stanzas unacknowledged\n",
		cmp.Or(t.columns[0], "gateway"), c.Sent, c.Delivered, c.Errors, c.Unacked)
	if c.Odd != "" {
		fmt.Fprintf(out, "the first message that was not expected: %s\n", c.Odd)
	}
	for _, r := range t.rows {
		if !r.passes() {
			fmt.Fprintf(out, "BROKEN: %s\n", r.work)
		}
		if r.err != nil {
			fmt.Fprintf(out, "%s: %v\n", r.work, r.err)
		}
	}
	for _, n := range t.notes {
		fmt.Fprintln(out, n)
	}
	return ok
}

func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
