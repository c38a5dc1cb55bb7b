package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/gatewayproc"
)

// TestRunsAsNobodyInParticular runs the binary as the container image does: as a user who owns nothing but the data
// directory.
func TestRunsAsNobodyInParticular(t *testing.T) {
	long(t)
	if os.Getuid() != 0 {
		t.Log("not root: it runs as whoever runs the test")
	}
	var g *gatewayproc.Gateway
	if os.Getuid() == 0 {
		g = gatewayproc.StartAs(t, 65532, nil)
	} else {
		g = gatewayproc.Start(t, nil)
	}
	g.AddUsers("anna")
	available(t, g, "anna", "").alive()
	g.Restart()
	available(t, g, "anna", "").alive()
	if code, took := g.Term(20 * time.Second); code != 0 {
		t.Errorf("exit code %d after %v", code, took)
	}
}

// TestOneProcessADataDirectory: a second gateway on the same data refuses to start, and the first goes on.
func TestOneProcessADataDirectory(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	g.AddUsers("anna")
	u := available(t, g, "anna", "")
	if code, out := g.Fails("serve"); code != 1 || !strings.Contains(out, g.DataDir()) {
		t.Errorf("a second gateway on the data directory: exit code %d, %q", code, out)
	}
	u.alive()
}

// TestWrongSettings: what is set wrongly or does not exist is named, and nothing starts.
func TestWrongSettings(t *testing.T) {
	long(t)
	g := gatewayproc.Start(t, nil)
	for name, value := range map[string]string{
		"HOLDFAST_RESUME_TIMOUT":    "5m",
		"HOLDFAST_RESUME_TIMEOUT":   "soon",
		"HOLDFAST_DOMAINS":          "not a domain",
		"HOLDFAST_TRUSTED_PROXIES":  "10.0.0.0/99",
		"HOLDFAST_WS_PING_INTERVAL": "-1s",
	} {
		g.Set(name, value)
		if code, out := g.Fails("serve"); code != 2 || !strings.Contains(out, strings.TrimPrefix(name, "HOLDFAST_")) {
			t.Errorf("%s=%s: exit code %d, %q", name, value, code, out)
		}
		g.Unset(name)
	}
}
