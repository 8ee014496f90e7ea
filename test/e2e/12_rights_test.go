// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What the operators may do on a cluster that runs cells; the whole tables are in the operators' own tests.
func TestOperatorsReachCellsOnly(t *testing.T) {
	_, cs := kube(t)
	for _, account := range []string{"edc-operator", "cloud-operator"} {
		for request, wants := range map[string]map[string]bool{
			"get secrets":        {cellNamespace: true, "kube-system": false, "default": false, "": false},
			"create deployments": {cellNamespace: true, "kube-system": false, "default": false, "": false},
			"create pods":        {cellNamespace: false, "kube-system": false, "default": false, "": false},
		} {
			verb, resource, _ := strings.Cut(request, " ")
			group := map[string]string{"deployments": "apps"}[resource]
			for namespace, want := range wants {
				r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
					User: "system:serviceaccount:kaphera-system:" + account, Groups: []string{"system:serviceaccounts", "system:authenticated"},
					ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: namespace},
				}}
				r, err := cs.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), r, metav1.CreateOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if r.Status.Allowed != want {
					t.Errorf("%s may %s in %q: %v, want %v", account, request, namespace, r.Status.Allowed, want)
				}
			}
		}
	}
}
