// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
)

func TestWatchFindsWhatNoHonestChainDoes(t *testing.T) {
	head := func(chain, ctx string, seq int64, hash string, open bool) audit.Head {
		return audit.Head{Chain: chain, Ctx: ctx, Seq: seq, Hash: hash, Open: open}
	}
	for name, tc := range map[string]struct {
		heads []audit.Head
		want  string // empty: no alarm
	}{
		"it goes on":                   {[]audit.Head{head("1", "acme", 1, "a", true), head("2", "other", 9, "x", true), head("1", "acme", 5, "b", true)}, ""},
		"reported twice":               {[]audit.Head{head("1", "acme", 1, "a", true), head("1", "acme", 1, "a", true)}, ""},
		"deleted":                      {[]audit.Head{head("1", "acme", 1, "a", true), head("1", "acme", 2, "b", false)}, ""},
		"deleted and made again":       {[]audit.Head{head("1", "acme", 1, "a", true), head("1", "acme", 2, "b", false), head("2", "acme", 1, "c", true)}, ""},
		"made again before it is seen": {[]audit.Head{head("1", "acme", 1, "a", true), head("2", "acme", 1, "c", true), head("1", "acme", 2, "b", false)}, ""},
		"went back":                    {[]audit.Head{head("1", "acme", 5, "a", true), head("1", "acme", 4, "b", true), head("1", "acme", 9, "c", true)}, "went back from record 5 to 4"},
		"forked":                       {[]audit.Head{head("1", "acme", 5, "a", true), head("1", "acme", 5, "b", true)}, "written anew"},
		"opened again":                 {[]audit.Head{head("1", "acme", 5, "a", false), head("1", "acme", 6, "b", true)}, "open again"},
		"another's":                    {[]audit.Head{head("1", "acme", 5, "a", true), head("1", "beta", 6, "b", true)}, "is of beta"},
		"replaced":                     {[]audit.Head{head("1", "acme", 5, "a", true), head("2", "acme", 1, "b", true)}, "chain 1 of acme with 5 records was replaced by another, 2"},
	} {
		var w audit.Watch
		for i, h := range tc.heads {
			w.See(h, time.Unix(int64(i), 0))
		}
		got := w.Alarms(time.Time{})
		if tc.want == "" && len(got) != 0 || tc.want != "" && (len(got) != 1 || !strings.Contains(got[0].What, tc.want)) {
			t.Errorf("%s: %+v", name, got)
		}
		if later := w.Alarms(time.Unix(int64(len(tc.heads)), 0)); len(later) != 0 {
			t.Errorf("%s: alarms that were looked into: %+v", name, later)
		}
	}
}

func TestWatchLetsAChainMoveAndComeBack(t *testing.T) {
	head := func(chain string, seq int64) audit.Head {
		return audit.Head{Chain: chain, Ctx: "acme", Seq: seq, Hash: "a", Open: true}
	}
	var w audit.Watch
	w.See(head("1", 5), time.Unix(1, 0))
	w.Moved("1")
	w.Moved("unknown")
	w.See(head("2", 1), time.Unix(2, 0))
	if got := w.Alarms(time.Time{}); len(got) != 0 {
		t.Errorf("another took the name of one that moved: %+v", got)
	}
	w.Moved("2")
	w.See(head("1", 9), time.Unix(3, 0))
	if got := w.Alarms(time.Time{}); len(got) != 0 {
		t.Errorf("it came back when the other one was gone: %+v", got)
	}
	w.See(head("2", 1), time.Unix(4, 0))
	if got := w.Alarms(time.Time{}); len(got) != 1 {
		t.Errorf("two at a time: %+v", got)
	}
	w.Moved("1")
	w.See(head("1", 8), time.Unix(5, 0))
	if got := w.Alarms(time.Unix(4, 0)); len(got) != 1 || !strings.Contains(got[0].What, "went back") {
		t.Errorf("it came back with less: %+v", got)
	}
}
