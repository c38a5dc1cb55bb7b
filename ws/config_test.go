package ws

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
)

func TestConfigFromEnvironment(t *testing.T) {
	cfg := DefaultConfig()
	err := env.ParseWithOptions(&cfg, env.Options{Prefix: "HOLDFAST_", Environment: map[string]string{
		"HOLDFAST_ORIGINS":          "a.example,https://b.example",
		"HOLDFAST_WS_PING_INTERVAL": "10s",
		"HOLDFAST_WS_MAX_MESSAGE":   "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(cfg.Origins, " ") != "a.example https://b.example" || cfg.PingInterval != 10*time.Second || cfg.MaxMessage != 0 || cfg.WriteTimeout != 30*time.Second {
		t.Errorf("got %+v", cfg)
	}
}

// Every setting says what it is and what unit it has.
func TestConfigDescribed(t *testing.T) {
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Tag.Get("env") == "-" {
			continue
		}
		if f.Tag.Get("env") == "" || f.Tag.Get("desc") == "" {
			t.Errorf("%s has no env or desc tag", f.Name)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"default", func(*Config) {}, ""},
		{"origins", func(c *Config) { c.Origins = []string{"*", "a.example", "https://*.b.example:8443"} }, ""},
		{"origin with a path", func(c *Config) { c.Origins = []string{"https://a.example/chat"} }, "ORIGINS"},
		{"bad pattern", func(c *Config) { c.Origins = []string{"[a"} }, "ORIGINS"},
		{"empty origin", func(c *Config) { c.Origins = []string{""} }, "ORIGINS"},
		{"public URL", func(c *Config) { c.PublicURL = "https://a.example" }, "WS_PUBLIC_URL"},
		{"negative size", func(c *Config) { c.MaxMessage = -1 }, "WS_MAX_MESSAGE"},
		{"negative duration", func(c *Config) { c.PingTimeout = -1 }, "WS_PING_TIMEOUT"},
		{"compression", func(c *Config) { c.Compression = "gzip" }, "WS_COMPRESSION"},
		{"everything lifted", func(c *Config) { *c = Config{} }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			tt.edit(&cfg)
			err := cfg.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want+":")) {
				t.Errorf("got %v, want it to name %q", err, tt.want)
			}
		})
	}
}
