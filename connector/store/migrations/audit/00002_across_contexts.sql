-- SPDX-License-Identifier: Apache-2.0
-- What looks at the chains of all participants says so (kaphera.ctx = '*'), since row security hides all but one.
-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.prune(older timestamptz, at_most bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c uuid;
    through bigint;
    pruned bigint := 0;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    SELECT r.chain INTO c FROM audit.records r WHERE r.body IS NOT NULL AND r.at < older AND r.type <> 'audit.pruned' ORDER BY r.at LIMIT 1;
    IF FOUND THEN
        SELECT max(seq) INTO through FROM (SELECT seq FROM audit.records r
            WHERE r.chain = c AND r.body IS NOT NULL AND r.at < older AND r.type <> 'audit.pruned' ORDER BY seq LIMIT at_most) old;
        INSERT INTO audit.records (chain, ctx, type, actor, body) SELECT c, chains.ctx, 'audit.pruned', 'connector', format('{"through":%s}', through)::json
            FROM audit.chains WHERE id = c;
        UPDATE audit.records r SET body = NULL WHERE r.chain = c AND r.seq <= through AND r.body IS NOT NULL AND r.type <> 'audit.pruned';
        GET DIAGNOSTICS pruned = ROW_COUNT;
    END IF;
    PERFORM set_config('kaphera.ctx', '', true);
    RETURN pruned;
END $$;
-- +goose StatementEnd

-- The heads of all chains, open and closed.
-- +goose StatementBegin
CREATE FUNCTION audit.heads() RETURNS SETOF audit.chains LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY SELECT * FROM audit.chains;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION audit.heads FROM PUBLIC;

-- +goose Down
DROP FUNCTION audit.heads;
