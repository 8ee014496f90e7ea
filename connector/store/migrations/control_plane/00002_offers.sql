-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
CREATE TABLE control_plane.assets (
    ctx          text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    id           text NOT NULL,
    properties   jsonb NOT NULL,
    data_address jsonb NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ctx, id)
);

CREATE TABLE control_plane.policies (
    ctx        text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    id         text NOT NULL,
    policy     json NOT NULL, -- as written
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ctx, id)
);

-- An access policy may be absent: then everybody who satisfies the profile sees the offer.
CREATE TABLE control_plane.contract_definitions (
    ctx             text NOT NULL REFERENCES control_plane.participants (ctx) ON DELETE CASCADE,
    id              text NOT NULL,
    access_policy   text,
    contract_policy text NOT NULL,
    selector        jsonb NOT NULL, -- list of {operandLeft, operator, operandRight}; all must hold
    use_case        text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ctx, id),
    FOREIGN KEY (ctx, access_policy) REFERENCES control_plane.policies (ctx, id),
    FOREIGN KEY (ctx, contract_policy) REFERENCES control_plane.policies (ctx, id)
);

-- +goose Down
DROP TABLE control_plane.contract_definitions;
DROP TABLE control_plane.policies;
DROP TABLE control_plane.assets;
