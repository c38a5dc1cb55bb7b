package bosh

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"holdfast/internal/origin"
	"holdfast/internal/proxy"
)

// Config is the settings of the BOSH transport. Every limit is lifted by 0.
type Config struct {
	// Origins is that of ws: a page that may use one transport may use the other.
	Origins []string `env:"-"`
	// Node begins the sids of this node, so that others know whose they are; empty on one machine.
	Node string `env:"-"`

	PublicURL string `env:"BOSH_PUBLIC_URL" desc:"the http:// or https:// address that host-meta announces; empty makes it of the address that was asked"`

	MaxWait    time.Duration `env:"BOSH_MAX_WAIT" desc:"longest time that a request is held, duration in whole seconds; 0 for as long as the client asks for"`
	MaxHold    int           `env:"BOSH_MAX_HOLD" desc:"requests held at once for one client, at most 4; 0 for that"`
	Inactivity time.Duration `env:"BOSH_INACTIVITY" desc:"how long a client may be without an open request, duration in whole seconds; 0 for no limit"`
	MaxPause   time.Duration `env:"BOSH_MAX_PAUSE" desc:"longest pause that a client may ask for, duration in whole seconds; 0 offers no pauses"`
	Polling    time.Duration `env:"BOSH_POLLING" desc:"shortest time between empty requests, duration in whole seconds; 0 for no limit"`

	MaxBody                int `env:"BOSH_MAX_BODY" desc:"largest request body of an authenticated client, bytes; 0 for no limit"`
	MaxBodyUnauthenticated int `env:"BOSH_MAX_BODY_UNAUTHENTICATED" desc:"largest request body before authentication, bytes; 0 for no limit of its own"`
	MaxStanzas             int `env:"BOSH_MAX_STANZAS" desc:"stanzas in one request body; 0 for no limit"`
	MaxDepth               int `env:"BOSH_MAX_DEPTH" desc:"nested elements of one stanza; 0 for no limit"`
	MaxAttrs               int `env:"BOSH_MAX_ATTRS" desc:"attributes of one element, namespace declarations included; 0 for no limit"`
	MaxChildren            int `env:"BOSH_MAX_CHILDREN" desc:"direct children of one stanza; 0 for no limit"`

	AuthTimeout  time.Duration `env:"BOSH_AUTH_TIMEOUT" desc:"from the creation of a session to successful authentication, duration; 0 for no limit"`
	BodyTimeout  time.Duration `env:"BOSH_BODY_TIMEOUT" desc:"how long a request body may take to come in, duration; 0 for no limit"`
	WriteTimeout time.Duration `env:"BOSH_WRITE_TIMEOUT" desc:"how long a response may wait for a client that does not read, duration; 0 for no limit"`

	MaxSessions               int           `env:"BOSH_MAX_SESSIONS" desc:"sessions in all; 0 for no limit"`
	MaxUnauthenticated        int           `env:"BOSH_MAX_UNAUTHENTICATED" desc:"sessions that have not authenticated, in all; 0 for no limit"`
	MaxUnauthenticatedPerAddr int           `env:"BOSH_MAX_UNAUTHENTICATED_PER_ADDR" desc:"the same from one client address (IPv6: one /64), trusted proxies themselves excepted; 0 for no limit"`
	RetryAfter                time.Duration `env:"BOSH_RETRY_AFTER" desc:"what a refused client is asked to wait (Retry-After), duration in whole seconds; 0 does not say"`

	Compression          bool `env:"BOSH_COMPRESSION" desc:"gzip responses for clients that accept it"`
	CompressionThreshold int  `env:"BOSH_COMPRESSION_THRESHOLD" desc:"responses from this size on are compressed, bytes"`

	// Trust decides whose forwarding headers count. Nil stands for the default of internal/proxy.
	Trust *proxy.Trust `env:"-"`
}

// mostHeld is the bound on hold that no setting lifts: each held request is a connection.
const mostHeld = 4

// DefaultConfig is what the gateway runs with when nothing is set.
func DefaultConfig() Config {
	return Config{
		MaxWait:                   60 * time.Second,
		MaxHold:                   1,
		Inactivity:                60 * time.Second,
		MaxPause:                  120 * time.Second,
		Polling:                   5 * time.Second,
		MaxBody:                   256 << 10,
		MaxBodyUnauthenticated:    16 << 10,
		MaxStanzas:                256,
		MaxDepth:                  64,
		MaxAttrs:                  64,
		MaxChildren:               512,
		AuthTimeout:               30 * time.Second,
		BodyTimeout:               15 * time.Second,
		WriteTimeout:              30 * time.Second,
		MaxUnauthenticated:        10_000,
		MaxUnauthenticatedPerAddr: 100,
		RetryAfter:                10 * time.Second,
		Compression:               true,
		CompressionThreshold:      1 << 10,
	}
}

// Validate reports the first setting that cannot be used, by its variable's name.
func (c Config) Validate() error {
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("BOSH_PUBLIC_URL: %q is not an http:// or https:// address", c.PublicURL)
		}
	}
	if err := origin.Validate(c.Origins); err != nil {
		return fmt.Errorf("ORIGINS: %w", err)
	}
	if strings.ContainsAny(c.Node, ".'\"<>& \t") {
		return fmt.Errorf("bosh: node %q cannot begin a sid", c.Node)
	}
	for _, v := range []struct {
		name  string
		value int
	}{
		{"BOSH_MAX_HOLD", c.MaxHold},
		{"BOSH_MAX_BODY", c.MaxBody},
		{"BOSH_MAX_BODY_UNAUTHENTICATED", c.MaxBodyUnauthenticated},
		{"BOSH_MAX_STANZAS", c.MaxStanzas},
		{"BOSH_MAX_DEPTH", c.MaxDepth},
		{"BOSH_MAX_ATTRS", c.MaxAttrs},
		{"BOSH_MAX_CHILDREN", c.MaxChildren},
		{"BOSH_MAX_SESSIONS", c.MaxSessions},
		{"BOSH_MAX_UNAUTHENTICATED", c.MaxUnauthenticated},
		{"BOSH_MAX_UNAUTHENTICATED_PER_ADDR", c.MaxUnauthenticatedPerAddr},
		{"BOSH_COMPRESSION_THRESHOLD", c.CompressionThreshold},
	} {
		if v.value < 0 {
			return fmt.Errorf("%s: %d is negative; a number from 0 on", v.name, v.value)
		}
	}
	if c.MaxHold > mostHeld {
		return fmt.Errorf("BOSH_MAX_HOLD: %d; at most %d", c.MaxHold, mostHeld)
	}
	for _, v := range []struct {
		name  string
		value time.Duration
		whole bool // it goes on the wire in seconds
	}{
		{"BOSH_MAX_WAIT", c.MaxWait, true},
		{"BOSH_INACTIVITY", c.Inactivity, true},
		{"BOSH_MAX_PAUSE", c.MaxPause, true},
		{"BOSH_POLLING", c.Polling, true},
		{"BOSH_RETRY_AFTER", c.RetryAfter, true},
		{"BOSH_AUTH_TIMEOUT", c.AuthTimeout, false},
		{"BOSH_BODY_TIMEOUT", c.BodyTimeout, false},
		{"BOSH_WRITE_TIMEOUT", c.WriteTimeout, false},
	} {
		switch {
		case v.value < 0:
			return fmt.Errorf("%s: %v is negative; a duration such as 30s, or 0", v.name, v.value)
		case v.whole && v.value%time.Second != 0:
			return fmt.Errorf("%s: %v is not in whole seconds", v.name, v.value)
		}
	}
	return nil
}

// bodyLimit is the cap on a request body; 0 is none.
func (c *Config) bodyLimit(authenticated bool) int {
	if !authenticated && c.MaxBodyUnauthenticated > 0 && (c.MaxBody == 0 || c.MaxBodyUnauthenticated < c.MaxBody) {
		return c.MaxBodyUnauthenticated
	}
	return c.MaxBody
}
