-- +goose Up
-- Not WITHOUT ROWID: the key of such a table lies between its rows, and a state may be large. state is the last column,
-- so that reading the others never touches its overflow pages.
CREATE TABLE muc_room (
	room       TEXT    NOT NULL PRIMARY KEY, -- bare JID
	host       TEXT    NOT NULL,             -- its domainpart
	name       TEXT    NOT NULL,
	creator    TEXT    NOT NULL,             -- bare JID
	public     INTEGER NOT NULL,
	persistent INTEGER NOT NULL,
	state      BLOB                          -- NULL for none
) STRICT;

CREATE INDEX muc_room_public ON muc_room (host, room) WHERE public = 1;
CREATE INDEX muc_room_persistent ON muc_room (creator) WHERE persistent = 1;

-- +goose Down
DROP TABLE muc_room;
