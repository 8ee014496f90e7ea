// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestMigrateTwiceAndFromTwoProcesses(t *testing.T) {
	cc, err := pgx.ParseConfig(pgtest.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error)
	for range 4 {
		go func() { errs <- store.Migrate(t.Context(), cc, store.Grants{}) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
