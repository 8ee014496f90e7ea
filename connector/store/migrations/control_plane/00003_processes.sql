-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- A row is also its own outbox: step says which message is under way, message_id is its id over all attempts, next_attempt_at when a
-- worker takes the row next (null: nothing to do), lease_* which worker has it.
CREATE TABLE control_plane.negotiations (
    ctx              text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    id               text NOT NULL, -- own process id
    role             text NOT NULL CHECK (role IN ('consumer', 'provider')),
    state            text NOT NULL CHECK (state IN ('REQUESTED', 'OFFERED', 'ACCEPTED', 'AGREED', 'VERIFIED', 'FINALIZED', 'TERMINATED')),
    step             text NOT NULL CHECK (step IN ('REQUESTING', 'REQUESTED', 'OFFERING', 'OFFERED', 'ACCEPTING', 'ACCEPTED', 'AGREEING', 'AGREED',
                         'VERIFYING', 'VERIFIED', 'FINALIZING', 'FINALIZED', 'TERMINATING', 'TERMINATED')),
    held             boolean NOT NULL DEFAULT false,
    version          bigint NOT NULL DEFAULT 1,
    counterparty     text NOT NULL, -- DID
    counterparty_pid text NOT NULL DEFAULT '',
    address          text NOT NULL, -- counterparty's DSP base
    asset_id         text NOT NULL,
    offer_id         text NOT NULL,
    offer            json NOT NULL, -- the last one, as sent or received
    requested_hash   text NOT NULL DEFAULT '', -- of the policy that the consumer requested last
    definition       text NOT NULL DEFAULT '',
    use_case         text NOT NULL DEFAULT '',
    agreement_id     text NOT NULL DEFAULT '',
    denial           jsonb, -- why the policy does not allow the next step; null when it does
    reason           jsonb, -- why it ended
    waiting          text NOT NULL DEFAULT '',
    history          jsonb NOT NULL DEFAULT '[]',
    traces           jsonb NOT NULL DEFAULT '[]',
    message_id       text NOT NULL DEFAULT '',
    attempts         integer NOT NULL DEFAULT 0,
    send_until       timestamptz,
    last_error       text NOT NULL DEFAULT '',
    next_attempt_at  timestamptz,
    lease_owner      text NOT NULL DEFAULT '',
    lease_until      timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (ctx, id),
    -- Ends and only ends show their state; an end has nothing to do.
    CHECK ((step IN ('FINALIZED', 'TERMINATED')) = (state IN ('FINALIZED', 'TERMINATED'))),
    CHECK (step NOT IN ('FINALIZED', 'TERMINATED') OR (step = state AND next_attempt_at IS NULL AND NOT held)),
    CHECK (state NOT IN ('AGREED', 'VERIFIED', 'FINALIZED') OR agreement_id <> ''),
    CHECK (state <> 'TERMINATED' OR reason IS NOT NULL)
);
CREATE UNIQUE INDEX negotiations_by_counterparty ON control_plane.negotiations (ctx, role, counterparty, counterparty_pid) WHERE counterparty_pid <> '';
CREATE INDEX negotiations_due ON control_plane.negotiations (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX negotiations_leased ON control_plane.negotiations (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX negotiations_newest ON control_plane.negotiations (ctx, created_at DESC, id);

CREATE TABLE control_plane.agreements (
    ctx            text NOT NULL,
    id             text NOT NULL, -- the same on the wire
    negotiation_id text NOT NULL,
    role           text NOT NULL CHECK (role IN ('consumer', 'provider')),
    provider       text NOT NULL, -- DID
    consumer       text NOT NULL, -- DID
    asset_id       text NOT NULL,
    agreement      json NOT NULL, -- as sent or received
    signed_at      timestamptz NOT NULL,
    PRIMARY KEY (ctx, id),
    UNIQUE (ctx, negotiation_id),
    FOREIGN KEY (ctx, negotiation_id) REFERENCES control_plane.negotiations (ctx, id) ON DELETE CASCADE
);

CREATE TABLE control_plane.transfers (
    ctx              text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    id               text NOT NULL, -- own process id
    role             text NOT NULL CHECK (role IN ('consumer', 'provider')),
    state            text NOT NULL CHECK (state IN ('REQUESTED', 'STARTED', 'SUSPENDED', 'COMPLETED', 'TERMINATED')),
    step             text NOT NULL CHECK (step IN ('REQUESTING', 'REQUESTED', 'STARTING', 'STARTED', 'SUSPENDING', 'SUSPENDED', 'RESUMING', 'RESUMED',
                         'COMPLETING', 'COMPLETED', 'TERMINATING', 'TERMINATED')),
    held             boolean NOT NULL DEFAULT false,
    suspended_by     text NOT NULL DEFAULT '' CHECK (suspended_by IN ('', 'consumer', 'provider')),
    version          bigint NOT NULL DEFAULT 1,
    counterparty     text NOT NULL,
    counterparty_pid text NOT NULL DEFAULT '',
    address          text NOT NULL,
    agreement_id     text NOT NULL,
    asset_id         text NOT NULL,
    format           text NOT NULL,
    flow             text NOT NULL DEFAULT '' CHECK (flow IN ('', 'suspend', 'complete', 'terminate')), -- still to be told to the data plane
    denial           jsonb,
    reason           jsonb,
    waiting          text NOT NULL DEFAULT '',
    history          jsonb NOT NULL DEFAULT '[]',
    traces           jsonb NOT NULL DEFAULT '[]',
    message_id       text NOT NULL DEFAULT '',
    attempts         integer NOT NULL DEFAULT 0,
    send_until       timestamptz,
    last_error       text NOT NULL DEFAULT '',
    next_attempt_at  timestamptz,
    lease_owner      text NOT NULL DEFAULT '',
    lease_until      timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (ctx, id),
    FOREIGN KEY (ctx, agreement_id) REFERENCES control_plane.agreements (ctx, id),
    CHECK ((step IN ('COMPLETED', 'TERMINATED')) = (state IN ('COMPLETED', 'TERMINATED'))),
    CHECK (step NOT IN ('COMPLETED', 'TERMINATED') OR (step = state AND NOT held AND (next_attempt_at IS NULL OR flow <> ''))),
    CHECK (state <> 'TERMINATED' OR reason IS NOT NULL)
);
CREATE UNIQUE INDEX transfers_by_counterparty ON control_plane.transfers (ctx, role, counterparty, counterparty_pid) WHERE counterparty_pid <> '';
CREATE INDEX transfers_due ON control_plane.transfers (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX transfers_leased ON control_plane.transfers (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX transfers_newest ON control_plane.transfers (ctx, created_at DESC, id);

-- The address of a started transfer with its token: a consumer's is what it got, a provider's what it sent. Never logged, gone when the transfer stops.
CREATE TABLE control_plane.data_addresses (
    ctx         text NOT NULL,
    transfer_id text NOT NULL,
    address     jsonb NOT NULL,
    PRIMARY KEY (ctx, transfer_id),
    FOREIGN KEY (ctx, transfer_id) REFERENCES control_plane.transfers (ctx, id) ON DELETE CASCADE
);

CREATE TABLE control_plane.received_messages (
    ctx         text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    process_id  text NOT NULL,
    message_id  text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (ctx, process_id, message_id)
);
CREATE INDEX received_messages_oldest ON control_plane.received_messages (received_at);

-- +goose Down
DROP TABLE control_plane.received_messages;
DROP TABLE control_plane.data_addresses;
DROP TABLE control_plane.transfers;
DROP TABLE control_plane.agreements;
DROP TABLE control_plane.negotiations;
