-- +goose Up
CREATE TABLE roster (
    user    TEXT    NOT NULL PRIMARY KEY, -- bare JID
    version INTEGER NOT NULL,             -- of the last visible change, 0 before the first
    floor   INTEGER NOT NULL              -- the oldest version whose later changes are all known
) STRICT, WITHOUT ROWID;

CREATE TABLE roster_item (
    user         TEXT    NOT NULL,
    contact      TEXT    NOT NULL, -- bare JID
    name         TEXT    NOT NULL,
    groups       TEXT,             -- a JSON array of strings, NULL for none
    subscription INTEGER NOT NULL, -- 1 to, 2 from, 3 both
    ask          INTEGER NOT NULL,
    approved     INTEGER NOT NULL,
    pending_in   INTEGER NOT NULL,
    request      BLOB,             -- the subscribe stanza that waits for an answer
    listed       INTEGER NOT NULL, -- part of the roster, else a removal that is remembered or a stranger's request
    version      INTEGER NOT NULL, -- of the last visible change of the item
    PRIMARY KEY (user, contact)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE roster_item;
DROP TABLE roster;
