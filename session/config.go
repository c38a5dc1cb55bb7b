package session

import (
	"fmt"
	"time"
)

// Config holds the settings of streams and sessions.
type Config struct {
	ResumeTimeout   time.Duration `env:"RESUME_TIMEOUT" desc:"how long a session waits for its client to come back (XEP-0198 max); 0 switches resumption off"`
	SettleWindow    time.Duration `env:"SETTLE_WINDOW" desc:"how long acknowledgements may wait for the journal to reach the disk, so that many share one write; 0 writes at once"`
	RequestEvery    int           `env:"SM_REQUEST_EVERY" desc:"stanzas sent to a client before it is asked for an acknowledgement at once; one that gets fewer is asked after 50 ms; 0 asks only then"`
	OutboxStanzas   int           `env:"OUTBOX_STANZAS" desc:"stanzas that may wait for one client's acknowledgement; beyond it the session ends and its messages go to offline storage; 0 means no limit"`
	OutboxBytes     int           `env:"OUTBOX_BYTES" desc:"bytes that may wait for one client's acknowledgement, likewise; 0 means no limit"`
	SessionsPerUser int           `env:"SESSIONS_PER_USER" desc:"sessions one user may have at a time; beyond it the oldest that waits for its client makes room; 0 means no limit"`
	DirectedLimit   int           `env:"DIRECTED_PRESENCE" desc:"addresses one session may have sent directed presence to; 0 means no limit"`
	AuthTries       int           `env:"AUTH_TRIES" desc:"failed SASL exchanges before the stream is closed; 0 means no limit"`
	DrainSpread     time.Duration `env:"DRAIN_SPREAD" desc:"over how long at most the clients are told at the end to come back, 2 ms from one to the next, so that they do not all come at once; less than DRAIN_TIMEOUT; 0 tells all at once"`
	AMP             bool          `env:"AMP" desc:"true follows the rules that messages may have (XEP-0079): alert, drop, error and notify, by delivery, time and resource"`
	AMPStrangers    bool          `env:"AMP_STRANGERS" desc:"true tells also senders who may not see the recipient's presence what rules reveal of it, for closed networks; otherwise such rules of theirs are refused"`
	PageMessages    int           `env:"OFFLINE_PAGE" desc:"messages taken from a mailbox at a time while it is delivered; at least 1"`
}

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config {
	return Config{
		ResumeTimeout:   10 * time.Minute,
		SettleWindow:    50 * time.Millisecond,
		RequestEvery:    10,
		OutboxStanzas:   10_000,
		OutboxBytes:     4 << 20,
		SessionsPerUser: 50,
		DirectedLimit:   1000,
		AuthTries:       3,
		DrainSpread:     5 * time.Second,
		AMP:             true,
		PageMessages:    100,
	}
}

// Validate says which variable is wrong and what it accepts.
func (c Config) Validate() error {
	switch {
	case c.ResumeTimeout < 0 || c.ResumeTimeout > 7*24*time.Hour:
		return fmt.Errorf("RESUME_TIMEOUT: %v is not between 0 and 168h", c.ResumeTimeout)
	case c.SettleWindow < 0 || c.SettleWindow > 10*time.Second:
		return fmt.Errorf("SETTLE_WINDOW: %v is not between 0 and 10s", c.SettleWindow)
	case c.DrainSpread < 0:
		return fmt.Errorf("DRAIN_SPREAD: %v is negative", c.DrainSpread)
	case c.PageMessages < 1:
		return fmt.Errorf("OFFLINE_PAGE: %d is less than 1", c.PageMessages)
	}
	for name, v := range map[string]int{
		"SM_REQUEST_EVERY": c.RequestEvery, "OUTBOX_STANZAS": c.OutboxStanzas, "OUTBOX_BYTES": c.OutboxBytes,
		"SESSIONS_PER_USER": c.SessionsPerUser, "DIRECTED_PRESENCE": c.DirectedLimit, "AUTH_TRIES": c.AuthTries,
	} {
		if v < 0 {
			return fmt.Errorf("%s: %d is negative", name, v)
		}
	}
	return nil
}
