package sqlx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// connIdle and connLife bound what a connection outlives: a failover that a balancer hides, a name that points
	// elsewhere.
	connIdle = 5 * time.Minute
	connLife = 30 * time.Minute
	// pingAfter is how long a connection may have been idle before it is tried by a ping ahead of its next use.
	pingAfter = time.Second
)

// Postgres is an open PostgreSQL database, which other gateways may use too. It is safe for concurrent use. A
// connection that breaks is replaced when the next one is needed.
type Postgres struct {
	// static
	pool    *sql.DB
	connect *pgx.ConnConfig
	timeout time.Duration // 0 for none
	opened  time.Time
	node    string // set by Join: the gateway whose transactions these are

	silence silence
	lost    atomic.Int64 // when a connection was last found broken, in nanoseconds since opened; 0 for never
}

// OpenPostgres connects to the database of cfg.URL, and fails when that does not succeed within cfg.ConnectTimeout.
// The environment variables of libpq (PGPASSWORD, PGPASSFILE, PGSSLROOTCERT …) fill in what the URL does not say.
func OpenPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("sqlx: %w", err)
	}
	connect, err := cfg.parse()
	if err != nil {
		return nil, fmt.Errorf("sqlx: %w", err)
	}
	if connect.ConnectTimeout == 0 {
		connect.ConnectTimeout = cfg.ConnectTimeout
	}
	if connect.ValidateConnect == nil {
		// Of several hosts the one that can write; the others are its standbys.
		connect.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if connect.RuntimeParams["application_name"] == "" {
		connect.RuntimeParams["application_name"] = "holdfast"
	}
	p := &Postgres{connect: connect, timeout: cfg.Timeout, opened: time.Now()}
	p.silence.init()
	p.pool = stdlib.OpenDB(*connect, stdlib.OptionAfterConnect(p.limit), stdlib.OptionShouldPing(p.doubtful))
	p.pool.SetMaxOpenConns(cfg.Conns)
	p.pool.SetMaxIdleConns(max(cfg.Conns, 4))
	p.pool.SetConnMaxIdleTime(connIdle)
	p.pool.SetConnMaxLifetime(connLife)
	if err := p.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlx: open %s: %w", RedactURL(cfg.URL), err), p.pool.Close())
	}
	return p, nil
}

// Close closes the pool. Batchers are closed before.
func (p *Postgres) Close() error {
	p.silence.close()
	return p.pool.Close()
}

// Ping asks the database for an answer, and takes no longer than any query may.
func (p *Postgres) Ping(ctx context.Context) error {
	ctx, cancel := p.Bound(ctx)
	defer cancel()
	return p.pool.PingContext(ctx)
}

// Bound returns ctx with an end no later than a query may take.
func (p *Postgres) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, p.timeout)
}

// limit has the server end what this side has given up, even when it cannot be told so: a transaction whose gateway
// is cut off must not hold its locks until TCP notices.
func (p *Postgres) limit(ctx context.Context, conn *pgx.Conn) error {
	if p.timeout == 0 {
		return nil
	}
	ms := strconv.FormatInt(max(p.timeout.Milliseconds(), 1), 10)
	for _, name := range []string{"statement_timeout", "idle_in_transaction_session_timeout"} {
		if p.connect.RuntimeParams[name] != "" {
			continue // the operator's URL says it
		}
		// Not among the parameters a connection starts with: poolers refuse those that they do not know.
		if _, err := conn.Exec(ctx, "SELECT set_config($1, $2, false)", name, ms); err != nil {
			return err
		}
	}
	return nil
}

// doubtful reports whether a connection must prove itself before its next use. After one was found broken, all that
// were made before are suspects.
func (p *Postgres) doubtful(_ context.Context, params stdlib.ShouldPingParams) bool {
	lost := p.lost.Load()
	return params.IdleDuration > pingAfter || lost != 0 && params.IdleDuration >= time.Since(p.opened)-time.Duration(lost)
}

// broken reports whether err is the end of a connection while the caller still waits, and notes that.
func (p *Postgres) broken(ctx context.Context, err error) bool {
	if err == nil || !disconnected(err) {
		return false
	}
	p.lost.Store(int64(time.Since(p.opened)))
	return ctx.Err() == nil
}

// Tx implements [Transactor]: it runs fn in one transaction (READ COMMITTED) and commits it when fn returns nil. fn
// bounds its statements itself, by Bound; InTx does that for it. When Tx returns an error because the commit was not
// answered, the transaction may have been committed all the same.
func (p *Postgres) Tx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	return p.InTx(ctx, func(_ context.Context, tx *sql.Tx) error { return fn(tx) })
}

// InTx is Tx for a function that uses the context which it gets: it ends when the transaction's time is up.
func (p *Postgres) InTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if err := p.silence.check(); err != nil {
		return err
	}
	bound, cancel := p.Bound(ctx)
	defer cancel()
	err := p.inTx(bound, fn)
	p.silence.heard(ctx, bound, err, p.pool.PingContext)
	if err != nil && bound.Err() != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		// database/sql ends the transaction under the statement that runs, which then only says that it is over.
		err = fmt.Errorf("sqlx: transaction took longer than %v: %w", p.timeout, errors.Join(err, bound.Err()))
	}
	return err
}

func (p *Postgres) inTx(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	// Said expressly: the database may have another default, and ON CONFLICT and the log of changes rely on this one.
	opts := &sql.TxOptions{Isolation: sql.LevelReadCommitted}
	tx, err := p.pool.BeginTx(ctx, opts)
	if p.broken(ctx, err) {
		tx, err = p.pool.BeginTx(ctx, opts) // nothing has happened yet
	}
	if err != nil {
		return fmt.Errorf("sqlx: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // says ErrTxDone after a commit
	if err = p.guard(ctx, tx); err == nil {
		err = fn(ctx, tx)
	}
	if err != nil {
		p.broken(ctx, err)
		return err
	}
	if err := tx.Commit(); err != nil {
		p.broken(ctx, err)
		return fmt.Errorf("sqlx: commit: %w", err)
	}
	return nil
}

// Exec runs one statement by itself and returns how many rows it changed. It is sent again when the connection broke
// under it, so it must be one that may run twice.
func (p *Postgres) Exec(ctx context.Context, statement string, args ...any) (rows int64, err error) {
	if p.node != "" {
		err = p.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error {
			res, err := tx.ExecContext(ctx, statement, args...)
			if err != nil {
				return fmt.Errorf("sqlx: exec: %w", err)
			}
			rows, err = res.RowsAffected()
			return err
		})
		return rows, err
	}
	return p.exec(ctx, statement, args...)
}

func (p *Postgres) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	if err := p.silence.check(); err != nil {
		return 0, err
	}
	bound, cancel := p.Bound(ctx)
	defer cancel()
	res, err := p.pool.ExecContext(bound, statement, args...)
	if p.broken(bound, err) {
		res, err = p.pool.ExecContext(bound, statement, args...)
	}
	p.silence.heard(ctx, bound, err, p.pool.PingContext)
	if err != nil {
		return 0, fmt.Errorf("sqlx: exec: %w", err)
	}
	return res.RowsAffected()
}

// Query calls each with the rows until it returns false or an error, and closes them. What it does not take still
// crosses the network: the query has a LIMIT. The bound of a query is that of all its rows.
func (p *Postgres) Query(
	ctx context.Context, query string, each func(*sql.Rows) (more bool, err error), args ...any,
) error {
	if err := p.silence.check(); err != nil {
		return err
	}
	bound, cancel := p.Bound(ctx)
	defer cancel()
	begun := false
	once := func() error {
		rows, err := p.pool.QueryContext(bound, query, args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			begun = true
			if more, err := each(rows); err != nil || !more {
				return err
			}
		}
		return rows.Err()
	}
	err := once()
	if p.broken(bound, err) && !begun {
		err = once()
	}
	p.silence.heard(ctx, bound, err, p.pool.PingContext)
	if err != nil {
		return fmt.Errorf("sqlx: query: %w", err)
	}
	return nil
}
