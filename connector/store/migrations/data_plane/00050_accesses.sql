-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
-- Processes of this data plane. One that starts under a name takes the place of the one before; one that ends stops saying that it is alive.
CREATE TABLE data_plane.processes (
    name        text PRIMARY KEY,
    boot        text NOT NULL UNIQUE,
    alive_until timestamptz NOT NULL
);

-- Accesses under way: the row is written with the audit record of the intent, and removed with that of the outcome.
CREATE TABLE data_plane.accesses (
    id           text PRIMARY KEY,
    ctx          text NOT NULL,
    boot         text NOT NULL, -- of the process that serves it
    flow_id      text NOT NULL,
    agreement_id text NOT NULL
);

-- Records that nobody knows how the accesses of ended processes went, and returns how many there were.
-- +goose StatementBegin
CREATE FUNCTION data_plane.close_orphans(at_most integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a data_plane.accesses;
    n integer := 0;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    FOR a IN SELECT * FROM data_plane.accesses x
        WHERE NOT EXISTS (SELECT FROM data_plane.processes p WHERE p.boot = x.boot AND p.alive_until > clock_timestamp())
        ORDER BY x.ctx, x.id LIMIT at_most FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM data_plane.accesses WHERE id = a.id;
        IF EXISTS (SELECT FROM audit.chains c WHERE c.ctx = a.ctx AND c.open) THEN -- else the participant was deleted meanwhile
            PERFORM audit.append(a.ctx, 'data.outcome', 'connector',
                format('{"access":%s,"flow":%s,"agreement":%s,"unknown":true}', to_json(a.id), to_json(a.flow_id), to_json(a.agreement_id))::json);
        END IF;
        n := n + 1;
    END LOOP;
    PERFORM set_config('kaphera.ctx', '', true);
    RETURN n;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION data_plane.close_orphans;
DROP TABLE data_plane.accesses;
DROP TABLE data_plane.processes;
