// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/config"
)

// binding gives a namespace to the operator, as its README says.
func binding(namespace string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "edc-operator", Namespace: namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: config.NamespaceRole},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: config.ServiceAccount, Namespace: config.Namespace}},
	}
}

// The operator's rights, every verb of every kind that matters, in a namespace that it was given and elsewhere.
func TestRightsEndWithTheNamespace(t *testing.T) {
	t.Parallel()
	given := newCell(t)
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	kinds := map[string]struct{ given, elsewhere string }{
		"/secrets":                               {"get create", ""},
		"/configmaps":                            {"create patch", ""},
		"/pods":                                  {"list", ""},
		"/serviceaccounts":                       {"list watch create patch", "list watch"},
		"/services":                              {"list watch create patch", "list watch"},
		"apps/deployments":                       {"list watch create patch", "list watch"},
		"batch/jobs":                             {"list watch create patch delete", "list watch"},
		"networking.k8s.io/ingresses":            {"list watch create patch delete", "list watch"},
		"policy/poddisruptionbudgets":            {"create patch", ""},
		"events.k8s.io/events":                   {"create patch", ""},
		"edc.kaphera.io/connectors":              {"list watch patch", "list watch patch"},
		"/serviceaccounts/token":                 {"", ""},
		"/pods/exec":                             {"", ""},
		"/namespaces":                            {"", ""},
		"apps/statefulsets":                      {"", ""},
		"apps/daemonsets":                        {"", ""},
		"rbac.authorization.k8s.io/roles":        {"", ""},
		"rbac.authorization.k8s.io/rolebindings": {"", ""},
		"rbac.authorization.k8s.io/clusterrolebindings":            {"", ""},
		"admissionregistration.k8s.io/validatingadmissionpolicies": {"", ""},
	}
	for kind, want := range kinds {
		for _, namespace := range []string{given.namespace, "kube-system", "default", ""} {
			var may []string
			for _, verb := range verbs {
				if allowed(t, verb, kind, namespace) {
					may = append(may, verb)
				}
			}
			expected := want.elsewhere
			if namespace == given.namespace {
				expected = want.given
			}
			if got := strings.Join(may, " "); got != expected {
				t.Errorf("%s in %q: may %q, want %q", kind, namespace, got, expected)
			}
		}
	}

	c, err := client.New(as(operatorAccount), client.Options{Scheme: edcoperator.Scheme()})
	must(t, err)
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: given.namespace, Namespace: "kube-system"}})
	must(t, c.Get(t.Context(), client.ObjectKey{Namespace: given.namespace, Name: "db-owner"}, &corev1.Secret{}))
	pod := func(namespace string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: namespace}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "p", Image: "p"}}}}
	}
	for what, err := range map[string]error{
		"read a Secret elsewhere":           c.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: given.namespace}, &corev1.Secret{}),
		"list the Secrets of its namespace": c.List(t.Context(), &corev1.SecretList{}, client.InNamespace(given.namespace)),
		"create a Pod in kube-system":       c.Create(t.Context(), pod("kube-system"), client.DryRunAll),
		"create a Pod in its namespace":     c.Create(t.Context(), pod(given.namespace), client.DryRunAll),
		"give itself kube-system":           c.Create(t.Context(), binding("kube-system"), client.DryRunAll),
		"create a RoleBinding in its own":   c.Create(t.Context(), binding(given.namespace), client.DryRunAll),
		"create a Secret in another's":      c.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}}, client.DryRunAll),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("the operator may %s: %v", what, err)
		}
	}
}

// allowed asks the API server's authorizer. kind is group/resource or group/resource/subresource.
func allowed(t *testing.T, verb, kind, namespace string) bool {
	t.Helper()
	parts := append(strings.Split(kind, "/"), "")
	r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: operatorAccount, Groups: []string{"system:serviceaccounts", "system:authenticated"}, ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Group: parts[0], Resource: parts[1], Subresource: parts[2], Namespace: namespace,
		},
	}}
	must(t, admin.Create(t.Context(), r))
	return r.Status.Allowed
}

func TestNamespaceThatWasNotGivenIsNamed(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	b := binding(c.namespace)
	must(t, admin.Delete(t.Context(), b))
	c.play()
	conn, p := c.connector(), c.participant("supplier", "brandt-guss")
	create(t, conn)
	create(t, p)
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNotPermitted,
		"kubectl create rolebinding edc-operator --namespace="+c.namespace+" --clusterrole=kaphera-edc-operator-namespace --serviceaccount=kaphera-system:edc-operator")
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonConnectorNotReady, "was not given namespace")
	create(t, binding(c.namespace))
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	c.serve()
	c.publish("brandt-guss", c.did("brandt-guss"))
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")

	// A namespace that is deleted may lose the RoleBinding first: its objects go all the same.
	must(t, admin.Delete(t.Context(), b))
	eventually(t, func(ctx context.Context) error {
		if allowed(t, "get", "/secrets", c.namespace) {
			return errors.New("the right has not ended yet")
		}
		return ctx.Err()
	})
	must(t, admin.Delete(t.Context(), p))
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonNotPermitted, "was not given namespace")
	must(t, admin.Delete(t.Context(), conn))
	for _, o := range []client.Object{p, conn} {
		eventually(t, func(ctx context.Context) error {
			if err := admin.Get(ctx, client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%s is still there: %w", o.GetName(), err)
			}
			return nil
		})
	}
}
