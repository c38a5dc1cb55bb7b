-- +goose Up
-- What operators asked for: the mailbox of recipient up to the message upto is to be emptied.
CREATE TABLE offline_purge (
	seq       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	recipient text COLLATE "C" NOT NULL,  -- bare JID
	upto      bytea NOT NULL,             -- stanza id, 16 bytes
	at        bigint NOT NULL,            -- Unix seconds, by the operator's clock
	removed   bigint NOT NULL DEFAULT 0,  -- messages so far
	done      boolean NOT NULL DEFAULT false
);

-- +goose Down
DROP TABLE offline_purge;
