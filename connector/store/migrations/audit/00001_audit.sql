-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- One chain of records for each participant context, from its first record to the one that says that the participant was deleted; a later
-- participant of the same name has a chain of its own. The rule of the hash is documented in connector/audit.
CREATE TABLE audit.chains (
    id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    ctx  text NOT NULL CHECK (ctx ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    open boolean NOT NULL DEFAULT true,
    -- The last record's; its row is also the lock that gives records their order.
    seq  bigint NOT NULL DEFAULT 0,
    at   timestamptz NOT NULL DEFAULT 'epoch',
    hash bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex')
);
CREATE UNIQUE INDEX chains_open ON audit.chains (ctx) WHERE open;

CREATE TABLE audit.records (
    chain       uuid NOT NULL REFERENCES audit.chains (id),
    seq         bigint NOT NULL CHECK (seq > 0),
    at          timestamptz NOT NULL,
    ctx         text NOT NULL,
    type        text NOT NULL CHECK (type ~ '^[a-z]+(\.[a-z]+)*$'),
    actor       text NOT NULL CHECK (actor <> '' AND actor !~ '[\u0001-\u001f\u007f]'),
    body        json, -- its text is what was hashed; null: pruned
    body_sha256 bytea NOT NULL,
    prev        bytea NOT NULL,
    hash        bytea NOT NULL,
    PRIMARY KEY (chain, seq)
);

-- Whoever inserts gives ctx, type, actor and body; everything else is made here.
-- +goose StatementBegin
CREATE FUNCTION audit.chain_record() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    c audit.chains;
BEGIN
    IF NEW.type = 'audit.pruned' AND NEW.chain IS NOT NULL THEN -- a closed chain is pruned too
        SELECT * INTO c FROM audit.chains WHERE id = NEW.chain FOR UPDATE;
    ELSE
        SELECT * INTO c FROM audit.chains WHERE ctx = NEW.ctx AND open FOR UPDATE;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no open audit chain of participant context %', NEW.ctx USING ERRCODE = 'KA001';
    END IF;
    NEW.chain := c.id;
    NEW.ctx := c.ctx;
    NEW.seq := c.seq + 1;
    NEW.at := greatest(clock_timestamp(), c.at);
    NEW.prev := c.hash;
    NEW.body_sha256 := sha256(convert_to(NEW.body::text, 'UTF8'));
    NEW.hash := sha256(convert_to(concat_ws(E'\n', 'kaphera-audit-1', NEW.chain, NEW.ctx, NEW.seq, (extract(epoch FROM NEW.at) * 1000000)::bigint,
        NEW.type, NEW.actor, encode(NEW.body_sha256, 'hex'), encode(NEW.prev, 'hex')), 'UTF8'));
    UPDATE audit.chains SET seq = NEW.seq, at = NEW.at, hash = NEW.hash WHERE id = c.id;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER chain_record BEFORE INSERT ON audit.records FOR EACH ROW EXECUTE FUNCTION audit.chain_record();

-- What nobody does by mistake, the owner of the tables neither. Whoever switches this off leaves a chain that does not verify.
-- +goose StatementBegin
CREATE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND TG_TABLE_NAME = 'records' THEN
        -- A body goes once a record says so; a record that says so keeps its own.
        IF NEW.body IS NULL AND OLD.type <> 'audit.pruned'
            AND (NEW.chain, NEW.seq, NEW.at, NEW.ctx, NEW.type, NEW.actor, NEW.body_sha256, NEW.prev, NEW.hash)
              = (OLD.chain, OLD.seq, OLD.at, OLD.ctx, OLD.type, OLD.actor, OLD.body_sha256, OLD.prev, OLD.hash)
            AND EXISTS (SELECT FROM audit.records r WHERE r.chain = OLD.chain AND r.seq > OLD.seq AND r.type = 'audit.pruned' AND (r.body ->> 'through')::bigint >= OLD.seq) THEN
            RETURN NEW;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        IF (NEW.id, NEW.ctx) = (OLD.id, OLD.ctx) AND (NEW.seq = OLD.seq + 1 AND NEW.open = OLD.open
            OR OLD.open AND NOT NEW.open AND (NEW.seq, NEW.at, NEW.hash) = (OLD.seq, OLD.at, OLD.hash)) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% of audit.% is refused: the audit trail is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'KA002';
END $$;
-- +goose StatementEnd
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON audit.records FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit.records FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON audit.chains FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit.chains FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();

-- The only ways in for the roles of a connector, which own nothing here.
-- +goose StatementBegin
CREATE FUNCTION audit.open(ctx text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    INSERT INTO audit.chains (ctx) VALUES ($1) ON CONFLICT (ctx) WHERE open DO NOTHING
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION audit.append(ctx text, type text, actor text, body json) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    INSERT INTO audit.records (ctx, type, actor, body) VALUES ($1, $2, $3, $4) RETURNING seq
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION audit.close(ctx text, actor text) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    INSERT INTO audit.records (ctx, type, actor, body) VALUES ($1, 'participant.deleted', $2, '{}');
    UPDATE audit.chains SET open = false WHERE chains.ctx = $1 AND open
$$;
-- +goose StatementEnd
-- prune takes away the bodies of records that are older, at most so many of one chain at a time, and returns how many; call it until it returns 0.
-- +goose StatementBegin
CREATE FUNCTION audit.prune(older timestamptz, at_most bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    c uuid;
    through bigint;
    pruned bigint;
BEGIN
    SELECT r.chain INTO c FROM audit.records r WHERE r.body IS NOT NULL AND r.at < older AND r.type <> 'audit.pruned' ORDER BY r.at LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT max(seq) INTO through FROM (SELECT seq FROM audit.records r
        WHERE r.chain = c AND r.body IS NOT NULL AND r.at < older AND r.type <> 'audit.pruned' ORDER BY seq LIMIT at_most) old;
    INSERT INTO audit.records (chain, ctx, type, actor, body) SELECT c, chains.ctx, 'audit.pruned', 'connector', format('{"through":%s}', through)::json
        FROM audit.chains WHERE id = c;
    UPDATE audit.records r SET body = NULL WHERE r.chain = c AND r.seq <= through AND r.body IS NOT NULL AND r.type <> 'audit.pruned';
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END $$;
-- +goose StatementEnd
CREATE INDEX records_bodies ON audit.records (at) WHERE body IS NOT NULL AND type <> 'audit.pruned';
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM PUBLIC;

-- Participants that were there before have a chain from now on.
INSERT INTO audit.chains (ctx) SELECT ctx FROM control_plane.participants UNION SELECT ctx FROM wallet.participants;

-- +goose Down
DROP FUNCTION audit.prune, audit.close, audit.append, audit.open;
DROP TABLE audit.records;
DROP TABLE audit.chains;
DROP FUNCTION audit.refuse, audit.chain_record;
