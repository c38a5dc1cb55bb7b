package main

import (
	"bufio"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestAdmin(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	n.addUsers("alice", "bob")
	alice, bob := n.managed("alice", ""), n.managed("bob", "")
	bob.available()
	alice.chat("bob@localhost", "hello")
	bob.bodies(1)
	bob.ack()
	alice.acked(1)

	for path, want := range map[string]int{
		"/healthz": http.StatusOK, "/readyz": http.StatusOK, "/": http.StatusNotFound, "/debug/pprof/": http.StatusNotFound,
	} {
		if got := n.get(path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	code, text := n.body("/metrics")
	if code != http.StatusOK {
		t.Fatalf("metrics: %d", code)
	}
	checkMetrics(t, text, "alice", "bob", "localhost", "127.0.0.1")
	for _, name := range []string{
		"holdfast_resume_checkpoint_seconds", "holdfast_resume_checkpoint_failures_total",
	} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("there is no metric %s", name)
		}
	}
	// The same paths are not for clients.
	resp, err := plainHTTP.Get("http://" + n.cfg.Listen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("clients get %d for /metrics", resp.StatusCode)
	}
}

// checkMetrics holds every metric to the house's rules: a known prefix, help, no more series than labels that are
// enumerated can make, and nothing of a client in a label.
func checkMetrics(t *testing.T, text string, private ...string) {
	t.Helper()
	name := regexp.MustCompile(`^(holdfast|go|process)_[a-z0-9_]+$`)
	help := map[string]bool{}
	series := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		l := lines.Text()
		if rest, ok := strings.CutPrefix(l, "# HELP "); ok {
			n, what, _ := strings.Cut(rest, " ")
			help[n] = len(what) > 5
			if !name.MatchString(n) {
				t.Errorf("%s is no name for a metric of ours", n)
			}
			if !help[n] {
				t.Errorf("%s has the help %q", n, what)
			}
			continue
		}
		if strings.HasPrefix(l, "#") {
			continue
		}
		n, _, _ := strings.Cut(l, " ")
		n, labels, _ := strings.Cut(n, "{")
		series[n]++
		if !name.MatchString(n) {
			t.Errorf("%s is no name for a metric of ours", n)
		}
		for _, p := range private {
			if strings.Contains(labels, p) {
				t.Errorf("%s tells of %s: %s", n, p, l)
			}
		}
	}
	for n, count := range series {
		if count > 200 {
			t.Errorf("%s has %d series", n, count)
		}
	}
	if len(help) < 40 {
		t.Errorf("only %d metrics", len(help))
	}
}

func TestProfileOnRequest(t *testing.T) {
	n := startNode(t, t.TempDir(), map[string]string{"PROFILE": "true"})
	if got := n.get("/debug/pprof/"); got != http.StatusOK {
		t.Errorf("/debug/pprof/: %d", got)
	}
}

// Not ready while checkpoints fail: acknowledgements may have to wait.
func TestNotReadyWhileTheDatabaseFails(t *testing.T) {
	n := startNode(t, t.TempDir(), map[string]string{"CHECKPOINT_INTERVAL": "20ms"})
	n.addUsers("alice", "bob")
	db := openDB(t, n.dir())
	defer func() { _ = db.Close() }()
	if _, err := db.Write.Exec(`CREATE TRIGGER full BEFORE INSERT ON resume_sessions BEGIN SELECT RAISE(ABORT, 'disk is full'); END`); err != nil {
		t.Fatal(err)
	}
	alice, bob := n.managed("alice", ""), n.managed("bob", "")
	bob.available()
	n.await("unready", func() bool {
		code, why := n.body("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(why, "checkpoints")
	})
	if n.get("/healthz") != http.StatusOK {
		t.Error("not alive")
	}
	alice.chat("bob@localhost", "all the same")
	if got := bob.bodies(1); got[0] != "all the same" {
		t.Errorf("bob got %v", got)
	}
	if _, err := db.Write.Exec(`DROP TRIGGER full`); err != nil {
		t.Fatal(err)
	}
	n.await("ready again", func() bool { return n.get("/readyz") == http.StatusOK })
}
