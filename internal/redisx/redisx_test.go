package redisx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"holdfast/internal/redisx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

func withURL(url string) redisx.Config {
	cfg := redisx.DefaultConfig()
	cfg.URL = redisx.URL(url)
	return cfg
}

func TestOpen(t *testing.T) {
	for _, url := range []string{
		"redis://127.0.0.1:6379", "redis://:pass@localhost:1/3", "rediss://u:p@[::1]:6379/",
		"redis+cluster://a:1", "rediss+cluster://u:p@a:1,b:2/", "redis+sentinel://a:1,b:2/main", "rediss+sentinel://u:p@a:1/main/2",
	} {
		cfg := withURL(url)
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		c, err := redisx.Open(cfg, discard)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		_, isCluster := c.(*redis.ClusterClient)
		if isCluster != strings.Contains(url, "cluster") {
			t.Errorf("%s opens a %T", url, c)
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestOptions(t *testing.T) {
	c, err := redisx.Open(withURL("rediss://us%40er:p%2Fa%3Ass@host.example:6380/7"), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	o := c.(*redis.Client).Options()
	if o.Addr != "host.example:6380" || o.Username != "us@er" || o.Password != "p/a:ss" || o.DB != 7 || o.TLSConfig == nil {
		t.Errorf("%s %s %s %d %v", o.Addr, o.Username, o.Password, o.DB, o.TLSConfig)
	}
	cl, err := redisx.Open(withURL("redis+cluster://:p@a:1,b:2"), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if o := cl.(*redis.ClusterClient).Options(); !slices.Equal(o.Addrs, []string{"a:1", "b:2"}) || o.Password != "p" || o.TLSConfig != nil {
		t.Errorf("%v %s", o.Addrs, o.Password)
	}
}

func TestWrongSettings(t *testing.T) {
	for _, url := range []string{
		"localhost:6379", "http://a:1", "redis://a", "redis://a:1,b:2", "redis://a:1/x", "redis://a:1/-1", "redis+cluster://a:1/2",
		"redis+sentinel://a:1", "redis+sentinel://a:1/m/x", "redis://", "redis://u:%zz@a:1", "redis+cluster://a:1,",
	} {
		err := withURL(url).Validate()
		if err == nil || !strings.Contains(err.Error(), "REDIS_URL") {
			t.Errorf("%s: %v", url, err)
		}
		if _, err := redisx.Open(withURL(url), discard); err == nil {
			t.Errorf("%s was opened", url)
		}
	}
	if err := withURL("redis://u:secret@a").Validate(); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("says %v", err)
	}
	for name, change := range map[string]func(*redisx.Config){
		"REDIS_PREFIX":        func(c *redisx.Config) { c.Prefix = "a{b}" },
		"REDIS_WAIT_REPLICAS": func(c *redisx.Config) { c.WaitReplicas = -1 },
		"REDIS_WAIT_TIMEOUT":  func(c *redisx.Config) { c.WaitReplicas, c.WaitTimeout = 1, c.Timeout },
		"REDIS_TIMEOUT":       func(c *redisx.Config) { c.Timeout = 0 },
		"REDIS_CONNS":         func(c *redisx.Config) { c.Conns = 1 },
	} {
		cfg := redisx.DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := redisx.DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

// `gateway config` prints every setting with fmt.
func TestSecretsAreNotPrinted(t *testing.T) {
	for url, want := range map[string]string{
		"":                                 "",
		"redis://a:1":                      "redis://a:1",
		"redis://user@a:1":                 "redis://user@a:1",
		"redis://user:pa@ss@a:1/2":         "redis://user:***@a:1/2",
		"redis+sentinel://:pass@a:1,b:2/m": "redis+sentinel://:***@a:1,b:2/m",
	} {
		u := redisx.URL(url)
		text, err := u.MarshalText()
		if got := fmt.Sprint(u); got != want || string(text) != want || err != nil {
			t.Errorf("%s prints as %s and %s", url, got, text)
		}
	}
	if got := fmt.Sprintf("%v|%v", redisx.Secret("x"), redisx.Secret("")); got != "***|" {
		t.Errorf("secrets print as %q", got)
	}
}

func TestKeys(t *testing.T) {
	k := withURL("").Keys()
	for got, want := range map[string]string{
		k.Node("abc", "journal"): "holdfast:{n:abc}:journal",
		k.Home("bob@localhost"):  "holdfast:{h:bob@localhost}",
		k.Nodes():                "holdfast:nodes",
		k.Ended("token"):         "holdfast:{e:token}",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// refusal is an error as Redis answers it.
type refusal string

func (r refusal) Error() string { return string(r) }
func (refusal) RedisError()     {}

func TestUnavailable(t *testing.T) {
	for _, err := range []error{
		io.EOF, context.DeadlineExceeded, &net.OpError{Op: "dial", Err: errors.New("connection refused")}, redis.ErrPoolTimeout,
		refusal("LOADING Redis is loading the dataset in memory"), refusal("CLUSTERDOWN The cluster is down"),
		refusal("READONLY You can't write against a read only replica."), refusal("MASTERDOWN Link with MASTER is down"),
		refusal("TRYAGAIN Multiple keys request during rehashing of slot"), refusal("BUSY Redis is busy running a script."),
		refusal("OOM command not allowed when used memory > 'maxmemory'."), errors.New("redis: cluster has no nodes"),
	} {
		if !redisx.Unavailable(err) || !redisx.Unavailable(fmt.Errorf("wrapped: %w", err)) {
			t.Errorf("%v is for good", err)
		}
	}
	for _, err := range []error{
		nil, redis.Nil, context.Canceled, redis.ErrClosed, errors.New("something else"), refusal("WRONGTYPE Operation against a key"),
		refusal("NOAUTH Authentication required."), refusal("BUSYGROUP Consumer Group name already exists"), refusal("ERR syntax error"),
	} {
		if redisx.Unavailable(err) {
			t.Errorf("%v passes", err)
		}
	}
}

// A server that is not there is told about at once, not after many tries.
func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, url := range []string{"redis://" + addr, "redis+cluster://" + addr, "redis+sentinel://" + addr + "/m"} {
		ping := func() time.Duration {
			c, err := redisx.Open(withURL(url), discard)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			start := time.Now()
			if err := c.Ping(t.Context()).Err(); !redisx.Unavailable(err) {
				t.Errorf("%s: %v", url, err)
			}
			return time.Since(start)
		}
		took := ping()
		for tries := 1; took > time.Second && tries < 3; tries++ { // the machine may have been busy
			took = ping()
		}
		if took > time.Second {
			t.Errorf("%s: took %v", url, took)
		}
	}
}

func TestScript(t *testing.T) {
	files := fstest.MapFS{"scripts/one.lua": {Data: []byte("return 1")}}
	if got, want := redisx.Script(files, "one").Hash(), redis.NewScript("return 1").Hash(); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	defer func() {
		if recover() == nil {
			t.Error("a script that is not there")
		}
	}()
	redisx.Script(files, "two")
}
