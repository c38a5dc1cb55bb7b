package roster

import "fmt"

// Config is the package's settings.
type Config struct {
	Items       int `env:"ROSTER_ITEMS" desc:"contacts in one roster; 0 for no limit"`
	Groups      int `env:"ROSTER_GROUPS" desc:"groups of one contact; 0 for no limit"`
	Name        int `env:"ROSTER_NAME" desc:"bytes in a contact's or a group's name; 0 for no limit"`
	Requests    int `env:"ROSTER_REQUESTS" desc:"subscription requests waiting for one user's answer, further ones are denied; 0 for no limit"`
	RequestSize int `env:"ROSTER_REQUEST_SIZE" desc:"bytes of a waiting subscription request, a longer one is kept without its content; 0 for no limit"`
	History     int `env:"ROSTER_HISTORY" desc:"removed contacts of one roster remembered for roster versioning; 0 for no limit"`
	Cache       int `env:"ROSTER_CACHE" desc:"bytes of rosters kept in memory, by estimate; 0 for no limit"`
}

// DefaultConfig is the settings when nothing is set.
func DefaultConfig() Config {
	return Config{
		Items:       1000,
		Groups:      50,
		Name:        1023,
		Requests:    200,
		RequestSize: 4096,
		History:     100,
		Cache:       64 << 20,
	}
}

// Validate names the first setting that cannot be.
func (c Config) Validate() error {
	for _, v := range []struct {
		name  string
		value int
	}{
		{"ROSTER_ITEMS", c.Items},
		{"ROSTER_GROUPS", c.Groups},
		{"ROSTER_NAME", c.Name},
		{"ROSTER_REQUESTS", c.Requests},
		{"ROSTER_REQUEST_SIZE", c.RequestSize},
		{"ROSTER_HISTORY", c.History},
		{"ROSTER_CACHE", c.Cache},
	} {
		if v.value < 0 {
			return fmt.Errorf("%s is %d: it accepts 0 (no limit) and up", v.name, v.value)
		}
	}
	return nil
}

// over reports whether n is above a limit, which 0 lifts.
func over(n, limit int) bool { return limit > 0 && n > limit }
