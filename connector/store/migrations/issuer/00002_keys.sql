-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- A key that was replaced stays published until nothing that it signed is valid any more, and is then removed.
ALTER TABLE issuer.keys ADD COLUMN retired_at timestamptz;
UPDATE issuer.keys SET retired_at = now() WHERE NOT active;
ALTER TABLE issuer.keys ADD CHECK (active = (retired_at IS NULL));
CREATE INDEX credentials_end ON issuer.credentials (ctx, expires_at);

-- +goose Down
DROP INDEX issuer.credentials_end;
ALTER TABLE issuer.keys DROP COLUMN retired_at;
