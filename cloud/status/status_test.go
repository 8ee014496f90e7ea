// SPDX-License-Identifier: FSL-1.1-ALv2

package status

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

var now = time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)

func cell(heard time.Duration) cloudv1.Cell {
	at := metav1.NewTime(now.Add(-heard))
	return cloudv1.Cell{ObjectMeta: metav1.ObjectMeta{Name: "shared"}, Spec: cloudv1.CellSpec{Type: "shared", OperatingParty: "Kaphera Cloud"}, Status: cloudv1.CellStatus{LastHeard: &at}}
}

func healthy() cloudv1.Participant {
	return cloudv1.Participant{
		ObjectMeta: metav1.ObjectMeta{Name: "supplier"}, Spec: cloudv1.ParticipantSpec{Organization: "brandt-guss", Cell: "shared"},
		Status: cloudv1.ParticipantStatus{
			DID: "did:web:shared.example:brandt", Contracts: &edc.ContractStatus{Active: 2},
			Credentials: []edc.CredentialStatus{{Type: "MembershipCredential", State: "Valid"}},
			Conditions:  []metav1.Condition{{Type: cloudv1.ConditionActive, Status: metav1.ConditionTrue}, {Type: cloudv1.ConditionReady, Status: metav1.ConditionTrue}},
		},
	}
}

func TestAParticipantWhoseCellReportsIsJudgedByWhatItReports(t *testing.T) {
	expiry := metav1.NewTime(now.AddDate(0, 0, 3))
	for name, c := range map[string]struct {
		change                            func(*cloudv1.Participant)
		connector, credentials, contracts State
		reason                            string
	}{
		"all is well": {func(*cloudv1.Participant) {}, Healthy, Healthy, Healthy, ""},
		"an onboarding check fails": {func(p *cloudv1.Participant) {
			p.Status.Conditions[0].Status = metav1.ConditionFalse
			p.Status.Checks = []cloudv1.OnboardingCheck{{Name: "ContactNamed", State: "Failed", Reason: "organization brandt-guss names no contact"}}
		}, Failed, Healthy, Healthy, "not active: organization brandt-guss names no contact"},
		"onboarding is under way": {func(p *cloudv1.Participant) {
			p.Status.Conditions = nil
			p.Status.Checks = []cloudv1.OnboardingCheck{{Name: "DIDReachable", State: "Pending"}}
		}, Pending, Healthy, Healthy, "onboarding check DIDReachable is under way"},
		"it moves": {func(p *cloudv1.Participant) {
			p.Status.Move = &cloudv1.ParticipantMove{From: "shared", To: "tier1", Phase: cloudv1.MoveStopping}
			p.Status.Conditions = append(p.Status.Conditions, metav1.Condition{Type: cloudv1.ConditionMoving, Status: metav1.ConditionTrue, Message: "Stopping"})
		}, Pending, Healthy, Healthy, "it moves from cell shared to tier1: Stopping"},
		"active but not ready": {func(p *cloudv1.Participant) {
			p.Status.Conditions[1] = metav1.Condition{Type: cloudv1.ConditionReady, Status: metav1.ConditionFalse, Message: "the wallet restarts"}
		}, Warning, Healthy, Healthy, "the wallet restarts"},
		"a credential was revoked and another expires": {func(p *cloudv1.Participant) {
			p.Status.Credentials = []edc.CredentialStatus{{Type: "A", State: "Expiring", ExpiresAt: &expiry}, {Type: "B", State: "Revoked", Detail: "by the auditor", Remedy: "Ask why."}}
		}, Healthy, Failed, Healthy, "A expires soon (2026-10-04); B was revoked by its issuer: by the auditor. Ask why"},
		"a credential state that is new": {func(p *cloudv1.Participant) {
			p.Status.Credentials[0].State = "Lost"
		}, Healthy, Failed, Healthy, "MembershipCredential is in state Lost"},
		"no credential": {func(p *cloudv1.Participant) { p.Status.Credentials = nil }, Healthy, Pending, Healthy, "no credential has been requested yet"},
		"a negotiation failed": {func(p *cloudv1.Participant) {
			p.Status.Contracts = &edc.ContractStatus{Failed: 1, LastFailure: "the attestation is too old"}
		}, Healthy, Healthy, Warning, "the attestation is too old"},
		"one was refused and others are concluded": {func(p *cloudv1.Participant) {
			p.Status.Contracts = &edc.ContractStatus{Failed: 1, Active: 2, LastFailure: "the attestation is too old"}
		}, Healthy, Healthy, Healthy, "the last that failed: the attestation is too old"},
		"a negotiation is under way": {func(p *cloudv1.Participant) { p.Status.Contracts = &edc.ContractStatus{Waiting: 1} }, Healthy, Healthy, Pending, "1 under way"},
	} {
		t.Run(name, func(t *testing.T) {
			p := healthy()
			c.change(&p)
			got := Assemble([]cloudv1.Participant{p}, []cloudv1.Cell{cell(time.Second)}, now).Participants[0]
			if got.Connector.State != c.connector || got.Credentials.State != c.credentials || got.Contracts.State != c.contracts {
				t.Errorf("got %s, %s, %s; want %s, %s, %s", got.Connector.State, got.Credentials.State, got.Contracts.State, c.connector, c.credentials, c.contracts)
			}
			if all := got.Connector.Reason + got.Credentials.Reason + got.Contracts.Reason; !strings.Contains(all, c.reason) || (c.reason == "") != (all == "") {
				t.Errorf("reasons %q, want %q", all, c.reason)
			}
		})
	}
}

func TestASilentCellMakesEverythingUnknown(t *testing.T) {
	silent := cell(SilentAfter + time.Second)
	never := cell(0)
	never.Status.LastHeard = nil
	for name, c := range map[string]struct {
		cells  []cloudv1.Cell
		reason string
	}{
		"last heard too long ago": {[]cloudv1.Cell{silent}, "cell shared was last heard 2026-10-01T11:57:59Z"},
		"never heard":             {[]cloudv1.Cell{never}, "cell shared has not connected yet"},
		"no such cell":            {nil, `cell "shared" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			got := Assemble([]cloudv1.Participant{healthy()}, c.cells, now).Participants[0]
			for _, h := range []Health{got.Connector, got.Credentials.Health, got.Contracts.Health} {
				if h.State != Unknown || !strings.HasPrefix(h.Reason, c.reason) || h.DE == "" {
					t.Errorf("got %+v, want Unknown: %s", h, c.reason)
				}
			}
		})
	}
}

func TestTheOperatingPartyIsTheParticipantsOwnOrTheCells(t *testing.T) {
	own := healthy()
	own.Name, own.Spec.OperatingParty = "own", "Brandt Guss GmbH"
	r := Assemble([]cloudv1.Participant{healthy(), own}, []cloudv1.Cell{cell(0)}, now)
	if r.Participants[0].OperatingParty != "Brandt Guss GmbH" || r.Participants[1].OperatingParty != "Kaphera Cloud" {
		t.Errorf("got %q and %q", r.Participants[0].OperatingParty, r.Participants[1].OperatingParty)
	}
}

func TestAuditChainsThatDoNotGoOnAreAWarning(t *testing.T) {
	c := cell(time.Second)
	c.Status.Conditions = []metav1.Condition{{Type: cloudv1.ConditionAuditIntact, Status: metav1.ConditionFalse, Message: "chain c1 of acme went back"}}
	p := healthy()
	if got := Assemble([]cloudv1.Participant{p}, []cloudv1.Cell{c}, now).Participants[0].Connector; got.State != Warning || !strings.Contains(got.Reason, "went back") {
		t.Errorf("%+v", got)
	}
	c.Status.Conditions[0].Status = metav1.ConditionTrue
	if got := Assemble([]cloudv1.Participant{p}, []cloudv1.Cell{c}, now).Participants[0].Connector; got.State != Healthy {
		t.Errorf("%+v", got)
	}
}
