package resume

import (
	"fmt"
	"time"

	"holdfast/internal/redisx"
)

// RedisConfig holds the settings of a journal and its checkpoints in Redis.
type RedisConfig struct {
	// Of other packages' settings; see With.
	Interval, Ended time.Duration `env:"-"`
	WaitReplicas    int           `env:"-"`
	WaitTimeout     time.Duration `env:"-"`

	Window       time.Duration `env:"REDIS_WINDOW" desc:"how long records that nobody waits for may wait for others to go to Redis with; 0 does not wait"`
	WriteRate    int           `env:"REDIS_WRITE_RATE" desc:"writes of a few records in a second to the journal in Redis of one gateway, after which records wait up to a few milliseconds for company; 0 for no limit"`
	Patience     time.Duration `env:"REDIS_PATIENCE" desc:"how long Redis may not answer before messages between the clients of one gateway are delivered without it, while acknowledgements go on waiting; 0 waits for ever"`
	PendingBytes int64         `env:"REDIS_PENDING_BYTES" desc:"bytes that may wait to go to Redis, after which clients wait; 0 for no limit"`
	JournalBytes int64         `env:"REDIS_JOURNAL_BYTES" desc:"bytes of one gateway's journal in Redis, after which clients wait for a checkpoint; 0 for no limit"`
}

// DefaultRedisConfig returns the settings that hold when nothing is set.
func DefaultRedisConfig() RedisConfig {
	return RedisConfig{
		Window: 5 * time.Millisecond, WriteRate: 600, Patience: 500 * time.Millisecond, PendingBytes: 64 << 20, JournalBytes: 256 << 20,
	}.With(DefaultConfig(), redisx.DefaultConfig())
}

// With takes over what is set for the checkpoints of either kind, and for Redis as a whole.
func (c RedisConfig) With(checkpoints Config, rx redisx.Config) RedisConfig {
	c.Interval, c.Ended = checkpoints.Interval, checkpoints.Ended
	c.WaitReplicas, c.WaitTimeout = rx.WaitReplicas, rx.WaitTimeout
	return c
}

// Validate says which variable is wrong and what it accepts.
func (c RedisConfig) Validate() error {
	switch {
	case c.Window < 0:
		return fmt.Errorf("REDIS_WINDOW: %v is negative", c.Window)
	case c.WriteRate < 0 || c.WriteRate > 1_000_000:
		return fmt.Errorf("REDIS_WRITE_RATE: %d is not between 0 and 1000000", c.WriteRate)
	case c.Patience < 0:
		return fmt.Errorf("REDIS_PATIENCE: %v is negative", c.Patience)
	case c.PendingBytes != 0 && c.PendingBytes < 2*batchBytes:
		return fmt.Errorf("REDIS_PENDING_BYTES: %d is less than %d and not 0", c.PendingBytes, 2*batchBytes)
	case c.JournalBytes != 0 && c.JournalBytes < 2*batchBytes:
		return fmt.Errorf("REDIS_JOURNAL_BYTES: %d is less than %d and not 0", c.JournalBytes, 2*batchBytes)
	}
	return nil
}
