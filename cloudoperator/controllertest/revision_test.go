// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/revision"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

// signed is a sign-off as the Cloud API adds it.
func signed(t *testing.T, r *cloud.UseCaseRevision) *cloud.RevisionSignOff {
	t.Helper()
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := jwk.Import(raw)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	thumb, _, err := gate.PublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := gate.SignJWS(key, usecase.Type, adminapi.SignOffClaims{Signer: "gerd", UseCase: r.Spec.UseCase, Number: r.Spec.Number, Hash: r.Spec.Hash, Read: "00", Language: "de",
		Signers: []string{thumb}, IssuedAt: time.Now().Unix()})
	if err != nil {
		t.Fatal(err)
	}
	return &cloud.RevisionSignOff{Signed: jws, By: "Gerd Gerecht", At: metav1.Now(),
		Signers: []cloud.RevisionSigner{{ID: "gerd", Name: "Gerd Gerecht", Organization: "governance-authority", Keys: []string{string(text)}}}}
}

func TestARevisionTakesEffectWhenItIsSignedOff(t *testing.T) {
	t.Parallel()
	policy := func(member string) apiextensionsv1.JSON {
		return apiextensionsv1.JSON{Raw: []byte(`{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"https://example.org/member","operator":"eq","rightOperand":"` + member + `"}]}]}`)}
	}
	p := goodProfile("revised")
	u := &cloud.UseCase{ObjectMeta: named("revised"), Spec: cloud.UseCaseSpec{Profile: "revised", Title: "t", AssetType: "a", ContractPolicy: policy("one"),
		Signers: []cloud.ApproverRef{{Role: "governance-authority"}}}}
	u.Annotations = map[string]string{cloud.ChangedByAnnotation: "Ada"}
	create(t, p)
	create(t, u)
	// stands waits until the newest revision and the one in force are these.
	stands := func(newest, inForce int, words string) (h revision.History) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			if err := admin.Get(ctx, client.ObjectKeyFromObject(u), u); err != nil {
				return err
			}
			var said string
			for _, c := range u.Status.Conditions {
				if c.Type == cloud.ConditionSignedOff {
					said = c.Message
				}
			}
			if got := u.Status.InForce; u.Status.Revision == nil || u.Status.Revision.Number != newest || inForce == 0 && got != nil || inForce != 0 && (got == nil || got.Number != inForce) || !strings.Contains(said, words) {
				return fmt.Errorf("newest %+v, in force %+v: %s", u.Status.Revision, got, said)
			}
			return nil
		})
		h, err := revision.Read(t.Context(), admin, u.Namespace, u.Name)
		if err != nil || len(h.All) != newest {
			t.Fatalf("%d revisions, %v", len(h.All), err)
		}
		return h
	}
	h := stands(1, 0, "everybody with the role governance-authority, and nothing can be offered")
	if first := h.Newest().Spec; first.MadeBy != "Ada" || usecase.Hash(first.Content) != first.Hash {
		t.Errorf("made: %+v", first)
	}
	if err := condition(t.Context(), u, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonWaiting); err != nil {
		t.Error(err)
	}
	if err := condition(t.Context(), u, cloud.ConditionPolicyValid, metav1.ConditionTrue, ""); err != nil {
		t.Error(err)
	}
	for name, f := range map[string]func(*cloud.UseCaseRevisionSpec){
		"content": func(s *cloud.UseCaseRevisionSpec) { s.Content = strings.Replace(s.Content, "one", "two", 1) },
		"hash":    func(s *cloud.UseCaseRevisionSpec) { s.Hash = "00" },
		"maker":   func(s *cloud.UseCaseRevisionSpec) { s.MadeBy = "somebody" },
		"number":  func(s *cloud.UseCaseRevisionSpec) { s.Number = 9 },
	} {
		r := h.Newest().DeepCopy()
		f(&r.Spec)
		if err := admin.Update(t.Context(), r); err == nil || !strings.Contains(err.Error(), "a revision does not change") {
			t.Errorf("changing the %s of a revision: %v", name, err)
		}
	}
	r := h.Newest()
	r.Spec.SignOff = signed(t, r)
	if err := admin.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	stands(1, 1, "signed off by Gerd Gerecht")
	r.Spec.SignOff = signed(t, r)
	if err := admin.Update(t.Context(), r); err == nil || !strings.Contains(err.Error(), "a sign-off does not change") {
		t.Errorf("exchanging a sign-off: %v", err)
	}
	change(t, u, func() { u.Spec.Title = "another title" })
	change(t, u, func() {
		u.Spec.ContractPolicy, u.Annotations[cloud.ChangedByAnnotation] = policy("two"), "Bob"
	})
	if h = stands(2, 1, "revision 1 stays in force"); h.Newest().Spec.MadeBy != "Bob" || !strings.Contains(h.Newest().Spec.Content, h.All[0].Spec.Hash) {
		t.Errorf("the second: %+v", h.Newest().Spec)
	}
	change(t, p, func() { p.Spec.Operands[0].Sentence.EN += "!" })
	stands(3, 1, "revision 3 waits")
	change(t, u, func() { u.Spec.Signers = nil }) // needs the sign-off of those who are signers now
	h = stands(4, 1, "everybody with the role governance-authority")
	r = h.Newest()
	r.Spec.SignOff = signed(t, r)
	if err := admin.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	stands(4, 4, "signed off by")
	change(t, u, func() { u.Spec.ContractPolicy = policy("three") })
	h = stands(5, 5, "took effect at once")

	// A history in which one is missing has none in force.
	if err := admin.Delete(t.Context(), &h.All[1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, u, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonInvalid)
	})
	for _, o := range []client.Object{u, p} {
		if err := admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error { return absent(ctx, o) })
	}
	// There is no garbage collector here.
	for i := range h.All {
		if err := client.IgnoreNotFound(admin.Delete(t.Context(), &h.All[i])); err != nil {
			t.Fatal(err)
		}
	}
}
