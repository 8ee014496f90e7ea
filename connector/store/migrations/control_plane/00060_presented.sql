-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- The consumer's credentials by which each access is judged, as they were presented when the transfer was started last.
ALTER TABLE control_plane.transfers ADD COLUMN presented text[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE control_plane.transfers DROP COLUMN presented;
