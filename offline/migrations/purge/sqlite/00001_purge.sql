-- +goose Up
-- What operators asked for: the mailbox of recipient up to the message upto is to be emptied.
CREATE TABLE offline_purge (
	seq       INTEGER PRIMARY KEY AUTOINCREMENT,
	recipient TEXT NOT NULL,              -- bare JID
	upto      BLOB NOT NULL,              -- stanza id, 16 bytes
	at        INTEGER NOT NULL,           -- Unix seconds, by the operator's clock
	removed   INTEGER NOT NULL DEFAULT 0, -- messages so far
	done      INTEGER NOT NULL DEFAULT 0
);

-- +goose Down
DROP TABLE offline_purge;
