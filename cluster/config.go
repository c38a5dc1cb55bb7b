package cluster

import (
	"fmt"
	"time"
)

// Config holds the settings of a node among others.
type Config struct {
	// Doubt is how long after Heir.Fence a node that seemed dead, and is not, may still deliver what it does not
	// record. What it had is taken over after that time, unless its death is certain.
	Doubt time.Duration `env:"-"`

	Beat      time.Duration `env:"CLUSTER_BEAT" desc:"how often a node shows that it lives"`
	Lease     time.Duration `env:"CLUSTER_LEASE" desc:"how long a node may show nothing before others take over what it has; at least three beats"`
	HomeTime  time.Duration `env:"CLUSTER_HOME_TIME" desc:"how long a node stays the home of a user without sessions, whose offline messages it takes; at least 3s"`
	LinkBytes int64         `env:"CLUSTER_LINK_BYTES" desc:"bytes of messages that may wait for other nodes, after which clients wait; 0 for no limit"`
	Locations int           `env:"CLUSTER_LOCATIONS" desc:"users whose home on another node is remembered; 0 for no limit"`
}

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config {
	return Config{Beat: time.Second, Lease: 5 * time.Second, HomeTime: time.Minute, LinkBytes: 64 << 20, Locations: 500_000}
}

// Validate says which variable is wrong and what it accepts.
func (c Config) Validate() error {
	switch {
	case c.Beat < 10*time.Millisecond:
		return fmt.Errorf("CLUSTER_BEAT: %v is less than 10ms", c.Beat)
	case c.Lease < 3*c.Beat:
		return fmt.Errorf("CLUSTER_LEASE: %v is less than three times CLUSTER_BEAT=%v", c.Lease, c.Beat)
	case c.HomeTime < 3*time.Second:
		return fmt.Errorf("CLUSTER_HOME_TIME: %v is less than 3s", c.HomeTime)
	case c.LinkBytes < 0:
		return fmt.Errorf("CLUSTER_LINK_BYTES: %d is negative", c.LinkBytes)
	case c.Locations < 0:
		return fmt.Errorf("CLUSTER_LOCATIONS: %d is negative", c.Locations)
	}
	return nil
}
