-- +goose Up
CREATE TABLE auth_account (
    addr     TEXT PRIMARY KEY,           -- bare JID
    version  INTEGER NOT NULL,           -- auth_change.seq of the last change
    created  INTEGER NOT NULL,           -- unix seconds
    disabled INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE auth_credential (
    addr       TEXT NOT NULL REFERENCES auth_account (addr) ON DELETE CASCADE,
    mechanism  TEXT NOT NULL,
    iterations INTEGER NOT NULL,
    salt       BLOB NOT NULL,
    stored_key BLOB NOT NULL,
    server_key BLOB NOT NULL,
    PRIMARY KEY (addr, mechanism)
) STRICT, WITHOUT ROWID;

-- What other processes must hear of. AUTOINCREMENT: a seq is never used twice.
CREATE TABLE auth_change (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    addr    TEXT NOT NULL,
    at      INTEGER NOT NULL,            -- unix seconds
    pending INTEGER NOT NULL DEFAULT 0   -- a removal whose data in other rooms is still there
) STRICT;
CREATE INDEX auth_change_pending ON auth_change (seq) WHERE pending = 1;

CREATE TABLE auth_secret (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE auth_secret;
DROP TABLE auth_change;
DROP TABLE auth_credential;
DROP TABLE auth_account;
