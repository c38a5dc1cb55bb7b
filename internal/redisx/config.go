package redisx

import (
	"fmt"
	"strings"
	"time"
)

// Config says where Redis is and how long it may take.
type Config struct {
	URL              URL           `env:"REDIS_URL" desc:"Redis, which makes several gateways a cluster; empty: one machine. redis://[user:password@]host:port[/db], redis+cluster://host:port,host:port or redis+sentinel://[user:password@]host:port,host:port/master[/db]; rediss for TLS"`
	SentinelPassword Secret        `env:"REDIS_SENTINEL_PASSWORD" desc:"password of the Sentinels themselves"`
	Prefix           string        `env:"REDIS_PREFIX" desc:"what the names of all keys begin with; clusters of gateways that share one Redis need different ones"`
	WaitReplicas     int           `env:"REDIS_WAIT_REPLICAS" desc:"replicas that must have a record before it counts as safe, so that a failover loses nothing; 0 does not wait for them"`
	WaitTimeout      time.Duration `env:"REDIS_WAIT_TIMEOUT" desc:"how long one wait for replicas may take before it is begun again; less than REDIS_TIMEOUT"`
	Timeout          time.Duration `env:"REDIS_TIMEOUT" desc:"how long connecting to Redis, sending a command or waiting for its reply may take, each"`
	Conns            int           `env:"REDIS_CONNS" desc:"connections to each server of Redis, at least 4"`
}

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config {
	return Config{Prefix: "holdfast:", WaitTimeout: time.Second, Timeout: 3 * time.Second, Conns: 16}
}

// Validate names the first variable that has a value it does not accept.
func (c Config) Validate() error {
	if c.URL != "" {
		if _, err := parse(string(c.URL)); err != nil {
			return fmt.Errorf("REDIS_URL: %w", err)
		}
	}
	switch {
	case strings.ContainsAny(c.Prefix, "{} \t\r\n*?[]"):
		return fmt.Errorf("REDIS_PREFIX: %q has one of the characters {}*?[] or a space", c.Prefix)
	case c.WaitReplicas < 0:
		return fmt.Errorf("REDIS_WAIT_REPLICAS: %d is negative", c.WaitReplicas)
	case c.Timeout < 10*time.Millisecond:
		return fmt.Errorf("REDIS_TIMEOUT: %v is less than 10ms", c.Timeout)
	case c.WaitReplicas > 0 && (c.WaitTimeout < time.Millisecond || c.WaitTimeout >= c.Timeout):
		return fmt.Errorf("REDIS_WAIT_TIMEOUT: %v is not between 1ms and REDIS_TIMEOUT=%v", c.WaitTimeout, c.Timeout)
	case c.Conns < 4:
		return fmt.Errorf("REDIS_CONNS: %d is less than 4", c.Conns)
	}
	return nil
}

// Keys returns the names of the keys of this cluster of gateways.
func (c Config) Keys() Keys { return Keys{Prefix: c.Prefix} }

// Secret is a value that is not printed.
type Secret string

// String hides the value, but not whether there is one.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// MarshalText hides the value from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
