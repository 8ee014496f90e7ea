-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
CREATE TABLE control_plane.profiles (
    name       text PRIMARY KEY,
    profile    jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE control_plane.participants (
    ctx        text PRIMARY KEY CHECK (ctx ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    did        text NOT NULL UNIQUE,
    bpn        text NOT NULL DEFAULT '',
    profile    text NOT NULL REFERENCES control_plane.profiles (name),
    active     boolean NOT NULL,
    self_check text NOT NULL DEFAULT 'Enforce' CHECK (self_check IN ('Enforce', 'Off')),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE control_plane.participants;
DROP TABLE control_plane.profiles;
