-- SPDX-License-Identifier: Apache-2.0
-- Agreements that were finalized and whose other party is still to be asked for the head of its audit chain.
-- +goose Up
CREATE TABLE control_plane.head_requests (
    ctx             text NOT NULL,
    agreement_id    text NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (ctx, agreement_id),
    FOREIGN KEY (ctx, agreement_id) REFERENCES control_plane.agreements (ctx, id) ON DELETE CASCADE
);
CREATE INDEX head_requests_due ON control_plane.head_requests (next_attempt_at);

-- Takes what is due for the length of a lease, first attempts first: a counterparty that hangs keeps nobody else waiting.
-- +goose StatementBegin
CREATE FUNCTION control_plane.lease_head_requests(slots integer, lease interval) RETURNS TABLE (ctx text, id text)
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

-- +goose Down
DROP FUNCTION control_plane.lease_head_requests(integer, interval);
DROP TABLE control_plane.head_requests;
