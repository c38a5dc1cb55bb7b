// Package sqlx opens the databases of a gateway and gives its rooms the few things that they all need of them:
// migrations for each room, transactions and group commits. [DB] is SQLite, on one machine; [Postgres] is PostgreSQL,
// which the gateways of a cluster share. What follows is about SQLite unless it says otherwise.
//
// # Pools
//
// DB.Write has exactly one connection, and its transactions begin IMMEDIATE, so that writers of this process queue in
// Go instead of meeting SQLITE_BUSY; those of another process (the operator's sub-commands beside a running gateway)
// wait in SQLite for Config.BusyTimeout. DB.Read has a few connections that are query_only; in WAL mode readers never
// wait for the writer. Whoever holds a transaction of DB.Write must not ask DB.Write for anything else until it ends:
// there is no second connection, and the call would wait for ever.
//
// # Durability
//
// The database is in WAL mode with synchronous=NORMAL: the death of the process (kill -9, a crash, a panic) loses
// nothing that was committed, since a commit is in the kernel's page cache. A power cut or a kernel crash may lose the
// commits since the last checkpoint, never tear one or damage the file. That is enough because the journal in the
// same directory is what acknowledgements wait for. Who has no such journal in front sets
// HOLDFAST_SQLITE_SYNCHRONOUS=full: one fsync a commit.
//
// # Migrations
//
// Each room embeds its own numbered SQL files in goose's format and passes them to DB.Migrate with its name; each has
// its own version table, goose_<room>, so rooms migrate independently.
//
// # Two processes
//
// Acquire takes the data directory for serving; a second gateway is refused with ErrLocked. The sub-commands do not
// take it. Migrations are serialised between processes by a lock file of their own.
//
// # PostgreSQL
//
// One pool of DATABASE_CONNS connections. Nothing waits for ever: connecting ends after DATABASE_CONNECT_TIMEOUT, and
// a query, or a transaction with all its statements, after DATABASE_TIMEOUT. The server has the same limits
// (statement_timeout, idle_in_transaction_session_timeout), so that a gateway which is cut off holds no locks for longer.
// What ran out of time or lost its connection is Transient; whether a commit that was not answered was made, nobody
// knows, so writes are such as may come twice.
//
// Transactions are READ COMMITTED. The migrations of several gateways that start together come one after the other,
// under an advisory lock.
//
// # Goroutines
//
// Each Batcher owns one goroutine, which ends with Batcher.Close. The package starts no other; database/sql has its
// own for each pool, which ends with DB.Close.
package sqlx
