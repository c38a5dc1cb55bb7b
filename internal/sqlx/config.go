package sqlx

import (
	"fmt"
	"strings"
	"time"
)

// Config says where the database is and how careful it is.
type Config struct {
	Dir         string        `env:"DATA_DIR" desc:"directory of the SQLite database and what lies beside it; made with mode 0700 when missing"`
	Synchronous string        `env:"SQLITE_SYNCHRONOUS" desc:"when SQLite waits for the disk: normal (at checkpoints; a power cut may lose the last commits, a crash of the process loses none) or full (at every commit)"`
	BusyTimeout time.Duration `env:"SQLITE_BUSY_TIMEOUT" desc:"how long a write waits for another process that is writing; 0 does not wait"`
	Readers     int           `env:"SQLITE_READERS" desc:"connections for reading; 0 for no limit"`
}

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config {
	return Config{Dir: "./data", Synchronous: "normal", BusyTimeout: 10 * time.Second, Readers: 4}
}

// Validate names the first variable that has a value it does not accept.
func (c Config) Validate() error {
	switch {
	case c.Dir == "":
		return fmt.Errorf("DATA_DIR must name a directory")
	case strings.ContainsRune(c.Dir, 0):
		return fmt.Errorf("DATA_DIR must not contain a zero byte")
	case c.Synchronous != "normal" && c.Synchronous != "full":
		return fmt.Errorf("SQLITE_SYNCHRONOUS accepts normal or full, not %q", c.Synchronous)
	case c.BusyTimeout < 0:
		return fmt.Errorf("SQLITE_BUSY_TIMEOUT must be 0 or more, not %v", c.BusyTimeout)
	case c.Readers < 0:
		return fmt.Errorf("SQLITE_READERS must be 0 or more, not %d", c.Readers)
	}
	return nil
}
