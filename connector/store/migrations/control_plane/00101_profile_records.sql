-- SPDX-License-Identifier: Apache-2.0
-- A change of a dataspace profile is recorded for each participant that takes part in it, in the transaction of the change.
-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION control_plane.record_profile(name text, type text, actor text, body json) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    participants text[];
    one text;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    -- In one order, since each chain is locked until the transaction ends.
    SELECT coalesce(array_agg(p.ctx ORDER BY p.ctx), '{}') INTO participants FROM control_plane.participants p WHERE record_profile.name = ANY (p.profile || p.further_profiles);
    FOREACH one IN ARRAY participants LOOP
        PERFORM set_config('kaphera.ctx', one, true);
        PERFORM audit.append(one, type, actor, body);
    END LOOP;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION control_plane.record_profile(text, text, text, json);
