-- SPDX-License-Identifier: Apache-2.0
-- Work that finds out which rows of any issuer are due; see control_plane/00040_row_security.sql.
-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION issuer.lease_deliveries(instant timestamptz, since timestamptz, slots integer) RETURNS TABLE (ctx text, id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY UPDATE issuer.requests SET leased_until = instant + interval '1 minute', attempts = attempts + 1
        WHERE id IN (SELECT id FROM issuer.requests WHERE NOT delivered AND next_attempt_at <= instant AND created_at > since
            AND (leased_until IS NULL OR leased_until < instant) ORDER BY next_attempt_at LIMIT slots FOR UPDATE SKIP LOCKED)
        RETURNING ctx, id;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- Keys that were replaced longer ago than keep, and none of whose credentials is valid. A request under way when the key was replaced ends with the old one.
-- +goose StatementBegin
CREATE FUNCTION issuer.keys_to_remove(instant timestamptz, keep interval) RETURNS TABLE (ctx text, kid text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY SELECT k.ctx, k.kid FROM issuer.keys k WHERE k.retired_at < instant - keep AND NOT EXISTS (
        SELECT FROM issuer.credentials c WHERE c.ctx = k.ctx AND c.expires_at > instant
            AND c.issued_at BETWEEN k.created_at - interval '10 minutes' AND k.retired_at + interval '10 minutes');
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION issuer.keys_to_remove(timestamptz, interval);
DROP FUNCTION issuer.lease_deliveries(timestamptz, timestamptz, integer);
