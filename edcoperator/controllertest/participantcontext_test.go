// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const authority = "did:web:authority.example:issuer"

func TestParticipantIsConfiguredAndGetsItsCredentials(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.runConnector()
	p := c.participant("supplier", "brandt-guss")
	p.Spec.Credentials = []v1alpha1.RequestedCredential{{Type: "MembershipCredential", Issuer: authority}}
	p.Spec.Key = v1alpha1.Key{Algorithm: "EdDSA", Generation: 2}
	create(t, p)
	c.await(p, v1alpha1.ConditionDIDPublished, metav1.ConditionFalse, v1alpha1.ReasonNotPublished, "https://"+c.hostname+"/brandt-guss/did.json answers 404 Not Found")
	c.await(p, v1alpha1.ConditionCredentialsHeld, metav1.ConditionFalse, v1alpha1.ReasonIncomplete, "is asked for once the DID document is published")
	if n := read(c.double, func() int { return len(c.double.requests) }); n > 0 {
		t.Errorf("%d credentials were asked for under a DID that does not resolve", n)
	}
	c.publish("brandt-guss", c.did("brandt-guss"))
	c.await(p, v1alpha1.ConditionDIDPublished, metav1.ConditionTrue, v1alpha1.ReasonPublished, "")
	c.await(p, v1alpha1.ConditionCredentialsHeld, metav1.ConditionFalse, v1alpha1.ReasonRequested, "MembershipCredential from "+authority+": Requested")
	issued, expires := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	c.double.with(func() {
		c.double.credentials["brandt-guss"] = []adminapi.HeldCredential{
			{Type: "MembershipCredential", Issuer: authority, State: adminapi.CredentialExpired},
			{Type: "MembershipCredential", Issuer: authority, State: adminapi.CredentialValid, IssuedAt: &issued, ExpiresAt: &expires},
		}
		c.double.summary = adminapi.Summary{
			Negotiations: map[string]int{"FINALIZED": 2, "TERMINATED": 1, "REQUESTED": 1, "VERIFIED": 2}, Agreements: 2,
			LastFailure: &adminapi.Negotiation{Reason: &adminapi.Reason{Message: "the attestation is too old"}},
		}
	})
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	want := v1alpha1.ParticipantContextStatus{
		ObservedGeneration: p.Generation, DID: c.did("brandt-guss"), KeyID: c.did("brandt-guss") + "#key-2", ProtocolURL: "https://" + c.hostname + "/brandt-guss/dsp/2025-1",
		Credentials: []v1alpha1.CredentialStatus{{
			Type: "MembershipCredential", Issuer: authority, State: "Valid",
			IssuedAt: &metav1.Time{Time: issued}, ExpiresAt: &metav1.Time{Time: expires},
		}},
		Contracts: &v1alpha1.ContractStatus{Active: 2, Failed: 1, Waiting: 3, LastFailure: "the attestation is too old"},
	}
	p.Status.Conditions = nil
	if diff := cmp.Diff(want, p.Status, cmp.Comparer(func(a, b metav1.Time) bool { return a.Equal(&b) })); diff != "" {
		t.Errorf("status: %s", diff)
	}
	c.double.with(func() {
		wantParticipant := adminapi.Participant{DID: c.did("brandt-guss"), BPN: "BPNL0000000CAST1", Profile: "automotive", Active: true, SelfCheck: adminapi.SelfCheckEnforce}
		if diff := cmp.Diff(wantParticipant, c.double.participants["brandt-guss"]); diff != "" {
			t.Errorf("control plane: %s", diff)
		}
		wantWallet := adminapi.WalletParticipant{DID: c.did("brandt-guss"), TrustedIssuers: []profile.TrustedIssuer{{DID: authority, Types: []string{"MembershipCredential"}}},
			Key: adminapi.Key{Algorithm: "EdDSA", Generation: 2}}
		if diff := cmp.Diff(wantWallet, c.double.wallets["brandt-guss"]); diff != "" {
			t.Errorf("wallet: %s", diff)
		}
		if len(c.double.requests) != 1 || c.double.profiles["automotive"].Protocol == "" {
			t.Errorf("requests %v, profiles %v", c.double.requests, c.double.profiles)
		}
	})
}

func TestCredentialStatesBecomeReasons(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.runConnector()
	for _, state := range []adminapi.CredentialState{
		adminapi.CredentialRevoked, adminapi.CredentialSuspended, adminapi.CredentialRejected, adminapi.CredentialWrongIssuer, adminapi.CredentialExpired,
		adminapi.CredentialNeverDelivered, adminapi.CredentialRenewalStuck,
	} {
		id, reason := "p-"+strings.ToLower(string(state)), string(state)
		c.publish(id, c.did(id))
		c.double.with(func() {
			c.double.credentials[id] = []adminapi.HeldCredential{{Type: "MembershipCredential", Issuer: authority, State: state, Detail: "so says " + authority, Remedy: "Do something."}}
			c.double.refuse["/admin/v1/participants/"+id+"/credential-requests"] = adminapi.Error{Message: "the issuer knows no such holder"}
		})
		p := c.participant(id, id)
		p.Spec.Credentials = []v1alpha1.RequestedCredential{{Type: "MembershipCredential", Issuer: authority}}
		create(t, p)
		text := "so says " + authority + "). Do something"
		if slices.Contains([]adminapi.CredentialState{adminapi.CredentialRejected, adminapi.CredentialWrongIssuer, adminapi.CredentialExpired, adminapi.CredentialNeverDelivered}, state) {
			text = "the issuer knows no such holder" // asked for again, and refused
		}
		c.await(p, v1alpha1.ConditionCredentialsHeld, metav1.ConditionFalse, reason, text)
		c.await(p, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, string(state))
	}
}

func TestInactiveParticipantIsToldToTheRuntime(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.runConnector()
	c.publish("brandt-guss", c.did("brandt-guss"))
	p := c.participant("supplier", "brandt-guss")
	p.Spec.Active = false
	create(t, p)
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonInactive, "spec.active is false")
	update(t, p, func(p *v1alpha1.ParticipantContext) { p.Spec.Active = true })
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	if !read(c.double, func() bool { return c.double.participants["brandt-guss"].Active }) {
		t.Error("the control plane was not told")
	}
}

func TestAMovedParticipantKeepsItsHostName(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	did := "did:web:" + c.birthplace() + ":brandt-guss"
	c.publish("brandt-guss", did)
	p := c.participant("supplier", "brandt-guss")
	p.Spec.Hostname = c.birthplace()
	create(t, p)
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonHostUnknown, "add it to the Connector's spec.furtherHosts")
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "shared"}, &networkingv1.Ingress{}); !apierrors.IsNotFound(err) {
		t.Errorf("a host that the Connector does not list is served: %v", err)
	}
	update(t, conn, func(conn *v1alpha1.Connector) {
		conn.Spec.FurtherHosts = []v1alpha1.FurtherHost{{Hostname: c.birthplace()}}
	})
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	if want := "https://" + c.birthplace() + "/brandt-guss/dsp/2025-1"; p.Status.DID != did || p.Status.ProtocolURL != want {
		t.Errorf("it is %s at %s, not %s at %s", p.Status.DID, p.Status.ProtocolURL, did, want)
	}
	c.double.with(func() {
		if own, wallet := c.double.participants["brandt-guss"].DID, c.double.wallets["brandt-guss"]; own != did || wallet.DID != did || wallet.PublicURL != "https://"+c.birthplace() {
			t.Errorf("the control plane was told %s, the wallet %+v", own, wallet)
		}
	})
	eventually(t, func(ctx context.Context) error {
		var ing networkingv1.Ingress
		if err := admin.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: "shared"}, &ing); err != nil {
			return err
		}
		if rules := ing.Spec.Rules; len(rules) != 1 || rules[0].Host != c.birthplace() || !strings.HasPrefix(rules[0].HTTP.Paths[0].Path, "/brandt-guss/") {
			return fmt.Errorf("the Ingress is for %v", rules)
		}
		return nil
	})
	for what, change := range map[string]func(*v1alpha1.ParticipantContextSpec){
		"another": func(s *v1alpha1.ParticipantContextSpec) { s.Hostname = "another.example" }, "none": func(s *v1alpha1.ParticipantContextSpec) { s.Hostname = "" },
	} {
		changed := p.DeepCopy()
		change(&changed.Spec)
		if err := admin.Update(t.Context(), changed); err == nil || !strings.Contains(err.Error(), "hostname cannot change: the DID contains it") {
			t.Errorf("%s host name: %v", what, err)
		}
	}
}

func TestSeveralProfilesAreToldToTheRuntime(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	update(t, conn, func(conn *v1alpha1.Connector) {
		conn.Spec.Profiles = append(conn.Spec.Profiles, profile.Profile{Name: "aviation", Protocol: "dataspace-protocol-http:2025-1",
			TrustedIssuers: []profile.TrustedIssuer{{DID: "did:web:aviation.example:issuer", Types: []string{"PilotCredential"}}}})
	})
	c.publish("brandt-guss", c.did("brandt-guss"))
	p := c.participant("supplier", "brandt-guss")
	p.Spec.FurtherProfiles = []string{"maritime"}
	create(t, p)
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProfileUnknown, `spec.furtherProfiles[0] "maritime" is no profile of Connector shared: it has automotive, aviation`)
	update(t, p, func(p *v1alpha1.ParticipantContext) { p.Spec.FurtherProfiles = []string{"aviation"} })
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	c.double.with(func() {
		if got := c.double.participants["brandt-guss"]; got.Profile != "automotive" || !slices.Equal(got.FurtherProfiles, []string{"aviation"}) {
			t.Errorf("control plane: %+v", got)
		}
		if got := c.double.wallets["brandt-guss"].TrustedIssuers; len(got) != 2 || got[1].Types[0] != "PilotCredential" {
			t.Errorf("wallet: %+v", got)
		}
		if c.double.profiles["aviation"].Name == "" {
			t.Error("the control plane was not given the further profile")
		}
	})
	refused := c.participant("twice", "twice")
	refused.Spec.FurtherProfiles = []string{"automotive"}
	if err := admin.Create(t.Context(), refused); err == nil || !strings.Contains(err.Error(), "furtherProfiles has the default profile") {
		t.Errorf("the default profile named again: %v", err)
	}
}

func TestWhatParticipantsLackIsNamed(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	orphan := c.participant("orphan", "orphan")
	create(t, orphan)
	c.await(orphan, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConnectorMissing, "there is no Connector shared in namespace "+c.namespace)

	conn := c.connector()
	conn.Spec.Database.OwnerSecret.Name = "later"
	create(t, conn)
	c.await(orphan, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConnectorNotReady, "Connector shared is not ready: Secret "+c.namespace+"/later does not exist")

	c.secret("later", map[string]string{"username": "owner", "password": "hush-later"})
	c.play()
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	c.await(orphan, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonRuntimeUnreachable, "the wallet does not answer")
	c.serve()
	c.publish("orphan", c.did("orphan"))
	c.await(orphan, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")

	twin := c.participant("twin", "orphan")
	create(t, twin)
	c.await(twin, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonContextTaken, "belongs to ParticipantContext orphan")

	stranger := c.participant("stranger", "stranger")
	stranger.Spec.Profile = "aviation"
	create(t, stranger)
	c.await(stranger, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonProfileUnknown, `spec.profile "aviation" is no profile of Connector shared: it has automotive`)

	impostor := c.participant("impostor", "impostor")
	c.publish("impostor", c.did("orphan"))
	create(t, impostor)
	c.await(impostor, v1alpha1.ConditionDIDPublished, metav1.ConditionFalse, v1alpha1.ReasonNotPublished, `answers with the DID document of "`+c.did("orphan")+`"`)

	c.double.with(func() {
		c.double.refuse["/admin/v1/profiles/automotive"] = adminapi.Error{Code: "invalid", Message: "unknown function foo", Path: "operands[0].expression"}
	})
	update(t, conn, func(conn *v1alpha1.Connector) {
		conn.Spec.Profiles[0].RequiredCredentials = []string{"MembershipCredential"}
	})
	c.await(orphan, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonRefused, "unknown function foo (at operands[0].expression)")
}

func TestDeletedParticipantLeavesTheRuntime(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.runConnector()
	c.publish("brandt-guss", c.did("brandt-guss"))
	p := c.participant("supplier", "brandt-guss")
	create(t, p)
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	c.double.with(func() {
		c.double.refuse["/admin/v1/participants/brandt-guss"] = adminapi.Error{Code: "conflict", Message: "a transfer is under way"}
	})
	must(t, admin.Delete(t.Context(), p))
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDeleting, "a transfer is under way")
	c.double.with(func() { clear(c.double.refuse) })
	c.gone(p)
	c.double.with(func() {
		if len(c.double.participants)+len(c.double.wallets) > 0 {
			t.Errorf("left behind: %v %v", c.double.participants, c.double.wallets)
		}
	})
}

// gone waits until an object is deleted.
func (c *cell) gone(o client.Object) {
	c.t.Helper()
	eventually(c.t, func(ctx context.Context) error {
		err := admin.Get(ctx, client.ObjectKeyFromObject(o), o)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("%s is still there, finalizers %v (%w)", o.GetName(), o.GetFinalizers(), err)
	})
}

func TestDeletionWaitsForNothingThatIsGone(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	c.publish("brandt-guss", c.did("brandt-guss"))
	p := c.participant("supplier", "brandt-guss")
	create(t, p)
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	c.double.with(func() { c.double.forgotten = true })
	must(t, admin.Delete(t.Context(), conn))
	c.gone(conn)
	must(t, admin.Delete(t.Context(), p))
	c.gone(p)
}

func TestParticipantsLeaveARuntimeThatIsDeletedWithThem(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	c.publish("brandt-guss", c.did("brandt-guss"))
	p := c.participant("supplier", "brandt-guss")
	create(t, p)
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	must(t, admin.Delete(t.Context(), p))
	must(t, admin.Delete(t.Context(), conn))
	c.gone(p)
	c.gone(conn)
	if n := read(c.double, func() int { return len(c.double.participants) }); n > 0 {
		t.Error("the Connector went before its participant had left it")
	}
}

func TestGatewayWithAnotherCertificateIsNotBelieved(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.public.Handle("/", http.NotFoundHandler())
	conn := c.connector()
	conn.Spec.Trust.CABundle = ""
	create(t, conn)
	c.play()
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	c.serve()
	p := c.participant("supplier", "brandt-guss")
	create(t, p)
	c.await(p, v1alpha1.ConditionDIDPublished, metav1.ConditionFalse, v1alpha1.ReasonNotPublished, "signed by an authority that spec.trust.caBundle does not hold")
}
