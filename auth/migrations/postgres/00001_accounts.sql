-- +goose Up
-- COLLATE "C": the order of bytes, whatever the database's own is.
CREATE TABLE auth_account (
    addr     text COLLATE "C" PRIMARY KEY, -- bare JID
    version  bigint NOT NULL,              -- auth_change.seq of the last change
    created  bigint NOT NULL,              -- unix seconds
    disabled boolean NOT NULL DEFAULT false
);

CREATE TABLE auth_credential (
    addr       text COLLATE "C" NOT NULL REFERENCES auth_account (addr) ON DELETE CASCADE,
    mechanism  text COLLATE "C" NOT NULL,
    iterations integer NOT NULL,
    salt       bytea NOT NULL,
    stored_key bytea NOT NULL,
    server_key bytea NOT NULL,
    PRIMARY KEY (addr, mechanism)
);

-- What other processes must hear of.
CREATE TABLE auth_change (
    seq       bigint PRIMARY KEY,
    addr      text COLLATE "C" NOT NULL,
    at        bigint NOT NULL,                -- unix seconds
    pending   boolean NOT NULL DEFAULT false, -- a removal whose data in other rooms is still there
    claimant  text,                           -- which process works on it
    claim_end timestamptz                     -- until when nobody else does
);
CREATE INDEX auth_change_pending ON auth_change (seq) WHERE pending;

-- The last seq ever given out. Who logs a change holds the lock of this row until the commit, so that changes become
-- visible in the order of seq: a reader who saw one has seen all before it.
CREATE TABLE auth_log (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    last bigint NOT NULL
);
INSERT INTO auth_log (last) VALUES (0);

CREATE TABLE auth_secret (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- +goose Down
DROP TABLE auth_secret;
DROP TABLE auth_log;
DROP TABLE auth_change;
DROP TABLE auth_credential;
DROP TABLE auth_account;
