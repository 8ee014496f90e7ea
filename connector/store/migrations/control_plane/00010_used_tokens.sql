-- SPDX-License-Identifier: Apache-2.0
-- Self-issued ID tokens that were accepted (connector/dcp.PostgresReplay): each counts once, whichever replica it reaches.
-- +goose Up
CREATE TABLE control_plane.used_tokens (
    digest     bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_tokens_end ON control_plane.used_tokens (expires_at);

-- +goose Down
DROP TABLE control_plane.used_tokens;
