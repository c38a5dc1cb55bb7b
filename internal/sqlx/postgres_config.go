package sqlx

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig says where a PostgreSQL database is and how long it may take.
type PostgresConfig struct {
	URL            string        `env:"-"` // postgres:// or postgresql://
	Conns          int           `env:"DATABASE_CONNS" desc:"connections of one gateway to PostgreSQL; 0 for no limit"`
	ConnectTimeout time.Duration `env:"DATABASE_CONNECT_TIMEOUT" desc:"how long a new connection to PostgreSQL may take, sign-in included; connect_timeout in the URL goes before; 0 for no limit"`
	Timeout        time.Duration `env:"DATABASE_TIMEOUT" desc:"how long a query or transaction of PostgreSQL may take, after which it counts as failed; 0 for no limit"`
}

// DefaultPostgresConfig returns the settings that hold when nothing is set.
func DefaultPostgresConfig() PostgresConfig {
	return PostgresConfig{Conns: 10, ConnectTimeout: 5 * time.Second, Timeout: 10 * time.Second}
}

// Validate names the first variable that has a value it does not accept. An empty URL is accepted: there may be no
// such database.
func (c PostgresConfig) Validate() error {
	switch {
	case c.Conns < 0:
		return fmt.Errorf("DATABASE_CONNS must be 0 or more, not %d", c.Conns)
	case c.ConnectTimeout < 0:
		return fmt.Errorf("DATABASE_CONNECT_TIMEOUT must be 0 or more, not %v", c.ConnectTimeout)
	case c.Timeout < 0:
		return fmt.Errorf("DATABASE_TIMEOUT must be 0 or more, not %v", c.Timeout)
	case c.URL == "":
		return nil
	case !IsPostgresURL(c.URL):
		return fmt.Errorf("DATABASE_URL must begin with postgres:// or postgresql://")
	}
	_, err := c.parse()
	return err
}

// IsPostgresURL reports whether url names a PostgreSQL database.
func IsPostgresURL(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

func (c PostgresConfig) parse() (*pgx.ConnConfig, error) {
	parsed, err := pgx.ParseConfig(c.URL)
	if err != nil {
		// The driver's error masks passwords as far as it finds them; RedactURL does not depend on what it found.
		text := strings.ReplaceAll(err.Error(), c.URL, RedactURL(c.URL))
		return nil, fmt.Errorf("DATABASE_URL: %s", text)
	}
	return parsed, nil
}

// Redacted stands for a password.
const Redacted = "xxxxx"

var secretParameter = regexp.MustCompile(`(?i)([?&][^=&#]*(?:password|passphrase|secret|token)[^=&#]*=)[^&#]*`)

// RedactURL returns url without its passwords: that of the user, and those among the parameters. It works on text, so
// that also a URL which cannot be parsed loses them.
func RedactURL(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	// A password may hold any byte that should have been escaped: all up to the last @ is taken for user and password.
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if user, _, has := strings.Cut(rest[:at], ":"); has {
			rest = user + ":" + Redacted + rest[at:]
		}
	}
	return scheme + "://" + secretParameter.ReplaceAllString(rest, "${1}"+Redacted)
}
