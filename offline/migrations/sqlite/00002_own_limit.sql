-- +goose Up
-- What users chose in place of OFFLINE_LIMIT. Who chose nothing has no row.
CREATE TABLE offline_limit (
	user     TEXT NOT NULL PRIMARY KEY, -- the recipient's bare JID
	messages INTEGER NOT NULL CHECK (messages >= -1) -- of one sender; -1 for any number
) WITHOUT ROWID;

-- +goose Down
DROP TABLE offline_limit;
