package redisx

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// What the library would print by itself comes back as the errors of commands, and who sent them logs it. Its logger is
// global, and setting it while a client runs would be a race.
func init() { logging.Disable() }

// Open returns the client for cfg.URL. It connects when it is first used. Close it.
func Open(cfg Config, log *slog.Logger) (redis.UniversalClient, error) {
	l, err := parse(string(cfg.URL))
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	opts := &redis.UniversalOptions{
		Addrs: l.addrs, Username: l.user, Password: l.password, DB: l.db,
		MasterName: l.master, SentinelPassword: string(cfg.SentinelPassword),
		IsClusterMode: l.mode == cluster,
		ClientName:    "holdfast",
		// One attempt to dial, and one repetition of a command: who must not give up has a loop of its own, and
		// should hear early that something is wrong.
		DialerRetries: 1, MaxRetries: 1, MinRetryBackoff: 5 * time.Millisecond, MaxRetryBackoff: 50 * time.Millisecond,
		DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout, PoolTimeout: cfg.Timeout,
		ContextTimeoutEnabled: true,
		PoolSize:              cfg.Conns, PipelinePoolSize: -1,
		// A server of a Redis Cluster that failed is tried again this soon, in whole seconds.
		FailingTimeoutSeconds: 1,
		// Neither is known to the older servers that are supported.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if l.tls {
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	log.Info("using redis", "url", cfg.URL.String(), "wait_replicas", cfg.WaitReplicas)
	return redis.NewUniversalClient(opts), nil
}

// Script returns scripts/<name>.lua of a package's embedded files. It is for package variables, and panics when the
// file is not there.
func Script(files fs.FS, name string) *redis.Script {
	src, err := fs.ReadFile(files, "scripts/"+name+".lua")
	if err != nil {
		panic(errors.Join(errors.New("redisx: script not embedded"), err))
	}
	return redis.NewScript(string(src))
}
