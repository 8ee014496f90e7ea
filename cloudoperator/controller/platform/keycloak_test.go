// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"errors"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/keycloak"
)

func TestApprovalKeysHaveTheRolesThatTheirPeopleHaveNow(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := cloud.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	key := func(name, person string) client.Object {
		return &cloud.ApprovalKey{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: name},
			Spec: cloud.ApprovalKeySpec{Subject: person, Person: person, Name: person, Organization: "brandt-guss", Roles: []string{RoleOrganizationAdmin}}}
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(key("same", "berta"), key("moved", "renate"), key("moved-too", "renate"), key("gone", "gabriel")).Build()
	people := map[string]keycloak.Standing{
		"berta":  {Organization: "brandt-guss", Roles: []string{"default-roles-kaphera", RoleOrganizationAdmin}},
		"renate": {Organization: "rheintal-motoren", Roles: []string{RoleViewer, RoleGovernanceAuthority}},
	}
	var failure error
	standing := func(_ context.Context, person string) (keycloak.Standing, error) { return people[person], failure }
	of := func(name string) cloud.ApprovalKey {
		var k cloud.ApprovalKey
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: "system", Name: name}, &k); err != nil {
			t.Fatal(err)
		}
		return k
	}
	failure = errors.New("no answer")
	if err := refreshKeys(t.Context(), c, c, "system", standing); !errors.Is(err, failure) || len(of("gone").Spec.Roles) != 1 {
		t.Errorf("an identity provider that does not answer takes roles away: %v", err)
	}
	failure = nil
	unchanged := of("same").ResourceVersion
	for range 2 {
		if err := refreshKeys(t.Context(), c, c, "system", standing); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]cloud.ApprovalKeySpec{
		"same":      {Organization: "brandt-guss", Roles: []string{RoleOrganizationAdmin}},
		"moved":     {Organization: "rheintal-motoren", Roles: []string{RoleGovernanceAuthority, RoleViewer}},
		"moved-too": {Organization: "rheintal-motoren", Roles: []string{RoleGovernanceAuthority, RoleViewer}},
		"gone":      {},
	} {
		if got := of(name).Spec; got.Organization != want.Organization || !slices.Equal(got.Roles, want.Roles) {
			t.Errorf("%s: %q %v, want %q %v", name, got.Organization, got.Roles, want.Organization, want.Roles)
		}
	}
	if of("same").ResourceVersion != unchanged {
		t.Error("a key of somebody for whom nothing has changed is written")
	}
}
