// SPDX-License-Identifier: Apache-2.0

// Package tenants takes the queries' own conditions away, to show that row security alone keeps participants apart.
package tenants

import (
	"regexp"
	"sync/atomic"
	"testing"

	"github.com/kaphera/kaphera/connector/store/pgtest"
)

var (
	condition = regexp.MustCompile(`(?:\b\w+\.)?\bctx = (\$\d+)`)
	joined    = regexp.MustCompile(`\b\w+\.ctx = \w+\.ctx\b`)
)

// WithoutConditions returns the URL of a database as seen through a proxy that takes every condition on the participant context out of every statement,
// and how many statements had one.
func WithoutConditions(tb testing.TB, database string) (url string, removed *atomic.Int64) {
	tb.Helper()
	removed = &atomic.Int64{}
	return pgtest.Rewrite(tb, database, func(sql string) string {
		out := joined.ReplaceAllString(condition.ReplaceAllString(sql, "($1::text IS NOT NULL)"), "true")
		if out != sql {
			removed.Add(1)
		}
		return out
	}), removed
}
