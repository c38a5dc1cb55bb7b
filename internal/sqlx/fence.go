package sqlx

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

//go:embed migrations/postgres/*.sql
var fenceMigrations embed.FS

// ErrFenced says that other gateways have taken this one for dead: nothing that it writes counts any more.
var ErrFenced = errors.New("sqlx: this gateway was fenced")

// Join makes this process the gateway node: from now on each of its transactions is refused with ErrFenced once Fence
// was called for node, however late it comes. A gateway that was paused, and whose users others have taken over, so
// cannot write what was overtaken meanwhile. It is called before the first transaction.
func (p *Postgres) Join(ctx context.Context, node string) error {
	dir, err := fs.Sub(fenceMigrations, "migrations/postgres")
	if err != nil {
		return fmt.Errorf("sqlx: join: %w", err)
	}
	if err := p.Migrate(ctx, "gateway", dir); err != nil {
		return err
	}
	if _, err := p.Exec(ctx, `INSERT INTO gateway_node (node) VALUES ($1) ON CONFLICT DO NOTHING`, node); err != nil {
		return err
	}
	p.node = node
	return nil
}

// Fence lets node write nothing any more. It waits for transactions of node that are under way. A gateway that ends may
// fence itself.
func (p *Postgres) Fence(ctx context.Context, node string) error {
	_, err := p.exec(ctx, `DELETE FROM gateway_node WHERE node = $1`, node)
	return err
}

// Stands returns ErrFenced when Fence was called for this gateway.
func (p *Postgres) Stands(ctx context.Context) error {
	stands := false
	err := p.Query(ctx, `SELECT 1 FROM gateway_node WHERE node = $1`, func(*sql.Rows) (bool, error) {
		stands = true
		return false, nil
	}, p.node)
	if err == nil && !stands {
		return ErrFenced
	}
	return err
}

// guard begins a transaction of a gateway that has joined: its row stays until the transaction ends.
func (p *Postgres) guard(ctx context.Context, tx *sql.Tx) error {
	if p.node == "" {
		return nil
	}
	var one int
	err := tx.QueryRowContext(ctx, `SELECT 1 FROM gateway_node WHERE node = $1 FOR KEY SHARE`, p.node).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrFenced
	}
	if err != nil {
		return fmt.Errorf("sqlx: fence: %w", err)
	}
	return nil
}
