package offline

import (
	"context"
	"fmt"
	"time"

	"holdfast/stanza"
)

// Config is the settings of the mailboxes.
type Config struct {
	Policy

	Limit        int           `env:"OFFLINE_LIMIT" desc:"messages kept for one recipient from one sender (bare JIDs); 0 for no limit"`
	OwnLimit     bool          `env:"OFFLINE_OWN_LIMIT" desc:"let users choose for themselves what OFFLINE_LIMIT is otherwise"`
	OwnLimitMax  int           `env:"OFFLINE_OWN_LIMIT_MAX" desc:"the most that users may choose; 0 for no limit, so that they may lift theirs"`
	UserLimit    int           `env:"OFFLINE_USER_LIMIT" desc:"messages kept for one recipient; 0 for no limit"`
	UserBytes    int64         `env:"OFFLINE_USER_BYTES" desc:"bytes of messages kept for one recipient; 0 for no limit"`
	OverLimit    OverLimit     `env:"OFFLINE_OVER_LIMIT" desc:"what happens to a message over one of these limits: error (the sender gets service-unavailable) or drop (silently)"`
	Lifetime     time.Duration `env:"OFFLINE_LIFETIME" desc:"how long a message is kept, counted from when the gateway took it; 0 for ever"`
	Window       time.Duration `env:"OFFLINE_WINDOW" desc:"how long a write waits for others to share its transaction (nothing waits for it but the freeing of the journal); 0 writes at once"`
	Batch        int           `env:"OFFLINE_BATCH" desc:"writes in one transaction; 0 for no limit"`
	PendingBytes int64         `env:"OFFLINE_PENDING_BYTES" desc:"bytes of writes not yet committed, from which on senders wait; 0 for no limit"`
	Cache        int           `env:"OFFLINE_CACHE" desc:"counters of recipients and sender-recipient pairs kept in memory; 0 for no limit"`
	Known        int           `env:"OFFLINE_KNOWN" desc:"recipients with mail whose names are remembered (about 20 bytes each), so that the login of anybody else needs no query; with more of them each first login costs a query, and in a cluster it always does; 0 for no limit"`

	// Shared says that others write to the Backend too, each for users of their own. Nothing is known then of a user
	// without asking, and the number of all messages is asked for from time to time.
	Shared bool `env:"-"`
	// ExpireAt is when a message with rules (XEP-0079) is not to be given to its recipient any more by them; the zero Time
	// is never, and so is nil. It is asked for nothing else.
	ExpireAt func(st *stanza.Stanza) time.Time `env:"-"`
	// Mine reports whether this Mailbox is the one that has user now; nil is always. It is asked before messages
	// expire.
	Mine func(ctx context.Context, user stanza.Addr) bool `env:"-"`
}

// DefaultConfig returns the settings that hold when nothing is set.
func DefaultConfig() Config {
	return Config{
		Policy:       Policy{StoreNoPermanent: true},
		Limit:        100,
		OwnLimit:     true,
		UserLimit:    10_000,
		UserBytes:    64 << 20,
		Window:       50 * time.Millisecond,
		Batch:        1024,
		PendingBytes: 16 << 20,
		Cache:        100_000,
		Known:        500_000,
	}
}

// Validate names the first variable that has a value it does not accept.
func (c Config) Validate() error {
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"OFFLINE_LIMIT", int64(c.Limit)},
		{"OFFLINE_OWN_LIMIT_MAX", int64(c.OwnLimitMax)},
		{"OFFLINE_USER_LIMIT", int64(c.UserLimit)},
		{"OFFLINE_USER_BYTES", c.UserBytes},
		{"OFFLINE_BATCH", int64(c.Batch)},
		{"OFFLINE_PENDING_BYTES", c.PendingBytes},
		{"OFFLINE_CACHE", int64(c.Cache)},
		{"OFFLINE_KNOWN", int64(c.Known)},
	} {
		if v.value < 0 {
			return fmt.Errorf("%s must be 0 or more, not %d", v.name, v.value)
		}
	}
	if c.Lifetime < 0 {
		return fmt.Errorf("OFFLINE_LIFETIME must be 0 or more, not %v", c.Lifetime)
	}
	if c.Window < 0 {
		return fmt.Errorf("OFFLINE_WINDOW must be 0 or more, not %v", c.Window)
	}
	return nil
}
