// SPDX-License-Identifier: Apache-2.0

package pgtest_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/store/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestDatabasesAreApart(t *testing.T) {
	one, two := pgtest.NewDatabase(t), pgtest.NewDatabase(t)
	if one == two {
		t.Fatalf("both tests got %s", one)
	}
	for _, dsn := range []string{one, two} {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(t.Context()) }()
		if _, err := conn.Exec(t.Context(), "CREATE TABLE only_here ()"); err != nil {
			t.Fatal(err)
		}
	}
}
