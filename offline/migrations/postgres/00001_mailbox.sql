-- +goose Up
-- COLLATE "C": the order of bytes, whatever the database's own is. Ids are bytea, which is ordered so anyway.
CREATE TABLE offline_message (
	recipient text COLLATE "C" NOT NULL, -- bare JID
	id        bytea NOT NULL,            -- stanza id, 16 bytes
	sender    text COLLATE "C" NOT NULL, -- bare JID
	raw       bytea NOT NULL,
	PRIMARY KEY (recipient, id)
);

-- +goose Down
DROP TABLE offline_message;
