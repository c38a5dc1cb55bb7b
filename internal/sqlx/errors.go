package sqlx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Transient reports whether the same statements may succeed later without anybody changing them: another process
// holds the lock, the disk is full or fails, memory is short, the database's server is away, starts, or did not answer
// in time.
func Transient(err error) bool {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, context.DeadlineExceeded) || disconnected(err) {
		return true
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return transientState(e.Code)
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return transientCode(e.Code())
	}
	return false
}

func transientCode(code int) bool {
	switch code & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL:
		return true
	}
	return false
}

// transientState judges a SQLSTATE of PostgreSQL (its appendix A).
func transientState(state string) bool {
	switch state {
	case "25006", // read_only_sql_transaction: the server became a standby
		"25P03", // idle_in_transaction_session_timeout
		"40001", // serialization_failure
		"40P01", // deadlock_detected
		"55P03", // lock_not_available
		"57014": // query_canceled, by statement_timeout
		return true
	}
	if len(state) != 5 {
		return false
	}
	switch state[:2] {
	case "08", // connection exception
		"53", // insufficient resources: disk, memory, connections
		"58": // trouble of the system below the server
		return true
	}
	return state[:4] == "57P0" // the server ends, crashed or starts
}

// disconnected reports whether err is a connection that was not made or broke. Those that ran out of time are not
// among them.
func disconnected(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true // whatever the server said: it is no fault of the statement
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return len(e.Code) == 5 && (e.Code[:4] == "57P0" || e.Code[:2] == "08" || e.Code == "25P03")
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, gone := range []error{
		driver.ErrBadConn, pgconn.ErrConnClosed, sql.ErrConnDone, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// Conflict reports whether err is a primary key or unique index that has the row already.
func Conflict(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code == "23505"
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE)
}
