-- SPDX-License-Identifier: Apache-2.0
-- The wallet, which hears of a participant first and forgets it last, begins its chain, and ends it when the control plane never had the participant.
-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION audit.close_unused(ctx text, actor text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM audit.chains c WHERE c.ctx = $1 AND c.open) AND NOT EXISTS (SELECT FROM control_plane.participants p WHERE p.ctx = $1) THEN
        PERFORM audit.close($1, $2);
    END IF;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION audit.close_unused FROM PUBLIC;

-- +goose Down
DROP FUNCTION audit.close_unused;
