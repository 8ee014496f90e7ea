// SPDX-License-Identifier: FSL-1.1-ALv2

package participant

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

var now = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestFetchDID(t *testing.T) {
	t.Parallel()
	var host string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good/did.json":
			_, _ = fmt.Fprintf(w, `{"id":"did:web:%s:good"}`, host)
		case "/other/did.json":
			_, _ = fmt.Fprintf(w, `{"id":"did:web:%s:good"}`, host)
		case "/moved/did.json":
			http.Redirect(w, r, "/good/did.json", http.StatusFound)
		case "/page/did.json":
			_, _ = w.Write([]byte("<html>"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	host = strings.TrimPrefix(s.URL, "https://")
	c := s.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for ctx, want := range map[string]string{"good": "", "other": "says it is that of", "moved": "answers 302", "page": "is not valid", "absent": "answers 404"} {
		err := fetchDID(t.Context(), c, host, ctx)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", ctx, err, want)
		}
	}
	if err := FetchDID(t.Context(), nil, host, "good"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an authority that is not trusted: %v", err)
	}
	if err := FetchDID(t.Context(), []byte("nonsense"), host, "good"); err == nil || !strings.Contains(err.Error(), "caBundle") {
		t.Errorf("a bundle without certificates: %v", err)
	}
}

// The cloud connects to no company's cluster: what the cell reports of its DID documents counts, and is looked at each time.
func TestACompanysDIDIsNotFetched(t *testing.T) {
	t.Parallel()
	condition := func(status metav1.ConditionStatus) string {
		return `{"conditions":[{"type":"DIDPublished","status":"` + string(status) + `","reason":"NotPublished","message":"connection refused"}]}`
	}
	for name, c := range map[string]struct {
		celltype, status, state, reason string
		fetched                         bool
	}{
		"answers":                {cloud.OnPremise, condition(metav1.ConditionTrue), StatePassed, "", false},
		"does not answer":        {cloud.OnPremise, condition(metav1.ConditionFalse), StateFailed, "cell oem reports: connection refused", false},
		"nothing reported":       {cloud.OnPremise, `{}`, StatePending, "cell oem has not reported", false},
		"in the cloud's cluster": {cloud.Dedicated, condition(metav1.ConditionFalse), StatePassed, "", true},
	} {
		fetched := false
		r := &run{
			p: &cloud.Participant{}, Reconciler: &Reconciler{Now: func() time.Time { return now }, DID: func(context.Context, []byte, string, string) error { fetched = true; return nil }},
			cell: &cloud.Cell{ObjectMeta: metav1.ObjectMeta{Name: "oem"}, Spec: cloud.CellSpec{Type: c.celltype}}, context: &celllink.Object{Status: []byte(c.status)},
		}
		if got := r.perform(t.Context(), CheckDID); got.state != c.state || !strings.HasPrefix(got.reason, c.reason) || fetched != c.fetched {
			t.Errorf("%s: %+v, fetched: %v", name, got, fetched)
		}
		if due := r.due(cloud.OnboardingCheck{Name: CheckDID, State: StatePassed, CheckedAt: metav1.NewTime(now)}); due == c.fetched {
			t.Errorf("%s: a moment after it passed it is due: %v", name, due)
		}
	}
}

func TestChecksLatchAndCostNoWrites(t *testing.T) {
	t.Parallel()
	clock := now
	r := &run{Reconciler: &Reconciler{Now: func() time.Time { return clock }}}
	k := cloud.OnboardingCheck{Name: CheckContact}
	r.apply(&k, result{StateFailed, "no address"})
	if k.PassedAt != nil || k.CheckedAt.Time != now {
		t.Fatalf("after a failure: %+v", k)
	}
	clock = clock.Add(time.Second)
	r.apply(&k, result{StateFailed, "no address"})
	if k.CheckedAt.Time != now {
		t.Error("the same result a second later is a write")
	}
	r.apply(&k, result{state: StatePassed})
	passed := k.PassedAt
	if passed == nil || passed.Time != clock || k.Reason != "" {
		t.Fatalf("after passing: %+v", k)
	}
	clock = clock.Add(time.Hour)
	r.apply(&k, result{StateFailed, "gone"})
	if k.State != StateFailed || k.PassedAt != passed {
		t.Errorf("a later failure: %+v", k)
	}
	p := &cloud.Participant{Status: cloud.ParticipantStatus{Checks: []cloud.OnboardingCheck{k}}}
	r.p, r.profiles = p, []cloud.DataspaceProfile{{}}
	if c := r.onboarded(okProblem()); !c.OK || !strings.Contains(c.Message, "gone") {
		t.Errorf("a participant that passed once: %+v", c)
	}
	p.Status.Checks = append(p.Status.Checks, cloud.OnboardingCheck{Name: CheckDID, State: StatePending})
	if c := r.onboarded(okProblem()); c.OK {
		t.Error("a check that the profile added later is not waited for")
	}
}

func TestRequiredCredentials(t *testing.T) {
	t.Parallel()
	profile := cloud.DataspaceProfile{ObjectMeta: metav1.ObjectMeta{Name: "auto"}, Spec: cloud.DataspaceProfileSpec{
		RequiredCredentials: []string{"Membership"},
		Issuers:             []cloud.Issuer{{Name: "authority", Hostname: "authority.example", CredentialTypes: []edc.CredentialType{{Type: "Membership"}}}},
	}}
	const issuer = "did:web:authority.example:issuer"
	for name, c := range map[string]struct {
		granted bool
		held    []edc.CredentialStatus
		want    string
	}{
		"held":                         {true, []edc.CredentialStatus{{Type: "Membership", Issuer: issuer, State: "Valid"}}, StatePassed},
		"held, soon to be renewed":     {true, []edc.CredentialStatus{{Type: "Membership", Issuer: issuer, State: "Expiring"}}, StatePassed},
		"held, renewal stuck":          {true, []edc.CredentialStatus{{Type: "Membership", Issuer: issuer, State: "RenewalStuck"}}, StatePassed},
		"requested":                    {true, []edc.CredentialStatus{{Type: "Membership", Issuer: issuer, State: "Requested"}}, StatePending},
		"revoked":                      {true, []edc.CredentialStatus{{Type: "Membership", Issuer: issuer, State: "Revoked"}}, StateFailed},
		"of another issuer":            {true, []edc.CredentialStatus{{Type: "Membership", Issuer: "did:web:evil.example:issuer", State: "Valid"}}, StatePending},
		"not granted, however held":    {false, []edc.CredentialStatus{{Type: "Membership", Issuer: issuer, State: "Valid"}}, StateFailed},
		"nothing reported":             {true, nil, StatePending},
		"of another type":              {true, []edc.CredentialStatus{{Type: "Other", Issuer: issuer, State: "Valid"}}, StatePending},
		"in a state that is not known": {true, []edc.CredentialStatus{{Type: "Membership", Issuer: issuer, State: "Odd"}}, StateFailed},
	} {
		p := &cloud.Participant{Status: cloud.ParticipantStatus{Credentials: c.held}}
		if c.granted {
			p.Spec.Credentials = []edc.HolderCredential{{Type: "Membership"}}
		}
		r := &run{Reconciler: &Reconciler{}, p: p, profiles: []cloud.DataspaceProfile{profile}}
		if got := r.credentials(); got.state != c.want || (got.state != StatePassed && got.reason == "") {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
	}
}

// TestSeveralProfiles: the checks of all count, and each profile wants its required credentials from its own issuer.
func TestSeveralProfiles(t *testing.T) {
	t.Parallel()
	issued := func(profile string, checks ...string) cloud.DataspaceProfile {
		return cloud.DataspaceProfile{ObjectMeta: metav1.ObjectMeta{Name: profile}, Spec: cloud.DataspaceProfileSpec{
			RequiredCredentials: []string{"Membership"}, OnboardingChecks: checks,
			Issuers: []cloud.Issuer{{Name: profile, Hostname: profile + ".example", CredentialTypes: []edc.CredentialType{{Type: "Membership"}}}},
		}}
	}
	p := &cloud.Participant{Spec: cloud.ParticipantSpec{Profile: "auto", FurtherProfiles: []string{"air"}, Credentials: []edc.HolderCredential{{Type: "Membership"}}}}
	r := &run{Reconciler: &Reconciler{}, p: p, profiles: []cloud.DataspaceProfile{issued("auto", CheckDID, CheckCredentials), issued("air", CheckCredentials, CheckContact)}}
	if got := r.onboardingChecks(); !slices.Equal(got, []string{CheckDID, CheckCredentials, CheckContact}) {
		t.Errorf("checks %v", got)
	}
	p.Status.Credentials = []edc.CredentialStatus{{Type: "Membership", Issuer: "did:web:auto.example:issuer", State: "Valid"}}
	if got := r.credentials(); got.state != StatePending {
		t.Errorf("held of one issuer only: %+v", got)
	}
	p.Status.Credentials = append(p.Status.Credentials, edc.CredentialStatus{Type: "Membership", Issuer: "did:web:air.example:issuer", State: "Valid"})
	if got := r.credentials(); got.state != StatePassed {
		t.Errorf("held of both: %+v", got)
	}
}

func okProblem() kube.Condition { return kube.Condition{OK: true} }

func TestWhatTheCellHasNotReportedYetIsUndelivered(t *testing.T) {
	t.Parallel()
	p := &cloud.Participant{Spec: cloud.ParticipantSpec{Credentials: []edc.HolderCredential{{Type: "A"}, {Type: "B"}}}}
	p.Status.Credentials = []edc.CredentialStatus{{Type: "A", State: "Valid"}}
	if got := (&run{p: p}).undelivered(); !slices.Equal(got, []string{"B"}) {
		t.Errorf("undelivered: %v, want B: it was granted after the report", got)
	}
	p.Status.Credentials = append(p.Status.Credentials, edc.CredentialStatus{Type: "B", State: "Valid"})
	if got := (&run{p: p}).undelivered(); got != nil {
		t.Errorf("undelivered: %v, want none", got)
	}
}
