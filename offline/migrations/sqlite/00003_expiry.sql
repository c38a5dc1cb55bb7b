-- +goose Up
-- Added behind raw, so that no row has to be written anew; who needs it of many rows reads the index. Milliseconds since
-- 1970, UTC; 0 for a message that does not say when it expires.
ALTER TABLE offline_message ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
CREATE INDEX offline_message_expires ON offline_message (expires, user, id) WHERE expires > 0;

-- +goose Down
DROP INDEX offline_message_expires;
ALTER TABLE offline_message DROP COLUMN expires;
