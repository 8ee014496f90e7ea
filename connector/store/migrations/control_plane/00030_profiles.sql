-- SPDX-License-Identifier: Apache-2.0
-- A participant takes part in several dataspace profiles; offers, negotiations and transfers belong to one of them.
-- +goose Up
ALTER TABLE control_plane.participants ADD COLUMN further_profiles text[] NOT NULL DEFAULT '{}'; -- beside profile, the default one
ALTER TABLE control_plane.contract_definitions ADD COLUMN profiles text[] NOT NULL DEFAULT '{}'; -- offered in; none: the default one

ALTER TABLE control_plane.negotiations ADD COLUMN profile text;
ALTER TABLE control_plane.transfers ADD COLUMN profile text;
UPDATE control_plane.negotiations n SET profile = p.profile FROM control_plane.participants p WHERE p.ctx = n.ctx;
UPDATE control_plane.transfers t SET profile = p.profile FROM control_plane.participants p WHERE p.ctx = t.ctx;
ALTER TABLE control_plane.negotiations ALTER COLUMN profile SET NOT NULL;
ALTER TABLE control_plane.transfers ALTER COLUMN profile SET NOT NULL;

-- Whoever works for one participant does not see which profiles the others have.
-- +goose StatementBegin
CREATE FUNCTION control_plane.is_further_profile(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found boolean;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    SELECT EXISTS (SELECT FROM control_plane.participants WHERE is_further_profile.name = ANY (further_profiles)) INTO found;
    PERFORM set_config('kaphera.ctx', '', true);
    RETURN found;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION control_plane.is_further_profile(text);
ALTER TABLE control_plane.transfers DROP COLUMN profile;
ALTER TABLE control_plane.negotiations DROP COLUMN profile;
ALTER TABLE control_plane.contract_definitions DROP COLUMN profiles;
ALTER TABLE control_plane.participants DROP COLUMN further_profiles;
