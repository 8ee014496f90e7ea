-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- The revision of each use case that is in force for a participant.
CREATE TABLE control_plane.use_cases (
    ctx      text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    id       text NOT NULL, -- its name
    revision jsonb NOT NULL, -- adminapi.UseCaseRevision, without gates
    since    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ctx, id)
);

-- Of which revision (adminapi.RevisionRef) an offer is, and a negotiation's offer was; null: of none.
ALTER TABLE control_plane.contract_definitions ADD COLUMN revision jsonb;
ALTER TABLE control_plane.negotiations ADD COLUMN revision jsonb;

-- +goose Down
ALTER TABLE control_plane.negotiations DROP COLUMN revision;
ALTER TABLE control_plane.contract_definitions DROP COLUMN revision;
DROP TABLE control_plane.use_cases;
