-- +goose Up
-- deadline is microseconds since 1970; stanza is NULL once the message is in offline storage.
CREATE TABLE packetcache (
    id        BLOB    NOT NULL PRIMARY KEY,
    sender    TEXT    NOT NULL,
    recipient TEXT    NOT NULL,
    msgid     TEXT    NOT NULL,
    stanza    BLOB,
    deadline  INTEGER NOT NULL,
    step      INTEGER NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE packetcache;
