// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/profile"
)

const (
	membership  = "MembershipCredential"
	attestation = "AttestationCredential"

	// EDC reads status lists as bare JSON only, but by default does not ask for that.
	statusLists = "edc.iam.credential.revocation.mimetype"

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
	return profile.Profile{Name: "attested", Protocol: protocol, RequiredCredentials: []string{membership},
		TrustedIssuers: []profile.TrustedIssuer{{DID: authority, Types: []string{membership, attestation}}},
		Operands:       []profile.Operand{attested(providerAttested, profile.SubjectProvider), attested(consumerAttested, profile.SubjectConsumer)}}
}

// younger is a constraint on an attestation.
func younger(operand string) object {
	return object{"leftOperand": operand, "operator": "lt", "rightOperand": "P12M"}
}

// registered makes the authority grant a holder its credentials, with an attestation of some months ago.
func (k *kaphera) registered(t *testing.T, did string, months int) {
	t.Helper()
	completed := fmt.Sprintf(`{"completedAt":%q}`, time.Now().AddDate(0, -months, 0).UTC().Format(time.RFC3339))
	k.call(t, http.MethodPut, "/admin/v1/issuers/authority/holders/"+base64.RawURLEncoding.EncodeToString([]byte(did)), adminapi.Holder{DID: did,
		Credentials: []adminapi.HolderCredential{{Type: membership, Claims: json.RawMessage(`{"member":true}`)}, {Type: attestation, Claims: json.RawMessage(completed)}}}, nil)
}

// join makes a participant of ours, with its credentials in our wallet.
func (k *kaphera) join(t *testing.T, name string, f profile.Profile, months int) *connector {
	t.Helper()
	did := k.did(name)
	k.registered(t, did, months)
	k.call(t, http.MethodPut, "/admin/v1/participants/"+name, adminapi.Participant{DID: did, Profile: f.Name, Active: true}, nil)
	k.call(t, http.MethodPut, "/wallet/admin/v1/participants/"+name, adminapi.WalletParticipant{DID: did, TrustedIssuers: f.TrustedIssuers}, nil)
	for _, credential := range f.TrustedIssuers[0].Types {
		k.call(t, http.MethodPost, "/wallet/admin/v1/participants/"+name+"/credential-requests", adminapi.CredentialRequest{Issuer: f.TrustedIssuers[0].DID, Type: credential}, nil)
	}
	until(t, "the credentials of "+name, func() (bool, string) {
		var held []adminapi.HeldCredential
		k.call(t, http.MethodGet, "/wallet/admin/v1/participants/"+name+"/credentials", nil, &held)
		missing := slices.ContainsFunc(held, func(h adminapi.HeldCredential) bool { return h.State != adminapi.CredentialValid })
		return len(held) == 2 && !missing, fmt.Sprint(held)
	})
	return k.as(name)
}

// hub is EDC's IdentityHub with one participant.
type hub struct {
	identity, tokens, did, key, secret string
	process                            *process
}

func startHub(t *testing.T) *hub {
	t.Helper()
	settings := map[string]string{"edc.iam.did.web.use.https": "false", statusLists: "application/json"}
	base := webContexts(t, settings, "", "identity", "credentials", "sts", "version", "did")
	settings["web.http.did.path"] = "/"
	admin := base64.StdEncoding.EncodeToString([]byte("super-user")) + "." + rand.Text()
	settings["interop.hub.key"] = admin
	h := &hub{identity: base["identity"] + "/v1alpha/participants", tokens: base["sts"] + "/token"}
	h.process = java(t, "identityhub", "hub", []string{"Loopback", "Hub"}, settings)
	h.did = "did:web:" + strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(base["did"], "http://"), "/did"), ":", "%3A") + ":edc"
	id := base64.RawURLEncoding.EncodeToString([]byte(h.did))
	var made struct {
		APIKey       string `json:"apiKey"`
		ClientSecret string `json:"clientSecret"`
	}
	h.process.ready(t, func() error {
		return h.try(http.MethodPost, "", admin, object{"participantContextId": h.did, "did": h.did, "active": true, "roles": []string{},
			"keys":             []any{object{"keyId": h.did + "#key", "privateKeyAlias": "private-key", "keyGeneratorParams": object{"algorithm": "EC", "curve": "secp256r1"}}},
			"serviceEndpoints": []any{object{"id": "credentials", "type": "CredentialService", "serviceEndpoint": base["credentials"] + "/v1/participants/" + id}}}, &made)
	})
	h.key, h.secret = made.APIKey, made.ClientSecret
	h.identity += "/" + id + "/credentials"
	return h
}

func (h *hub) try(method, path, key string, in, out any) error {
	status, raw, err := send(method, h.identity+path, map[string]string{"X-Api-Key": key}, in)
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
		wanted = append(wanted, object{"format": "VC1_0_JWT", "type": c, "id": "urn:kaphera:credential:" + c + ":vc11"})
	}
	must(t, h.try(http.MethodPost, "/request", h.key, object{"issuerDid": issuer, "holderPid": pid, "credentials": wanted}, nil))
	until(t, "the credentials of EDC", func() (bool, string) {
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
	k := startKaphera(t, "kaphera-dcp", "control-plane,wallet,data-plane,issuer", config.Config{
		Verifier: config.Verifier{KeyRelationships: string(dcp.RelationshipsWhenDeclared), DeliveryFormat: string(dcp.FormatLegacy)}})
	authority := k.did("authority")
	k.call(t, http.MethodPut, "/admin/v1/issuers/authority", adminapi.IssuerConfig{DID: authority,
		Types: []adminapi.CredentialType{{Type: membership, Validity: "P365D"}, {Type: attestation, Validity: "P365D"}}}, nil)
	f := dataspace(authority)
	k.call(t, http.MethodPut, "/admin/v1/profiles/"+f.Name, f, nil)
	ours, late := k.join(t, "kaphera", f, 1), k.join(t, "late", f, 13)
	h := startHub(t)
	edc := startEDC(t, "edc-dcp", "dcp", []string{"Loopback", "DataEndpoint", "Claims"}, h.did, 10, map[string]string{
		"edc.iam.issuer.id": h.did, "edc.iam.did.web.use.https": "false", statusLists: "application/json", "edc.iam.trusted-issuer.authority.id": authority,
		"interop.sts.url": h.tokens, "interop.sts.id": h.did, "interop.sts.secret": h.secret,
		"interop.operand.provider": providerAttested, "interop.operand.consumer": consumerAttested})
	source := backend(t)
	for _, c := range []*connector{ours, edc} {
		c.offer(t, "attested", source, use(younger(providerAttested), younger(consumerAttested)), "pcf")
	}

	check(t, "IdentityHub gets credentials of our issuer by DCP", func(t *testing.T) {
		k.registered(t, h.did, 13)
		h.requests(t, authority, membership, attestation)
	})
	check(t, "Kaphera consumes, EDC's attestation is too old", func(t *testing.T) { denied(t, ours, edc, "attestation") })
	check(t, "EDC consumes, its attestation is too old", func(t *testing.T) { denied(t, edc, ours, "attestation") })
	k.registered(t, h.did, 1)
	h.requests(t, authority, attestation)
	check(t, "Kaphera consumes", func(t *testing.T) { ours.transfer(t, edc, "pcf").access(t).served(t, data) })
	check(t, "EDC consumes", func(t *testing.T) { edc.transfer(t, ours, "pcf").access(t).served(t, data) })
	check(t, "Kaphera consumes, its attestation is too old", func(t *testing.T) { denied(t, late, edc, consumerAttested) })
	t.Logf("memory after that: Kaphera %d MB, EDC %d MB and its IdentityHub %d MB (-Xmx256m each)", k.process.rss(t), edc.process.rss(t), h.process.rss(t))
}

// denied negotiates what the policy does not allow; one of the two says why.
func denied(t *testing.T, consumer, provider *connector, reason string) {
	t.Helper()
	id := consumer.request(t, provider, "pcf", consumer.offerOf(t, provider, "pcf"))
	told := consumer.reaches(t, negotiations, id, "TERMINATED").ErrorDetail
	if consumer.name == "EDC" { // which does not keep the reason of a termination that it receives
		told = provider.reaches(t, negotiations, provider.counterpart(t, negotiations, id).ID, "TERMINATED").ErrorDetail
	}
	if !strings.Contains(told, reason) {
		t.Errorf("the reason is %q", told)
	}
	t.Log(told)
}
