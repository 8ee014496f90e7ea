// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"fmt"
	"testing"
	"time"
)

func TestNewsOfCatalogsIsBounded(t *testing.T) {
	t.Parallel()
	var c catalogVerdicts
	now := time.Unix(0, 0)
	ask := func(counterparty, reason string) (bool, int) {
		v := catalogVerdict{Counterparty: counterparty, Allowed: reason == "", Reason: reason}
		return c.news("acme", &v, now), v.Omitted
	}
	expect := func(what string, recorded, want bool) {
		t.Helper()
		if recorded != want {
			t.Errorf("%s: recorded %t", what, recorded)
		}
	}
	got, _ := ask("a", "")
	expect("everything is shown", got, false)
	got, _ = ask("a", "no credential")
	expect("refused", got, true)
	got, _ = ask("a", "no credential")
	expect("refused again", got, false)
	got, _ = ask("a", "")
	expect("allowed after all", got, true)
	n := 2
	for i := range maxVerdicts + 10 { // more than are remembered
		if got, _ := ask(fmt.Sprint("did:", i), "no credential"); got {
			n++
		}
	}
	if n != verdictsPerHour || len(c.last) > maxVerdicts {
		t.Errorf("%d were recorded, %d are remembered", n, len(c.last))
	}
	other := catalogVerdict{Counterparty: "a", Reason: "x"}
	expect("another participant's", c.news("other", &other, now), true)
	now = now.Add(time.Hour)
	got, omitted := ask("late", "no credential")
	expect("an hour later", got, true)
	if omitted != maxVerdicts+10-(verdictsPerHour-2) {
		t.Errorf("%d omitted", omitted)
	}
	again := func() bool { v := other; return c.news("other", &v, now) }
	expect("another participant's again", again(), false)
	c.forget("acme")
	expect("another participant's, when one was deleted", again(), false)
	c.forget("other")
	expect("the first of a later participant of the same name", again(), true)
	if len(c.hour) != 1 || len(c.last) != 1 {
		t.Errorf("of participants that are deleted, %d hours and %d verdicts are kept", len(c.hour)-1, len(c.last)-1)
	}
}
