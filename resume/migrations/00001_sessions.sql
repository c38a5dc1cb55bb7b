-- +goose Up
CREATE TABLE resume_sessions (
    ord     INTEGER PRIMARY KEY,
    handled INTEGER NOT NULL,
    acked   INTEGER NOT NULL,
    state   BLOB NOT NULL
) STRICT;

-- What one checkpoint found in one outbox: the places first to last, as journal records.
CREATE TABLE resume_queue (
    session INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    records BLOB NOT NULL,
    PRIMARY KEY (session, last)
) STRICT, WITHOUT ROWID;

CREATE TABLE resume_ended (
    token   TEXT PRIMARY KEY,
    user    TEXT NOT NULL,
    handled INTEGER NOT NULL,
    at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX resume_ended_at ON resume_ended (at);

-- +goose Down
DROP TABLE resume_ended;
DROP TABLE resume_queue;
DROP TABLE resume_sessions;
