// SPDX-License-Identifier: Apache-2.0

package wallet

import (
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
)

const (
	is  = "did:web:issuer"
	typ = "MembershipCredential"
)

func TestOverview(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	timing := Timing{}.withDefaults()
	trust := []profile.TrustedIssuer{{DID: is, Types: []string{typ}}}
	// a credential that lives 90 days, of which some are left
	left := func(days int, status string) held {
		until := now.Add(time.Duration(days) * day)
		return held{ID: "c", Type: typ, Issuer: is, ValidFrom: until.Add(-90 * day), ValidUntil: &until, Status: status, StatusReason: "said so"}
	}
	asked := func(state string, ago time.Duration, reason string) request {
		return request{ID: "r", Type: typ, Issuer: is, State: state, Reason: reason, CreatedAt: now.Add(-ago)}
	}
	endless := held{ID: "c", Type: typ, Issuer: is, ValidFrom: now.Add(-day), Status: "good"}
	older, newer := left(80, "good"), left(85, "revoked")
	older.ID = "older"
	other := left(80, "good")
	other.Issuer = "did:web:other"
	future := held{ID: "c", Type: typ, Issuer: is, ValidFrom: now.Add(day), Status: "good"}
	for name, tc := range map[string]struct {
		held   []held
		asked  []request
		state  adminapi.CredentialState
		id     string
		detail string
	}{
		"requested":                         {nil, []request{asked(requested, time.Second, "")}, adminapi.CredentialRequested, "", "about to be sent"},
		"requested, failing":                {nil, []request{asked(requested, time.Minute, "refused connection")}, adminapi.CredentialRequested, "", "refused connection"},
		"sent":                              {nil, []request{asked(sent, time.Minute, "")}, adminapi.CredentialRequested, "", "the issuer has"},
		"never delivered":                   {nil, []request{asked(sent, 11*time.Minute, "down")}, adminapi.CredentialNeverDelivered, "", "down"},
		"rejected":                          {nil, []request{asked(rejected, day, "no claim")}, adminapi.CredentialRejected, "", "no claim"},
		"valid":                             {[]held{left(80, "good")}, nil, adminapi.CredentialValid, "c", ""},
		"valid, status not known":           {[]held{left(80, "unknown")}, nil, adminapi.CredentialValid, "c", ""},
		"valid without end":                 {[]held{endless}, nil, adminapi.CredentialValid, "c", ""},
		"valid to the last third":           {[]held{left(31, "good")}, nil, adminapi.CredentialValid, "c", ""},
		"expiring from the last third":      {[]held{left(30, "good")}, nil, adminapi.CredentialExpiring, "c", "expires on"},
		"expiring, renewal under way":       {[]held{left(30, "good")}, []request{asked(sent, time.Minute, "")}, adminapi.CredentialExpiring, "c", "was requested"},
		"renewal stuck":                     {[]held{left(29, "good")}, []request{asked(sent, 2*time.Hour, "down")}, adminapi.CredentialRenewalStuck, "c", "down"},
		"renewal rejected":                  {[]held{left(29, "good")}, []request{asked(rejected, time.Minute, "not a holder")}, adminapi.CredentialRenewalStuck, "c", "not a holder"},
		"renewed with one that is no newer": {[]held{left(29, "good")}, []request{{Type: typ, Issuer: is, State: issued, Renewal: true, CreatedAt: now.Add(-time.Hour), UpdatedAt: now.Add(-time.Hour)}}, adminapi.CredentialRenewalStuck, "c", "no newer"},
		"expired at the second":             {[]held{left(0, "good")}, nil, adminapi.CredentialExpired, "c", "expired on"},
		"expired, renewal failing":          {[]held{left(-1, "good")}, []request{asked(requested, day, "down")}, adminapi.CredentialExpired, "c", "down"},
		"revoked":                           {[]held{left(80, "revoked")}, nil, adminapi.CredentialRevoked, "c", "said so"},
		"suspended":                         {[]held{left(80, "suspended")}, nil, adminapi.CredentialSuspended, "c", "said so"},
		"wrong issuer before anything else": {[]held{{ID: "c", Type: typ, Issuer: "did:web:other", Status: "revoked"}}, nil, adminapi.CredentialWrongIssuer, "c", "did:web:other"},
		"not yet valid":                     {[]held{future}, nil, adminapi.CredentialRequested, "c", "valid from"},
		"an older one stands in":            {[]held{newer, older}, nil, adminapi.CredentialValid, "older", ""},
		"a delivered request is no news":    {[]held{left(80, "good")}, []request{asked(issued, day, "")}, adminapi.CredentialValid, "c", ""},
	} {
		got := overview(trust, tc.held, tc.asked, timing, now)
		if len(got) != 1 || got[0].State != tc.state || got[0].ID != tc.id || !strings.Contains(got[0].Detail, tc.detail) || (tc.detail == "" && got[0].Detail != "") {
			t.Errorf("%s: want %s %q, got %+v", name, tc.state, tc.detail, got)
		}
	}
	// What lives for minutes is stuck after minutes.
	until := now.Add(2 * time.Minute)
	brief := held{ID: "c", Type: typ, Issuer: is, ValidFrom: until.Add(-12 * time.Minute), ValidUntil: &until, Status: "good"}
	for ago, state := range map[time.Duration]adminapi.CredentialState{time.Minute: adminapi.CredentialExpiring, 3 * time.Minute: adminapi.CredentialRenewalStuck} {
		if got := overview(trust, []held{brief}, []request{asked(sent, ago, "down")}, timing, now); got[0].State != state || got[0].Remedy == "" {
			t.Errorf("%s after the renewal of a credential for 12 minutes was asked for: %+v", ago, got)
		}
	}
	if got := overview(trust, []held{left(80, "good"), other}, nil, timing, now); len(got) != 2 || got[0].Issuer != is || got[1].State != adminapi.CredentialWrongIssuer {
		t.Errorf("two issuers: %+v", got)
	}
	if got := overview(trust, nil, []request{asked(issued, day, "")}, timing, now); len(got) != 0 {
		t.Errorf("answered with another type: %+v", got)
	}
}

func TestBackoffGrowsAndEnds(t *testing.T) {
	w := &Wallet{timing: Timing{MinBackoff: time.Second, MaxBackoff: time.Minute}}
	last := time.Duration(0)
	for attempt := range 100 {
		d := w.backoff(attempt)
		if d < last || d < time.Second || d > time.Minute {
			t.Fatalf("attempt %d: %s after %s", attempt, d, last)
		}
		last = d
	}
	if last != time.Minute {
		t.Errorf("ends at %s", last)
	}
}
