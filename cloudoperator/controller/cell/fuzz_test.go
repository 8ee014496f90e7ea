// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/connector/audit"
)

// FuzzReport: what a cell reports is taken as that cell's or refused, and no condition in it keeps a status from being written.
func FuzzReport(f *testing.F) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	report := func(cell, status string) {
		raw, err := json.Marshal(celllink.Report{Cell: cell, At: at, AppliedRevision: 7, SeenRevision: 7,
			Objects:    []celllink.Object{{Kind: "ParticipantContext", Name: "supplier", Generation: 2, Status: json.RawMessage(status)}},
			AuditHeads: []audit.Head{{Chain: "c1", Ctx: "supplier", Seq: 3, At: at, Hash: "00", Open: true}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	report("plant", `{"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":"runs","lastTransitionTime":"2026-11-01T12:00:00Z"}]}`)
	report("plant", `{"conditions":[{"type":"Ready","status":"Perhaps","reason":"no reason","message":"\u0000"}],"credentials":[null]}`)
	report("other", `{}`)
	f.Add([]byte(`{"cell":"plant","objects":[{"kind":"ParticipantContext","name":"supplier","status":[]},{}],"auditHeads":[{"chain":"c1","seq":-1},{"chain":"c1","seq":-2}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, k := NewLinks(parts.Access{}, func() time.Time { return at }), &link{}
		l.m["plant"] = k
		_, err := l.store("plant", k, data, at)
		r, _ := l.Report("plant")
		if (err == nil) != (r != nil) || r != nil && r.Cell != "plant" {
			t.Fatalf("%s is taken as %+v, %v", data, r, err)
		}
		if r == nil {
			return
		}
		for _, h := range r.AuditHeads {
			k.watch.See(h, at)
		}
		_ = l.Alarms("plant", time.Time{})
		for i := range r.Objects {
			c := ReadyOf(&r.Objects[i])
			if c == nil {
				continue
			}
			var kept []metav1.Condition
			kube.Set(&kept, 1, kube.Condition{Type: c.Type, OK: c.Status == metav1.ConditionTrue, Reason: c.Reason, Message: c.Message})
			for _, c := range kept {
				if errs := validation.IsQualifiedName(c.Type); len(errs) > 0 || c.Reason == "" || len(c.Message) > 32768 {
					t.Fatalf("%s makes the condition %+v", data, c)
				}
			}
			if _, err := json.Marshal(kept); err != nil {
				t.Fatal(err)
			}
		}
	})
}
