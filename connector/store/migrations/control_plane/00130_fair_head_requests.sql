-- SPDX-License-Identifier: Apache-2.0
-- One counterparty, however many agreements it has and however slowly it answers, takes one place of a lease.
-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION control_plane.lease_head_requests(slots integer, lease interval) RETURNS TABLE (ctx text, id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY WITH first AS (
        SELECT DISTINCT ON (n.counterparty) h.ctx, h.agreement_id FROM control_plane.head_requests h
        JOIN control_plane.agreements a ON a.ctx = h.ctx AND a.id = h.agreement_id
        JOIN control_plane.negotiations n ON n.ctx = a.ctx AND n.id = a.negotiation_id
        WHERE h.next_attempt_at <= clock_timestamp() ORDER BY n.counterparty, h.attempts, h.next_attempt_at
    ), picked AS (
        SELECT h.ctx, h.agreement_id FROM control_plane.head_requests h JOIN first USING (ctx, agreement_id)
        WHERE h.next_attempt_at <= clock_timestamp() ORDER BY h.attempts, h.next_attempt_at LIMIT slots FOR UPDATE OF h SKIP LOCKED
    )
    UPDATE control_plane.head_requests h SET attempts = h.attempts + 1, next_attempt_at = clock_timestamp() + lease FROM picked
    WHERE h.ctx = picked.ctx AND h.agreement_id = picked.agreement_id RETURNING h.ctx, h.agreement_id;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION control_plane.lease_head_requests(slots integer, lease interval) RETURNS TABLE (ctx text, id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY UPDATE control_plane.head_requests SET attempts = attempts + 1, next_attempt_at = clock_timestamp() + lease
        WHERE (ctx, agreement_id) IN (SELECT ctx, agreement_id FROM control_plane.head_requests WHERE next_attempt_at <= clock_timestamp()
            ORDER BY attempts, next_attempt_at LIMIT slots FOR UPDATE SKIP LOCKED)
        RETURNING ctx, agreement_id;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd
