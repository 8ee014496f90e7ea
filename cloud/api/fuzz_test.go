// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
)

// FuzzAnswer: whatever a cell answers, callers get a problem that HTTP can carry, and a list of approvals that is theirs and has an order.
func FuzzAnswer(f *testing.F) {
	f.Add(http.StatusForbidden, []byte(`{"code":"policy-denied","message":"no","path":"$.contractPolicy","trace":{"allowed":false,"checks":[]}}`))
	f.Add(http.StatusUnauthorized, []byte(`{"code":"unauthenticated"}`))
	f.Add(-7, []byte(`{"code":"connector-failed","message":"x"}`))
	f.Add(http.StatusOK, []byte(`[{"negotiation":"n","gate":{"name":"release","state":"open","deadline":"2026-11-27T13:00:00Z","waitsFor":[{"id":"anna"}]}},{"gate":{"waitsFor":[{"id":"anna"}]}}]`))
	p := &cloudv1.Participant{}
	p.Name = "supplier"
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 299 {
			got := connectorProblem(connectorOf(p), cellrpc.Response{Status: status, Body: body})
			if got.Status < 400 || got.Status > 599 || got.Status == http.StatusUnauthorized || got.Code == "" || got.Detail == "" {
				t.Fatalf("%d %s gives %+v", status, body, got)
			}
			if _, err := json.Marshal(got); err != nil {
				t.Fatal(err)
			}
		}
		found, err := waitingFor("anna", body)
		if err != nil {
			return
		}
		var items []Approval
		for _, a := range found {
			if !slices.ContainsFunc(a.Gate.WaitsFor, func(w adminapi.Approver) bool { return w.ID == "anna" }) {
				t.Fatalf("%s does not wait for her", body)
			}
			items = append(items, Approval{a, p.Name})
		}
		slices.SortFunc(items, soonest)
	})
}

// FuzzUseCase: what is wrong with a use case is told by its field; what is not refused can be shown again.
func FuzzUseCase(f *testing.F) {
	pcf, err := os.ReadFile("../../examples/policies/carbon-footprint.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"profile":"pilot","title":"x","contractPolicy":` + string(pcf) + `}`))
	f.Add([]byte(`{"profile":"pilot","contractPolicy":{"permission":[{"action":"use"}]},"gates":[{"name":"release","type":"Approval","before":"AGREED","deadline":"P2D","required":2,"organizations":2,"approvers":[{"person":"anna"},{"role":"data-owner"}]}]}`))
	f.Add([]byte(`{"profile":"pilot","contractPolicy":null,"gates":[{"name":"fresh","type":"Attestation","deadline":"P2Y","policy":{"permission":{}}},{"name":"erp","type":"Webhook","webhook":{"url":"x"}}]}`))
	e, err := odrl.NewEvaluator(profile.Profile{Name: "pilot"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var spec cloudv1.UseCaseSpec
		if json.Unmarshal(raw, &spec) != nil {
			return
		}
		for _, ev := range []*odrl.Evaluator{nil, e} {
			errs := policyErrors(ev, &spec)
			for _, e := range errs {
				if !strings.HasPrefix(e.Location, "spec.") || e.Message == "" {
					t.Fatalf("refused without a field: %+v", e)
				}
			}
			if len(errs) > 0 {
				continue
			}
			shown, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			var again cloudv1.UseCaseSpec
			if err := json.Unmarshal(shown, &again); err != nil || len(changedFields(spec, again)) > 0 {
				t.Fatalf("%s is shown as %s: %v, %v", raw, shown, err, changedFields(spec, again))
			}
		}
	})
}
