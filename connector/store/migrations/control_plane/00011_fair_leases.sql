-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- Workers take due rows counterparty by counterparty.
CREATE INDEX negotiations_due_by_counterparty ON control_plane.negotiations (counterparty, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX transfers_due_by_counterparty ON control_plane.transfers (counterparty, next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- +goose Down
DROP INDEX control_plane.transfers_due_by_counterparty;
DROP INDEX control_plane.negotiations_due_by_counterparty;
