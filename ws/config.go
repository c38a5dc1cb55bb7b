package ws

import (
	"fmt"
	"net/url"
	"time"

	"github.com/coder/websocket"

	"holdfast/internal/origin"
	"holdfast/internal/proxy"
)

// Values of WS_COMPRESSION.
const (
	CompressionOff        = "off"
	CompressionNoTakeover = "no-context-takeover"
	CompressionTakeover   = "context-takeover"
)

// Config is the settings of the WebSocket transport. Every limit is lifted by 0.
type Config struct {
	Origins   []string `env:"ORIGINS" desc:"comma-separated Origins that browsers may connect from besides the same host: host or scheme://host patterns, * for all"`
	PublicURL string   `env:"WS_PUBLIC_URL" desc:"the ws:// or wss:// address that host-meta announces; empty makes it of the address that was asked"`

	MaxMessage                int `env:"WS_MAX_MESSAGE" desc:"largest message from an authenticated client, bytes after decompression; 0 for as much as a journal segment holds"`
	MaxMessageUnauthenticated int `env:"WS_MAX_MESSAGE_UNAUTHENTICATED" desc:"largest message before authentication, bytes after decompression; 0 for no limit of its own"`
	MaxDepth                  int `env:"WS_MAX_DEPTH" desc:"nested elements of one stanza; 0 for no limit"`
	MaxAttrs                  int `env:"WS_MAX_ATTRS" desc:"attributes of one element, namespace declarations included; 0 for no limit"`
	MaxChildren               int `env:"WS_MAX_CHILDREN" desc:"direct children of one stanza; 0 for no limit"`

	HandshakeTimeout time.Duration `env:"WS_HANDSHAKE_TIMEOUT" desc:"from the WebSocket handshake to <open/>, duration; 0 for no limit"`
	AuthTimeout      time.Duration `env:"WS_AUTH_TIMEOUT" desc:"from the WebSocket handshake to successful authentication, duration; 0 for no limit"`
	WriteTimeout     time.Duration `env:"WS_WRITE_TIMEOUT" desc:"how long one write may wait for a client that does not read, duration; 0 for no limit"`
	CloseTimeout     time.Duration `env:"WS_CLOSE_TIMEOUT" desc:"how long the end of a connection may take, what is left to write included, duration; 0 for no limit"`
	PingInterval     time.Duration `env:"WS_PING_INTERVAL" desc:"silence after which a client is pinged, duration; 0 never pings and never finds a dead one"`
	PingTimeout      time.Duration `env:"WS_PING_TIMEOUT" desc:"further silence after which a pinged client counts as gone, duration; 0 for no limit"`

	MaxConnections            int           `env:"WS_MAX_CONNECTIONS" desc:"open connections in all; 0 for no limit"`
	MaxUnauthenticated        int           `env:"WS_MAX_UNAUTHENTICATED" desc:"connections that have not authenticated, in all; 0 for no limit"`
	MaxUnauthenticatedPerAddr int           `env:"WS_MAX_UNAUTHENTICATED_PER_ADDR" desc:"the same from one client address (IPv6: one /64), trusted proxies themselves excepted; 0 for no limit"`
	RetryAfter                time.Duration `env:"WS_RETRY_AFTER" desc:"what a refused client is asked to wait (Retry-After), duration in whole seconds; 0 does not say"`

	Compression            string `env:"WS_COMPRESSION" desc:"permessage-deflate: off, no-context-takeover or context-takeover"`
	CompressionThreshold   int    `env:"WS_COMPRESSION_THRESHOLD" desc:"messages from this size on are compressed, bytes; 0 for the library's choice (512, with context takeover 128)"`
	CompressionConnections int    `env:"WS_COMPRESSION_CONNECTIONS" desc:"connections that may hold compression state (up to 1.3 MiB each with context takeover, else about 10 KiB); others negotiate none; 0 for no limit"`

	// Trust decides whose forwarding headers count. Nil stands for the default of internal/proxy.
	Trust *proxy.Trust `env:"-"`
}

// DefaultConfig is what the gateway runs with when nothing is set.
func DefaultConfig() Config {
	return Config{
		MaxMessage:                256 << 10,
		MaxMessageUnauthenticated: 16 << 10, // RFC 6120 §13.12 wants at least 10,000 bytes
		MaxDepth:                  64,
		MaxAttrs:                  64,
		MaxChildren:               512,
		HandshakeTimeout:          15 * time.Second,
		AuthTimeout:               30 * time.Second,
		WriteTimeout:              30 * time.Second,
		CloseTimeout:              5 * time.Second,
		PingInterval:              25 * time.Second,
		PingTimeout:               20 * time.Second,
		MaxUnauthenticated:        10_000,
		MaxUnauthenticatedPerAddr: 100,
		RetryAfter:                10 * time.Second,
		Compression:               CompressionOff,
		CompressionConnections:    200,
	}
}

// Validate reports the first setting that cannot be used, by its variable's name.
func (c Config) Validate() error {
	if err := origin.Validate(c.Origins); err != nil {
		return fmt.Errorf("ORIGINS: %w", err)
	}
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Host == "" || u.Scheme != "ws" && u.Scheme != "wss" {
			return fmt.Errorf("WS_PUBLIC_URL: %q is not a ws:// or wss:// address", c.PublicURL)
		}
	}
	for _, v := range []struct {
		name  string
		value int
	}{
		{"WS_MAX_MESSAGE", c.MaxMessage},
		{"WS_MAX_MESSAGE_UNAUTHENTICATED", c.MaxMessageUnauthenticated},
		{"WS_MAX_DEPTH", c.MaxDepth},
		{"WS_MAX_ATTRS", c.MaxAttrs},
		{"WS_MAX_CHILDREN", c.MaxChildren},
		{"WS_MAX_CONNECTIONS", c.MaxConnections},
		{"WS_MAX_UNAUTHENTICATED", c.MaxUnauthenticated},
		{"WS_MAX_UNAUTHENTICATED_PER_ADDR", c.MaxUnauthenticatedPerAddr},
		{"WS_COMPRESSION_THRESHOLD", c.CompressionThreshold},
		{"WS_COMPRESSION_CONNECTIONS", c.CompressionConnections},
	} {
		if v.value < 0 {
			return fmt.Errorf("%s: %d is negative; a number from 0 on", v.name, v.value)
		}
	}
	for _, v := range []struct {
		name  string
		value time.Duration
	}{
		{"WS_HANDSHAKE_TIMEOUT", c.HandshakeTimeout},
		{"WS_AUTH_TIMEOUT", c.AuthTimeout},
		{"WS_WRITE_TIMEOUT", c.WriteTimeout},
		{"WS_CLOSE_TIMEOUT", c.CloseTimeout},
		{"WS_PING_INTERVAL", c.PingInterval},
		{"WS_PING_TIMEOUT", c.PingTimeout},
		{"WS_RETRY_AFTER", c.RetryAfter},
	} {
		if v.value < 0 {
			return fmt.Errorf("%s: %v is negative; a duration such as 30s, or 0", v.name, v.value)
		}
	}
	if _, ok := compressionMode(c.Compression); !ok {
		return fmt.Errorf("WS_COMPRESSION: %q is not one of off, no-context-takeover, context-takeover", c.Compression)
	}
	return nil
}

func compressionMode(s string) (websocket.CompressionMode, bool) {
	switch s {
	case "", CompressionOff:
		return websocket.CompressionDisabled, true
	case CompressionNoTakeover:
		return websocket.CompressionNoContextTakeover, true
	case CompressionTakeover:
		return websocket.CompressionContextTakeover, true
	default:
		return 0, false
	}
}
