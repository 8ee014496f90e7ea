-- SPDX-License-Identifier: Apache-2.0
-- How long bodies are kept is the owner's to say, by `connector migrate`, and nobody prunes what is younger.
-- +goose Up
CREATE TABLE audit.retention (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    keep   interval NOT NULL CHECK (keep > interval '0') -- no row: for ever
);

DROP FUNCTION audit.prune(timestamptz, bigint);
-- +goose StatementBegin
CREATE FUNCTION audit.prune(at_most bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    older timestamptz := clock_timestamp() - (SELECT keep FROM audit.retention);
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
REVOKE ALL ON FUNCTION audit.prune FROM PUBLIC;

-- +goose Down
DROP FUNCTION audit.prune(bigint);
-- +goose StatementBegin
CREATE FUNCTION audit.prune(older timestamptz, at_most bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
REVOKE ALL ON FUNCTION audit.prune FROM PUBLIC;
DROP TABLE audit.retention;
