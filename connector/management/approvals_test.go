// SPDX-License-Identifier: Apache-2.0

package management

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/store"
)

func TestAnOfferThatCannotBeReadHidesNoGate(t *testing.T) {
	since := time.Now()
	h := gate.Hold{Gate: adminapi.Gate{Name: "release", Type: adminapi.GateApproval, Required: 1, Approvers: []adminapi.Approver{{ID: "anna"}}, Deadline: "P1D"}}
	h.Open(since)
	a := shown(&store.Participant{DID: "did:web:supplier"}, &store.Negotiation{Process: store.Process{ID: "n1"}, Offer: json.RawMessage(`{"permission":7}`)}, &h, since)
	if a.Unreadable == "" || a.OfferHash != "" || a.Negotiation != "n1" || a.Gate.State != adminapi.GateOpen || len(a.Gate.WaitsFor) != 1 {
		t.Errorf("%+v", a)
	}
	if raw, err := json.Marshal(a); err != nil || !strings.Contains(string(raw), `"policy":null`) {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestTheListOfApprovalsFitsThroughACellsAgent(t *testing.T) {
	large := func(id string, size int) adminapi.Approval {
		return adminapi.Approval{Negotiation: id, Policy: json.RawMessage(`"` + strings.Repeat("x", size) + `"`)}
	}
	out, err := fitting([]adminapi.Approval{large("huge", 300<<10), large("a", 100<<10), large("b", 100<<10), large("c", 100<<10), large("d", 1<<10)}, maxApprovalsBytes)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range out {
		got = append(got, a.Negotiation)
	}
	if strings.Join(got, " ") != "a b d" {
		t.Errorf("lists %v", got)
	}
	if raw, err := json.Marshal(out); err != nil || len(raw) > maxApprovalsBytes {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
	if out, err := fitting(nil, maxApprovalsBytes); err != nil || out == nil {
		t.Errorf("nothing is %v, %v: it has to be an empty list", out, err)
	}
}
