-- SPDX-License-Identifier: Apache-2.0
-- What runs as the owner looks for names in nobody's temporary schema first, and nobody appends the records that only a chain itself may hold.
-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.append(ctx text, type text, actor text, body json) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number bigint;
BEGIN
    IF type IN ('participant.deleted', 'audit.pruned') THEN
        RAISE EXCEPTION 'a record of type % is made by the audit trail itself', type USING ERRCODE = 'KA002';
    END IF;
    INSERT INTO audit.records (ctx, type, actor, body) VALUES ($1, $2, $3, $4) RETURNING seq INTO number;
    RETURN number;
END $$;
-- +goose StatementEnd
ALTER FUNCTION audit.chain_record() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION audit.refuse() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION audit.open(text) SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION audit.close(text, text) SET search_path = pg_catalog, pg_temp;

-- +goose Down
ALTER FUNCTION audit.close(text, text) SET search_path = pg_catalog;
ALTER FUNCTION audit.open(text) SET search_path = pg_catalog;
ALTER FUNCTION audit.refuse() SET search_path = pg_catalog;
ALTER FUNCTION audit.chain_record() SET search_path = pg_catalog;
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION audit.append(ctx text, type text, actor text, body json) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    INSERT INTO audit.records (ctx, type, actor, body) VALUES ($1, $2, $3, $4) RETURNING seq
$$;
-- +goose StatementEnd
