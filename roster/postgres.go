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

//go:embed migrations/postgres/*.sql
var postgresMigrations embed.FS

// Postgres is the [Store] of gateways that share a database. Each method is one statement.
type Postgres struct {
	db *sqlx.Postgres
}

var _ Store = (*Postgres)(nil)

// OpenPostgres brings the rosters' tables in db up to date and returns the Store over them. The caller closes db.
func OpenPostgres(ctx context.Context, db *sqlx.Postgres) (*Postgres, error) {
	dir, err := fs.Sub(postgresMigrations, "migrations/postgres")
	if err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	if err := db.Migrate(ctx, "roster", dir); err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	return &Postgres{db: db}, nil
}

const (
	postgresLoad = `SELECT r.version, r.floor, i.contact, i.name, i.groups, i.subscription, i.ask, i.approved,
	i.pending_in, i.request, i.listed, i.version
FROM roster AS r LEFT JOIN roster_item AS i ON i.owner = r.owner WHERE r.owner = $1`

	// The parts of one statement see the same rows and are committed together. Put and Delete have no contact in
	// common, so their order is none.
	postgresSave = `WITH head AS (
	INSERT INTO roster (owner, version, floor) VALUES ($1, $2, $3)
	ON CONFLICT (owner) DO UPDATE SET version = excluded.version, floor = excluded.floor
), gone AS (
	DELETE FROM roster_item WHERE owner = $1 AND contact = ANY ($4::text[])
)
INSERT INTO roster_item (owner, contact, name, groups, subscription, ask, approved, pending_in, request, listed, version)
SELECT $1, * FROM unnest($5::text[], $6::text[], $7::text[], $8::smallint[], $9::boolean[], $10::boolean[],
	$11::boolean[], $12::bytea[], $13::boolean[], $14::bigint[])
ON CONFLICT (owner, contact) DO UPDATE SET name = excluded.name, groups = excluded.groups,
	subscription = excluded.subscription, ask = excluded.ask, approved = excluded.approved,
	pending_in = excluded.pending_in, request = excluded.request, listed = excluded.listed, version = excluded.version`

	postgresRemove = `WITH items AS (DELETE FROM roster_item WHERE owner = $1) DELETE FROM roster WHERE owner = $1`
)

// Load implements [Store].
func (s *Postgres) Load(ctx context.Context, user string) (rec Record, err error) {
	err = s.db.Query(ctx, postgresLoad, func(rows *sql.Rows) (bool, error) {
		row, ok, err := rec.scan(rows)
		if ok {
			rec.Rows = append(rec.Rows, row)
		}
		return true, err
	}, user)
	if err != nil {
		return Record{}, err
	}
	return rec, nil
}

// Save implements [Store].
func (s *Postgres) Save(ctx context.Context, user string, d Delta) error {
	n := len(d.Put)
	contacts, names, groups := make([]string, n), make([]string, n), make([]*string, n)
	subscriptions, requests, versions := make([]int16, n), make([][]byte, n), make([]int64, n)
	asks, approvals, pendings, listings := make([]bool, n), make([]bool, n), make([]bool, n), make([]bool, n)
	for i, r := range d.Put {
		contacts[i], names[i], subscriptions[i] = r.Contact, r.Name, int16(r.Subscription)
		if len(r.Groups) > 0 {
			text, err := json.Marshal(r.Groups)
			if err != nil {
				return err
			}
			list := string(text)
			groups[i] = &list
		}
		asks[i], approvals[i], pendings[i], listings[i] = r.Ask, r.Approved, r.PendingIn, r.Listed
		requests[i], versions[i] = r.Request, int64(r.Version)
	}
	gone := d.Delete
	if gone == nil {
		gone = []string{}
	}
	_, err := s.db.Exec(ctx, postgresSave, user, int64(d.Version), int64(d.Floor), gone, contacts, names, groups,
		subscriptions, asks, approvals, pendings, requests, listings, versions)
	return err
}

// Remove implements [Store].
func (s *Postgres) Remove(ctx context.Context, user string) error {
	_, err := s.db.Exec(ctx, postgresRemove, user)
	return err
}
