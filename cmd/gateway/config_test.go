package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestEverySettingIsDescribed(t *testing.T) {
	cfg := defaultConfig()
	name := regexp.MustCompile(`^HOLDFAST_[A-Z][A-Z0-9_]*$`)
	seen := make(map[string]bool)
	for _, s := range settings(&cfg) {
		if !name.MatchString(s.name) {
			t.Errorf("%s is no name for a setting", s.name)
		}
		if seen[s.name] {
			t.Errorf("%s is there twice", s.name)
		}
		seen[s.name] = true
		if len(s.desc) < 10 {
			t.Errorf("%s has the description %q", s.name, s.desc)
		}
		if strings.ContainsAny(s.desc+s.value, "\n\r") {
			t.Errorf("%s does not fit on a line", s.name)
		}
	}
	if len(seen) < 50 {
		t.Errorf("only %d settings were found", len(seen))
	}
}

// The names and defaults that the design fixes.
func TestFixedDefaults(t *testing.T) {
	want := map[string]string{
		"LISTEN": "127.0.0.1:5280", "ADMIN_LISTEN": "127.0.0.1:9280", "DOMAINS": "localhost", "DATA_DIR": "./data",
		"TLS_CERT": "", "TLS_KEY": "", "TRUSTED_PROXIES": "127.0.0.0/8,::1/128", "ORIGINS": "", "REGISTRATION": "off",
		"RESUME_TIMEOUT": "10m0s", "SETTLE_WINDOW": "50ms", "PACKETCACHE_TIMEOUT": "30s",
		"DATABASE_URL": "", "PACKETCACHE_ACTIONS": "resend,offline", "OFFLINE_LIMIT": "100", "REGISTRATION_RATE": "10",
	}
	cfg := defaultConfig()
	for _, s := range settings(&cfg) {
		name := strings.TrimPrefix(s.name, prefix)
		if v, ok := want[name]; ok && v != s.value {
			t.Errorf("%s is %q by default, want %q", s.name, s.value, v)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("there is no setting %s", name)
	}
	loaded, err := loadConfig([]string{"PATH=/bin", "HOLDFASTER=1"})
	if err != nil {
		t.Fatal(err)
	}
	def := settings(&cfg)
	for i, s := range settings(&loaded) {
		if s != def[i] {
			t.Errorf("with nothing set, %s is %q", s.name, s.value)
		}
	}
}

func TestUnknownSettings(t *testing.T) {
	_, err := loadConfig([]string{"HOLDFAST_LISTEN=127.0.0.1:1", "HOLDFAST_LISTTEN=x", "HOLDFAST_=y", "HOLDFAST_domains=z"})
	if err == nil {
		t.Fatal("taken")
	}
	for _, name := range []string{"HOLDFAST_LISTTEN", "HOLDFAST_", "HOLDFAST_domains"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
	if strings.Contains(err.Error(), "HOLDFAST_LISTEN,") {
		t.Errorf("%v names one that is known", err)
	}
}

// A bad value is refused with the name of its variable, whole.
func TestBadValues(t *testing.T) {
	for _, kv := range []string{
		"HOLDFAST_DRAIN_TIMEOUT=soon", "HOLDFAST_DRAIN_TIMEOUT=1ms", "HOLDFAST_READY_DELAY=-1s", "HOLDFAST_LOG_LEVEL=loud",
		"HOLDFAST_LOG_FORMAT=xml", "HOLDFAST_PROFILE=perhaps", "HOLDFAST_DOMAINS=alice@localhost", "HOLDFAST_DOMAINS=a,,b",
		"HOLDFAST_TLS_CERT=cert.pem", "HOLDFAST_TLS_KEY=key.pem", "HOLDFAST_TRUSTED_PROXIES=everybody",
		"HOLDFAST_WS_MAX_MESSAGE=big", "HOLDFAST_WS_COMPRESSION=yes", "HOLDFAST_AUTH_MECHANISMS=NTLM",
		"HOLDFAST_AUTH_SCRAM_ITERATIONS=1", "HOLDFAST_REGISTRATION=maybe", "HOLDFAST_REGISTRATION_RATE=-1",
		"HOLDFAST_RESUME_TIMEOUT=-1s", "HOLDFAST_SETTLE_WINDOW=-1ms", "HOLDFAST_OFFLINE_PAGE=0",
		"HOLDFAST_PACKETCACHE_TIMEOUT=x", "HOLDFAST_PACKETCACHE_ACTIONS=shout", "HOLDFAST_RECEIPTS_PROOF=faith",
		"HOLDFAST_OFFLINE_LIMIT=-1", "HOLDFAST_ROSTER_ITEMS=-1", "HOLDFAST_JOURNAL_SEGMENT=1", "HOLDFAST_JOURNAL_BYTES=1",
		"HOLDFAST_WS_MAX_MESSAGE=8388608", // more than a segment of the journal
		"HOLDFAST_CHECKPOINT_INTERVAL=-1s", "HOLDFAST_ENDED_SESSIONS=-1s", "HOLDFAST_SQLITE_SYNCHRONOUS=off",
		"HOLDFAST_ORIGINS=not an origin", "HOLDFAST_OFFLINE_MATCHERS=/message/a,/iq",
		"HOLDFAST_OFFLINE_STORAGE=off", "HOLDFAST_OFFLINE_OVER_LIMIT=shout", "HOLDFAST_OFFLINE_GROUPCHAT=perhaps",
	} {
		name, _, _ := strings.Cut(kv, "=")
		_, err := loadConfig([]string{kv})
		switch {
		case err == nil:
			t.Errorf("%s was taken", kv)
		case !strings.Contains(err.Error(), name):
			t.Errorf("%s: the error does not name it: %v", kv, err)
		}
	}
}

func TestGoodValues(t *testing.T) {
	cfg, err := loadConfig([]string{
		"HOLDFAST_DOMAINS=Example.org, chat.example.org", "HOLDFAST_LOG_LEVEL=debug", "HOLDFAST_READY_DELAY=2s",
		"HOLDFAST_DATA_DIR=", // as compose files pass what is not set
		"HOLDFAST_OFFLINE_MATCHERS=-/message[@type=chat]/a[urn:b],/message", "HOLDFAST_OFFLINE_MATCHERS=",
		"HOLDFAST_OFFLINE_STORAGE=drop", "HOLDFAST_OFFLINE_OVER_LIMIT=drop", "HOLDFAST_OFFLINE_GROUPCHAT=true",
		"HOLDFAST_OFFLINE_LIMIT=0", "HOLDFAST_SETTLE_WINDOW=0", "HOLDFAST_CHECKPOINT_INTERVAL=0", "HOLDFAST_JOURNAL_BYTES=0",
	})
	if err != nil {
		t.Fatal(err)
	}
	domains, err := cfg.domains()
	if err != nil || len(domains) != 2 || domains[0].String() != "example.org" || domains[1].String() != "chat.example.org" {
		t.Errorf("domains are %v, %v", domains, err)
	}
	if cfg.LogLevel != slog.LevelDebug || cfg.ReadyDelay != 2*time.Second || cfg.Offline.Limit != 0 || cfg.SQLite.Dir != "./data" {
		t.Errorf("%+v", cfg)
	}
}

// What `gateway config` prints can be set again and means the same.
func TestConfigPrintsWhatCanBeSet(t *testing.T) {
	cfg, err := loadConfig([]string{"HOLDFAST_DOMAINS=a.example,b.example", "HOLDFAST_LOG_LEVEL=warn", "HOLDFAST_RESUME_TIMEOUT=90s"})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(printed(t, &cfg)), "\n")
	again, err := loadConfig(lines)
	if err != nil {
		t.Fatal(err)
	}
	want := settings(&cfg)
	if len(lines) != len(want) {
		t.Errorf("%d lines for %d settings", len(lines), len(want))
	}
	for i, s := range settings(&again) {
		if s != want[i] {
			t.Errorf("%s=%s after it was printed as %s", s.name, s.value, want[i].value)
		}
	}
}

func TestConfigMarkdown(t *testing.T) {
	cfg, err := loadConfig([]string{"HOLDFAST_LISTEN=127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	text := printed(t, &cfg, "--markdown")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	def := defaultConfig()
	all := settings(&def)
	if len(lines) != len(all)+2 || lines[0] != "| variable | default | meaning |" || lines[1] != "|---|---|---|" {
		t.Fatalf("%d lines for %d settings:\n%s", len(lines), len(all), text)
	}
	for i, s := range all {
		line := lines[i+2]
		if !strings.HasPrefix(line, "| `"+s.name+"` | ") || strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") != 4 {
			t.Errorf("not a row for %s: %s", s.name, line)
		}
	}
	if !strings.Contains(text, "| `HOLDFAST_LISTEN` | `127.0.0.1:5280` |") {
		t.Error("the table does not show defaults")
	}
}

func printed(t *testing.T, cfg *Config, args ...string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	runConfig(args, cfg, f)
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
