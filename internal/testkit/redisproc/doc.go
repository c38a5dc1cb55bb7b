// Package redisproc runs redis-server for tests: one server, a Redis Cluster of three, or a primary with a replica and
// a Sentinel, each on free ports of 127.0.0.1 with directories of their own. They can be killed, started again on the
// same port and data, and paused. A machine without redis-server fails the test.
//
// Ordinary tests share one server, or one cluster, for the whole test binary (Shared, SharedCluster) and keep apart by
// the prefixes of their keys (Prefix); M ends what is shared when the tests are done. Only processes that were started
// here are ended, by their ids, and the kernel ends them when the test binary dies.
package redisproc
