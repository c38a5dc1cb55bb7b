package gatewayproc

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// Cluster is what the gateways of one cluster share.
type Cluster struct {
	RedisURL    string
	Prefix      string // of the keys in Redis
	DatabaseURL string
	Env         map[string]string // further settings, by their full names
}

// StartNodes runs n gateways as one cluster, on free ports and without data directories, and returns when all are
// ready. Their logs are kept in files, which stay when the test fails.
func StartNodes(t testing.TB, c Cluster, n int) []*Gateway {
	t.Helper()
	logs, err := os.MkdirTemp("", "holdfast-logs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateways' logs are in %s", logs)
		} else {
			_ = os.RemoveAll(logs)
		}
	})
	all := make([]*Gateway, n)
	for i := range all {
		env := maps.Clone(c.Env)
		if env == nil {
			env = make(map[string]string)
		}
		env["HOLDFAST_REDIS_URL"], env["HOLDFAST_REDIS_PREFIX"], env["HOLDFAST_DATABASE_URL"] = c.RedisURL, c.Prefix, c.DatabaseURL
		all[i] = assign(t, &Gateway{env: env})
		all[i].log.keep(t, filepath.Join(logs, "gateway"+string(rune('0'+i))+".log"))
		if err := all[i].Launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range all {
		g.AwaitReady()
	}
	return all
}
