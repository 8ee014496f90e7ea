-- SPDX-License-Identifier: Apache-2.0
-- Work that finds out which rows of any participant are due; see control_plane/00040_row_security.sql.
-- +goose Up
-- Makes a request for every credential that has less than a third of its life left and is the newest of its kind, unless one is under way, or was
-- answered a short while ago without a newer credential: retry, or a tenth of the credential's life if that is less. A rejected one is taken up again.
-- +goose StatementBegin
CREATE FUNCTION wallet.open_renewals(instant timestamptz, retry interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened bigint;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    WITH due AS (SELECT * FROM (SELECT DISTINCT ON (ctx, issuer, type) ctx, issuer, type, profile, valid_from, valid_until, status
            FROM wallet.credentials ORDER BY ctx, issuer, type, valid_from DESC, received_at DESC) c
        WHERE valid_until IS NOT NULL AND status <> 'revoked' AND instant >= valid_until - (valid_until - valid_from) / 3
            AND NOT EXISTS (SELECT FROM wallet.requests r WHERE r.ctx = c.ctx AND r.issuer = c.issuer AND r.type = c.type
                AND (r.state IN ('REQUESTED', 'SENT') OR r.updated_at > instant - least(retry, (valid_until - valid_from) / 10)))),
    again AS (UPDATE wallet.requests r SET state = 'REQUESTED', attempts = 0, next_attempt_at = instant, updated_at = instant
        FROM due WHERE r.state = 'REJECTED' AND r.id = (SELECT l.id FROM wallet.requests l
            WHERE l.ctx = due.ctx AND l.issuer = due.issuer AND l.type = due.type ORDER BY l.created_at DESC LIMIT 1)
        RETURNING r.ctx, r.issuer, r.type)
    INSERT INTO wallet.requests (id, ctx, issuer, type, profile, renewal, state, next_attempt_at, created_at, updated_at)
        SELECT gen_random_uuid()::text, ctx, issuer, type, profile, true, 'REQUESTED', instant, instant, instant
        FROM due WHERE (ctx, issuer, type) NOT IN (SELECT ctx, issuer, type FROM again)
    ON CONFLICT (ctx, issuer, type) WHERE state IN ('REQUESTED', 'SENT') DO NOTHING;
    GET DIAGNOSTICS opened = ROW_COUNT;
    PERFORM set_config('kaphera.ctx', '', true);
    RETURN opened;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION wallet.lease_requests(instant timestamptz, slots integer) RETURNS TABLE (ctx text, id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY UPDATE wallet.requests SET leased_until = instant + interval '1 minute', attempts = attempts + 1
        WHERE id IN (SELECT id FROM wallet.requests WHERE state IN ('REQUESTED', 'SENT') AND next_attempt_at <= instant
            AND (leased_until IS NULL OR leased_until < instant) ORDER BY next_attempt_at LIMIT slots FOR UPDATE SKIP LOCKED)
        RETURNING ctx, id;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION wallet.lease_statuses(before timestamptz, instant timestamptz, slots integer) RETURNS TABLE (ctx text, digest bytea)
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

-- Keys that were replaced longer ago than what they signed is valid.
-- +goose StatementBegin
CREATE FUNCTION wallet.keys_to_remove(instant timestamptz, keep interval) RETURNS TABLE (ctx text, kid text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY SELECT ctx, kid FROM wallet.keys WHERE retired_at < instant - keep;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION wallet.keys_to_remove(timestamptz, interval);
DROP FUNCTION wallet.lease_statuses(timestamptz, timestamptz, integer);
DROP FUNCTION wallet.lease_requests(timestamptz, integer);
DROP FUNCTION wallet.open_renewals(timestamptz, interval);
