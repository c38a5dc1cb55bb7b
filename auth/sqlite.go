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

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

// SQLite is the Store of a gateway on one machine.
type SQLite struct{ db *sqlx.DB }

// OpenSQLite brings the tables of db up to date.
func OpenSQLite(ctx context.Context, db *sqlx.DB) (*SQLite, error) {
	files, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	if err := db.Migrate(ctx, "auth", files); err != nil {
		return nil, err
	}
	return &SQLite{db: db}, nil
}

const (
	removing         = `EXISTS (SELECT 1 FROM auth_change WHERE addr = a.addr AND pending = 1)`
	selectAccount    = `SELECT a.version, a.created, a.disabled, ` + removing + ` FROM auth_account a WHERE a.addr = ?`
	selectCredential = `SELECT a.version, a.created, a.disabled, ` + removing + `, c.iterations, c.salt, c.stored_key, c.server_key
		FROM auth_account a LEFT JOIN auth_credential c ON c.addr = a.addr AND c.mechanism = ? WHERE a.addr = ?`
	insertAccount    = `INSERT INTO auth_account (addr, version, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	insertCredential = `INSERT INTO auth_credential (addr, mechanism, iterations, salt, stored_key, server_key)
		VALUES (?, ?, ?, ?, ?, ?)`
	insertChange = `INSERT INTO auth_change (addr, at, pending) VALUES (?, ?, ?)`
)

// Load implements Store.
func (s *SQLite) Load(ctx context.Context, user stanza.Addr, mechanisms ...string) (Account, error) {
	a := Account{Addr: user}
	// The driver starts a goroutine for a context that can end; these lookups do not wait for anything.
	ctx = context.WithoutCancel(ctx)
	if len(mechanisms) == 0 {
		row, err := s.row(ctx, selectAccount, user.String())
		if err != nil {
			return a, err
		}
		var created int64
		err = row.Scan(&a.Version, &created, &a.Disabled, &a.Removing)
		a.Created = time.Unix(created, 0)
		return a, found(err)
	}
	for _, m := range mechanisms {
		row, err := s.row(ctx, selectCredential, m, user.String())
		if err != nil {
			return a, err
		}
		var created int64
		var iterations sql.NullInt64
		c := Credential{Mechanism: m}
		if err := row.Scan(&a.Version, &created, &a.Disabled, &a.Removing, &iterations, &c.Salt, &c.StoredKey, &c.ServerKey); err != nil {
			return a, found(err)
		}
		a.Created = time.Unix(created, 0)
		if iterations.Valid {
			c.Iterations = int(iterations.Int64)
			a.Credentials = append(a.Credentials, c)
		}
	}
	return a, nil
}

// Create implements Store.
func (s *SQLite) Create(ctx context.Context, accounts []Account) ([]error, error) {
	errs := make([]error, len(accounts))
	now := time.Now().Unix()
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		for i, a := range accounts {
			res, err := s.exec(ctx, tx, insertAccount, a.Addr.String(), 0, now)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil {
				return err
			} else if n == 0 {
				errs[i] = ErrExists
				continue
			}
			if err := s.changed(ctx, tx, a.Addr, now); err != nil {
				return err
			}
			if err := s.putCredentials(ctx, tx, a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("auth: create accounts: %w", err)
	}
	return errs, nil
}

// Update implements Store.
func (s *SQLite) Update(ctx context.Context, a Account) error {
	err := s.db.Tx(ctx, func(tx *sql.Tx) error {
		res, err := s.exec(ctx, tx, `UPDATE auth_account SET disabled = ? WHERE addr = ?`, a.Disabled, a.Addr.String())
		if err := affected(res, err); err != nil {
			return err
		}
		if err := s.changed(ctx, tx, a.Addr, time.Now().Unix()); err != nil {
			return err
		}
		if len(a.Credentials) == 0 {
			return nil
		}
		if _, err := s.exec(ctx, tx, `DELETE FROM auth_credential WHERE addr = ?`, a.Addr.String()); err != nil {
			return err
		}
		return s.putCredentials(ctx, tx, a)
	})
	return failed("update account", err)
}

// Remove implements Store.
func (s *SQLite) Remove(ctx context.Context, user stanza.Addr) (seq int64, err error) {
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		res, err := s.exec(ctx, tx, `DELETE FROM auth_account WHERE addr = ?`, user.String())
		if err := affected(res, err); err != nil {
			return err
		}
		res, err = s.exec(ctx, tx, insertChange, user.String(), time.Now().Unix(), 1)
		if err != nil {
			return err
		}
		seq, err = res.LastInsertId()
		return err
	})
	return seq, failed("remove account", err)
}

// List implements Store.
func (s *SQLite) List(ctx context.Context, after stanza.Addr, limit int) ([]Account, error) {
	rows, err := s.db.Read.QueryContext(ctx,
		`SELECT addr, version, created, disabled FROM auth_account WHERE addr > ? ORDER BY addr LIMIT ?`, after.String(), limit)
	if err != nil {
		return nil, fmt.Errorf("auth: list accounts: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var list []Account
	for rows.Next() {
		var a Account
		var addr string
		var created int64
		if err := rows.Scan(&addr, &a.Version, &created, &a.Disabled); err != nil {
			return nil, fmt.Errorf("auth: list accounts: %w", err)
		}
		if a.Addr, err = stanza.ParseAddr(addr); err != nil {
			return nil, fmt.Errorf("auth: list accounts: %w", err)
		}
		a.Created = time.Unix(created, 0)
		list = append(list, a)
	}
	return list, rows.Err()
}

// Secret implements Store.
func (s *SQLite) Secret(ctx context.Context) (secret []byte, err error) {
	err = s.db.Tx(ctx, func(tx *sql.Tx) error {
		fresh := make([]byte, 32)
		if _, err := rand.Read(fresh); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO auth_secret (name, value) VALUES ('salt', ?) ON CONFLICT DO NOTHING`, fresh); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT value FROM auth_secret WHERE name = 'salt'`).Scan(&secret)
	})
	if err != nil {
		return nil, fmt.Errorf("auth: secret: %w", err)
	}
	return secret, nil
}

// changed logs the change and makes it the account's version.
func (s *SQLite) changed(ctx context.Context, tx *sql.Tx, user stanza.Addr, now int64) error {
	res, err := s.exec(ctx, tx, insertChange, user.String(), now, 0)
	if err != nil {
		return err
	}
	seq, err := res.LastInsertId()
	if err != nil {
		return err
	}
	_, err = s.exec(ctx, tx, `UPDATE auth_account SET version = ? WHERE addr = ?`, seq, user.String())
	return err
}

func (s *SQLite) putCredentials(ctx context.Context, tx *sql.Tx, a Account) error {
	for _, c := range a.Credentials {
		if _, err := s.exec(ctx, tx, insertCredential, a.Addr.String(), c.Mechanism, c.Iterations, c.Salt, c.StoredKey, c.ServerKey); err != nil {
			return err
		}
	}
	return nil
}

func (s *SQLite) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) (sql.Result, error) {
	st, err := s.db.TxStmt(ctx, tx, query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(ctx, args...)
}

func (s *SQLite) row(ctx context.Context, query string, args ...any) (*sql.Row, error) {
	st, err := s.db.Stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	return st.QueryRowContext(ctx, args...), nil
}

func affected(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return failed("load account", err)
}

// failed says what failed, but for ErrNotFound, which is an answer.
func failed(what string, err error) error {
	if err == nil || errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("auth: %s: %w", what, err)
}
