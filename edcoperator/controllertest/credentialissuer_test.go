// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

func (c *cell) issuer() *v1alpha1.CredentialIssuer {
	conn := c.connector()
	return &v1alpha1.CredentialIssuer{
		ObjectMeta: metav1.ObjectMeta{Name: "membership", Namespace: c.namespace},
		Spec: v1alpha1.CredentialIssuerSpec{
			Exposure: conn.Spec.Exposure, Trust: conn.Spec.Trust, Database: conn.Spec.Database, Vault: conn.Spec.Vault, Context: "issuer",
			CredentialTypes: []v1alpha1.CredentialType{{Type: "MembershipCredential", Validity: "P1Y", RequiredClaims: []string{"memberOf"}}},
			Holders: []v1alpha1.Holder{
				{DID: "did:web:a.example:a", Credentials: []v1alpha1.HolderCredential{{Type: "MembershipCredential", Claims: &apiextensionsv1.JSON{Raw: []byte(`{"memberOf":"Automotive"}`)}}}},
				{DID: "did:web:b.example:b", Credentials: []v1alpha1.HolderCredential{{Type: "MembershipCredential"}}},
			},
		},
	}
}

func TestIssuerIsConfigured(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.play()
	i := c.issuer()
	i.Spec.Key.Generation = 3
	create(t, i)
	token := c.internalToken("membership-internal")
	c.double.with(func() {
		c.double.holders["did:web:old.example:old"] = adminapi.Holder{DID: "did:web:old.example:old"}
	})
	c.await(i, v1alpha1.ConditionDIDPublished, metav1.ConditionFalse, v1alpha1.ReasonRuntimeUnreachable, "the issuer does not answer")
	net1.route("membership."+c.namespace+".svc:8081", c.double.server(t, token, c.double.issuer()))
	c.await(i, v1alpha1.ConditionDIDPublished, metav1.ConditionFalse, v1alpha1.ReasonNotPublished, "answers 404")
	c.publish("issuer", c.did("issuer"))
	c.await(i, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	if i.Status.DID != c.did("issuer") || i.Status.KeyID != c.did("issuer")+"#key-3" || i.Status.Holders != 2 {
		t.Errorf("status %+v", i.Status)
	}
	c.double.with(func() {
		want := adminapi.IssuerConfig{DID: c.did("issuer"), Types: []adminapi.CredentialType{{Type: "MembershipCredential", Validity: "P1Y", RequiredClaims: []string{"memberOf"}}},
			Key: adminapi.Key{Generation: 3}}
		if diff := cmp.Diff(want, c.double.issuers["issuer"]); diff != "" {
			t.Errorf("issuer: %s", diff)
		}
		if len(c.double.holders) != 2 || string(c.double.holders["did:web:a.example:a"].Credentials[0].Claims) != `{"memberOf":"Automotive"}` ||
			string(c.double.holders["did:web:b.example:b"].Credentials[0].Claims) != "{}" {
			t.Errorf("holders: %v", c.double.holders)
		}
	})
	update(t, i, func(i *v1alpha1.CredentialIssuer) { i.Spec.Holders = i.Spec.Holders[:1] })
	eventually(t, func(context.Context) error {
		if n := read(c.double, func() int { return len(c.double.holders) }); n != 1 {
			return fmt.Errorf("%d holders", n)
		}
		return nil
	})
	var ing networkingv1.Ingress
	must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(i), &ing))
	var paths []string
	for _, p := range ing.Spec.Rules[0].HTTP.Paths {
		paths = append(paths, p.Path)
	}
	if diff := cmp.Diff([]string{"/issuer/issuance", "/issuer/did.json", "/issuer/status"}, paths); diff != "" {
		t.Error(diff)
	}
	var d appsv1.Deployment
	must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(i), &d))
	if args := d.Spec.Template.Spec.Containers[0].Args; args[1] != "--roles=issuer" {
		t.Errorf("args %v", args)
	}
	must(t, admin.Delete(t.Context(), i))
	c.gone(i)
}

func TestIssuerRefusalIsShown(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.play()
	i := c.issuer()
	create(t, i)
	token := c.internalToken("membership-internal")
	c.double.with(func() {
		c.double.refuse["/admin/v1/issuers/issuer"] = adminapi.Error{Message: `validity "P1X" is no duration`}
	})
	net1.route("membership."+c.namespace+".svc:8081", c.double.server(t, token, c.double.issuer()))
	c.await(i, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonRefused, `validity "P1X" is no duration`)
}
