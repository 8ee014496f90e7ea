-- SPDX-License-Identifier: Apache-2.0
-- A dataspace profile may change while a participant is being moved: it goes on elsewhere, where its profiles are set anew.
-- +goose Up
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION control_plane.record_profile(name text, type text, actor text, body json) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    participants text[];
    one text;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    -- In one order, since each chain is locked until the transaction ends.
    SELECT coalesce(array_agg(p.ctx ORDER BY p.ctx), '{}') INTO participants FROM control_plane.participants p WHERE record_profile.name = ANY (p.profile || p.further_profiles)
        AND NOT EXISTS (SELECT FROM audit.chains c WHERE c.ctx = p.ctx AND c.open AND c.moving);
    FOREACH one IN ARRAY participants LOOP
        PERFORM set_config('kaphera.ctx', one, true);
        PERFORM audit.append(one, type, actor, body);
    END LOOP;
    PERFORM set_config('kaphera.ctx', '', true);
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION control_plane.record_profile(name text, type text, actor text, body json) RETURNS void
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
