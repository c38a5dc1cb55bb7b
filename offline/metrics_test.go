package offline_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"holdfast/offline"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	cfg := offline.DefaultConfig()
	cfg.Limit = 2
	m, err := offline.New(t.Context(), cfg, newMemory(), slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(context.Background()) }()
	for n := 1; n <= 3; n++ {
		_, _ = m.Put(t.Context(), julietAddr(), from(t, romeo, id(n), "x"))
	}
	_, _ = m.Put(t.Context(), julietAddr(), typed(t, "headline", body))
	checkpoint(t, m)
	_ = ids(t, m, julietAddr(), 0, 0)
	// What arrived has an age, once; what was thrown away has none.
	for range 2 {
		if err := m.Remove(t.Context(), julietAddr(), id(1), id(9)); err != nil {
			t.Fatal(err)
		}
		if err := m.Discard(t.Context(), julietAddr(), id(2)); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint(t, m)
	size := float64(len(from(t, romeo, id(1), "x").Raw()))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			name := f.GetName()
			for _, l := range metric.GetLabel() {
				name += " " + l.GetValue()
			}
			switch {
			case metric.GetCounter() != nil:
				got[name] = metric.GetCounter().GetValue()
			case metric.GetGauge() != nil:
				got[name] = metric.GetGauge().GetValue()
			case metric.GetHistogram() != nil:
				got[name] = metric.GetHistogram().GetSampleSum()
				got[name+" count"] = float64(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	for name, value := range map[string]float64{
		"holdfast_offline_decisions_total store body":       2,
		"holdfast_offline_decisions_total bounce pair_full": 1,
		"holdfast_offline_decisions_total drop headline":    1,
		"holdfast_offline_messages":                         0,
		"holdfast_offline_message_bytes":                    2 * size,
		"holdfast_offline_message_bytes count":              2,
		"holdfast_offline_age_seconds count":                1,
		"holdfast_offline_pending_bytes":                    0,
		"holdfast_offline_write_messages":                   2,
		"holdfast_offline_pop_messages":                     2,
	} {
		if got[name] != value {
			t.Errorf("%s is %v, want %v", name, got[name], value)
		}
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// TestPeek: who looks at a mailbox pops nothing, and what was looked at can be removed, or handed out, as ever.
func TestPeek(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := offline.New(t.Context(), lifted(), newMemory(), slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	for n := 1; n <= 4; n++ {
		mustPut(t, m, julietAddr(), from(t, romeo, id(n), "x"))
	}
	checkpoint(t, m)
	popped := func() (n uint64) {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "holdfast_offline_pop_messages" {
				n = f.GetMetric()[0].GetHistogram().GetSampleCount()
			}
		}
		return n
	}
	page, more, err := m.Peek(t.Context(), julietAddr(), id(1), 2, 0)
	if err != nil || len(page) != 2 || !more || page[0].ID != id(2) {
		t.Errorf("%v, %v, %v", page, more, err)
	}
	if n := popped(); n != 0 {
		t.Errorf("a look counts as %d", n)
	}
	if _, _, err := m.Page(t.Context(), julietAddr(), id(0), 2, 0); err != nil {
		t.Error(err)
	}
	if n := popped(); n != 1 {
		t.Errorf("a page counts as %d", n)
	}
	if _, _, err := m.Peek(t.Context(), julietAddr(), id(2), 1, 0); err != nil {
		t.Error(err)
	}
	if err := m.Remove(t.Context(), julietAddr(), id(1), id(2), id(4)); err != nil {
		t.Error(err)
	}
	holds(t, m, julietAddr(), id(3))
}
