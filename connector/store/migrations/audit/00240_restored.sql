-- SPDX-License-Identifier: Apache-2.0
-- Records of an archive (connector/archive) come in as they are: only into a chain that this transaction began to import, one after the
-- other, and each proven by its hash.
-- +goose Up
ALTER TABLE audit.chains ADD COLUMN importing xid8; -- the transaction that brings its records

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.chain_record() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    c audit.chains;
    given bytea;
BEGIN
    IF NEW.hash IS NOT NULL THEN
        SELECT * INTO c FROM audit.chains WHERE id = NEW.chain AND importing = pg_current_xact_id() FOR UPDATE;
        IF FOUND THEN
            given := NEW.hash;
        END IF;
    END IF;
    IF given IS NULL THEN
        IF NEW.type = 'audit.pruned' AND NEW.chain IS NOT NULL THEN -- a closed chain is pruned too
            SELECT * INTO c FROM audit.chains WHERE id = NEW.chain FOR UPDATE;
        ELSE
            SELECT * INTO c FROM audit.chains WHERE ctx = NEW.ctx AND open FOR UPDATE;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no open audit chain of participant context %', NEW.ctx USING ERRCODE = 'KA001';
        END IF;
        NEW.at := greatest(clock_timestamp(), c.at);
    ELSIF (NEW.ctx, NEW.seq, NEW.prev) IS DISTINCT FROM (c.ctx, c.seq + 1, c.hash) OR NEW.at < c.at THEN
        RAISE EXCEPTION 'record % of audit chain % of % does not follow the one before', NEW.seq, NEW.chain, NEW.ctx USING ERRCODE = 'KA002';
    END IF;
    NEW.chain := c.id;
    NEW.ctx := c.ctx;
    NEW.seq := c.seq + 1;
    NEW.prev := c.hash;
    IF given IS NULL OR NEW.body IS NOT NULL THEN
        NEW.body_sha256 := sha256(convert_to(NEW.body::text, 'UTF8'));
    END IF;
    NEW.hash := sha256(convert_to(concat_ws(E'\n', 'kaphera-audit-1', NEW.chain, NEW.ctx, NEW.seq, (extract(epoch FROM NEW.at) * 1000000)::bigint,
        NEW.type, NEW.actor, encode(NEW.body_sha256, 'hex'), encode(NEW.prev, 'hex')), 'UTF8'));
    IF given IS NOT NULL AND NEW.hash IS DISTINCT FROM given THEN
        RAISE EXCEPTION 'record % of audit chain % of % is not what its hash says', NEW.seq, NEW.chain, NEW.ctx USING ERRCODE = 'KA002';
    END IF;
    UPDATE audit.chains SET seq = NEW.seq, at = NEW.at, hash = NEW.hash WHERE id = c.id;
    RETURN NEW;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
        IF (NEW.id, NEW.ctx, NEW.importing) IS NOT DISTINCT FROM (OLD.id, OLD.ctx, OLD.importing) AND (NEW.seq = OLD.seq + 1 AND NEW.open = OLD.open
            OR OLD.open AND NOT NEW.open AND (NEW.seq, NEW.at, NEW.hash) = (OLD.seq, OLD.at, OLD.hash)) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION '% of audit.% is refused: the audit trail is append-only', TG_OP, TG_TABLE_NAME USING ERRCODE = 'KA002';
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.chain_record() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
ALTER TABLE audit.chains DROP COLUMN importing;
