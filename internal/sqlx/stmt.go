package sqlx

import (
	"context"
	"database/sql"
	"fmt"
)

// Stmt returns query prepared on Read, prepared once for the life of the DB. Queries are constants of the program:
// text made at run time would grow the cache without bound. The statement belongs to the DB and is not closed.
func (db *DB) Stmt(ctx context.Context, query string) (*sql.Stmt, error) {
	db.mu.RLock()
	st := db.reads[query]
	db.mu.RUnlock()
	if st != nil {
		return st, nil
	}
	st, err := db.Read.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("sqlx: prepare: %w", err)
	}
	return db.keep(db.reads, query, st), nil
}

// TxStmt returns query prepared for a transaction of Tx. The first transaction that asks pays for the preparing; the
// statement is kept for those that follow. Queries are constants of the program, as with Stmt.
func (db *DB) TxStmt(ctx context.Context, tx *sql.Tx, query string) (*sql.Stmt, error) {
	db.mu.RLock()
	st := db.writes[query]
	db.mu.RUnlock()
	if st != nil {
		return tx.StmtContext(ctx, st), nil
	}
	// Write has one connection and tx holds it, so the lasting statement can only be made when tx is over.
	db.mu.Lock()
	db.wanted[query] = struct{}{}
	db.mu.Unlock()
	st, err := tx.PrepareContext(ctx, query)
	if err != nil {
		db.mu.Lock()
		delete(db.wanted, query)
		db.mu.Unlock()
		return nil, fmt.Errorf("sqlx: prepare: %w", err)
	}
	return st, nil
}

func (db *DB) prepareWanted(ctx context.Context) {
	db.mu.Lock()
	var wanted []string
	for query := range db.wanted {
		wanted = append(wanted, query)
	}
	clear(db.wanted)
	db.mu.Unlock()
	for _, query := range wanted {
		// One that fails here is asked for, and reported, by the next transaction.
		if st, err := db.Write.PrepareContext(ctx, query); err == nil {
			db.keep(db.writes, query, st)
		}
	}
}

// keep stores st unless another goroutine was first, and returns the one that stays.
func (db *DB) keep(in map[string]*sql.Stmt, query string, st *sql.Stmt) *sql.Stmt {
	db.mu.Lock()
	defer db.mu.Unlock()
	if first := in[query]; first != nil {
		_ = st.Close()
		return first
	}
	in[query] = st
	return st
}
