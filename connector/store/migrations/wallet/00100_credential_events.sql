-- SPDX-License-Identifier: Apache-2.0
-- What is on the audit trail of a credential or a request already, so that it is not recorded again and again.
-- +goose Up
ALTER TABLE wallet.credentials ADD COLUMN noted text NOT NULL DEFAULT '' CHECK (noted IN ('', 'renewal-stuck', 'expired'));
UPDATE wallet.credentials SET noted = 'expired' WHERE valid_until <= now();
ALTER TABLE wallet.requests ADD COLUMN noted text NOT NULL DEFAULT ''; -- why it was rejected

-- A credential that has expired is looked at once more.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION wallet.lease_statuses(before timestamptz, instant timestamptz, slots integer) RETURNS TABLE (ctx text, digest bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY UPDATE wallet.credentials SET status_checked_at = instant WHERE (ctx, digest) IN (
            SELECT ctx, digest FROM wallet.credentials WHERE status_checked_at < before AND noted <> 'expired'
            ORDER BY status_checked_at LIMIT slots FOR UPDATE SKIP LOCKED)
        RETURNING ctx, digest;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION wallet.lease_statuses(before timestamptz, instant timestamptz, slots integer) RETURNS TABLE (ctx text, digest bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY UPDATE wallet.credentials SET status_checked_at = instant WHERE (ctx, digest) IN (
            SELECT ctx, digest FROM wallet.credentials WHERE status_checked_at < before AND (valid_until IS NULL OR valid_until > instant)
            ORDER BY status_checked_at LIMIT slots FOR UPDATE SKIP LOCKED)
        RETURNING ctx, digest;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd
ALTER TABLE wallet.requests DROP COLUMN noted;
ALTER TABLE wallet.credentials DROP COLUMN noted;
