-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
ALTER TABLE control_plane.contract_definitions ADD COLUMN gates jsonb NOT NULL DEFAULT '[]'; -- list of adminapi.Gate

-- A negotiation keeps the gates that the offer had when it began, with what was decided at them (list of gate.Hold), and, until it has ended, the
-- consumer's credentials as presented, which are verified again before it goes on.
ALTER TABLE control_plane.negotiations ADD COLUMN gates jsonb NOT NULL DEFAULT '[]';
ALTER TABLE control_plane.negotiations ADD COLUMN presented text[] NOT NULL DEFAULT '{}';
ALTER TABLE control_plane.negotiations ADD CONSTRAINT negotiations_presented_until_the_end
    CHECK (step NOT IN ('FINALIZED', 'TERMINATED') OR presented = '{}');
CREATE INDEX negotiations_held ON control_plane.negotiations (ctx, created_at) WHERE held;

-- +goose Down
DROP INDEX control_plane.negotiations_held;
ALTER TABLE control_plane.negotiations DROP COLUMN presented;
ALTER TABLE control_plane.negotiations DROP COLUMN gates;
ALTER TABLE control_plane.contract_definitions DROP COLUMN gates;
