// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/test/interop/rig"
)

const (
	membership  = "MembershipCredential"
	attestation = "AttestationCredential"

	// EDC reads status lists as bare JSON only, but by default does not ask for that; and it believes one for 15 minutes.
	statusLists     = "edc.iam.credential.revocation.mimetype"
	statusListCache = "edc.iam.credential.revocation.cache.validity" // ms

	providerAttested = "https://example.org/policy/providerAttested"
	consumerAttested = "https://example.org/policy/consumerAttested"
)

// dataspace is what the participants agree on.
func dataspace(authority string) profile.Profile {
	attested := func(name string, subject profile.Subject) profile.Operand {
		return profile.Operand{Name: name, Subject: subject, Credential: attestation, Expression: "timestamp(credential.subject.completedAt)",
			ValueType: profile.ValueAge, Operators: []string{"lt"}, Phases: []profile.Phase{profile.PhaseNegotiation, profile.PhaseTransfer},
			Sentence: profile.Translation{EN: "the attestation is younger than {right}"}, Remedy: profile.Translation{EN: "renew the attestation"}}
	}
	return profile.Profile{Name: "attested", Protocol: rig.Protocol, RequiredCredentials: []string{membership},
		TrustedIssuers: []profile.TrustedIssuer{{DID: authority, Types: []string{membership, attestation}}},
		Operands:       []profile.Operand{attested(providerAttested, profile.SubjectProvider), attested(consumerAttested, profile.SubjectConsumer)}}
}

// younger is a constraint on an attestation.
func younger(operand string) rig.Object {
	return rig.Object{"leftOperand": operand, "operator": "lt", "rightOperand": "P12M"}
}

// authority is our issuer and who it knows.
type authority struct {
	*rig.Kaphera
	did string
}

// issues makes the issuer, whose attestations are valid for so long from now on.
func (a authority) issues(t *testing.T, validity string) {
	t.Helper()
	a.Call(t, http.MethodPut, "/admin/v1/issuers/authority", adminapi.IssuerConfig{DID: a.did,
		Types: []adminapi.CredentialType{{Type: membership, Validity: "P365D"}, {Type: attestation, Validity: validity}}}, nil)
}

// none is no attestation at all, where the age of one is asked for.
const none = -1

// registers makes the authority grant a holder its credentials, with an attestation of some months ago.
func (a authority) registers(t *testing.T, did string, months int) {
	t.Helper()
	granted := []adminapi.HolderCredential{{Type: membership, Claims: json.RawMessage(`{"member":true}`)}}
	if months != none {
		completed := fmt.Sprintf(`{"completedAt":%q}`, time.Now().AddDate(0, -months, 0).UTC().Format(time.RFC3339))
		granted = append(granted, adminapi.HolderCredential{Type: attestation, Claims: json.RawMessage(completed)})
	}
	a.Call(t, http.MethodPut, "/admin/v1/issuers/authority/holders/"+base64.RawURLEncoding.EncodeToString([]byte(did)), adminapi.Holder{DID: did, Credentials: granted}, nil)
}

// attestations are those that a holder was given.
func (a authority) attestations(t *testing.T, did string) []adminapi.Issued {
	t.Helper()
	var all []adminapi.Issued
	a.Call(t, http.MethodGet, "/admin/v1/issuers/authority/credentials?holder="+url.QueryEscape(did), nil, &all)
	return slices.DeleteFunc(all, func(i adminapi.Issued) bool { return i.Type != attestation })
}

// revokes takes all attestations of a holder back.
func (a authority) revokes(t *testing.T, did string) {
	t.Helper()
	for _, i := range a.attestations(t, did) {
		a.Call(t, http.MethodPost, "/admin/v1/issuers/authority/credentials/"+i.ID+"/revoke", nil, nil)
	}
}

// expired waits until all attestations of a holder are, for clocks that differ a little too.
func (a authority) expired(t *testing.T, did string) {
	t.Helper()
	rig.Until(t, "the attestation of "+did+" has expired", func() (bool, string) {
		given := a.attestations(t, did)
		valid := slices.ContainsFunc(given, func(i adminapi.Issued) bool { return time.Since(i.ExpiresAt) < 10*time.Second })
		return len(given) > 0 && !valid, fmt.Sprint(given)
	})
}

// joins makes a participant of ours, with its credentials in our wallet.
func (a authority) joins(t *testing.T, name string, f profile.Profile, months int) *rig.Connector {
	t.Helper()
	a.registers(t, a.DID(name), months)
	a.Call(t, http.MethodPut, "/admin/v1/participants/"+name, adminapi.Participant{DID: a.DID(name), Profile: f.Name, Active: true}, nil)
	a.Call(t, http.MethodPut, "/wallet/admin/v1/participants/"+name, adminapi.WalletParticipant{DID: a.DID(name), TrustedIssuers: f.TrustedIssuers}, nil)
	for _, credential := range f.TrustedIssuers[0].Types {
		a.Call(t, http.MethodPost, "/wallet/admin/v1/participants/"+name+"/credential-requests", adminapi.CredentialRequest{Issuer: a.did, Type: credential}, nil)
	}
	rig.Until(t, "the credentials of "+name, func() (bool, string) {
		var held []adminapi.HeldCredential
		a.Call(t, http.MethodGet, "/wallet/admin/v1/participants/"+name+"/credentials", nil, &held)
		missing := slices.ContainsFunc(held, func(h adminapi.HeldCredential) bool { return h.ID == "" })
		return len(held) == 2 && !missing, fmt.Sprint(held)
	})
	return a.As(name)
}

// hub is EDC's IdentityHub with one participant.
type hub struct {
	identity, tokens, did, key, secret string
	process                            *rig.Process
}

func startHub(t *testing.T) *hub {
	t.Helper()
	settings := map[string]string{"edc.iam.did.web.use.https": "false", statusLists: "application/json", statusListCache: "1",
		"edc.iam.credential.status.check.period": "0"} // it would renew by itself what has expired
	base := rig.WebContexts(t, settings, "", "identity", "credentials", "sts", "version", "did")
	settings["web.http.did.path"] = "/"
	admin := base64.StdEncoding.EncodeToString([]byte("super-user")) + "." + rand.Text()
	settings["interop.hub.key"] = admin
	h := &hub{identity: base["identity"] + "/v1alpha/participants", tokens: base["sts"] + "/token"}
	h.process = rig.Java(t, "identityhub", "hub", []string{"Loopback", "Hub"}, settings)
	h.did = "did:web:" + strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(base["did"], "http://"), "/did"), ":", "%3A") + ":edc"
	id := base64.RawURLEncoding.EncodeToString([]byte(h.did))
	var made struct {
		APIKey       string `json:"apiKey"`
		ClientSecret string `json:"clientSecret"`
	}
	h.process.Ready(t, func() error {
		return h.try(http.MethodPost, "", admin, rig.Object{"participantContextId": h.did, "did": h.did, "active": true, "roles": []string{},
			"keys":             []any{rig.Object{"keyId": h.did + "#key", "privateKeyAlias": "private-key", "keyGeneratorParams": rig.Object{"algorithm": "EC", "curve": "secp256r1"}}},
			"serviceEndpoints": []any{rig.Object{"id": "credentials", "type": "CredentialService", "serviceEndpoint": base["credentials"] + "/v1/participants/" + id}}}, &made)
	})
	h.key, h.secret = made.APIKey, made.ClientSecret
	h.identity += "/" + id + "/credentials"
	return h
}

func (h *hub) try(method, path, key string, in, out any) error {
	status, raw, err := rig.Send(method, h.identity+path, map[string]string{"X-Api-Key": key}, in)
	switch {
	case err != nil:
		return err
	case status/100 != 2:
		return fmt.Errorf("IdentityHub: %s %s answered %d: %s", method, path, status, raw)
	case out == nil:
		return nil
	}
	return json.Unmarshal(raw, out)
}

// requests asks an issuer for credentials by DCP and waits until they are there.
func (h *hub) requests(t *testing.T, issuer string, types ...string) {
	t.Helper()
	pid := rand.Text()
	var wanted []any
	for _, c := range types {
		wanted = append(wanted, rig.Object{"format": "VC1_0_JWT", "type": c, "id": "urn:kaphera:credential:" + c + ":vc11"})
	}
	rig.Must(t, h.try(http.MethodPost, "/request", h.key, rig.Object{"issuerDid": issuer, "holderPid": pid, "credentials": wanted}, nil))
	rig.Until(t, "the credentials of EDC", func() (bool, string) {
		var request struct {
			Status string `json:"status"`
		}
		err := h.try(http.MethodGet, "/request/"+pid, h.key, nil, &request)
		if request.Status == "ERROR" { // which its log explains
			t.Fatalf("the request of EDC's IdentityHub to our issuer failed")
		}
		return request.Status == "ISSUED", fmt.Sprint(request.Status, err)
	})
}

func TestDCPIdentity(t *testing.T) {
	k := rig.StartKaphera(t, "kaphera-dcp", "control-plane,wallet,data-plane,issuer", config.Config{
		Verifier: config.Verifier{KeyRelationships: string(dcp.RelationshipsWhenDeclared), DeliveryFormat: string(dcp.FormatLegacy)}})
	a := authority{k, k.DID("authority")}
	f := dataspace(a.did)
	k.Call(t, http.MethodPut, "/admin/v1/profiles/"+f.Name, f, nil)
	h := startHub(t)

	// Two attestations will have expired by the time they are needed, and are not renewed.
	a.issues(t, "PT30S")
	lapsed := a.joins(t, "lapsed", f, 1)
	a.registers(t, lapsed.ID, none)
	check(t, "IdentityHub gets credentials of our issuer by DCP", func(t *testing.T) {
		a.registers(t, h.did, 1)
		h.requests(t, a.did, membership, attestation)
	})
	edc := rig.StartEDC(t, "edc-dcp", "dcp", []string{"Loopback", "DataEndpoint", "Claims"}, h.did, 10, map[string]string{
		"edc.iam.issuer.id": h.did, "edc.iam.did.web.use.https": "false", "edc.iam.trusted-issuer.authority.id": a.did,
		statusLists: "application/json", statusListCache: "1",
		"interop.sts.url": h.tokens, "interop.sts.id": h.did, "interop.sts.secret": h.secret,
		"interop.operand.provider": providerAttested, "interop.operand.consumer": consumerAttested})
	a.expired(t, h.did)
	a.expired(t, lapsed.ID) // a renewal that had begun too
	a.issues(t, "P365D")
	ours, late, revoked := a.joins(t, "kaphera", f, 1), a.joins(t, "late", f, 13), a.joins(t, "revoked", f, 1)
	source := backend(t)
	for _, c := range []*rig.Connector{ours, edc} {
		c.Offer(t, "attested", source, rig.Use(younger(providerAttested), younger(consumerAttested)), "pcf")
	}
	refused := func(what string) {
		t.Helper()
		check(t, "Kaphera consumes, EDC's attestation "+what, func(t *testing.T) { denied(t, begun(t, ours, edc), "own", "attestation") })
		check(t, "EDC consumes, its attestation "+what, func(t *testing.T) { denied(t, begun(t, edc, ours), "own", "attestation") })
	}

	refused("has expired")
	a.registers(t, h.did, 13)
	h.requests(t, a.did, attestation)
	refused("is too old")
	a.registers(t, h.did, 1)
	h.requests(t, a.did, attestation)
	check(t, "Kaphera consumes", func(t *testing.T) { ours.Transfer(t, edc, "pcf").Access(t).Served(t, data) })
	check(t, "EDC consumes", func(t *testing.T) { edc.Transfer(t, ours, "pcf").Access(t).Served(t, data) })
	// What EDC answers then is 401, which might pass, so that all three take a while.
	check(t, "Kaphera consumes before its attestation is revoked", func(t *testing.T) { revoked.Agreement(t, edc, "pcf") })
	a.revokes(t, revoked.ID)
	tooOld, gone, takenBack := begun(t, late, edc), begun(t, lapsed, edc), begun(t, revoked, edc)
	check(t, "Kaphera consumes, its attestation is too old", func(t *testing.T) { denied(t, tooOld, "counterparty", consumerAttested) })
	check(t, "Kaphera consumes, its attestation has expired", func(t *testing.T) { denied(t, gone, "counterparty", "") })
	check(t, "Kaphera consumes, its attestation is revoked", func(t *testing.T) { denied(t, takenBack, "counterparty", "") })
	a.revokes(t, h.did)
	refused("is revoked")
	t.Logf("memory after that: Kaphera %d MB, EDC %d MB and its IdentityHub %d MB (-Xmx256m each)", k.Process.RSS(t), edc.Process.RSS(t), h.process.RSS(t))
}

// begun is a negotiation that the consumer has begun.
func begun(t *testing.T, consumer, provider *rig.Connector) rig.Pair {
	t.Helper()
	return rig.Pair{Kind: rig.Negotiations, Consumer: consumer, Provider: provider, Mine: consumer.Request(t, provider, "pcf", consumer.OfferOf(t, provider, "pcf"))}
}

// denied waits until both have ended a negotiation that the policy does not allow, and looks at who did that as Kaphera has it ("own" or
// "counterparty"), and why.
func denied(t *testing.T, p rig.Pair, by, why string) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		detail := p.Consumer.Reaches(t, rig.Negotiations, p.Mine, "TERMINATED").ErrorDetail
		if p.Consumer.Name == "EDC" {
			p.Theirs = p.Provider.Counterpart(t, rig.Negotiations, p.Mine).ID
			p.Provider.Reaches(t, rig.Negotiations, p.Theirs, "TERMINATED")
		}
		r := p.Reason(t)
		if r.By == by && strings.Contains(r.Message, why) {
			t.Log(r.Message)
			return
		}
		if attempt == 5 || !rig.Overtaken(detail+" "+r.Message) {
			t.Fatalf("the reason is %+v (%s), want one of %s with %q", r, detail, by, why)
		}
		t.Logf("EDC ended negotiation %s by itself (%s); trying again", p.Mine, detail)
		p = begun(t, p.Consumer, p.Provider)
	}
}
