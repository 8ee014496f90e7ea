-- SPDX-License-Identifier: Apache-2.0
-- Work that finds out which rows of any participant are due. Row security hides the rows of all others from whoever works for one (connector/store/rowsecurity.go);
-- these functions look at all and return keys only. Each clears the setting before it returns; an error ends the transaction, and the setting with it.
-- +goose Up
-- +goose StatementBegin
DO $migration$
DECLARE
    kind text;
BEGIN
    -- Looks at the counterparties with due rows one by one (a walk over the index), and at no more rows of each than it may get.
    FOREACH kind IN ARRAY ARRAY['negotiations', 'transfers'] LOOP
        EXECUTE format($function$
CREATE FUNCTION control_plane.lease_%1$s(slots integer, per_counterparty integer, worker text, lease interval) RETURNS TABLE (ctx text, id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY WITH RECURSIVE party AS (
        (SELECT counterparty FROM control_plane.%1$s WHERE next_attempt_at IS NOT NULL ORDER BY counterparty LIMIT 1)
        UNION ALL
        SELECT (SELECT p.counterparty FROM control_plane.%1$s p WHERE p.next_attempt_at IS NOT NULL AND p.counterparty > party.counterparty
            ORDER BY p.counterparty LIMIT 1) FROM party WHERE party.counterparty IS NOT NULL
    ), busy AS (
        SELECT counterparty, count(*) AS n FROM (
            SELECT counterparty FROM control_plane.negotiations WHERE lease_until > clock_timestamp() UNION ALL
            SELECT counterparty FROM control_plane.transfers WHERE lease_until > clock_timestamp()) leased GROUP BY counterparty
    ), fair AS (
        SELECT due.ctx, due.id, row_number() OVER (PARTITION BY due.counterparty ORDER BY due.next_attempt_at) + coalesce(busy.n, 0) AS rank
        FROM party CROSS JOIN LATERAL (
            SELECT p.ctx, p.id, p.counterparty, p.next_attempt_at FROM control_plane.%1$s p
            WHERE p.counterparty = party.counterparty AND p.next_attempt_at <= clock_timestamp() AND (p.lease_until IS NULL OR p.lease_until <= clock_timestamp())
            ORDER BY p.next_attempt_at LIMIT per_counterparty
        ) due LEFT JOIN busy ON busy.counterparty = due.counterparty
    ), picked AS (
        SELECT p.ctx, p.id FROM control_plane.%1$s p JOIN fair USING (ctx, id)
        WHERE fair.rank <= per_counterparty AND p.next_attempt_at <= clock_timestamp() AND (p.lease_until IS NULL OR p.lease_until <= clock_timestamp())
        ORDER BY fair.rank, p.next_attempt_at LIMIT slots FOR UPDATE OF p SKIP LOCKED
    )
    UPDATE control_plane.%1$s p SET lease_owner = worker, lease_until = clock_timestamp() + lease
    FROM picked WHERE p.ctx = picked.ctx AND p.id = picked.id RETURNING p.ctx, p.id;
    PERFORM set_config('kaphera.ctx', '', true);
END $$ $function$, kind);
    END LOOP;
END $migration$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION control_plane.free_leases(worker text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    UPDATE control_plane.negotiations SET lease_owner = '', lease_until = NULL WHERE lease_owner = worker;
    UPDATE control_plane.transfers SET lease_owner = '', lease_until = NULL WHERE lease_owner = worker;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- How long it is until a row is due that no worker has; null when there is none.
-- +goose StatementBegin
CREATE FUNCTION control_plane.next_due() RETURNS interval
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due timestamptz;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    SELECT min(at) INTO due FROM (
        SELECT min(greatest(next_attempt_at, coalesce(lease_until, next_attempt_at))) AS at FROM control_plane.negotiations WHERE next_attempt_at IS NOT NULL
        UNION ALL
        SELECT min(greatest(next_attempt_at, coalesce(lease_until, next_attempt_at))) FROM control_plane.transfers WHERE next_attempt_at IS NOT NULL) t;
    PERFORM set_config('kaphera.ctx', '', true);
    RETURN due - clock_timestamp();
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION control_plane.lease_callbacks(slots integer, lease interval) RETURNS TABLE (ctx text, process_id text, "position" integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY WITH due AS (
        SELECT c.ctx, c.process_id, c.position FROM control_plane.callbacks c
        LEFT JOIN control_plane.negotiations n ON n.ctx = c.ctx AND n.id = c.process_id
        LEFT JOIN control_plane.transfers t ON t.ctx = c.ctx AND t.id = c.process_id
        WHERE c.next_attempt_at <= clock_timestamp() AND jsonb_array_length(coalesce(n.history, t.history, '[]')) > c.told
        ORDER BY c.next_attempt_at LIMIT slots FOR UPDATE OF c SKIP LOCKED
    )
    UPDATE control_plane.callbacks c SET next_attempt_at = clock_timestamp() + lease FROM due
    WHERE c.ctx = due.ctx AND c.process_id = due.process_id AND c.position = due.position RETURNING c.ctx, c.process_id, c.position;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION control_plane.prune_received_messages(age interval) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    DELETE FROM control_plane.received_messages WHERE received_at < clock_timestamp() - age;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION control_plane.prune_received_messages(interval);
DROP FUNCTION control_plane.lease_callbacks(integer, interval);
DROP FUNCTION control_plane.next_due();
DROP FUNCTION control_plane.free_leases(text);
DROP FUNCTION control_plane.lease_transfers(integer, integer, text, interval);
DROP FUNCTION control_plane.lease_negotiations(integer, integer, text, interval);
