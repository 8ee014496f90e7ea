-- SPDX-License-Identifier: Apache-2.0
-- A participant moves with its chain: here nothing more is recorded of it, and so nothing is done, and what was recorded stays and may go on when it comes back.
-- +goose Up
ALTER TABLE audit.chains ADD COLUMN moving boolean NOT NULL DEFAULT false; -- open: being moved; closed: it goes on elsewhere

-- After the record has its place, and with it the lock of its chain.
-- +goose StatementBegin
CREATE FUNCTION audit.refuse_moving() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM audit.chains c WHERE c.id = NEW.chain AND c.moving) THEN
        RAISE EXCEPTION 'participant context % is being moved to another connector', NEW.ctx USING ERRCODE = 'KA003';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER refuse_moving AFTER INSERT ON audit.records FOR EACH ROW EXECUTE FUNCTION audit.refuse_moving();

DROP TRIGGER refuse ON audit.chains;
CREATE TRIGGER refuse BEFORE DELETE ON audit.chains FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER refuse_update BEFORE UPDATE ON audit.chains FOR EACH ROW WHEN (NOT coalesce(
    (NEW.id, NEW.ctx, NEW.seq, NEW.at, NEW.hash) = (OLD.id, OLD.ctx, OLD.seq, OLD.at, OLD.hash) AND (
        OLD.open AND NEW.open AND NEW.importing IS NOT DISTINCT FROM OLD.importing -- a move begins, or does not take place
        OR OLD.moving AND NOT OLD.open AND NOT NEW.moving AND NEW.importing = pg_current_xact_id()), -- it comes back
    false)) EXECUTE FUNCTION audit.refuse();

-- Contexts that are being moved, for which the workers do nothing.
-- +goose StatementBegin
CREATE FUNCTION audit.moving() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY SELECT c.ctx FROM audit.chains c WHERE c.open AND c.moving;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- Who sets a participant up begins its chain first: while it is being moved its keys and profiles stay as they are.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.open(ctx text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF EXISTS (SELECT FROM audit.chains c WHERE c.ctx = $1 AND c.open AND c.moving) THEN
        RAISE EXCEPTION 'participant context % is being moved to another connector', $1 USING ERRCODE = 'KA003';
    END IF;
    INSERT INTO audit.chains (ctx) VALUES ($1) ON CONFLICT (ctx) WHERE open DO NOTHING;
END $$;
-- +goose StatementEnd

-- The chain of a participant that has moved goes on elsewhere, where it was not deleted.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.close(ctx text, actor text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO audit.records (ctx, type, actor, body) SELECT $1, 'participant.deleted', $2, '{}'
        WHERE NOT EXISTS (SELECT FROM audit.chains c WHERE c.ctx = $1 AND c.open AND c.moving);
    UPDATE audit.chains SET open = false WHERE chains.ctx = $1 AND open
$$;
-- +goose StatementEnd

-- The heads of all chains that are this connector's, open and closed.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.heads() RETURNS SETOF audit.chains LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY SELECT * FROM audit.chains WHERE NOT moving;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.prune(at_most bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    older timestamptz := clock_timestamp() - (SELECT keep FROM audit.retention);
    c uuid;
    through bigint;
    pruned bigint := 0;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    SELECT r.chain INTO c FROM audit.records r JOIN audit.chains ON chains.id = r.chain AND NOT chains.moving
        WHERE r.body IS NOT NULL AND r.at < older AND r.type <> 'audit.pruned' ORDER BY r.at LIMIT 1;
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
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.prune(at_most bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.heads() RETURNS SETOF audit.chains LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    RETURN QUERY SELECT * FROM audit.chains;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.close(ctx text, actor text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO audit.records (ctx, type, actor, body) VALUES ($1, 'participant.deleted', $2, '{}');
    UPDATE audit.chains SET open = false WHERE chains.ctx = $1 AND open
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.open(ctx text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO audit.chains (ctx) VALUES ($1) ON CONFLICT (ctx) WHERE open DO NOTHING
$$;
-- +goose StatementEnd
DROP FUNCTION audit.moving;
DROP TRIGGER refuse_update ON audit.chains;
DROP TRIGGER refuse ON audit.chains;
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON audit.chains FOR EACH ROW EXECUTE FUNCTION audit.refuse();
DROP TRIGGER refuse_moving ON audit.records;
DROP FUNCTION audit.refuse_moving;
ALTER TABLE audit.chains DROP COLUMN moving;
