-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- One row per data flow that this data plane serves (provider side, HTTP pull). The token itself is never stored.
CREATE TABLE data_plane.flows (
    flow_id          text PRIMARY KEY,
    ctx              text NOT NULL,
    participant      text NOT NULL,
    counterparty     text NOT NULL,
    agreement_id     text NOT NULL CHECK (agreement_id <> ''),
    asset_id         text NOT NULL,
    format           text NOT NULL,
    source           jsonb NOT NULL,
    claims           jsonb NOT NULL,
    state            text NOT NULL CHECK (state IN ('STARTED', 'SUSPENDED', 'COMPLETED', 'TERMINATED')),
    token_hash       bytea NOT NULL CHECK (octet_length(token_hash) = 32), -- SHA-256
    token_expires_at timestamptz NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);
CREATE INDEX flows_ctx ON data_plane.flows (ctx, created_at);

-- +goose Down
DROP TABLE data_plane.flows;
