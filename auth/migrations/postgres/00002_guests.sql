-- +goose Up
-- Guests are accounts without credentials that go when they were not seen for a while.
CREATE TABLE auth_guest (
    addr text COLLATE "C" PRIMARY KEY REFERENCES auth_account (addr) ON DELETE CASCADE,
    seen bigint NOT NULL -- unix seconds of the last login
);
CREATE INDEX auth_guest_seen ON auth_guest (seen);

-- +goose Down
DROP TABLE auth_guest;
