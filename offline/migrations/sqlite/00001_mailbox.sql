-- +goose Up
-- Clustered by (user, id): a mailbox lies together and in order, so a page is one seek and a run of rows. sender
-- comes before raw so that counting never touches the overflow pages of a long message.
CREATE TABLE offline_message (
	user   TEXT NOT NULL, -- the recipient's bare JID
	id     BLOB NOT NULL, -- stanza id, 16 bytes
	sender TEXT NOT NULL, -- the sender's bare JID
	raw    BLOB NOT NULL,
	PRIMARY KEY (user, id)
) WITHOUT ROWID;

-- The number of rows above, kept by the transactions that change it: counting a large table would read all of it.
CREATE TABLE offline_stored (
	one      INTEGER PRIMARY KEY CHECK (one = 1),
	messages INTEGER NOT NULL
);
INSERT INTO offline_stored (one, messages) VALUES (1, 0);

-- +goose Down
DROP TABLE offline_stored;
DROP TABLE offline_message;
