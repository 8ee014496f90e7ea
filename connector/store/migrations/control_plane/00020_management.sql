-- SPDX-License-Identifier: Apache-2.0
-- What clients of the EDC Management API keep with their objects, and whom they want called back.
-- +goose Up
ALTER TABLE control_plane.assets ADD COLUMN private_properties jsonb NOT NULL DEFAULT '{}';
ALTER TABLE control_plane.policies ADD COLUMN private_properties jsonb NOT NULL DEFAULT '{}';
ALTER TABLE control_plane.contract_definitions ADD COLUMN private_properties jsonb NOT NULL DEFAULT '{}';

-- Written before the negotiation or transfer itself, so that no event of it is missed.
CREATE TABLE control_plane.process_requests (
    ctx                text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    process_id         text NOT NULL,
    private_properties jsonb NOT NULL,
    PRIMARY KEY (ctx, process_id)
);

-- The history of a process is what there is to tell; told says how many of its entries this address knows.
CREATE TABLE control_plane.callbacks (
    ctx             text NOT NULL,
    process_id      text NOT NULL,
    position        integer NOT NULL,
    uri             text NOT NULL,
    events          text[] NOT NULL,
    told            integer NOT NULL DEFAULT 0,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT clock_timestamp(), -- also the end of a worker's lease; null: nothing more to tell
    PRIMARY KEY (ctx, process_id, position),
    FOREIGN KEY (ctx, process_id) REFERENCES control_plane.process_requests (ctx, process_id) ON DELETE CASCADE
);
CREATE INDEX callbacks_due ON control_plane.callbacks (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

-- +goose Down
DROP TABLE control_plane.callbacks;
DROP TABLE control_plane.process_requests;
ALTER TABLE control_plane.contract_definitions DROP COLUMN private_properties;
ALTER TABLE control_plane.policies DROP COLUMN private_properties;
ALTER TABLE control_plane.assets DROP COLUMN private_properties;
