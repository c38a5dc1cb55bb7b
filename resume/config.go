package resume

import (
	"errors"
	"fmt"
	"time"

	"holdfast/internal/wal"
)

// Config holds the settings of the journal and its checkpoints.
type Config struct {
	wal.Config
	Interval time.Duration `env:"CHECKPOINT_INTERVAL" desc:"how often sessions that changed are written to the database, so that the journal can forget; 0 only when the journal has filled a segment"`
	Ended    time.Duration `env:"ENDED_SESSIONS" desc:"how long the count of a session that is over is remembered, so that its client resends no more than it must (XEP-0198 <failed h/>); 0 does not remember"`
}

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config {
	return Config{Config: wal.DefaultConfig(), Interval: 5 * time.Second, Ended: 24 * time.Hour}
}

// Validate says which variable is wrong and what it accepts.
func (c Config) Validate() error {
	if c.Interval < 0 {
		return fmt.Errorf("CHECKPOINT_INTERVAL: %v is negative", c.Interval)
	}
	if c.Ended < 0 {
		return errors.New("ENDED_SESSIONS: is negative")
	}
	return c.Config.Validate()
}
