package bosh

import (
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"default", func(*Config) {}, ""},
		{"no limits", func(c *Config) { *c = Config{} }, ""},
		{"origins", func(c *Config) { c.Origins = []string{"a b"} }, "ORIGINS"},
		{"node", func(c *Config) { c.Node = "a.b" }, "node"},
		{"negative number", func(c *Config) { c.MaxBody = -1 }, "BOSH_MAX_BODY"},
		{"much to hold", func(c *Config) { c.MaxHold = 5 }, "BOSH_MAX_HOLD"},
		{"negative duration", func(c *Config) { c.AuthTimeout = -1 }, "BOSH_AUTH_TIMEOUT"},
		{"half a second", func(c *Config) { c.Inactivity = 1500 * time.Millisecond }, "BOSH_INACTIVITY"},
		{"half a second of no matter", func(c *Config) { c.BodyTimeout = 1500 * time.Millisecond }, ""},
	} {
		c := DefaultConfig()
		tt.edit(&c)
		err := c.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A noted state that is cut off or damaged is refused, and makes nothing of it that could be served.
func TestDamagedState(t *testing.T) {
	bubble(t, nil, func(t *testing.T, h *harness) {
		keys := sequence("seed", 8)
		c := h.loginKeyed(keys)
		c.st.send(message(1))
		c.next(keyed(keys[3]), message(2)).wait()
		state := h.svc.sids[c.sid].kept
		if _, err := h.revive(c.sid, state); err != nil {
			t.Fatal(err)
		}
		for n := range state {
			if _, err := h.revive(c.sid, state[:n]); err == nil {
				t.Errorf("the first %d bytes of %d were accepted", n, len(state))
			}
		}
		for i := range state {
			for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff} {
				b := append([]byte(nil), state...)
				b[i] = v
				_, _ = h.revive(c.sid, b)
			}
		}
	})
}
