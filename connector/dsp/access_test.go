// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

const guardedPolicy = `{"@type":"Set","permission":[{"action":"use","constraint":[{"and":[
	{"leftOperand":"` + purpose + `","operator":"isAnyOf","rightOperand":["recall","safety"]},
	{"leftOperand":"https://example.org/policy/method","operator":"eq","rightOperand":"GET"},
	{"leftOperand":"https://example.org/policy/bpnAtAccess","operator":"eq","rightOperand":"BPN-` + buyer + `"},
	{"leftOperand":"https://example.org/policy/attestedAtAccess","operator":"lt","rightOperand":"P12M"}]}],
	"duty":[{"action":"https://example.org/policy/recordAccess"}]}]}`

// guarded negotiates guardedPolicy and starts a transfer; it returns the provider's row.
func guarded(t *testing.T, provider, consumer *side) *store.Transfer {
	t.Helper()
	n := consumer.wait(consumer.negotiate(provider.offer("recall", guardedPolicy)).ID, "FINALIZED", at(state.Finalized))
	tr, err := consumer.engine.RequestTransfer(t.Context(), consumer.ctx, adminapi.TransferRequest{AgreementID: n.AgreementID}, "")
	if err != nil {
		t.Fatal(err)
	}
	consumer.waitTransfer(tr.ID, "STARTED", transferAt(state.Started))
	row, err := provider.store.FindTransfer(t.Context(), provider.ctx, state.Provider, buyer, tr.ID)
	if err != nil {
		t.Fatal(err)
	}
	return provider.waitTransfer(row.ID, "STARTED", transferAt(state.Started))
}

func TestEachAccessIsJudged(t *testing.T) {
	who, provider, consumer := world(t)
	tr := guarded(t, provider, consumer)
	flow := provider.flows.last
	if !slices.Equal(flow.Demands, []string{dps.DemandJudge, dps.DemandRecord}) || !slices.Equal(flow.Purposes, []string{"recall", "safety"}) {
		t.Errorf("the data plane was told %+v", flow)
	}
	if !slices.Equal(tr.Presented, []string{"MembershipCredential"}) {
		t.Errorf("kept of the consumer's credentials: %v", tr.Presented)
	}
	good := dps.AccessRequest{AgreementID: tr.AgreementID, Purposes: flow.Purposes, Method: http.MethodGet}
	judge := func(req dps.AccessRequest) dps.AccessVerdict {
		t.Helper()
		v, err := provider.engine.JudgeAccess(t.Context(), provider.ctx, tr.ID, req)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	denied := func(req dps.AccessRequest, reason string) {
		t.Helper()
		if v := judge(req); v.Allowed || !strings.Contains(v.Reason, reason) || v.Trace.Phase != profile.PhaseAccess {
			t.Errorf("want a denial for %q: %+v", reason, v)
		}
	}
	for range 3 {
		if v := judge(good); !v.Allowed || v.Reason != "" || !slices.Equal(v.Trace.Purposes, flow.Purposes) {
			t.Errorf("%+v", v)
		}
	}
	other := good
	other.Purposes = []string{"marketing"}
	denied(other, "seen marketing")
	other.Purposes = nil // of a flow that is bound to no purpose: what the agreement says holds
	if v := judge(other); !v.Allowed {
		t.Errorf("%+v", v)
	}
	written := good
	written.Method = http.MethodPost
	denied(written, "seen POST")
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": "2020-01-01T00:00:00Z"})
	denied(good, "which counted until 2021-01-01")
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": "2099-01-01T00:00:00Z"})
	denied(good, "lies in the future")
	who.give(supplier, "AttestationCredential", map[string]any{"completedAt": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)})
	who.give(buyer, "MembershipCredential", map[string]any{"bpn": "BPN-other"})
	denied(good, "seen BPN-other")
	who.Lock()
	who.unavailable = true
	who.Unlock()
	if v, err := provider.engine.JudgeAccess(t.Context(), provider.ctx, tr.ID, good); err == nil || v.Allowed {
		t.Errorf("without credentials: %+v, %v", v, err)
	}
	kept, err := provider.store.Transfer(t.Context(), provider.ctx, tr.ID)
	if err != nil {
		t.Fatal(err)
	}
	var verdicts []bool
	for _, trace := range kept.Traces {
		if trace.Phase == profile.PhaseAccess {
			verdicts = append(verdicts, trace.Allowed)
		}
	}
	if want := []bool{true, false, true, false, false, false, false}; !slices.Equal(verdicts, want) || kept.Step != state.Started {
		t.Errorf("kept verdicts %v, want %v; step %s", verdicts, want, kept.Step)
	}
}

func TestAccessesThatNobodyMayHave(t *testing.T) {
	_, provider, consumer := world(t)
	tr := guarded(t, provider, consumer)
	for name, ask := range map[string]func() (dps.AccessVerdict, error){
		"another agreement": func() (dps.AccessVerdict, error) {
			return provider.engine.JudgeAccess(t.Context(), provider.ctx, tr.ID, dps.AccessRequest{AgreementID: "other", Method: "GET"})
		},
		"no transfer": func() (dps.AccessVerdict, error) {
			return provider.engine.JudgeAccess(t.Context(), provider.ctx, "other", dps.AccessRequest{AgreementID: tr.AgreementID, Method: "GET"})
		},
		"the consumer's side": func() (dps.AccessVerdict, error) {
			return consumer.engine.JudgeAccess(t.Context(), consumer.ctx, tr.CounterpartyPID, dps.AccessRequest{AgreementID: tr.AgreementID, Method: "GET"})
		},
	} {
		var refused *dsp.RefusalError
		if v, err := ask(); v.Allowed || !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	if _, err := provider.engine.CommandTransfer(t.Context(), provider.ctx, tr.ID, state.CommandTerminate, nil); err != nil {
		t.Fatal(err)
	}
	if tr = provider.waitTransfer(tr.ID, "TERMINATED", transferAt(state.Terminated)); len(tr.Presented) > 0 {
		t.Errorf("credentials are kept after the end: %v", tr.Presented)
	}
}

func TestAPurposeThatIsNotOffered(t *testing.T) {
	_, provider, consumer := world(t)
	offer := provider.offer("recall", guardedPolicy)
	ask := func(purpose string) error {
		_, err := consumer.engine.Negotiate(t.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offer, Purpose: purpose})
		return err
	}
	var refused *dsp.RefusalError
	if err := ask("marketing"); !errors.As(err, &refused) || refused.Code != "purpose-not-offered" || !strings.Contains(refused.Message, "recall, safety") {
		t.Errorf("%v", err)
	}
	if err := ask("safety"); err != nil {
		t.Error(err)
	}
	// One that asks all the same, with the purpose that it has in mind, gets no agreement.
	forged := strings.Replace(guardedPolicy, `["recall","safety"]`, `["marketing"]`, 1)
	forged = strings.Replace(forged, `"@type":"Set"`, `"@type":"Offer","@id":"`+offer+`","target":"asset-recall","assigner":"`+supplier+`"`, 1)
	n, err := consumer.engine.RequestOffer(t.Context(), consumer.ctx, "", "", supplier, "", json.RawMessage(forged))
	if err != nil {
		t.Fatal(err)
	}
	if n = consumer.wait(n.ID, "TERMINATED", at(state.Terminated)); !strings.Contains(n.Reason.Message, "not the one that is offered") {
		t.Errorf("%+v", n.Reason)
	}
}
