//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"holdfast/bench"
	"holdfast/bench/relay"
)

// relayVariable makes this program serve the relay at the address that it names, so that a run needs no other binary.
const relayVariable = "BENCH_SERVE_RELAY"

func serveRelay() (served bool, err error) {
	listen := os.Getenv(relayVariable)
	if listen == "" {
		return false, nil
	}
	mux := http.NewServeMux()
	mux.Handle("/relay", relay.New())
	mux.Handle("/poll", relay.NewPoll())
	server := &http.Server{Addr: listen, Handler: mux, ReadHeaderTimeout: 30 * time.Second}
	return true, server.ListenAndServe()
}

// process is a server under load.
type process struct {
	cmd    *exec.Cmd
	log    string // file with what it wrote
	exited chan struct{}
}

// environment is this process's without what would tune one of the servers.
func environment(more ...string) []string {
	all := slices.DeleteFunc(os.Environ(), func(v string) bool {
		for _, prefix := range []string{"HOLDFAST_", "GOGC=", "GOMEMLIMIT=", "GOMAXPROCS=", "GODEBUG="} {
			if strings.HasPrefix(v, prefix) {
				return true
			}
		}
		return false
	})
	return append(all, more...)
}

// onCores runs start from a thread that is bound to cores, which the process that it starts is then, too. Without
// cores nothing is bound.
func onCores(cores []int, start func() error) error {
	if len(cores) == 0 {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := bench.Cores()
	if err != nil {
		return err
	}
	if err := bench.Pin(cores...); err != nil {
		return err
	}
	return errors.Join(start(), bench.Pin(own...))
}

// launch starts a program and waits until it takes connections.
func launch(name, dir string, cores []int, env []string, listen, path string) (*process, error) {
	p := &process{log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer log.Close()
	p.cmd = exec.Command(path)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := onCores(cores, p.cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended stands in its log
		close(p.exited)
	}()
	for until := time.Now().Add(15 * time.Second); time.Now().Before(until); {
		if conn, err := net.DialTimeout("tcp", listen, time.Second); err == nil {
			conn.Close()
			return p, nil
		}
		select {
		case <-p.exited:
			return nil, fmt.Errorf("%s ended at once: %s", name, p.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
	p.stop()
	return nil, fmt.Errorf("%s does not listen on %s: %s", name, listen, p.tail())
}

// tail is the end of what the process wrote.
func (p *process) tail() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-1000):])
}

// stop asks the process to end, and makes it.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}
