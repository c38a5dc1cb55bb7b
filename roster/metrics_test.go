package roster

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	store := newMemory()
	s := New(DefaultConfig(), store, slog.New(slog.DiscardHandler), reg)
	for range 3 {
		must(s.Subscribers(t.Context(), romeo))(t)
	}
	must(s.Set(t.Context(), romeo, Item{Contact: juliet}))(t)
	must(s.Set(t.Context(), romeo, Item{Contact: mercutio}))(t)
	must(s.Inbound(t.Context(), romeo, user(1), Subscribe, nil))(t)
	if _, _, err := s.Remove(t.Context(), romeo, juliet); err != nil {
		t.Fatal(err)
	}
	store.fail = errDisk
	if _, err := s.RemoveUser(t.Context(), romeo); err == nil {
		t.Fatal("the store did not fail")
	}
	must(s.Subscribers(t.Context(), romeo))(t)

	want := `# HELP holdfast_roster_cache_reads_total Reads of a roster, by whether it was in memory.
# TYPE holdfast_roster_cache_reads_total counter
holdfast_roster_cache_reads_total{result="hit"} 2
holdfast_roster_cache_reads_total{result="miss"} 2
# HELP holdfast_roster_cached_items Contacts of the rosters in memory.
# TYPE holdfast_roster_cached_items gauge
holdfast_roster_cached_items 1
# HELP holdfast_roster_cached_rosters Rosters in memory.
# TYPE holdfast_roster_cached_rosters gauge
holdfast_roster_cached_rosters 1
# HELP holdfast_roster_changes_total Visible changes of rosters.
# TYPE holdfast_roster_changes_total counter
holdfast_roster_changes_total{kind="remove"} 1
holdfast_roster_changes_total{kind="set"} 2
# HELP holdfast_roster_store_errors_total Operations of the roster store that failed.
# TYPE holdfast_roster_store_errors_total counter
holdfast_roster_store_errors_total{op="load"} 0
holdfast_roster_store_errors_total{op="remove"} 1
holdfast_roster_store_errors_total{op="save"} 0
`
	err := testutil.GatherAndCompare(reg, strings.NewReader(want), "holdfast_roster_cache_reads_total",
		"holdfast_roster_cached_items", "holdfast_roster_cached_rosters", "holdfast_roster_changes_total",
		"holdfast_roster_store_errors_total")
	if err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "holdfast_roster_store_seconds"); err != nil || n != 3 {
		t.Errorf("%d latencies: %v", n, err)
	}
}
