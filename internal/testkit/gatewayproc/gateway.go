package gatewayproc

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/testkit/freeport"
)

// Domain is the domain that a gateway under test serves.
const Domain = "localhost"

// Gateway is one gateway on one pair of ports and one data directory, however often its process is started.
type Gateway struct {
	t      testing.TB
	env    map[string]string
	listen string
	admin  string
	data   string
	log    *journal
	user   *syscall.Credential // whom the process runs as; nil for whom the test does

	mu     sync.Mutex // guards what follows: a test may start the process again from another goroutine
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// Start builds the binary if need be and runs it on free ports with a fresh data directory. env adds settings, by
// their full names. The process ends with the test.
func Start(t testing.TB, env map[string]string) *Gateway {
	t.Helper()
	return start(t, &Gateway{data: t.TempDir(), env: maps.Clone(env)})
}

// New is Start without a process: for settings that are expected to be refused (Fails).
func New(t testing.TB, env map[string]string) *Gateway {
	t.Helper()
	return assign(t, &Gateway{data: t.TempDir(), env: maps.Clone(env)})
}

// StartAs is Start for a user who owns the data directory and nothing else. Only root can do that.
func StartAs(t testing.TB, uid uint32, env map[string]string) *Gateway {
	t.Helper()
	data := t.TempDir()
	if err := os.Chmod(filepath.Dir(data), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	return start(t, &Gateway{data: data, env: maps.Clone(env), user: &syscall.Credential{Uid: uid, Gid: uid}})
}

func start(t testing.TB, g *Gateway) *Gateway {
	t.Helper()
	assign(t, g).Run()
	return g
}

// assign gives a gateway what it has for as long as the test runs.
func assign(t testing.TB, g *Gateway) *Gateway {
	t.Helper()
	g.t, g.listen, g.admin, g.log = t, freeport.Addr(t), freeport.Addr(t), &journal{}
	t.Cleanup(func() {
		g.Kill()
		if t.Failed() {
			t.Logf("the end of the gateway's log:\n%s", g.log.tail(60))
		}
	})
	return g
}

// Addr is the address for clients.
func (g *Gateway) Addr() string { return g.listen }

// URL is the WebSocket on Addr.
func (g *Gateway) URL() string { return WebSocketURL(g.listen) }

// BOSHURL is where clients post on Addr (XEP-0124).
func (g *Gateway) BOSHURL() string { return BOSHURL(g.listen) }

// AdminURL is the admin listener.
func (g *Gateway) AdminURL() string { return "http://" + g.admin }

// WebSocketURL is where the gateway's clients connect when it listens on addr.
func WebSocketURL(addr string) string { return "ws://" + addr + "/xmpp-websocket" }

// BOSHURL is where the gateway's clients post when it listens on addr.
func BOSHURL(addr string) string { return "http://" + addr + "/http-bind" }

// DataDir is the gateway's data directory.
func (g *Gateway) DataDir() string { return g.data }

// Set changes a setting for the next Run.
func (g *Gateway) Set(name, value string) {
	if g.env == nil {
		g.env = map[string]string{}
	}
	g.env[name] = value
}

// Unset takes back what Set did.
func (g *Gateway) Unset(name string) { delete(g.env, name) }

// Run starts the process and returns when it is ready.
func (g *Gateway) Run() {
	g.t.Helper()
	if err := g.Launch(); err != nil {
		g.t.Fatalf("starting the gateway: %v", err)
	}
	g.AwaitReady()
}

func (g *Gateway) command(args ...string) *exec.Cmd {
	g.t.Helper()
	cmd, err := g.prepare(args...)
	if err != nil {
		g.t.Fatal(err)
	}
	return cmd
}

func (g *Gateway) prepare(args ...string) (*exec.Cmd, error) {
	bin, err := Binary()
	if err == nil && g.user != nil {
		bin, err = g.readable(bin)
	}
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, args...) //nolint:noctx // the binary under test, ended by Kill and Term
	if g.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: g.user}
		cmd.Dir = g.data
	}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "HOLDFAST_") })
	cmd.Env = append(cmd.Env, "HOLDFAST_LISTEN="+g.listen, "HOLDFAST_ADMIN_LISTEN="+g.admin, "HOLDFAST_DOMAINS="+Domain)
	if g.data != "" {
		cmd.Env = append(cmd.Env, "HOLDFAST_DATA_DIR="+g.data)
	}
	for k, v := range g.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd, nil
}

// readable copies the binary to where the process's user can read it.
func (g *Gateway) readable(bin string) (string, error) {
	b, err := os.ReadFile(bin)
	if err != nil {
		return "", err
	}
	dir := g.t.TempDir()
	file := filepath.Join(dir, "gateway")
	return file, os.WriteFile(file, b, 0o755)
}

// AwaitReady returns when the gateway says on /readyz that clients may come.
func (g *Gateway) AwaitReady() {
	g.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	cmd, exited := g.process()
	for {
		if g.Ready() {
			return
		}
		select {
		case <-exited:
			g.t.Fatalf("the gateway ended while it started: %v\n%s", cmd.ProcessState, g.log.tail(40))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("the gateway is not ready after 30 s\n%s", g.log.tail(40))
		}
	}
}

// Ready asks /readyz.
func (g *Gateway) Ready() bool {
	code, _ := g.get("/readyz")
	return code == http.StatusOK
}

// Goroutines is what the process does just now, when HOLDFAST_PROFILE is set.
func (g *Gateway) Goroutines() string {
	_, text := g.get("/debug/pprof/goroutine?debug=2")
	return text
}

// LogFile is where StartNodes keeps the log; what is written beside it stays when the test fails.
func (g *Gateway) LogFile() string { return g.log.file.Name() }

// Readiness is what /readyz says.
func (g *Gateway) Readiness() string {
	_, text := g.get("/readyz")
	return strings.TrimSpace(text)
}

// Metrics returns the text of /metrics.
func (g *Gateway) Metrics() string {
	_, text := g.get("/metrics")
	return text
}

func (g *Gateway) get(path string) (int, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.AdminURL()+path, nil)
	if err != nil {
		return 0, ""
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(text)
}

// ResidentMiB is the process's resident memory, from /proc; 0 where there is none.
func (g *Gateway) ResidentMiB() int {
	cmd, _ := g.process()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var size, resident int
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0
	}
	return resident * os.Getpagesize() >> 20
}

// Log returns what the process wrote since the first start.
func (g *Gateway) Log() string { return g.log.tail(0) }

// Command runs one of the gateway's sub-commands on the same settings and returns its output.
func (g *Gateway) Command(args ...string) string {
	g.t.Helper()
	out, err := g.command(args...).CombinedOutput()
	if err != nil {
		g.t.Fatalf("gateway %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Fails runs a sub-command that is expected to fail, or to be ended after 10 s, and returns its exit code and output.
func (g *Gateway) Fails(args ...string) (code int, output string) {
	g.t.Helper()
	cmd := g.command(args...)
	var out journal
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the state tells
	return cmd.ProcessState.ExitCode(), out.tail(0)
}

// AddUsers makes accounts with `gateway user import`; each has Password as its password.
func (g *Gateway) AddUsers(names ...string) {
	g.t.Helper()
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "%s,%s\n", n, Password(n))
	}
	cmd := g.command("user", "import", "-")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		g.t.Fatalf("gateway user import: %v\n%s", err, out)
	}
}

// Password is the password of a user made by AddUsers.
func Password(name string) string { return "secret of " + name }
