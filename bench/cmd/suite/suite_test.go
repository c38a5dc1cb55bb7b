//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"holdfast/bench"
	"holdfast/bench/internal/fakexmpp"
)

// fakeVariable makes the test binary stand in for the gateway's.
const fakeVariable = "BENCH_FAKE_GATEWAY"

func TestMain(m *testing.M) {
	if served, err := serveRelay(); served {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(fakeVariable) != "" {
		fmt.Fprintln(os.Stderr, fakeGateway())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// fakeGateway takes the settings and sub-commands of the gateway that a run uses.
func fakeGateway() error {
	if len(os.Args) > 1 {
		if len(os.Args) != 4 || os.Args[1] != "user" || os.Args[2] != "import" || os.Getenv("HOLDFAST_DATA_DIR") == "" {
			return fmt.Errorf("called with %q", os.Args)
		}
		if _, err := os.Stat(os.Args[3]); err != nil {
			return err
		}
		os.Exit(0)
	}
	admin := http.NewServeMux()
	admin.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	looks := 0
	admin.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		looks++
		fmt.Fprintf(w, "# HELP\ngo_memstats_mallocs_total %de+00\n", 100*looks)
	})
	go http.ListenAndServe(os.Getenv("HOLDFAST_ADMIN_LISTEN"), admin)
	clients := http.NewServeMux()
	server := &fakexmpp.Server{
		Domain: "localhost", Password: func(string) (string, bool) { return password, true },
	}
	clients.Handle("/xmpp-websocket", server)
	clients.Handle("/http-bind", &fakexmpp.BOSH{Server: server})
	return http.ListenAndServe(os.Getenv("HOLDFAST_LISTEN"), clients)
}

// A whole run against a stand-in: what it measures is beside the point, that every row is measured is not.
func TestRun(t *testing.T) {
	steps := "chat,allocs"
	if !testing.Short() {
		steps = "login,chat,paced,allocs,resume,offline,room,bosh-chat,bosh-paced"
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(fakeVariable, "1")
	var out strings.Builder
	_, err = run([]string{"-gateway", own, "-short", "-load-core", "-1", "-only", steps}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + out.String())
	for _, line := range strings.Split(out.String(), "\n") {
		if strings.Contains(line, "NOT MEASURED") {
			t.Error(line)
		}
		if strings.HasPrefix(line, "messages lost") && !strings.HasSuffix(line, "pass") {
			t.Error(line)
		}
		if strings.HasPrefix(line, "allocations") && !strings.HasSuffix(line, "pass") {
			t.Error(line)
		}
	}
}

func TestRunWithoutGateway(t *testing.T) {
	var out strings.Builder
	if ok, err := run([]string{"-gateway", "/nonexistent", "-load-core", "-1"}, &out, io.Discard); ok || err == nil {
		t.Errorf("%v %v", ok, err)
	}
}

func TestVerdicts(t *testing.T) {
	clean := bench.Counts{Sent: 1, Delivered: 1}
	for _, test := range []struct {
		name   string
		fill   func(*table)
		counts bench.Counts
		want   string
		ok     bool
	}{
		{"ratio within", func(t *table) {
			r := t.compare("w", "µs", 2)
			r.server, r.relay = []float64{8, 1, 9}, []float64{4, 4, 5}
		}, clean, "8.00 4.00 2.00 2 x relay pass", true},
		{"ratio beyond", func(t *table) {
			r := t.compare("w", "µs", 2)
			r.server, r.relay = []float64{8.4}, []float64{4}
		}, clean, "8.40 4.00 2.10 2 x relay FAIL", false},
		{"figure within", func(t *table) { t.limit("w", "µs", 300).server = []float64{120} }, clean, "120 300 µs pass", true},
		{"figure beyond", func(t *table) { t.limit("w", "µs", 300).server = []float64{301} }, clean, "301 300 µs FAIL", false},
		{"bound that misses", func(t *table) {
			r := t.limit("w", "ms", 10)
			r.server, r.below = []float64{10}, true
		}, clean, "10.0 under 10 ms FAIL", false},
		{"nothing measured", func(t *table) { t.compare("w", "µs", 2) }, clean, "- 2 x relay NOT MEASURED", false},
		{"no relay", func(t *table) { t.compare("w", "µs", 2).server = []float64{1} }, clean, "NOT MEASURED", false},
		{"error", func(t *table) {
			r := t.limit("w", "µs", 2)
			r.server = []float64{1}
			r.fail(errors.New("why"))
		}, clean, "NOT MEASURED", false},
		{"lost", func(*table) {}, bench.Counts{Sent: 2, Delivered: 1, Lost: 1}, "1, 0, 0, 0 0 FAIL", false},
		{"left over from before", func(*table) {}, bench.Counts{Sent: 1, Delivered: 1, Unknown: 1, Odd: "<m/>"}, "0, 0, 0, 1 0 FAIL", false},
		{"unacknowledged", func(*table) {}, bench.Counts{Sent: 1, Delivered: 1, Unacked: 1}, "0, 0, 0, 0 0 FAIL", false},
		{"nothing sent", func(*table) {}, bench.Counts{}, "0, 0, 0, 0 0 FAIL", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			tab := table{counts: test.counts}
			test.fill(&tab)
			var out strings.Builder
			if ok := tab.print(&out); ok != test.ok {
				t.Errorf("verdict %v", ok)
			}
			if text := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(text, test.want) {
				t.Errorf("%q is not in\n%s", test.want, out.String())
			}
		})
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{5, 1}, 3}, {[]float64{9, 1, 2}, 2}} {
		if got := median(test.in); got != test.want {
			t.Errorf("median of %v: %v", test.in, got)
		}
	}
}
