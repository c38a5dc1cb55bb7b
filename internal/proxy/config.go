package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Which forwarding header is believed.
const (
	HeaderAuto       = "auto"
	HeaderXForwarded = "x-forwarded"
	HeaderForwarded  = "forwarded"
)

// Config says which proxies are believed and what they may say.
type Config struct {
	TrustedProxies []string      `env:"TRUSTED_PROXIES" desc:"comma-separated addresses and CIDRs whose forwarding headers and PROXY lines count; none trusts nobody"`
	Header         string        `env:"FORWARDED_HEADER" desc:"the forwarding header that the trusted proxies write: x-forwarded, forwarded, or auto (X-Forwarded-For where both are there). Proxies must overwrite or drop the other one"`
	LineTimeout    time.Duration `env:"PROXY_LINE_TIMEOUT" desc:"how long a connection from a trusted proxy may take to send its first bytes, duration; 0 for no limit"`
}

// DefaultConfig trusts the machine itself.
func DefaultConfig() Config {
	return Config{
		TrustedProxies: []string{"127.0.0.0/8", "::1/128"},
		Header:         HeaderAuto,
		LineTimeout:    10 * time.Second,
	}
}

// Validate reports the first setting that cannot be used, by its variable's name.
func (c Config) Validate() error {
	if _, err := c.prefixes(); err != nil {
		return err
	}
	switch c.Header {
	case HeaderAuto, HeaderXForwarded, HeaderForwarded:
	default:
		return fmt.Errorf("FORWARDED_HEADER: %q is not one of auto, x-forwarded, forwarded", c.Header)
	}
	if c.LineTimeout < 0 {
		return fmt.Errorf("PROXY_LINE_TIMEOUT: %v is negative; a duration such as 10s, 0 for no limit", c.LineTimeout)
	}
	return nil
}

func (c Config) prefixes() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range c.TrustedProxies {
		s = strings.TrimSpace(s)
		if s == "" || s == "none" {
			continue
		}
		if addr, err := netip.ParseAddr(s); err == nil {
			addr = addr.Unmap().WithZone("")
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("TRUSTED_PROXIES: %q is neither an address nor a CIDR such as 10.0.0.0/8", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
