-- +goose Up
-- COLLATE "C": the order and equality of bytes, whatever the database's own are.
CREATE TABLE muc_room (
	room       text COLLATE "C" PRIMARY KEY, -- bare JID
	host       text COLLATE "C" NOT NULL,    -- its domainpart
	name       text NOT NULL,
	creator    text COLLATE "C" NOT NULL,    -- bare JID
	public     boolean NOT NULL,
	persistent boolean NOT NULL,
	state      bytea                         -- NULL for none
);

CREATE INDEX muc_room_public ON muc_room (host, room) WHERE public;
CREATE INDEX muc_room_persistent ON muc_room (creator) WHERE persistent;

-- +goose Down
DROP TABLE muc_room;
