package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/internal/testkit/freeport"
	"holdfast/internal/testkit/haproxyproc"
	"holdfast/internal/testkit/postgresproc"
	"holdfast/internal/testkit/redisproc"
	"holdfast/internal/testkit/xmppclient"
)

// balancer is what stands in front of two gateways, with the configuration of deploy/.
type balancer struct {
	*haproxyproc.Authority
	addr   string // TLS
	health string // HAProxy's
}

// backend is where a gateway is.
type backend struct{ clients, admin string }

// startHAProxy runs HAProxy with deploy/haproxy/haproxy.cfg as it is: addresses come from the environment.
func startHAProxy(t *testing.T, one, two backend) *balancer {
	t.Helper()
	b := &balancer{Authority: haproxyproc.NewAuthority(t), addr: freeport.Addr(t), health: freeport.Addr(t)}
	env := []string{
		"MAXCONN=1000", "LISTEN_HTTP=" + freeport.Addr(t), "LISTEN_HTTPS=" + b.addr, "LISTEN_HEALTH=" + b.health, "CERTIFICATE=" + b.Server(t),
	}
	for i, g := range []backend{one, two} {
		_, port, _ := net.SplitHostPort(g.admin)
		env = append(env, fmt.Sprintf("GATEWAY_%d=%s", i+1, g.clients), fmt.Sprintf("GATEWAY_%d_ADMIN_PORT=%s", i+1, port))
	}
	config := filepath.Join(root, "deploy/haproxy/haproxy.cfg")
	out, err := command(t, env, "haproxy", "-c", "-f", config).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("WARNING")) {
		t.Fatalf("haproxy -c: %v\n%s", err, out)
	}
	b.run(t, command(t, env, "haproxy", "-db", "-f", config))
	return b
}

// startNginx runs nginx with deploy/nginx/nginx.conf, which can only be edited.
func startNginx(t *testing.T, one, two backend) *balancer {
	t.Helper()
	b := &balancer{Authority: haproxyproc.NewAuthority(t), addr: freeport.Addr(t)}
	dir, cert := t.TempDir(), b.Server(t)
	config := readFile(t, "deploy/nginx/nginx.conf")
	temp := "http {\n\terror_log stderr;\n"
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temp += fmt.Sprintf("\t%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	for _, edit := range [][2]string{
		{"listen 80;", "listen " + freeport.Addr(t) + ";"},
		{"listen 443 ssl;", "listen " + b.addr + " ssl;"},
		{"/etc/nginx/holdfast.crt", cert},
		{"/etc/nginx/holdfast.key", cert},
		{"gateway1:5280", one.clients},
		{"gateway2:5280", two.clients},
		{"worker_connections 50000;", "worker_connections 500;"},
		{"worker_rlimit_nofile 200000;", ""},
		{"http {\n", temp},
	} {
		if strings.Count(config, edit[0]) != 1 {
			t.Fatalf("nginx.conf: %q is not in there once", edit[0])
		}
		config = strings.Replace(config, edit[0], edit[1], 1)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-e", "stderr", "-p", dir, "-c", file, "-g", "pid " + filepath.Join(dir, "pid") + "; daemon off; master_process off;"}
	if out, err := command(t, nil, "nginx", append([]string{"-t"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("nginx -t: %v\n%s", err, out)
	}
	b.run(t, command(t, nil, "nginx", args...))
	return b
}

// command is a program that ends with the test at the latest.
func command(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/"} { // not in everybody's PATH
		if path, err := exec.LookPath(dir + name); err == nil {
			cmd := exec.CommandContext(t.Context(), path, args...)
			cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, env...)
			return cmd
		}
	}
	t.Fatalf("%s is needed for this test (scripts/install.sh installs it)", name)
	return nil
}

func (b *balancer) run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out := new(syncBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails when it has ended already
		<-ended
		if t.Failed() {
			t.Logf("log of the balancer:\n%s", out)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var d net.Dialer
		if c, err := d.DialContext(t.Context(), "tcp", b.addr); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen:\n%s", cmd.Path, out)
		}
	}
}

func (b *balancer) https() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: b.Roots, MinVersion: tls.VersionTLS12},
	}}
}

// through is the node as clients of the balancer see it.
func (b *balancer) through(n *node) *node {
	front := *n
	front.url, front.roots = "wss://"+b.addr+"/xmpp-websocket", b.Roots
	return &front
}

func (n *node) backend() backend { return backend{n.cfg.Listen, n.cfg.AdminListen} }

// What a stranger says about where it comes from does not reach the gateways, and what they need does.
func TestBalancersForward(t *testing.T) {
	for name, start := range map[string]func(*testing.T, backend, backend) *balancer{"haproxy": startHAProxy, "nginx": startNginx} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan *http.Request, 10)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r
				if r.Header.Get("X-Say") != "" {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			}))
			defer front.Close()
			ready := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer ready.Close()
			here := backend{front.Listener.Addr().String(), ready.Listener.Addr().String()}
			b := start(t, here, here)
			ask := func(method, path, say string) int {
				req, err := http.NewRequestWithContext(t.Context(), method, "https://"+b.addr+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "xmpp.example.com"
				for _, h := range []string{"X-Forwarded-For", "Forwarded", "X-Forwarded-Proto"} {
					req.Header.Set(h, "for=203.0.113.9")
				}
				if say != "" {
					req.Header.Set("X-Say", say)
				}
				resp, err := b.https().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			for _, path := range []string{"/xmpp-websocket", "/http-bind", "/.well-known/host-meta"} {
				ask(http.MethodGet, path, "")
				h := <-seen
				if got := h.Header["X-Forwarded-For"]; len(got) != 1 || got[0] != "127.0.0.1" {
					t.Errorf("%s: X-Forwarded-For: %q", path, got)
				}
				if got := h.Header["X-Forwarded-Proto"]; len(got) != 1 || got[0] != "https" {
					t.Errorf("%s: X-Forwarded-Proto: %q", path, got)
				}
				if got := h.Header["Forwarded"]; len(got) != 0 {
					t.Errorf("%s: Forwarded: %q", path, got)
				}
				if h.Host != "xmpp.example.com" || h.URL.Path != path {
					t.Errorf("%s: %s of %s", path, h.URL, h.Host)
				}
			}
			// What may have been carried out is not asked for a second time: the client does that, by its rid.
			if status := ask(http.MethodPost, "/http-bind", "503"); status != http.StatusServiceUnavailable {
				t.Errorf("a refused request of BOSH: %d", status)
			}
			if n := len(seen); n != 1 {
				t.Errorf("a request of BOSH was made %d times", n)
			}
		})
	}
}

// Clients come through the balancer to either gateway, and resume on the other when theirs goes away.
func TestBalancersWithCluster(t *testing.T) {
	for name, start := range map[string]func(*testing.T, backend, backend) *balancer{"haproxy": startHAProxy, "nginx": startNginx} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"REDIS_URL": redisproc.Standalone(t).URL(), "DATABASE_URL": postgresproc.New(t)}
			one, two := startNode(t, t.TempDir(), env), startNode(t, t.TempDir(), env)
			one.addUsers("alice", "bob")
			b := start(t, one.backend(), two.backend())
			front := b.through(one)
			alice, bob := front.managed("alice", ""), front.managed("bob", "")
			bob.available()
			alice.chat("bob@localhost", "one")
			if got := bob.bodies(1); got[0] != "one" {
				t.Errorf("bob got %q", got)
			}
			alice.acked(1)

			// Whoever was there: both are told to come back, or stay.
			one.stop()
			at := func(user string, c *client) *client {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				if err := c.Write(ctx, "<r xmlns='"+xmppclient.NSSM+"'/>"); err == nil {
					for {
						e, err := c.Read(ctx)
						if err != nil {
							break
						}
						if e.Stanza() {
							c.in++
						}
						if e.Is(xmppclient.NSSM, "a") {
							return c
						}
					}
				}
				back, e := front.resume(user, c)
				if !e.Is(xmppclient.NSSM, "resumed") {
					t.Fatalf("%v in answer to <resume/>", e)
				}
				return back
			}
			alice, bob = at("alice", alice), at("bob", bob)
			alice.chat("bob@localhost", "two")
			if got := bob.bodies(1); got[0] != "two" {
				t.Errorf("bob got %q", got)
			}
		})
	}
}

// HAProxy says in one place whether clients can be served.
func TestHAProxyHealth(t *testing.T) {
	n := startNode(t, t.TempDir(), nil)
	b := startHAProxy(t, n.backend(), backend{freeport.Addr(t), freeport.Addr(t)})
	status := func() int {
		resp, err := plainHTTP.Get("http://" + b.health + "/")
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	n.await("served", func() bool { return status() == http.StatusOK })
	// One of two is dead, and every login comes to the other.
	n.addUsers("alice")
	for range 4 {
		b.through(n).bound("alice").Abort()
	}
	n.stop()
	for deadline := time.Now().Add(patience); status() != http.StatusServiceUnavailable; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the gateway is gone, and HAProxy does not say so")
		}
	}
}

// Balancers leave a silent client to the gateway, which pings it.
func TestBalancerTimeouts(t *testing.T) {
	cfg := defaultConfig()
	silent := cfg.WS.PingInterval + cfg.WS.PingTimeout
	const wait = time.Minute // of BOSH, commonly
	for _, c := range []struct {
		file, directive string
		above           time.Duration
	}{
		{"deploy/haproxy/haproxy.cfg", "timeout tunnel +", silent},
		{"deploy/nginx/nginx.conf", "proxy_read_timeout +", max(silent, wait)},
		{"deploy/kubernetes/ingress.yaml", `proxy-read-timeout: "`, max(silent, wait)},
		{"deploy/kubernetes/ingress.yaml", "timeout-server: ", wait},
	} {
		found := regexp.MustCompile(`(?m)^\s*\S*`+c.directive+`([0-9]+)`).FindAllStringSubmatch(readFile(t, c.file), -1)
		if len(found) == 0 {
			t.Errorf("%s: no %s", c.file, c.directive)
		}
		for _, m := range found {
			if got, err := time.ParseDuration(m[1] + "s"); err != nil || got <= c.above {
				t.Errorf("%s: %s%s is not above %v", c.file, c.directive, m[1], c.above)
			}
		}
	}
}
