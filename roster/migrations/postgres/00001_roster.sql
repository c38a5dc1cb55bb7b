-- +goose Up
-- COLLATE "C": the order and equality of bytes, whatever the database's own are.
CREATE TABLE roster (
    owner   text COLLATE "C" PRIMARY KEY, -- bare JID
    version bigint NOT NULL,              -- of the last visible change, 0 before the first
    floor   bigint NOT NULL               -- the oldest version whose later changes are all known
);

CREATE TABLE roster_item (
    owner        text COLLATE "C" NOT NULL,
    contact      text COLLATE "C" NOT NULL, -- bare JID
    name         text NOT NULL,
    groups       text,                      -- a JSON array of strings, NULL for none
    subscription smallint NOT NULL,         -- 1 to, 2 from, 3 both
    ask          boolean NOT NULL,
    approved     boolean NOT NULL,
    pending_in   boolean NOT NULL,
    request      bytea,                     -- the subscribe stanza that waits for an answer
    listed       boolean NOT NULL,          -- part of the roster, else a removal that is remembered or a stranger's request
    version      bigint NOT NULL,           -- of the last visible change of the item
    PRIMARY KEY (owner, contact)
);

-- +goose Down
DROP TABLE roster_item;
DROP TABLE roster;
