package redisproc

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	sharedMu      sync.Mutex
	sharedServer  *Server
	sharedCluster *Cluster
)

// Shared is the one server that the tests of a binary share. Its tests use a Prefix each.
func Shared(t testing.TB) *Server {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedServer == nil {
		s, err := start("redis", nil)
		if err != nil {
			t.Fatal(err)
		}
		sharedServer = s
	}
	return sharedServer
}

// SharedCluster is the one Redis Cluster that the tests of a binary share. Its tests use a Prefix each.
func SharedCluster(t testing.TB) *Cluster {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedCluster == nil {
		c, err := startCluster()
		if err != nil {
			t.Fatal(err)
		}
		sharedCluster = c
	}
	return sharedCluster
}

var prefixes atomic.Int64

// Prefix is a REDIS_PREFIX that no other call returns.
func Prefix() string { return fmt.Sprintf("t%d-%d:", os.Getpid(), prefixes.Add(1)) }

// M is a testing.M that ends the shared servers when the tests are done: goleak.VerifyTestMain(redisproc.M{M: m}).
type M struct{ *testing.M }

// Run runs the tests.
func (m M) Run() int {
	defer func() {
		sharedMu.Lock()
		defer sharedMu.Unlock()
		if sharedServer != nil {
			sharedServer.discard(nil)()
		}
		if sharedCluster != nil {
			sharedCluster.discard(nil)()
		}
	}()
	return m.M.Run()
}
