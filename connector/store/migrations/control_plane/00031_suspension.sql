-- SPDX-License-Identifier: Apache-2.0
-- Why a transfer is suspended, as long as it is: {code, message, by}.
-- +goose Up
ALTER TABLE control_plane.transfers ADD COLUMN suspension jsonb;

-- +goose Down
ALTER TABLE control_plane.transfers DROP COLUMN suspension;
