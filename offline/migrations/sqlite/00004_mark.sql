-- +goose Up
-- Of messages with nothing but a chat marker: a hash of the thread and, as the last byte, the marker's significance.
ALTER TABLE offline_message ADD COLUMN mark BLOB;
CREATE INDEX offline_message_mark ON offline_message (user, sender, mark, id) WHERE mark IS NOT NULL;

-- +goose Down
DROP INDEX offline_message_mark;
ALTER TABLE offline_message DROP COLUMN mark;
