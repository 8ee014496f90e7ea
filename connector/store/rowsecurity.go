// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
)

// secureRows puts row security on every table of a schema that has a column ctx, forced, so that it binds the owner as well: a runtime may have no
// account of its own (edcoperator's quickstart). Only rows of the context that the setting kaphera.ctx names are seen and written: none without it, or an
// error where it was never set. The second policy is for the schema's functions and for migrations, which run as the owner and see all under the setting "*".
// It runs with every migration, as grants do, so that no table is forgotten and a new owner is noticed; what is as it should be is not touched.
func secureRows(ctx context.Context, db *sql.DB, schema string) error {
	_, err := db.ExecContext(ctx, fmt.Sprintf(`DO $do$
		DECLARE
			t regclass;
			owner regrole;
			forced boolean;
		BEGIN
			PERFORM pg_advisory_xact_lock(7301);
			FOR t, owner, forced IN SELECT c.oid, c.relowner, c.relrowsecurity AND c.relforcerowsecurity FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'ctx' AND NOT a.attisdropped
				WHERE c.relnamespace = '%[1]s'::regnamespace AND c.relkind IN ('r', 'p')
			LOOP
				IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = t AND polname = 'one_context') THEN
					EXECUTE format('CREATE POLICY one_context ON %%s USING (ctx = current_setting(''kaphera.ctx''))', t);
				END IF;
				IF NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = t AND polname = 'all_contexts' AND polroles = ARRAY[owner::oid]) THEN
					EXECUTE format('DROP POLICY IF EXISTS all_contexts ON %%s', t);
					EXECUTE format('CREATE POLICY all_contexts ON %%s TO %%s USING (current_setting(''kaphera.ctx'') = ''*'')', t, owner);
				END IF;
				IF NOT forced THEN
					EXECUTE format('ALTER TABLE %%s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
				END IF;
			END LOOP;
			REVOKE ALL ON ALL FUNCTIONS IN SCHEMA %[1]s FROM PUBLIC;
		END $do$`, schema))
	return err
}
