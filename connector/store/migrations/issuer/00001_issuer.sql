-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
CREATE TABLE issuer.issuers (
    ctx        text PRIMARY KEY CHECK (ctx ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    did        text NOT NULL UNIQUE,
    types      jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE issuer.keys (
    ctx        text NOT NULL REFERENCES issuer.issuers (ctx) ON DELETE CASCADE,
    kid        text NOT NULL,
    public_jwk jsonb NOT NULL,
    active     boolean NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (ctx, kid)
);
CREATE UNIQUE INDEX keys_one_active ON issuer.keys (ctx) WHERE active;

-- Who may receive what.
CREATE TABLE issuer.entitlements (
    ctx    text NOT NULL REFERENCES issuer.issuers (ctx) ON DELETE CASCADE,
    holder text NOT NULL,
    type   text NOT NULL,
    claims jsonb NOT NULL,
    PRIMARY KEY (ctx, holder, type)
);

-- Requests of holders. The row is the outbox of its delivery: what was issued for it, or why nothing was.
CREATE TABLE issuer.requests (
    id              text PRIMARY KEY, -- issuerPid
    ctx             text NOT NULL REFERENCES issuer.issuers (ctx) ON DELETE CASCADE,
    holder          text NOT NULL,
    holder_pid      text NOT NULL,
    objects         text[] NOT NULL, -- ids of our metadata, sorted
    state           text NOT NULL CHECK (state IN ('RECEIVED', 'ISSUED', 'REJECTED')),
    reason          text NOT NULL DEFAULT '', -- of the rejection
    delivered       boolean NOT NULL DEFAULT false,
    last_error      text NOT NULL DEFAULT '', -- of the last failed attempt to deliver
    access_token    text NOT NULL DEFAULT '', -- the holder's, sent back with the delivery; empty once delivered
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    leased_until    timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);
CREATE INDEX requests_due ON issuer.requests (next_attempt_at) WHERE NOT delivered;
CREATE INDEX requests_by_holder ON issuer.requests (ctx, holder, holder_pid);

CREATE TABLE issuer.credentials (
    id         text PRIMARY KEY, -- URI
    ctx        text NOT NULL REFERENCES issuer.issuers (ctx) ON DELETE CASCADE,
    request_id text NOT NULL REFERENCES issuer.requests (id),
    holder     text NOT NULL,
    type       text NOT NULL,
    profile    text NOT NULL,
    raw        text NOT NULL,
    list       integer NOT NULL, -- number of the status lists
    idx        integer NOT NULL CHECK (idx BETWEEN 0 AND 131071),
    revoked    boolean NOT NULL DEFAULT false,
    suspended  boolean NOT NULL DEFAULT false,
    single     boolean NOT NULL, -- it has a revocation entry only, which then tells of a suspension too
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    UNIQUE (ctx, list, idx)
);
CREATE INDEX credentials_by_holder ON issuer.credentials (ctx, holder);
CREATE INDEX credentials_revoked ON issuer.credentials (ctx, list) WHERE revoked OR suspended;

CREATE TABLE issuer.used_tokens (
    digest     bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX used_tokens_end ON issuer.used_tokens (expires_at);

-- +goose Down
DROP TABLE issuer.used_tokens;
DROP TABLE issuer.credentials;
DROP TABLE issuer.requests;
DROP TABLE issuer.entitlements;
DROP TABLE issuer.keys;
DROP TABLE issuer.issuers;
