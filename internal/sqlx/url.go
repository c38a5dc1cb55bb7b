package sqlx

import (
	"errors"
	"strings"
)

// URL names a database: empty, "sqlite:" and "sqlite:DIRECTORY" are SQLite, "postgres://…" and "postgresql://…" are
// PostgreSQL. It prints itself without passwords.
type URL string

const sqliteScheme = "sqlite:"

func (u URL) String() string { return RedactURL(string(u)) }

// Postgres reports whether the database is PostgreSQL.
func (u URL) Postgres() bool { return IsPostgresURL(string(u)) }

// Dir is the directory of a SQLite database that the URL names, and otherwise the given one.
func (u URL) Dir(otherwise string) string {
	if dir := strings.TrimPrefix(string(u), sqliteScheme); dir != "" && !u.Postgres() {
		return dir
	}
	return otherwise
}

// Validate names what is accepted. It does not show the value, which may be a password in the wrong place.
func (u URL) Validate() error {
	path, lite := strings.CutPrefix(string(u), sqliteScheme)
	switch {
	case u == "", u.Postgres(), lite && !strings.HasPrefix(path, "//") && !strings.ContainsRune(path, 0):
		return nil
	}
	return errors.New("DATABASE_URL accepts sqlite: (the data directory), sqlite:DIRECTORY, postgres://… and postgresql://…")
}
