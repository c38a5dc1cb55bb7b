package haproxyproc

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/internal/testkit/freeport"
)

// startTime is how long HAProxy may take to listen.
const startTime = 20 * time.Second

// Backend is one gateway: where its clients connect, and where it answers /readyz.
type Backend struct{ Clients, Admin string }

// Proxy is one HAProxy on one port.
type Proxy struct {
	*Authority

	addr   string
	config string
	log    output
	proc   *os.Process
	exited chan struct{} // closed when proc has ended
}

// Start runs HAProxy on a free port of 127.0.0.1 in front of the backends, which need not run yet, until the test ends.
func Start(t testing.TB, backends ...Backend) *Proxy {
	t.Helper()
	p, err := start(t.TempDir(), backends)
	if err != nil {
		t.Fatalf("haproxyproc: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of HAProxy's log:\n%s", p.log.tail(20))
		}
		p.stop()
	})
	return p
}

// Addr is where clients connect with TLS.
func (p *Proxy) Addr() string { return p.addr }

func start(dir string, backends []Backend) (*Proxy, error) {
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, fmt.Errorf("haproxy is needed for this test: %w (scripts/install.sh installs it)", err)
	}
	p := &Proxy{config: filepath.Join(dir, "haproxy.cfg")}
	if p.Authority, err = newAuthority(dir); err != nil {
		return nil, err
	}
	cert, err := p.server()
	if err != nil {
		return nil, err
	}
	// Another process may take the port between the search and the start.
	for range 5 {
		if p.addr, err = freeport.TakeAddr(); err != nil {
			return nil, err
		}
		if err = os.WriteFile(p.config, []byte(configuration(p.addr, cert, backends)), 0o600); err != nil {
			return nil, err
		}
		if err = p.run(binary); err == nil {
			return p, nil
		}
	}
	return nil, err
}

// configuration is as in deploy/, with checks that are quick enough for a test. A gateway that is stopped takes
// connections and does not answer, which a retry gets over as it does over a dead one.
func configuration(addr, cert string, backends []Backend) string {
	var b strings.Builder
	fmt.Fprintf(&b, `global
	maxconn 2000
	nbthread 1
	log stdout format raw local0 info

defaults
	mode http
	log global
	timeout connect 1s
	timeout client 60s
	timeout server 2s
	timeout tunnel 10m
	timeout check 1s
	retries 4
	option redispatch 1
	option dontlog-normal

frontend clients
	bind %s ssl crt %s alpn http/1.1
	option forwardfor
	http-request del-header Forwarded
	http-request set-header X-Forwarded-Proto https
	default_backend gateways

backend gateways
	balance roundrobin
	option httpchk GET /readyz
	http-check expect status 200
	retry-on conn-failure empty-response response-timeout 503
	default-server check inter 200ms fall 1 rise 1
`, addr, cert)
	for i, g := range backends {
		_, port, _ := net.SplitHostPort(g.Admin)
		fmt.Fprintf(&b, "\tserver gateway%d %s port %s\n", i, g.Clients, port)
	}
	return b.String()
}

func (p *Proxy) run(binary string) error {
	cmd := exec.Command(binary, "-db", "-f", p.config) //nolint:noctx // ended by stop
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		// The signal comes when the thread that started the process ends, so this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is gone, that is enough
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.proc, p.exited = cmd.Process, exited
	late := time.After(startTime)
	for {
		c, err := net.DialTimeout("tcp", p.addr, time.Second) //nolint:noctx // bounded
		if err == nil {
			return c.Close()
		}
		select {
		case <-exited:
			return fmt.Errorf("haproxy ended: %v\n%s", cmd.ProcessState, p.log.tail(20))
		case <-late:
			p.stop()
			return fmt.Errorf("haproxy does not listen: %w\n%s", err, p.log.tail(20))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (p *Proxy) stop() {
	_ = p.proc.Kill() // fails when it has ended already
	<-p.exited
}

// TLS is what a Go client of the proxy needs.
func (p *Proxy) TLS() *tls.Config { return &tls.Config{RootCAs: p.Roots, MinVersion: tls.VersionTLS12} }

// output keeps the end of what HAProxy says.
type output struct {
	mu sync.Mutex
	b  []byte
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, b...)
	if most := 64 << 10; len(o.b) > most {
		o.b = append(o.b[:0], o.b[len(o.b)-most/2:]...)
	}
	return len(b), nil
}

func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(o.b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
