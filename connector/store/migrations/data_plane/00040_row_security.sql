-- SPDX-License-Identifier: Apache-2.0
-- The messages of Data Plane Signaling name a flow and not its participant context; see control_plane/00040_row_security.sql.
-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION data_plane.context_of(flow text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text;
BEGIN
    PERFORM set_config('kaphera.ctx', '*', true);
    SELECT ctx INTO found FROM data_plane.flows WHERE flow_id = flow;
    PERFORM set_config('kaphera.ctx', '', true);
    RETURN found;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION data_plane.context_of(text);
