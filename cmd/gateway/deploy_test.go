package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.yaml.in/yaml/v3"

	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
)

// What is in deploy/ is copied by operators and seen by no compiler. These tests hold it to the gateway that it is for:
// the settings that there are, the metrics that are exported, the times that belong together.

const root = "../.."

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// yamlDocs reads every document of a file into values of type T.
func yamlDocs[T any](t *testing.T, name string) []T {
	t.Helper()
	var all []T
	d := yaml.NewDecoder(strings.NewReader(readFile(t, name)))
	for {
		var v T
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, v)
	}
}

// filesUnder lists the files below a folder of the repository.
func filesUnder(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(root), dir, func(path string, d fs.DirEntry, err error) error {
		// What an operator made of the examples is not in the repository.
		if err == nil && !d.IsDir() && d.Name() != ".env" && d.Name() != "secret.yaml" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Every variable that the documents and the examples name is one that the gateway knows.
func TestDocumentedSettings(t *testing.T) {
	cfg := defaultConfig()
	known := make(map[string]bool)
	for _, s := range settings(&cfg) {
		known[s.name] = true
	}
	name := regexp.MustCompile(`\b` + prefix + `[A-Z0-9_]+`)
	for _, file := range append(filesUnder(t, "deploy"), filesUnder(t, "docs")...) {
		for _, n := range name.FindAllString(readFile(t, file), -1) {
			if !known[n] {
				t.Errorf("%s: there is no setting %s", file, n)
			}
		}
	}
}

// exported is a metric that a gateway has.
type exported struct {
	kind   string // as Prometheus calls it; empty when it has no series yet
	labels []string
}

// describe lists what a gateway with the given settings exports. A metric without series yet counts too.
func describe(t *testing.T, dir string, env map[string]string) map[string]exported {
	t.Helper()
	cfg := configure(t, dir, env)
	g := &gateway{cfg: &cfg, log: slog.New(slog.DiscardHandler), reg: prometheus.NewRegistry(), ready: errors.New("starting")}
	g.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g.stop = cancel
	defer func() {
		if err := g.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if err := g.open(ctx); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]exported)
	// prometheus.Desc shows what it is in no other way.
	shape := regexp.MustCompile(`^Desc\{fqName: "([^"]+)".*constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		g.reg.Describe(descs)
	}()
	for d := range descs {
		m := shape.FindStringSubmatch(d.String())
		if m == nil {
			t.Errorf("cannot read %s", d)
			continue
		}
		e := exported{}
		for label := range strings.SplitSeq(m[2]+","+m[3], ",") {
			if name, _, _ := strings.Cut(label, "="); name != "" {
				e.labels = append(e.labels, name)
			}
		}
		all[m[1]] = e
	}
	families, err := g.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		e := all[f.GetName()]
		e.kind = f.GetType().String()
		all[f.GetName()] = e
	}
	return all
}

// series is what a query may name: a histogram is known by its three suffixes only.
func series(metrics map[string]exported) map[string][]string {
	all := map[string][]string{"up": nil} // Prometheus' own
	for name, m := range metrics {
		switch m.kind {
		case "HISTOGRAM":
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				all[name+suffix] = m.labels
			}
		case "SUMMARY":
			all[name], all[name+"_sum"], all[name+"_count"] = m.labels, m.labels, m.labels
		default:
			all[name] = m.labels
		}
	}
	return all
}

var (
	exprString   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)
	exprComment  = regexp.MustCompile(`#[^\n]*`)
	exprSelector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)?\s*\{([^}]*)\}`)
	exprMatcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	exprRange    = regexp.MustCompile(`\[[^\]]*\]`)
	exprLabels   = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	exprName     = regexp.MustCompile(`\b[a-zA-Z_:][a-zA-Z0-9_:]*\b\s*\(?`)
)

// query takes a PromQL expression apart: the metrics that it names, and the labels that it asks of them. It is no parser
// (that one is larger than the gateway): promtool, where there is one, says whether the expression is well-formed.
func query(expr string) (names []string, labels map[string][]string) {
	labels = make(map[string][]string) // of a metric; "" for those of the whole expression
	expr = exprComment.ReplaceAllString(exprString.ReplaceAllString(expr, `""`), "")
	for _, s := range exprSelector.FindAllStringSubmatch(expr, -1) {
		for _, m := range exprMatcher.FindAllStringSubmatch(s[2], -1) {
			labels[s[1]] = append(labels[s[1]], m[1])
		}
	}
	expr = exprRange.ReplaceAllString(exprSelector.ReplaceAllString(expr, "$1 "), "")
	for _, l := range exprLabels.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(l[1], ",") {
			labels[""] = append(labels[""], strings.TrimSpace(label))
		}
	}
	expr = exprLabels.ReplaceAllString(expr, "")
	for _, name := range exprName.FindAllString(expr, -1) {
		switch {
		case strings.HasSuffix(name, "("): // a function
		case slices.Contains([]string{"and", "or", "unless", "bool", "offset"}, strings.TrimSpace(name)):
		default:
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names, labels
}

func TestQuery(t *testing.T) {
	names, labels := query(`sum by (instance, le) (rate(a_bucket{x="b{c}", y=~"d"}[5m])) / on (job) up{z!=""} > 8 * 1e6 and f(g{}) or # h
		i offset 5m`)
	if want := []string{"a_bucket", "up", "g", "i"}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
	want := map[string][]string{"": {"instance", "le", "job"}, "a_bucket": {"x", "y"}, "up": {"z"}}
	if !maps.EqualFunc(labels, want, slices.Equal) {
		t.Errorf("labels %v, want %v", labels, want)
	}
}

// checkQuery reports what an expression asks for and nobody exports.
func checkQuery(t *testing.T, where, expr string, known map[string][]string) {
	t.Helper()
	names, labels := query(expr)
	if len(names) == 0 {
		t.Errorf("%s: %q asks for nothing", where, expr)
	}
	scraped := []string{"job", "instance", "le"} // le is there where _bucket is
	var all []string
	for _, name := range names {
		has, ok := known[name]
		if !ok {
			t.Errorf("%s: no gateway exports %s", where, name)
			continue
		}
		all = append(all, has...)
		for _, l := range labels[name] {
			if !slices.Contains(has, l) && !slices.Contains(scraped, l) {
				t.Errorf("%s: %s has no label %s", where, name, l)
			}
		}
	}
	for _, l := range labels[""] {
		if !slices.Contains(all, l) && !slices.Contains(scraped, l) {
			t.Errorf("%s: no label %s in %s", where, l, expr)
		}
	}
}

// dashboardQueries finds all expressions of a Grafana dashboard.
func dashboardQueries(v any, found func(string)) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			dashboardQueries(e, found)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			s, isString := v[key].(string)
			values, isValues := strings.CutPrefix(s, "label_values(")
			switch {
			case !isString:
				dashboardQueries(v[key], found)
			case key == "expr":
				found(s)
			case isValues:
				if i := strings.LastIndex(values, ","); i > 0 {
					values = values[:i]
				}
				found(values)
			}
		}
	}
}

// alerts is a file of Prometheus rules.
type alerts struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For string
			Labels           map[string]string
			Annotations      map[string]string
		}
	}
}

// The dashboard and the alerts ask for what gateways export, and the documents name it: on one machine, or in a cluster.
func TestDashboardAndAlerts(t *testing.T) {
	metrics := describe(t, t.TempDir(), nil)
	data := t.TempDir()
	maps.Copy(metrics, describe(t, data, map[string]string{
		"REDIS_URL": redisproc.Standalone(t).URL(), "DATABASE_URL": postgresproc.New(t),
	}))
	// deploy/ relies on it: a root file system that cannot be written, no volume.
	if left, err := os.ReadDir(data); err != nil || len(left) > 0 {
		t.Errorf("a gateway of a cluster wrote to its data directory: %v, %v", left, err)
	}
	known := series(metrics)

	const dashboard, rules = "deploy/grafana/holdfast.json", "deploy/prometheus/holdfast.rules.yml"
	var parsed any
	if err := json.Unmarshal([]byte(readFile(t, dashboard)), &parsed); err != nil {
		t.Fatalf("%s: %v", dashboard, err)
	}
	asked := 0
	dashboardQueries(parsed, func(expr string) {
		asked++
		checkQuery(t, dashboard, expr, known)
	})
	if asked < 50 {
		t.Errorf("%s: only %d expressions were found", dashboard, asked)
	}

	sections := headings(t, "docs/operations.md")
	seen := make(map[string]bool)
	for _, group := range yamlDocs[alerts](t, rules)[0].Groups {
		for _, r := range group.Rules {
			where := rules + ": " + r.Alert
			checkQuery(t, where, r.Expr, known)
			if r.Alert == "" || seen[r.Alert] {
				t.Errorf("%s: without a name of its own", where)
			}
			seen[r.Alert] = true
			if r.For != "" {
				if _, err := time.ParseDuration(r.For); err != nil {
					t.Errorf("%s: for: %v", where, err)
				}
			}
			if !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("%s: severity %q", where, r.Labels["severity"])
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: has to say what it is about", where)
			}
			if section, ok := strings.CutPrefix(r.Annotations["runbook"], "docs/operations.md#"); !ok || !sections[section] {
				t.Errorf("%s: the runbook %q is not a section of docs/operations.md", where, r.Annotations["runbook"])
			}
		}
	}
	if tool, err := exec.LookPath("promtool"); err == nil {
		if out, err := exec.Command(tool, "check", "rules", filepath.Join(root, rules)).CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	}

	name := regexp.MustCompile(`\bholdfast_[a-z0-9_]*[a-z0-9]\b`)
	for _, file := range append(filesUnder(t, "docs"), "deploy/README.md") {
		for _, n := range name.FindAllString(readFile(t, file), -1) {
			_, isMetric := metrics[n]
			if _, isSeries := known[n]; !isMetric && !isSeries {
				t.Errorf("%s: no gateway exports %s", file, n)
			}
		}
	}
}

// headings lists the anchors of a Markdown file as they are made of its headings.
func headings(t *testing.T, file string) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	dropped := regexp.MustCompile(`[^a-z0-9 -]`)
	for line := range strings.Lines(readFile(t, file)) {
		if title := strings.TrimLeft(line, "#"); title != line {
			title = dropped.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			all[strings.ReplaceAll(title, " ", "-")] = true
		}
	}
	return all
}
