package packetcache

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Action is what happens to a message whose receipt did not come in time.
type Action uint8

const (
	// Resend delivers the message once more, to the sessions online then; its timeout starts again. With no session
	// online the next action runs at once.
	Resend Action = iota + 1
	// Offline puts the message into the recipient's offline mailbox (XEP-0160).
	Offline
	// Bounce answers the sender with an error.
	Bounce
	// Drop forgets the message.
	Drop
)

var actionNames = [...]string{Resend: "resend", Offline: "offline", Bounce: "bounce", Drop: "drop"}

// String is the name of the action in PACKETCACHE_ACTIONS.
func (a Action) String() string {
	if a == withdraw {
		return "withdraw"
	}
	if a == 0 || int(a) >= len(actionNames) {
		return fmt.Sprintf("Action(%d)", uint8(a))
	}
	return actionNames[a]
}

// Terminal reports whether nothing can follow a.
func (a Action) Terminal() bool { return a != Resend }

// MarshalText is the inverse of UnmarshalText.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads one name of PACKETCACHE_ACTIONS.
func (a *Action) UnmarshalText(text []byte) error {
	name := strings.TrimSpace(string(text))
	i := slices.Index(actionNames[:], name)
	if i <= 0 {
		return fmt.Errorf("PACKETCACHE_ACTIONS: %q is none of resend, offline, bounce, drop", name)
	}
	*a = Action(i)
	return nil
}

// Config is what an operator sets.
type Config struct {
	Timeout       time.Duration `env:"PACKETCACHE_TIMEOUT" desc:"how long a receipt may take, before the first action and again after each resend; 0 waits for ever"`
	Actions       []Action      `env:"PACKETCACHE_ACTIONS" desc:"what happens when no receipt came, in order, comma-separated: resend any number of times, then offline, bounce or drop"`
	Entries       int           `env:"PACKETCACHE_ENTRIES" desc:"how many messages may await a receipt; over it the oldest get the last action early; 0 for no limit"`
	Bytes         int64         `env:"PACKETCACHE_BYTES" desc:"how many bytes of messages may await a receipt; over it the oldest get the last action early; 0 for no limit"`
	ActionTimeout time.Duration `env:"PACKETCACHE_ACTION_TIMEOUT" desc:"how long one try of an action may take before it is abandoned and tried again later; 0 for no limit"`
	RestartRate   int           `env:"PACKETCACHE_RESTART_RATE" desc:"actions a second for messages whose time ran out while the gateway was down; 0 runs them all at once"`
	Late          time.Duration `env:"PACKETCACHE_LATE" desc:"how long after the offline action a receipt still removes the offline copy; 0 for as long as PACKETCACHE_LATE_ENTRIES allows"`
	LateEntries   int           `env:"PACKETCACHE_LATE_ENTRIES" desc:"how many messages that went offline are remembered for a late receipt, the oldest are forgotten first; 0 for no limit"`
	// Moves says that recipients move between nodes, with what awaits their receipts: TakeOut and Holds work then.
	Moves bool `env:"-"`
}

// DefaultConfig is what holds with nothing set.
func DefaultConfig() Config {
	return Config{
		Timeout:       30 * time.Second,
		Actions:       []Action{Resend, Offline},
		Entries:       100_000,
		Bytes:         256 << 20,
		ActionTimeout: 10 * time.Second,
		RestartRate:   1000,
		Late:          time.Hour,
		LateEntries:   100_000,
	}
}

// maxActions bounds the list, so that a step fits its field with room to spare.
const maxActions = 100

var errUnbounded = errors.New("PACKETCACHE_LATE and PACKETCACHE_LATE_ENTRIES must not both be 0: memory would grow for ever")

// Validate names the setting that cannot be used, and what it accepts.
func (c Config) Validate() error {
	for _, v := range []struct {
		name string
		n    int64
	}{
		{"PACKETCACHE_TIMEOUT", int64(c.Timeout)},
		{"PACKETCACHE_ENTRIES", int64(c.Entries)},
		{"PACKETCACHE_BYTES", c.Bytes},
		{"PACKETCACHE_ACTION_TIMEOUT", int64(c.ActionTimeout)},
		{"PACKETCACHE_RESTART_RATE", int64(c.RestartRate)},
		{"PACKETCACHE_LATE", int64(c.Late)},
		{"PACKETCACHE_LATE_ENTRIES", int64(c.LateEntries)},
	} {
		if v.n < 0 {
			return fmt.Errorf("%s: must be 0 or more", v.name)
		}
	}
	if c.Late == 0 && c.LateEntries == 0 {
		return errUnbounded
	}
	return validateActions(c.Actions)
}

func validateActions(actions []Action) error {
	const name = "PACKETCACHE_ACTIONS"
	if len(actions) == 0 || len(actions) > maxActions {
		return fmt.Errorf("%s: accepts 1 to %d of resend, offline, bounce, drop", name, maxActions)
	}
	for i, a := range actions {
		last := i == len(actions)-1
		switch {
		case a < Resend || a > Drop:
			return fmt.Errorf("%s: %v is none of resend, offline, bounce, drop", name, a)
		case a.Terminal() && !last:
			return fmt.Errorf("%s: %v must be the last action, nothing can follow it", name, a)
		case !a.Terminal() && last:
			return fmt.Errorf("%s: the last action must be offline, bounce or drop, not %v", name, a)
		}
	}
	return nil
}
