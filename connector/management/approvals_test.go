// SPDX-License-Identifier: Apache-2.0

package management

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
)

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
