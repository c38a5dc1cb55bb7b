package offline

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"slices"

	"holdfast/internal/sqlx"
	"holdfast/stanza"
)

//go:embed migrations/postgres/*.sql migrations/purge/postgres/*.sql
var postgresMigrations embed.FS

// Postgres is the [Backend] of gateways that share a database. There each Mailbox has users of its own, at any time;
// see [Config].Shared.
type Postgres struct {
	db *sqlx.Postgres
}

var _ Backend = (*Postgres)(nil)

// OpenPostgres brings the mailboxes' tables in db up to date. The caller closes db, after the Mailbox.
func OpenPostgres(ctx context.Context, db *sqlx.Postgres) (*Postgres, error) {
	for room, path := range map[string]string{"offline": "migrations/postgres", "offline_purge": "migrations/purge/postgres"} {
		dir, err := fs.Sub(postgresMigrations, path)
		if err == nil {
			err = db.Migrate(ctx, room, dir)
		}
		if err != nil {
			return nil, fmt.Errorf("offline: %w", err)
		}
	}
	return &Postgres{db: db}, nil
}

const (
	postgresPut = `INSERT INTO offline_message (recipient, id, sender, raw, expires, mark)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[]) ON CONFLICT DO NOTHING`
	postgresRemove = `DELETE FROM offline_message AS m USING unnest($1::text[], $2::bytea[]) AS u (recipient, id)
WHERE m.recipient = u.recipient AND m.id = u.id`
	postgresPurge = `DELETE FROM offline_message WHERE recipient = ANY ($1::text[])`
	postgresLimit = `INSERT INTO offline_limit (recipient, messages) SELECT * FROM unnest($1::text[], $2::bigint[])
ON CONFLICT (recipient) DO UPDATE SET messages = excluded.messages`
	postgresUnlimit = `DELETE FROM offline_limit WHERE recipient = ANY ($1::text[])`

	// The greatest id is looked up once, in the index; max() knows no bytea.
	postgresTotals = `SELECT sender, count(*), sum(octet_length(raw))::bigint,
	(SELECT id FROM offline_message WHERE recipient = $1 ORDER BY id DESC LIMIT 1)
FROM offline_message WHERE recipient = $1 GROUP BY sender
UNION ALL SELECT NULL, messages, NULL, NULL FROM offline_limit WHERE recipient = $1`
	postgresBodies = `SELECT id, sender, octet_length(raw), raw, expires FROM offline_message
WHERE recipient = $1 AND id > $2 AND id <= $3 ORDER BY id LIMIT $4`
	postgresHeads = `SELECT id, sender, octet_length(raw), NULL::bytea, 0::bigint FROM offline_message
WHERE recipient = $1 AND id > $2 AND id <= $3 ORDER BY id LIMIT $4`
	// One seek for each user; DISTINCT would read every row.
	postgresUsers = `WITH RECURSIVE u (recipient) AS (
	(SELECT recipient FROM offline_message WHERE recipient > $1 ORDER BY recipient LIMIT 1)
	UNION ALL
	SELECT (SELECT m.recipient FROM offline_message AS m WHERE m.recipient > u.recipient ORDER BY m.recipient LIMIT 1)
	FROM u WHERE u.recipient IS NOT NULL
) SELECT recipient FROM u WHERE recipient IS NOT NULL LIMIT $2`
	postgresMarks = `SELECT id, octet_length(raw), mark FROM offline_message
WHERE recipient = $1 AND sender = $2 AND mark IS NOT NULL AND mark BETWEEN $3 AND $4`
	postgresDue = `SELECT expires, recipient, id FROM offline_message
WHERE expires > 0 AND expires <= $1 AND (expires, recipient, id) > ($2, $3, $4) ORDER BY expires, recipient, id LIMIT $5`
	postgresChoosers = `SELECT recipient FROM offline_limit WHERE recipient > $1 ORDER BY recipient LIMIT $2`
	// A large table is not read for it: what the last ANALYZE found is near enough.
	postgresStored = `SELECT CASE WHEN c.n <= $1 THEN c.n ELSE greatest(c.n, (
	SELECT reltuples::bigint FROM pg_class WHERE oid = 'offline_message'::regclass
)) END FROM (SELECT count(*) AS n FROM (SELECT FROM offline_message LIMIT $1 + 1) AS first) AS c`
)

const (
	// countedExactly is how many messages Stored counts one by one.
	countedExactly = 50_000
	// Rows of one query of Scan, at first and at most: who stops early has the rest of a query for nothing.
	scanFirst, scanMost = 32, 512
)

// Tx implements [Backend].
func (s *Postgres) Tx(ctx context.Context, fn func(tx *sql.Tx) error) error { return s.db.Tx(ctx, fn) }

// Apply implements [Backend], by at most one statement for each Op.
func (s *Postgres) Apply(ctx context.Context, tx *sql.Tx, batch []Change) error {
	ctx, cancel := s.db.Bound(ctx)
	defer cancel()
	n := netOf(batch)
	for _, step := range []struct {
		statement string
		rows      int
		args      []any
	}{
		{postgresPurge, len(n.purged), []any{n.purged}},
		{postgresRemove, len(n.goneIDs), []any{n.goneUsers, n.goneIDs}},
		{postgresPut, len(n.ids), []any{n.users, n.ids, n.senders, n.raws, n.expires, n.marks}},
		{postgresLimit, len(n.limited), []any{n.limited, n.limits}},
		{postgresUnlimit, len(n.unlimited), []any{n.unlimited}},
	} {
		if step.rows == 0 {
			continue
		}
		if _, err := tx.ExecContext(ctx, step.statement, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// net is what a batch comes to: purges, then removals, then puts, by column as unnest takes them.
type net struct {
	purged         []string
	goneUsers      []string
	goneIDs        [][]byte
	users, senders []string
	ids, raws      [][]byte
	marks          [][]byte // nil for none
	expires        []int64

	limited, unlimited []string // users who chose a limit, and who have none any more
	limits             []int64
}

// netOf leaves out the puts that a later change of the batch takes back. What is left of them may come after all
// removals: a put is only moved behind changes that do not concern its message, and a removal before it stays before.
func netOf(batch []Change) net {
	type message struct {
		user string
		id   stanza.ID
	}
	var n net
	removed := make(map[message]struct{}) // by what comes after the change that is looked at
	purged := make(map[string]struct{})
	chosen := make(map[string]struct{})
	for i := len(batch) - 1; i >= 0; i-- {
		c := &batch[i]
		if c.Op == OpLimit {
			n.limit(c, chosen)
			continue
		}
		if _, gone := purged[c.User]; gone {
			continue // whatever it was
		}
		switch c.Op {
		case OpPut:
			if _, gone := removed[message{c.User, c.ID}]; !gone {
				n.users, n.senders = append(n.users, c.User), append(n.senders, c.Sender)
				n.ids, n.raws = append(n.ids, c.ID[:]), append(n.raws, c.Raw)
				n.expires = append(n.expires, c.Expires)
				n.marks = append(n.marks, c.Mark.row())
			}
		case OpRemove:
			for k := range c.IDs {
				key := message{c.User, c.IDs[k]}
				if _, gone := removed[key]; gone {
					continue
				}
				removed[key] = struct{}{}
				n.goneUsers, n.goneIDs = append(n.goneUsers, c.User), append(n.goneIDs, c.IDs[k][:])
			}
		case OpPurge:
			purged[c.User] = struct{}{}
			n.purged = append(n.purged, c.User)
		}
	}
	// Of two puts of one message the first counts.
	slices.Reverse(n.users)
	slices.Reverse(n.senders)
	slices.Reverse(n.ids)
	slices.Reverse(n.raws)
	slices.Reverse(n.expires)
	slices.Reverse(n.marks)
	return n
}

// limit notes the last choice of each user; it concerns no message.
func (n *net) limit(c *Change, chosen map[string]struct{}) {
	if _, later := chosen[c.User]; later {
		return
	}
	chosen[c.User] = struct{}{}
	if c.Limit.Chosen {
		n.limited, n.limits = append(n.limited, c.User), append(n.limits, c.Limit.row())
	} else {
		n.unlimited = append(n.unlimited, c.User)
	}
}

// Totals implements [Backend].
func (s *Postgres) Totals(ctx context.Context, user string) (t Totals, err error) {
	err = s.db.Query(ctx, postgresTotals, func(rows *sql.Rows) (bool, error) {
		var sender sql.NullString // none in the row that has the limit
		var messages int64
		var bytes sql.NullInt64
		var last sql.RawBytes
		if err := rows.Scan(&sender, &messages, &bytes, &last); err != nil {
			return false, err
		}
		if !sender.Valid {
			t.Own = ownLimit(messages)
			return true, nil
		}
		if t.Senders == nil {
			t.Senders = make(map[string]int)
		}
		t.Senders[sender.String] = int(messages)
		t.Messages += int(messages)
		t.Bytes += bytes.Int64
		var err error
		t.Last, err = readID(last)
		return true, err
	}, user)
	return t, failed(err)
}

// Scan implements [Backend]. It takes several queries: what is committed between them, in front of where it is, is not
// seen any more.
func (s *Postgres) Scan(ctx context.Context, user string, in Range, yield func(Row) bool) error {
	if in.To.IsZero() {
		in.To = maxID
	}
	query := postgresHeads
	if in.Bodies {
		query = postgresBodies
	}
	for limit := scanFirst; ; limit = min(4*limit, scanMost) {
		read, stopped := 0, false
		err := s.db.Query(ctx, query, func(rows *sql.Rows) (bool, error) {
			var r Row
			var id sql.RawBytes
			err := rows.Scan(&id, &r.Sender, &r.Bytes, &r.Raw, &r.Expires)
			if err != nil {
				return false, err
			}
			if r.ID, err = readID(id); err != nil {
				return false, err
			}
			read, in.After = read+1, r.ID
			stopped = !yield(r)
			return !stopped, nil
		}, user, in.After[:], in.To[:], limit)
		if err != nil || stopped || read < limit {
			return failed(err)
		}
	}
}

// Users implements [Backend].
func (s *Postgres) Users(ctx context.Context, after string, n int) ([]string, error) {
	return s.names(ctx, postgresUsers, after, n)
}

// Marks implements [Backend].
func (s *Postgres) Marks(ctx context.Context, user, sender string, thread [16]byte) (found []Row, err error) {
	least, most := markRange(thread)
	err = s.db.Query(ctx, postgresMarks, func(rows *sql.Rows) (bool, error) {
		r, err := readMarked(rows)
		r.Sender = sender
		found = append(found, r)
		return true, err
	}, user, sender, least, most)
	return found, failed(err)
}

// Due implements [Backend].
func (s *Postgres) Due(ctx context.Context, now int64, after Due, n int) (due []Due, err error) {
	err = s.db.Query(ctx, postgresDue, func(rows *sql.Rows) (bool, error) {
		d, err := readDue(rows)
		due = append(due, d)
		return true, err
	}, now, after.Expires, after.User, after.ID[:], n)
	return due, failed(err)
}

// Choosers implements [Backend].
func (s *Postgres) Choosers(ctx context.Context, after string, n int) ([]string, error) {
	return s.names(ctx, postgresChoosers, after, n)
}

func (s *Postgres) names(ctx context.Context, query, after string, n int) (users []string, err error) {
	err = s.db.Query(ctx, query, func(rows *sql.Rows) (bool, error) {
		var user string
		err := rows.Scan(&user)
		users = append(users, user)
		return true, err
	}, after, n)
	return users, failed(err)
}

// Stored implements [Backend]. From countedExactly on it is an estimate: a count kept by every writer would have the
// gateways wait for each other.
func (s *Postgres) Stored(ctx context.Context) (n int64, err error) {
	err = s.db.Query(ctx, postgresStored, func(rows *sql.Rows) (bool, error) {
		return false, rows.Scan(&n)
	}, countedExactly)
	return n, failed(err)
}

func failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("offline: %w", err)
}
