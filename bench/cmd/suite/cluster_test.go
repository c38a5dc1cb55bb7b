//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/bench"
	"holdfast/internal/testkit/gatewayproc"
)

// A part of a run against real gateways, Redis and PostgreSQL: what it measures is beside the point, that every line is
// measured is not.
func TestClusterRun(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	gateway, err := gatewayproc.Binary()
	if err != nil {
		t.Fatal(err)
	}
	defer gatewayproc.Remove()
	report := filepath.Join(t.TempDir(), "report.json")
	var out strings.Builder
	_, err = run([]string{
		"-cluster", "-gateway", gateway, "-short", "-load-core", "-1", "-only", "chat,offline,cut", "-json", report,
	}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	for _, line := range strings.Split(out.String(), "\n") {
		if strings.Contains(line, "NOT MEASURED") || strings.HasPrefix(line, "messages lost") && !strings.HasSuffix(line, "pass") {
			t.Error(line)
		}
	}
	raw, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Lines []line
		Chat  []figure
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Chat) != 4 || len(got.Chat[0].Commands) != 1 || len(got.Lines) == 0 || len(got.Lines[0].Figures) != 1 {
		t.Errorf("report: %s", raw)
	}
}

func TestClusterBounds(t *testing.T) {
	c := &cluster{suite: &suite{options: &options{}}, lines: make(map[string]*row)}
	c.table.counts = bench.Counts{Sent: 1, Delivered: 1}
	over := c.line("receipts cross commands")
	over.server = []float64{4.1}
	c.line("kill p50").server = []float64{1000}
	cpu := c.line("sm cpu")
	cpu.server, cpu.relay = []float64{30}, []float64{10}
	c.line("kill p99").fail(errors.New("why"))
	c.fillTable()
	if c.table.rows[0] != cpu {
		t.Errorf("the first row is %q", c.table.rows[0].work)
	}
	var out strings.Builder
	if c.table.print(&out) {
		t.Error("passed")
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"30.0 10.0 3.00 3 x same node pass", "BROKEN: " + over.work, "BROKEN: " + c.line("kill p99").work, "p50 ms 1000",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(text, "BROKEN: "+c.line("kill p50").work) {
		t.Error("a line without a bound is broken")
	}
}

func TestParseInfo(t *testing.T) {
	got, err := parseInfo("# Stats\r\ntotal_net_input_bytes:120\r\ntotal_net_output_bytes:30\r\nkeyspace_hits:3\r\n" +
		"# Commandstats\r\ncmdstat_xadd:calls=7,usec=9,usec_per_call=1.2\r\ncmdstat_info:calls=4,usec=1\r\n" +
		"cmdstat_client|setinfo:calls=2,usec=1\r\n")
	if err != nil {
		t.Fatal(err)
	}
	want := bench.Counters{bytesIn: 120, bytesOut: 30, commands: 9, "command xadd": 7, "command client|setinfo": 2}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if _, err := parseInfo("cmdstat_xadd:calls=many,usec=9"); err == nil {
		t.Error("no error")
	}
}
