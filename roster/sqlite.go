package roster

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"

	"holdfast/internal/sqlx"
)

//go:embed migrations/sqlite/*.sql
var migrations embed.FS

// SQLite is the [Store] of a gateway on one machine. What durable means is the database's setting.
type SQLite struct {
	db *sqlx.DB
}

// OpenSQLite brings the rosters' tables in db up to date and returns the Store over them. The caller closes db.
func OpenSQLite(ctx context.Context, db *sqlx.DB) (*SQLite, error) {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	if err := db.Migrate(ctx, "roster", dir); err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	return &SQLite{db: db}, nil
}

const (
	// One query for version and items: most rosters that are read are empty, and then it finds no row at all.
	sqliteLoad = `SELECT r.version, r.floor, i.contact, i.name, i.groups, i.subscription, i.ask, i.approved,
	i.pending_in, i.request, i.listed, i.version
FROM roster AS r LEFT JOIN roster_item AS i ON i.user = r.user WHERE r.user = ?`

	sqliteVersion = `INSERT INTO roster (user, version, floor) VALUES (?, ?, ?)
ON CONFLICT (user) DO UPDATE SET version = excluded.version, floor = excluded.floor`

	sqlitePut = `INSERT OR REPLACE INTO roster_item (user, contact, name, groups, subscription, ask, approved,
	pending_in, request, listed, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

	sqliteDelete      = `DELETE FROM roster_item WHERE user = ? AND contact = ?`
	sqliteRemove      = `DELETE FROM roster WHERE user = ?`
	sqliteRemoveItems = `DELETE FROM roster_item WHERE user = ?`
)

// Load implements [Store].
func (s *SQLite) Load(ctx context.Context, user string) (rec Record, err error) {
	// The driver starts a goroutine for each statement whose context can end, which costs more than this query.
	ctx = context.WithoutCancel(ctx)
	query, err := s.db.Stmt(ctx, sqliteLoad)
	if err != nil {
		return Record{}, err
	}
	rows, err := query.QueryContext(ctx, user)
	if err != nil {
		return Record{}, err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	for rows.Next() {
		row, ok, err := rec.scan(rows)
		if err != nil {
			return Record{}, err
		}
		if ok {
			rec.Rows = append(rec.Rows, row)
		}
	}
	return rec, rows.Err()
}

// scan reads one row of sqliteLoad into rec and a Row; ok is false for a roster without items.
func (rec *Record) scan(rows *sql.Rows) (row Row, ok bool, err error) {
	var (
		version, floor                  int64
		contact, name, groups           sql.Null[string]
		subscription, itemVersion       sql.Null[int64]
		ask, approved, pendingIn, shown sql.Null[bool]
	)
	err = rows.Scan(&version, &floor, &contact, &name, &groups, &subscription, &ask, &approved, &pendingIn,
		&row.Request, &shown, &itemVersion)
	if err != nil {
		return Row{}, false, err
	}
	rec.Version, rec.Floor = uint64(version), uint64(floor)
	if !contact.Valid {
		return Row{}, false, nil
	}
	if groups.Valid {
		if err := json.Unmarshal([]byte(groups.V), &row.Groups); err != nil {
			return Row{}, false, fmt.Errorf("groups: %w", err)
		}
	}
	row.Contact, row.Name = contact.V, name.V
	row.Subscription = Subscription(subscription.V & int64(Both))
	row.Ask, row.Approved, row.PendingIn, row.Listed = ask.V, approved.V, pendingIn.V, shown.V
	row.Version = uint64(itemVersion.V)
	return row, true, nil
}

// Save implements [Store].
func (s *SQLite) Save(ctx context.Context, user string, d Delta) error {
	return s.db.Tx(ctx, func(tx *sql.Tx) error {
		// Only the beginning can wait; see Load.
		ctx := context.WithoutCancel(ctx)
		if err := s.exec(ctx, tx, sqliteVersion, user, int64(d.Version), int64(d.Floor)); err != nil {
			return err
		}
		for _, r := range d.Put {
			groups := sql.NullString{}
			if len(r.Groups) > 0 {
				text, err := json.Marshal(r.Groups)
				if err != nil {
					return err
				}
				groups = sql.NullString{String: string(text), Valid: true}
			}
			err := s.exec(ctx, tx, sqlitePut, user, r.Contact, r.Name, groups, int64(r.Subscription), r.Ask, r.Approved,
				r.PendingIn, r.Request, r.Listed, int64(r.Version))
			if err != nil {
				return err
			}
		}
		for _, contact := range d.Delete {
			if err := s.exec(ctx, tx, sqliteDelete, user, contact); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove implements [Store].
func (s *SQLite) Remove(ctx context.Context, user string) error {
	return s.db.Tx(ctx, func(tx *sql.Tx) error {
		ctx := context.WithoutCancel(ctx)
		if err := s.exec(ctx, tx, sqliteRemoveItems, user); err != nil {
			return err
		}
		return s.exec(ctx, tx, sqliteRemove, user)
	})
}

func (s *SQLite) exec(ctx context.Context, tx *sql.Tx, query string, args ...any) error {
	st, err := s.db.TxStmt(ctx, tx, query)
	if err != nil {
		return err
	}
	_, err = st.ExecContext(ctx, args...)
	return err
}
