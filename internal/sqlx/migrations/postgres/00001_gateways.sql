-- +goose Up
-- The gateways of a cluster that may write. Each of their transactions holds its row; who takes a gateway for dead
-- deletes it, and so waits for what is under way, and lets nothing follow.
CREATE TABLE gateway_node (
	node   TEXT COLLATE "C" PRIMARY KEY,
	joined TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE gateway_node;
