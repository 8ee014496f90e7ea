// SPDX-License-Identifier: FSL-1.1-ALv2

package participant

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/cell"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Onboarding checks of a profile.
const (
	CheckDID         = "DIDReachable"
	CheckCredentials = "CredentialsHeld"
	CheckContact     = "ContactNamed"
)

// States of a check.
const (
	StatePassed  = "Passed"
	StateFailed  = "Failed"
	StatePending = "Pending"
)

// When to look again.
const (
	soon       = 3 * time.Second
	unhurried  = 30 * time.Second // a check that passed before and fails now
	whenPassed = 5 * time.Minute
)

// result of a check: no reason means passed.
type result struct {
	state, reason string
}

// check brings the participant's checks up to date and says when to look again.
func (r *run) check(ctx context.Context) time.Duration {
	if r.profiles == nil || r.cell == nil || r.org == nil {
		return 0 // an event comes when what is missing appears
	}
	next := whenPassed
	var checks []cloud.OnboardingCheck
	for _, name := range r.onboardingChecks() {
		k := cloud.OnboardingCheck{Name: name}
		if i := slices.IndexFunc(r.p.Status.Checks, func(c cloud.OnboardingCheck) bool { return c.Name == name }); i >= 0 {
			k = r.p.Status.Checks[i]
		}
		if r.due(k) {
			r.apply(&k, r.perform(ctx, name))
		}
		next = min(next, interval(k))
		checks = append(checks, k)
	}
	r.p.Status.Checks = checks
	return next
}

// onboardingChecks are those of all profiles.
func (r *run) onboardingChecks() (names []string) {
	for _, p := range r.profiles {
		for _, name := range p.Spec.OnboardingChecks {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// due: what costs nothing is looked at each time; the network at intervals, and when there is something to look at for the first time.
func (r *run) due(k cloud.OnboardingCheck) bool {
	return k.Name != CheckDID || r.cell.Spec.Type == cloud.OnPremise || k.State == "" || k.State == StatePending || !r.Now().Before(k.CheckedAt.Add(interval(k)))
}

func interval(k cloud.OnboardingCheck) time.Duration {
	switch {
	case k.State == StatePassed:
		return whenPassed
	case k.PassedAt != nil:
		return unhurried
	}
	return soon
}

// apply stores a result; the time moves when the result changed or the last look is long ago, so that looking is no write.
func (r *run) apply(k *cloud.OnboardingCheck, got result) {
	now := metav1.NewTime(r.Now().Truncate(time.Second))
	fresh := unhurried
	if got.state == StatePassed {
		fresh = whenPassed
	}
	if k.State == got.state && k.Reason == got.reason && now.Sub(k.CheckedAt.Time) < fresh {
		return
	}
	k.State, k.Reason, k.CheckedAt = got.state, got.reason, now
	if got.state == StatePassed && k.PassedAt == nil {
		k.PassedAt = &now
	}
}

func (r *run) perform(ctx context.Context, name string) result {
	switch name {
	case CheckDID:
		if r.context == nil {
			return result{StatePending, r.reported().Message}
		}
		if r.cell.Spec.Type == cloud.OnPremise {
			return r.published()
		}
		if err := r.DID(ctx, r.bundle, r.p.Status.Hostname, r.p.Spec.Identity.Context); err != nil {
			return result{StateFailed, err.Error()}
		}
		return result{state: StatePassed}
	case CheckCredentials:
		return r.credentials()
	case CheckContact:
		if r.org.Spec.ContactEmail == "" {
			return result{StateFailed, fmt.Sprintf("organization %s names no contactEmail", r.org.Name)}
		}
		if _, err := mail.ParseAddress(r.org.Spec.ContactEmail); err != nil {
			return result{StateFailed, fmt.Sprintf("contactEmail %q of organization %s is no address", r.org.Spec.ContactEmail, r.org.Name)}
		}
		return result{state: StatePassed}
	}
	return result{StateFailed, fmt.Sprintf("there is no check %q in this release", name)}
}

// published is what a cell in a company's own cluster says of the document at its public address. The cloud opens no connection to there; that others
// reach it shows when an issuer delivers a credential, for which it reads the document.
func (r *run) published() result {
	switch c := cell.ConditionOf(r.context, edc.ConditionDIDPublished); {
	case c == nil:
		return result{StatePending, "cell " + r.cell.Name + " has not reported yet whether the DID document answers"}
	case c.Status != metav1.ConditionTrue:
		return result{StateFailed, "cell " + r.cell.Name + " reports: " + c.Message}
	}
	return result{state: StatePassed}
}

// credentials looks whether the credentials that the profiles require are held, in what the cell reports.
func (r *run) credentials() result {
	granted := map[string]bool{}
	for _, c := range r.p.Spec.Credentials {
		granted[c.Type] = true
	}
	var missing []string
	state := StatePending
	for _, p := range r.profiles {
		for _, t := range p.Spec.RequiredCredentials {
			if !granted[t] {
				state = StateFailed
				missing = append(missing, fmt.Sprintf("%s is required and not granted: the governance authority adds it to $.spec.credentials", t))
				continue
			}
			if ok, failed, why := r.holds(t, snapshot.IssuerOf(p, t)); !ok {
				missing = append(missing, t+": "+why)
				if failed {
					state = StateFailed
				}
			}
		}
	}
	if len(missing) == 0 {
		return result{state: StatePassed}
	}
	return result{state, strings.Join(missing, "; ")}
}

// holds reports whether a credential of an issuer is reported as valid; if not, whether it has failed, and why.
func (r *run) holds(credentialType, issuer string) (ok, failed bool, why string) {
	why = "not reported yet"
	for _, c := range r.p.Status.Credentials {
		if c.Type != credentialType || c.Issuer != issuer {
			continue
		}
		switch adminapi.CredentialState(c.State) {
		case adminapi.CredentialValid, adminapi.CredentialExpiring, adminapi.CredentialRenewalStuck: // valid still
			return true, false, ""
		default:
			why = strings.TrimSpace(c.State + " " + c.Detail)
			failed = failed || c.State != string(adminapi.CredentialRequested)
		}
	}
	return false, failed, why
}

// DIDCheck fetches a participant's DID document over HTTPS, trusting bundle (PEM; empty: the system's authorities), and checks that it is its own.
type DIDCheck func(ctx context.Context, bundle []byte, hostname, context string) error

// FetchDID is the real check. It follows no redirect: did:web allows none to another place.
func FetchDID(ctx context.Context, bundle []byte, hostname, contextID string) error {
	pool, err := pki.Pool(bundle)
	if err != nil {
		return fmt.Errorf("$.spec.caBundle of the platform: %w", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true}
	c := &http.Client{Transport: transport, Timeout: 5 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return fetchDID(ctx, c, hostname, contextID)
}

const maxDocument = 64 << 10

func fetchDID(ctx context.Context, c *http.Client, hostname, contextID string) error {
	address := "https://" + hostname + "/" + contextID + "/did.json"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	resp, err := c.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("%s does not answer: %w", address, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", address, resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return fmt.Errorf("%s: read the answer: %w", address, err)
	}
	if _, err := dcp.ParseDocument(raw, snapshot.DID(hostname, contextID)); err != nil { // as its counterparties read it
		return fmt.Errorf("%s: %w", address, err)
	}
	return nil
}
