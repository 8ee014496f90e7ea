-- SPDX-License-Identifier: Apache-2.0
-- Of a participant that is being moved nothing is recorded: its accesses wait for the place where it goes on, and hold up nobody else's.
-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION data_plane.close_orphans(at_most integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a data_plane.accesses;
    n integer := 0;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    FOR a IN SELECT * FROM data_plane.accesses x
        WHERE NOT EXISTS (SELECT FROM data_plane.processes p WHERE p.boot = x.boot AND p.alive_until > clock_timestamp())
            AND NOT EXISTS (SELECT FROM audit.chains c WHERE c.ctx = x.ctx AND c.open AND c.moving)
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
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION data_plane.close_orphans(at_most integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
