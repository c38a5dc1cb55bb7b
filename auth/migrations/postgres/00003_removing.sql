-- +goose Up
-- Whether an account's name has a removal pending is asked with every account that is loaded.
CREATE INDEX auth_change_removing ON auth_change (addr) WHERE pending;

-- +goose Down
DROP INDEX auth_change_removing;
