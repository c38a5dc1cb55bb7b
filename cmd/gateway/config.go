package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"holdfast/auth"
	"holdfast/bosh"
	"holdfast/cluster"
	"holdfast/internal/proxy"
	"holdfast/internal/redisx"
	"holdfast/internal/sqlx"
	"holdfast/muc"
	"holdfast/offline"
	"holdfast/packetcache"
	"holdfast/receipts"
	"holdfast/resume"
	"holdfast/roster"
	"holdfast/session"
	"holdfast/stanza"
	"holdfast/webclient"
	"holdfast/ws"
)

const prefix = "HOLDFAST_"

// Config is all that an operator sets. Each room owns its part.
type Config struct {
	Listen       string        `env:"LISTEN" desc:"address and port for clients: /xmpp-websocket, /http-bind, host-meta and the web client"`
	AdminListen  string        `env:"ADMIN_LISTEN" desc:"address and port for /metrics, /healthz and /readyz; keep it private"`
	Domains      []string      `env:"DOMAINS" desc:"comma-separated XMPP domains; the first is the default"`
	TLSCert      string        `env:"TLS_CERT" desc:"file with the certificate chain (PEM), read again when it changes; empty: plain, behind a balancer"`
	TLSKey       string        `env:"TLS_KEY" desc:"file with its private key (PEM)"`
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT" desc:"how long clients may take to be sent away at the end, after which the process ends all the same"`
	ReadyDelay   time.Duration `env:"READY_DELAY" desc:"how long /readyz says no before the clients are sent away at the end, for balancers to notice; 0 does not wait"`
	LogLevel     slog.Level    `env:"LOG_LEVEL" desc:"debug, info, warn or error"`
	LogFormat    string        `env:"LOG_FORMAT" desc:"text or json"`
	Profile      bool          `env:"PROFILE" desc:"true serves /debug/pprof on the admin address"`
	DatabaseURL  sqlx.URL      `env:"DATABASE_URL" desc:"where accounts, rosters, offline messages and rooms are kept: sqlite: (in the data directory, as when it is empty), sqlite:DIRECTORY, or postgres://user:password@host:port/database, which the gateways of a cluster share"`

	Proxy       proxy.Config
	WS          ws.Config
	BOSH        bosh.Config
	Auth        auth.Config
	Session     session.Config
	Receipts    receipts.Config
	PacketCache packetcache.Config
	Offline     offline.Config
	Roster      roster.Config
	MUC         muc.Config
	Resume      resume.Config
	ResumeRedis resume.RedisConfig
	Redis       redisx.Config
	Cluster     cluster.Config
	SQLite      sqlx.Config
	Database    sqlx.PostgresConfig
	WebClient   webclient.Config
}

func defaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:5280", AdminListen: "127.0.0.1:9280", Domains: []string{"localhost"},
		DrainTimeout: 20 * time.Second, LogFormat: "text",
		Proxy: proxy.DefaultConfig(), WS: ws.DefaultConfig(), BOSH: bosh.DefaultConfig(), Auth: auth.DefaultConfig(), Session: session.DefaultConfig(),
		Receipts: receipts.DefaultConfig(), PacketCache: packetcache.DefaultConfig(), Offline: offline.DefaultConfig(),
		Roster: roster.DefaultConfig(), MUC: muc.DefaultConfig(), Resume: resume.DefaultConfig(),
		ResumeRedis: resume.DefaultRedisConfig(), Redis: redisx.DefaultConfig(), Cluster: cluster.DefaultConfig(), SQLite: sqlx.DefaultConfig(),
		Database: sqlx.DefaultPostgresConfig(), WebClient: webclient.DefaultConfig(),
	}
}

// loadConfig reads the environment. Its errors name the variable.
func loadConfig(environ []string) (Config, error) {
	cfg := defaultConfig()
	vars := make(map[string]string)
	known := make(map[string]bool)
	for _, s := range settings(&cfg) {
		known[s.name] = true
	}
	var unknown []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if !known[name] {
			unknown = append(unknown, name)
		}
		vars[name] = value
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return cfg, fmt.Errorf("unknown settings: %s (`gateway config` lists those there are)", strings.Join(unknown, ", "))
	}
	if err := env.ParseWithOptions(&cfg, env.Options{Prefix: prefix, Environment: vars}); err != nil {
		return cfg, wrongSetting(vars, err)
	}
	return cfg, cfg.validate()
}

// wrongSetting finds the variable that a parser's error is about, which knows only the field.
func wrongSetting(vars map[string]string, err error) error {
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		cfg := defaultConfig()
		if err := env.ParseWithOptions(&cfg, env.Options{Prefix: prefix, Environment: map[string]string{name: vars[name]}}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return fmt.Errorf("settings: %w", err)
}

func (c *Config) validate() error {
	if _, err := c.domains(); err != nil {
		return err
	}
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New(prefix + "TLS_CERT and " + prefix + "TLS_KEY go together")
	case c.LogFormat != "text" && c.LogFormat != "json":
		return fmt.Errorf(prefix+"LOG_FORMAT: %q is neither text nor json", c.LogFormat)
	case c.DrainTimeout < time.Second:
		return fmt.Errorf(prefix+"DRAIN_TIMEOUT: %v is less than 1s", c.DrainTimeout)
	case c.Redis.URL != "" && !c.DatabaseURL.Postgres():
		return errors.New(prefix + "REDIS_URL needs " + prefix + "DATABASE_URL=postgres://…: with SQLite each gateway of the cluster would have accounts, rosters and offline messages of its own")
	case c.Session.DrainSpread >= c.DrainTimeout:
		return fmt.Errorf(prefix+"DRAIN_SPREAD: %v is not less than "+prefix+"DRAIN_TIMEOUT=%v", c.Session.DrainSpread, c.DrainTimeout)
	case c.ReadyDelay < 0:
		return fmt.Errorf(prefix+"READY_DELAY: %v is negative", c.ReadyDelay)
	}
	for _, part := range []interface{ Validate() error }{
		c.Proxy, c.WS, c.BOSH, c.Auth, c.Session, c.Receipts, c.PacketCache, c.Offline, c.Roster, c.MUC, c.Resume, c.ResumeRedis, c.Redis, c.Cluster,
		c.SQLite, c.DatabaseURL, c.postgres(),
	} {
		if err := part.Validate(); err != nil {
			return fmt.Errorf(prefix+"%w", err)
		}
	}
	if most := c.largestMessage(); c.WS.MaxMessage > most || most <= 0 {
		return fmt.Errorf(prefix+"WS_MAX_MESSAGE: %d does not fit into a journal segment; at most %d with "+prefix+"JOURNAL_SEGMENT=%d",
			c.WS.MaxMessage, max(most, 0), c.Resume.Segment)
	}
	if most := c.largestMessage(); c.BOSH.MaxBody > most {
		return fmt.Errorf(prefix+"BOSH_MAX_BODY: %d does not fit into a journal segment; at most %d with "+prefix+"JOURNAL_SEGMENT=%d",
			c.BOSH.MaxBody, most, c.Resume.Segment)
	}
	return nil
}

// postgres is the settings of the PostgreSQL database, with an empty URL when there is none.
func (c *Config) postgres() sqlx.PostgresConfig {
	p := c.Database
	if c.DatabaseURL.Postgres() {
		p.URL = string(c.DatabaseURL)
	}
	return p
}

// largestMessage is what a journal segment holds with all that the gateway adds to it.
func (c *Config) largestMessage() int {
	const added = 64 << 10
	return int(c.Resume.Segment) - added
}

func (c *Config) domains() ([]stanza.Addr, error) {
	var all []stanza.Addr
	for _, d := range c.Domains {
		addr, err := stanza.ParseAddr(strings.TrimSpace(d))
		if err != nil || addr.Local() != "" || addr.Resource() != "" {
			return nil, fmt.Errorf(prefix+"DOMAINS: %q is not a domain", d)
		}
		all = append(all, addr)
	}
	if len(all) == 0 {
		return nil, errors.New(prefix + "DOMAINS: at least one domain is needed")
	}
	return all, nil
}

// setting is one variable.
type setting struct{ name, value, desc string }

// settings lists all variables with their values, in the order of the struct.
func settings(cfg *Config) []setting {
	var all []setting
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := f.Tag.Get("env")
			switch {
			case name == "-" || !f.IsExported():
			case name != "":
				all = append(all, setting{prefix + name, show(v.Field(i)), f.Tag.Get("desc")})
			case f.Type.Kind() == reflect.Struct:
				walk(v.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(cfg).Elem())
	return all
}

// show prints a value as the variable would be set.
func show(v reflect.Value) string {
	if v.Kind() == reflect.Slice {
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = show(v.Index(i))
		}
		return strings.Join(parts, ",")
	}
	if l, ok := v.Interface().(slog.Level); ok {
		return strings.ToLower(l.String())
	}
	return fmt.Sprint(v.Interface())
}

// runConfig is `gateway config`.
func runConfig(args []string, cfg *Config, out *os.File) {
	if len(args) > 0 && args[0] == "--markdown" {
		def := defaultConfig()
		fmt.Fprintln(out, "| variable | default | meaning |\n|---|---|---|")
		for _, s := range settings(&def) {
			value := "`" + s.value + "`"
			if s.value == "" {
				value = "empty"
			}
			fmt.Fprintf(out, "| `%s` | %s | %s |\n", s.name, value, strings.ReplaceAll(s.desc, "|", "\\|"))
		}
		return
	}
	for _, s := range settings(cfg) {
		fmt.Fprintf(out, "%s=%s\n", s.name, s.value)
	}
}
