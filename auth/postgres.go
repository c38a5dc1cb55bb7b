package auth

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"holdfast/internal/sqlx"
	"holdfast/stanza"
)

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

// Postgres is the Store of gateways that share a database. Changes of accounts come one after the other, each under
// the lock of the log of changes.
type Postgres struct{ db *sqlx.Postgres }

var _ Store = (*Postgres)(nil)

// OpenPostgres brings the tables of db up to date. The caller closes db.
func OpenPostgres(ctx context.Context, db *sqlx.Postgres) (*Postgres, error) {
	files, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	if err := db.Migrate(ctx, "auth", files); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	return &Postgres{db: db}, nil
}

const (
	postgresLoad = `SELECT a.version, a.created, a.disabled, EXISTS (SELECT FROM auth_change WHERE addr = a.addr AND pending), c.mechanism, c.iterations, c.salt, c.stored_key, c.server_key
FROM auth_account AS a LEFT JOIN auth_credential AS c ON c.addr = a.addr AND c.mechanism = ANY ($2::text[])
WHERE a.addr = $1`

	postgresList = `SELECT addr, version, created, disabled FROM auth_account WHERE addr > $1 ORDER BY addr LIMIT $2`

	// An address that is given twice is inserted once, and the version tells which of the two it was.
	postgresCreate = `INSERT INTO auth_account (addr, version, created)
SELECT u.addr, $2 + u.n, $3 FROM unnest($1::text[]) WITH ORDINALITY AS u (addr, n) ORDER BY u.n
ON CONFLICT DO NOTHING RETURNING version`

	postgresCredentials = `INSERT INTO auth_credential (addr, mechanism, iterations, salt, stored_key, server_key)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::bytea[], $5::bytea[], $6::bytea[])`
)

// Load implements Store.
func (s *Postgres) Load(ctx context.Context, user stanza.Addr, mechanisms ...string) (Account, error) {
	a := Account{Addr: user}
	if mechanisms == nil {
		mechanisms = []string{}
	}
	exists := false
	err := s.db.Query(ctx, postgresLoad, func(rows *sql.Rows) (bool, error) {
		exists = true
		var created int64
		var mechanism sql.NullString
		var iterations sql.NullInt64
		var c Credential
		err := rows.Scan(&a.Version, &created, &a.Disabled, &a.Removing, &mechanism, &iterations, &c.Salt, &c.StoredKey, &c.ServerKey)
		a.Created = time.Unix(created, 0)
		if mechanism.Valid {
			c.Mechanism, c.Iterations = mechanism.String, int(iterations.Int64)
			a.Credentials = append(a.Credentials, c)
		}
		return true, err
	}, user.String(), mechanisms)
	if err == nil && !exists {
		err = ErrNotFound
	}
	return a, failed("load account", err)
}

// Create implements Store.
func (s *Postgres) Create(ctx context.Context, accounts []Account) ([]error, error) {
	errs := make([]error, len(accounts))
	if len(accounts) == 0 {
		return errs, nil
	}
	addrs := make([]string, len(accounts))
	for i, a := range accounts {
		addrs[i] = a.Addr.String()
	}
	err := s.change(ctx, func(l *logged) error {
		now := time.Now().Unix()
		created, err := l.numbers(postgresCreate, addrs, l.last, now)
		if err != nil {
			return err
		}
		for i := range errs {
			errs[i] = ErrExists
		}
		var names []string
		var seqs []int64
		var creds credentialRows
		for _, version := range created {
			i := int(version - l.last - 1)
			errs[i] = nil
			names, seqs = append(names, addrs[i]), append(seqs, version)
			creds.add(accounts[i])
		}
		l.last += int64(len(accounts))
		if err := l.exec(`INSERT INTO auth_change (seq, addr, at) SELECT *, $3 FROM unnest($1::bigint[], $2::text[])`, seqs, names, now); err != nil {
			return err
		}
		return creds.insert(l)
	})
	if err != nil {
		return nil, fmt.Errorf("auth: create accounts: %w", err)
	}
	return errs, nil
}

// Update implements Store.
func (s *Postgres) Update(ctx context.Context, a Account) error {
	err := s.change(ctx, func(l *logged) error {
		seq, err := l.log(a.Addr, false)
		if err != nil {
			return err
		}
		err = l.find(`UPDATE auth_account SET disabled = $2, version = $3 WHERE addr = $1`, a.Addr.String(), a.Disabled, seq)
		if err != nil || len(a.Credentials) == 0 {
			return err
		}
		if err := l.exec(`DELETE FROM auth_credential WHERE addr = $1`, a.Addr.String()); err != nil {
			return err
		}
		var creds credentialRows
		creds.add(a)
		return creds.insert(l)
	})
	return failed("update account", err)
}

// Remove implements Store.
func (s *Postgres) Remove(ctx context.Context, user stanza.Addr) (seq int64, err error) {
	err = s.change(ctx, func(l *logged) error {
		if err := l.find(`DELETE FROM auth_account WHERE addr = $1`, user.String()); err != nil {
			return err
		}
		seq, err = l.log(user, true)
		return err
	})
	return seq, failed("remove account", err)
}

// List implements Store.
func (s *Postgres) List(ctx context.Context, after stanza.Addr, limit int) ([]Account, error) {
	var list []Account
	err := s.db.Query(ctx, postgresList, func(rows *sql.Rows) (bool, error) {
		var a Account
		var addr string
		var created int64
		if err := rows.Scan(&addr, &a.Version, &created, &a.Disabled); err != nil {
			return false, err
		}
		a.Created = time.Unix(created, 0)
		var err error
		a.Addr, err = stanza.ParseAddr(addr)
		list = append(list, a)
		return true, err
	}, after.String(), limit)
	return list, failed("list accounts", err)
}

// Secret implements Store.
func (s *Postgres) Secret(ctx context.Context) (secret []byte, err error) {
	fresh := make([]byte, 32)
	if _, err := rand.Read(fresh); err != nil {
		return nil, fmt.Errorf("auth: secret: %w", err)
	}
	// Of gateways that start together one inserts. The others wait for its commit, and the next statement sees it.
	if _, err := s.db.Exec(ctx, `INSERT INTO auth_secret (name, value) VALUES ('salt', $1) ON CONFLICT DO NOTHING`, fresh); err != nil {
		return nil, fmt.Errorf("auth: secret: %w", err)
	}
	err = s.db.Query(ctx, `SELECT value FROM auth_secret WHERE name = 'salt'`, func(rows *sql.Rows) (bool, error) {
		return false, rows.Scan(&secret)
	})
	if err == nil && secret == nil {
		err = errors.New("it is gone")
	}
	return secret, failed("secret", err)
}

// credentialRows is credentials by column, as unnest takes them.
type credentialRows struct {
	addrs, mechanisms     []string
	iterations            []int32
	salts, stored, server [][]byte
}

func (r *credentialRows) add(a Account) {
	for _, c := range a.Credentials {
		r.addrs, r.mechanisms = append(r.addrs, a.Addr.String()), append(r.mechanisms, c.Mechanism)
		r.iterations = append(r.iterations, int32(c.Iterations))
		r.salts, r.stored, r.server = append(r.salts, c.Salt), append(r.stored, c.StoredKey), append(r.server, c.ServerKey)
	}
}

func (r *credentialRows) insert(l *logged) error {
	if len(r.addrs) == 0 {
		return nil
	}
	return l.exec(postgresCredentials, r.addrs, r.mechanisms, r.iterations, r.salts, r.stored, r.server)
}
