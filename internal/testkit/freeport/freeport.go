// Package freeport finds ports for the servers that tests and benchmarks start.
//
// They are below the kernel's range for outgoing connections, one of which could take a port while its server is down. A
// port belongs to the process that took it until that ends, so tests that run at the same time do not get in each other's
// way between the search and the start of a server.
package freeport

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

const first, end = 11_000, 32_700

var (
	mu    sync.Mutex
	last  = os.Getpid() * 7919 % (end - first)
	taken [end - first]bool
	marks []net.Listener // keep other processes of tests from taking them
)

// Take returns a port of 127.0.0.1 on which nobody listens.
func Take() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range taken {
		last = (last + 1) % len(taken)
		if port := first + last; !taken[last] && free(port) {
			taken[last] = true
			return port, nil
		}
	}
	return 0, errors.New("no free port")
}

// TakeAddr returns 127.0.0.1 with such a port.
func TakeAddr() (string, error) {
	port, err := Take()
	return local(port), err
}

// Addr is TakeAddr for a test.
func Addr(t testing.TB) string {
	t.Helper()
	addr, err := TakeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func free(port int) bool {
	var mark net.Listener
	if runtime.GOOS == "linux" { // elsewhere a socket's name is a file's
		var err error
		if mark, err = listen("unix", "@holdfast-test-port-"+strconv.Itoa(port)); err != nil {
			return false
		}
	}
	l, err := listen("tcp", local(port))
	if err != nil {
		if mark != nil {
			_ = mark.Close()
		}
		return false
	}
	_ = l.Close()
	if mark != nil {
		marks = append(marks, mark)
	}
	return true
}

func listen(network, addr string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), network, addr)
}
