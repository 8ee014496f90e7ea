-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- A key that was replaced stays published until nothing that it signed is valid any more, and is then removed.
ALTER TABLE wallet.keys ADD COLUMN retired_at timestamptz;
UPDATE wallet.keys SET retired_at = now() WHERE NOT active;
ALTER TABLE wallet.keys ADD CHECK (active = (retired_at IS NULL));

-- The profile that is asked for; empty = whichever the issuer has.
ALTER TABLE wallet.requests ADD COLUMN profile text NOT NULL DEFAULT '';

-- All types of a credential; type is the one it was requested as.
ALTER TABLE wallet.credentials ADD COLUMN types text[];
UPDATE wallet.credentials SET types = ARRAY[type];
ALTER TABLE wallet.credentials ALTER COLUMN types SET NOT NULL;
ALTER TABLE wallet.credentials ADD COLUMN profile text NOT NULL DEFAULT 'vc11-sl2021/jwt';
ALTER TABLE wallet.credentials ALTER COLUMN profile DROP DEFAULT;

-- +goose Down
ALTER TABLE wallet.credentials DROP COLUMN profile;
ALTER TABLE wallet.credentials DROP COLUMN types;
ALTER TABLE wallet.requests DROP COLUMN profile;
ALTER TABLE wallet.keys DROP COLUMN retired_at;
