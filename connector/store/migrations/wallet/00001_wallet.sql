-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
CREATE TABLE wallet.participants (
    ctx             text PRIMARY KEY CHECK (ctx ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    did             text NOT NULL UNIQUE,
    trusted_issuers jsonb NOT NULL DEFAULT '[]',
    updated_at      timestamptz NOT NULL
);

-- Public keys of the DID document; the private ones are in the vault under the same kid. A retired key goes on verifying.
CREATE TABLE wallet.keys (
    ctx        text NOT NULL REFERENCES wallet.participants (ctx) ON DELETE CASCADE,
    kid        text NOT NULL,
    public_jwk jsonb NOT NULL,
    active     boolean NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (ctx, kid)
);
CREATE UNIQUE INDEX keys_one_active ON wallet.keys (ctx) WHERE active;

-- Requests to issuers. The row is the outbox: a worker leases it when next_attempt_at has come.
CREATE TABLE wallet.requests (
    id              text PRIMARY KEY, -- holderPid
    ctx             text NOT NULL REFERENCES wallet.participants (ctx) ON DELETE CASCADE,
    issuer          text NOT NULL,
    type            text NOT NULL,
    object_id       text NOT NULL DEFAULT '', -- the issuer's id of what is requested, when it offered it
    renewal         boolean NOT NULL DEFAULT false,
    state           text NOT NULL CHECK (state IN ('REQUESTED', 'SENT', 'ISSUED', 'REJECTED')),
    location        text NOT NULL DEFAULT '', -- where its status is
    reason          text NOT NULL DEFAULT '', -- of the rejection, or of the last failed attempt
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    leased_until    timestamptz,
    created_at      timestamptz NOT NULL,
    sent_at         timestamptz,
    updated_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX requests_one_open ON wallet.requests (ctx, issuer, type) WHERE state IN ('REQUESTED', 'SENT');
CREATE INDEX requests_due ON wallet.requests (next_attempt_at) WHERE state IN ('REQUESTED', 'SENT');

CREATE TABLE wallet.credentials (
    ctx               text NOT NULL REFERENCES wallet.participants (ctx) ON DELETE CASCADE,
    digest            bytea NOT NULL, -- sha256 of raw
    id                text NOT NULL,
    type              text NOT NULL,
    issuer            text NOT NULL,
    raw               text NOT NULL,
    subject           jsonb NOT NULL,
    valid_from        timestamptz NOT NULL,
    valid_until       timestamptz,
    received_at       timestamptz NOT NULL,
    status            text NOT NULL DEFAULT 'unknown' CHECK (status IN ('good', 'revoked', 'suspended', 'unknown')),
    status_reason     text NOT NULL DEFAULT '',
    status_checked_at timestamptz NOT NULL,
    PRIMARY KEY (ctx, digest)
);
CREATE INDEX credentials_by_type ON wallet.credentials (ctx, type);
CREATE INDEX credentials_status_due ON wallet.credentials (status_checked_at);

CREATE TABLE wallet.used_tokens (
    digest     bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_tokens_end ON wallet.used_tokens (expires_at);

-- +goose Down
DROP TABLE wallet.used_tokens;
DROP TABLE wallet.credentials;
DROP TABLE wallet.requests;
DROP TABLE wallet.keys;
DROP TABLE wallet.participants;
