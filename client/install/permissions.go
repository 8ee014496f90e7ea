// SPDX-License-Identifier: Apache-2.0

package install

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/config"
)

// Account is the service account in the cell's namespace under which an administrator lets the cell be installed.
const Account = "kaphera-cell-installer"

// Permission is a right that whoever installs a cell needs, when an administrator has given the namespace, the kinds and the operators' rights.
type Permission struct {
	Namespace       string // empty in the whole cluster
	Group, Resource string
	Names           []string // empty: all of the namespace
	Verbs           []string
	Why             string
}

// Permissions are all, in the order in which they are documented. Nothing is in two of them.
func (i *Installation) Permissions() []Permission {
	inside := func(group, resource, why string, verbs ...string) Permission {
		return Permission{Namespace: i.Namespace, Group: group, Resource: resource, Verbs: verbs, Why: why}
	}
	out := []Permission{
		inside("", "pods", "says why a pod does not start, and waits until the agent's are gone", "list"),
		inside(edc.GroupVersion.Group, "participantcontexts", "removes no cell in which participants are", "list"),
		inside(edc.GroupVersion.Group, "connectors", "takes the connector down when the cell is removed", "list", "delete"),
	}
	add := func(o *unstructured.Unstructured) {
		p := Permission{Namespace: o.GetNamespace(), Group: o.GroupVersionKind().Group, Resource: resourceOf(o.GroupVersionKind()), Verbs: []string{"get", "create", "patch", "delete"},
			Why: "installs it, puts it back, and removes it with the cell"}
		if given(o) {
			p.Verbs, p.Why = []string{"get"}, "sees whether what the administrator gave is what this release needs"
		}
		if o.GetKind() == "Namespace" {
			p.Namespace = o.GetName()
		}
		at := slices.IndexFunc(out, func(q Permission) bool {
			return q.Namespace == p.Namespace && q.Group == p.Group && q.Resource == p.Resource && slices.Equal(q.Verbs, p.Verbs)
		})
		if at < 0 {
			out, at = append(out, p), len(out)
		}
		out[at].Names = append(out[at].Names, o.GetName())
	}
	add(i.secret(nil))
	for _, o := range i.objects {
		add(o)
	}
	slices.SortStableFunc(out, func(a, b Permission) int { return cmp.Compare(b.Namespace, a.Namespace) })
	return out
}

// Rights are the same by where they are: the cell's namespace, the one of the Kubernetes API, the cluster.
func (i *Installation) Rights() []config.Rights {
	out := []config.Rights{{Namespace: i.Namespace}, {Namespace: metav1.NamespaceDefault}, {}}
	for _, p := range i.Permissions() {
		at := slices.IndexFunc(out, func(r config.Rights) bool { return r.Namespace == p.Namespace })
		out[at].Rules = append(out[at].Rules, rbacv1.PolicyRule{APIGroups: []string{p.Group}, Resources: []string{p.Resource}, ResourceNames: p.Names, Verbs: p.Verbs})
	}
	return out
}

func resourceOf(gvk schema.GroupVersionKind) string {
	plural := strings.ToLower(gvk.Kind)
	if stem, ok := strings.CutSuffix(plural, "y"); ok {
		return stem + "ies"
	}
	return plural + "s"
}

// AdministratorsPart is what a cluster's administrator applies so that Account can do the rest: the namespace, the kinds and rights of both operators, and
// Account with its Permissions.
func (i *Installation) AdministratorsPart() ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, o := range i.objects {
		if given(o) {
			out = append(out, o)
		}
	}
	add := func(objects ...runtime.Object) error {
		for _, o := range objects {
			raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
			if err != nil {
				return fmt.Errorf("rights of %s: %w", Account, err)
			}
			u := &unstructured.Unstructured{Object: raw}
			unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
			out = append(out, u)
		}
		return nil
	}
	account := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": Account, "namespace": i.Namespace}}}
	out = append(out, account)
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: Account, Namespace: i.Namespace}}
	for _, r := range i.Rights() {
		meta, kind := metav1.ObjectMeta{Name: Account, Namespace: r.Namespace}, "Role"
		if r.Namespace != i.Namespace {
			meta.Name += "-" + i.Namespace
		}
		if r.Namespace == "" {
			kind = "ClusterRole"
		}
		types := func(kind string) metav1.TypeMeta {
			return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
		}
		ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: meta.Name}
		var err error
		if r.Namespace == "" {
			err = add(&rbacv1.ClusterRole{TypeMeta: types(kind), ObjectMeta: meta, Rules: r.Rules},
				&rbacv1.ClusterRoleBinding{TypeMeta: types(kind + "Binding"), ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
		} else {
			err = add(&rbacv1.Role{TypeMeta: types(kind), ObjectMeta: meta, Rules: r.Rules},
				&rbacv1.RoleBinding{TypeMeta: types(kind + "Binding"), ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
