-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- What the agreement's policy demands of the data plane, and the purposes of use that the token is for. What flows from before demand is not known
-- here, so the control plane is asked about their accesses too.
ALTER TABLE data_plane.flows ADD COLUMN demands text[] NOT NULL DEFAULT '{judge-access}', ADD COLUMN purposes text[] NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE data_plane.flows DROP COLUMN demands, DROP COLUMN purposes;
