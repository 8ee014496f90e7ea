// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaphera/kaphera/connector/dps"
)

// TestEachAccessIsJudged starts a flow that demands it, with a control plane that allows, denies, fails, and is gone.
func TestEachAccessIsJudged(t *testing.T) {
	var verdict atomic.Pointer[dps.AccessVerdict] // nil: it fails
	var asked atomic.Pointer[dps.AccessRequest]
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req dps.AccessRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.URL.Path != "/internal/v1/supplier/transfers/tp-1/access" || r.Header.Get("Authorization") != "Bearer "+internalToken {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		asked.Store(&req)
		if v := verdict.Load(); v != nil {
			_ = json.NewEncoder(w).Encode(v)
			return
		}
		http.Error(w, "the database is away", http.StatusInternalServerError)
	}))
	defer control.Close()
	b := setup(t, func(d *Deps) { d.Judge = dps.NewControlPlane(control.URL, internalToken) })
	flow := b.flow(func(f *dps.Flow) { f.Demands, f.Purposes = []string{dps.DemandJudge}, []string{"recall"} })
	flow.Source["proxyPath"] = "true"
	a := b.start(t, flow)
	get := func() answer { return fetch(t, http.MethodGet, a.Endpoint+"/part?x=1", a.Properties["authorization"]) }

	verdict.Store(&dps.AccessVerdict{Allowed: false, Reason: "not met: the purpose is recall"})
	if got := get(); got.status != http.StatusForbidden || got.code(t) != "policy-denied" || !strings.Contains(got.body, "not met: the purpose is recall") || !strings.Contains(got.body, "ag-1") {
		t.Errorf("denied: %+v", got)
	}
	if req := asked.Load(); req.AgreementID != "ag-1" || req.Method != http.MethodGet || req.Path != "part" || !slices.Equal(req.Purposes, []string{"recall"}) {
		t.Errorf("asked %+v", req)
	}
	verdict.Store(nil)
	if got := get(); got.status != http.StatusServiceUnavailable || strings.Contains(got.body, "database") {
		t.Errorf("no verdict: %+v", got)
	}
	if b.got.Load() != nil {
		t.Error("the backend was asked before the policy allowed it")
	}
	verdict.Store(&dps.AccessVerdict{Allowed: true})
	if got := fetch(t, http.MethodGet, a.Endpoint+"/part", a.Properties["authorization"]); got.status != http.StatusOK {
		t.Errorf("allowed: %+v", got)
	}
	control.Close()
	if got := get(); got.status != http.StatusServiceUnavailable {
		t.Errorf("no control plane: %+v", got)
	}
	// A flow that demands nothing needs nobody.
	plain := b.start(t, b.flow(func(f *dps.Flow) { f.FlowID = "tp-2" }))
	if got := fetch(t, http.MethodGet, plain.Endpoint, plain.Properties["authorization"]); got.status != http.StatusOK {
		t.Errorf("without demands: %+v", got)
	}
}

func TestDemandThatCannotBeMetIsRefused(t *testing.T) {
	b := setup(t)
	for _, demand := range []string{dps.DemandJudge, "sing"} {
		_, err := b.client.Start(t.Context(), b.flow(func(f *dps.Flow) { f.Demands = []string{demand} }))
		if !errors.Is(err, dps.ErrRefused) || !strings.Contains(err.Error(), demand) {
			t.Errorf("%s: %v", demand, err)
		}
	}
	// A flow from before demands were told is asked about, so not served here.
	a := b.start(t, b.flow())
	if _, err := b.super.Exec(t.Context(), "UPDATE data_plane.flows SET demands = DEFAULT"); err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, http.MethodGet, a.Endpoint, a.Properties["authorization"]); got.status != http.StatusServiceUnavailable {
		t.Errorf("%+v", got)
	}
}
