-- SPDX-License-Identifier: Apache-2.0
-- Places at the workers are shared by participants, and each participant's by its counterparties. The functions with four parameters stay for
-- processes of the version before, as long as both run.
-- +goose Up
CREATE INDEX negotiations_due_by_participant ON control_plane.negotiations (ctx, counterparty, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX transfers_due_by_participant ON control_plane.transfers (ctx, counterparty, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
DROP INDEX control_plane.negotiations_due_by_counterparty;
DROP INDEX control_plane.transfers_due_by_counterparty;

-- +goose StatementBegin
DO $migration$
DECLARE
    kind text;
BEGIN
    -- Looks at the pairs of participant and counterparty with rows to work on one by one (a walk over the index), and at no more rows of each than it may get,
    -- which is half of the counterparty's places: what one participant sends to a counterparty that hangs leaves room for the others'.
    FOREACH kind IN ARRAY ARRAY['negotiations', 'transfers'] LOOP
        EXECUTE format($function$
CREATE FUNCTION control_plane.lease_%1$s(slots integer, per_participant integer, per_counterparty integer, worker text, lease interval) RETURNS TABLE (ctx text, id text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    per_pair CONSTANT integer := greatest(1, per_counterparty / 2);
    last CONSTANT text := chr(1114111); -- after every DID
    instant CONSTANT timestamptz := clock_timestamp(); -- not a function in the conditions, which an index could not be used for
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY WITH RECURSIVE leased AS (
        SELECT ctx, counterparty FROM control_plane.negotiations WHERE lease_until > instant UNION ALL
        SELECT ctx, counterparty FROM control_plane.transfers WHERE lease_until > instant
    ), used_up AS (
        SELECT ctx FROM leased GROUP BY ctx HAVING count(*) >= per_participant
    ), pair AS ( -- after: where to look for the next one, which is beyond a participant whose places are used up
        (SELECT ctx, counterparty, counterparty AS after FROM control_plane.%1$s WHERE next_attempt_at IS NOT NULL ORDER BY ctx, counterparty LIMIT 1)
        UNION ALL
        SELECT next.ctx, next.counterparty, CASE WHEN next.ctx IN (SELECT ctx FROM used_up) THEN last ELSE next.counterparty END
        FROM pair CROSS JOIN LATERAL (SELECT p.ctx, p.counterparty FROM control_plane.%1$s p
            WHERE p.next_attempt_at IS NOT NULL AND (p.ctx, p.counterparty) > (pair.ctx, pair.after)
                AND (p.ctx, p.counterparty) > (pair.ctx, pair.counterparty) -- where a collation sorts "last" before a DID, the walk goes on all the same
            ORDER BY p.ctx, p.counterparty LIMIT 1) next
    ), room AS (
        SELECT pair.ctx, pair.counterparty, b.of_participant, b.of_counterparty, b.of_pair FROM pair CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE l.ctx = pair.ctx) AS of_participant, count(*) FILTER (WHERE l.counterparty = pair.counterparty) AS of_counterparty,
                count(*) FILTER (WHERE l.ctx = pair.ctx AND l.counterparty = pair.counterparty) AS of_pair FROM leased l) b
        WHERE b.of_participant < per_participant AND b.of_counterparty < per_counterparty AND b.of_pair < per_pair
    ), in_pair AS (
        SELECT room.*, due.id, due.next_attempt_at, row_number() OVER (PARTITION BY room.ctx, room.counterparty ORDER BY due.next_attempt_at) + room.of_pair AS turn
        FROM room CROSS JOIN LATERAL (
            SELECT p.id, p.next_attempt_at FROM control_plane.%1$s p
            WHERE p.next_attempt_at IS NOT NULL AND (p.ctx, p.counterparty, p.next_attempt_at) >= (room.ctx, room.counterparty, '-infinity')
                AND (p.ctx, p.counterparty, p.next_attempt_at) <= (room.ctx, room.counterparty, instant) AND (p.lease_until IS NULL OR p.lease_until <= instant)
            ORDER BY p.ctx, p.counterparty, p.next_attempt_at LIMIT per_pair) due -- in such words that no other index serves
    ), in_participant AS (
        SELECT in_pair.*, row_number() OVER (PARTITION BY ctx ORDER BY turn, next_attempt_at) + of_participant AS participants_turn FROM in_pair WHERE turn <= per_pair
    ), in_counterparty AS (
        SELECT in_participant.*, row_number() OVER (PARTITION BY counterparty ORDER BY participants_turn, next_attempt_at) + of_counterparty AS counterpartys_turn
        FROM in_participant WHERE participants_turn <= per_participant
    ), picked AS (
        SELECT p.ctx, p.id FROM control_plane.%1$s p JOIN in_counterparty c USING (ctx, id)
        WHERE c.counterpartys_turn <= per_counterparty AND p.next_attempt_at <= instant AND (p.lease_until IS NULL OR p.lease_until <= instant)
        ORDER BY c.participants_turn, p.next_attempt_at LIMIT slots FOR UPDATE OF p SKIP LOCKED
    )
    UPDATE control_plane.%1$s p SET lease_owner = worker, lease_until = clock_timestamp() + lease
    FROM picked WHERE p.ctx = picked.ctx AND p.id = picked.id RETURNING p.ctx, p.id;
    PERFORM set_config('kaphera.ctx', '', true);
END $$ $function$, kind);
    END LOOP;
END $migration$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION control_plane.lease_transfers(integer, integer, integer, text, interval);
DROP FUNCTION control_plane.lease_negotiations(integer, integer, integer, text, interval);
CREATE INDEX negotiations_due_by_counterparty ON control_plane.negotiations (counterparty, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX transfers_due_by_counterparty ON control_plane.transfers (counterparty, next_attempt_at) WHERE next_attempt_at IS NOT NULL;
DROP INDEX control_plane.transfers_due_by_participant;
DROP INDEX control_plane.negotiations_due_by_participant;
