-- +goose Up
-- What users chose in place of OFFLINE_LIMIT. Who chose nothing has no row.
CREATE TABLE offline_limit (
	recipient text COLLATE "C" NOT NULL PRIMARY KEY,    -- bare JID
	messages  bigint NOT NULL CHECK (messages >= -1) -- of one sender; -1 for any number
);

-- +goose Down
DROP TABLE offline_limit;
