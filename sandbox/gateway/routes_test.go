// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type rule struct {
	host, path string
	kind       networkingv1.PathType
	service    string
}

func ingress(name string, age time.Duration, rules ...rule) *networkingv1.Ingress {
	class := Class
	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-age)),
	}}
	i.Spec.IngressClassName = &class
	for _, r := range rules {
		kind := r.kind
		i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: r.host, IngressRuleValue: networkingv1.IngressRuleValue{
			HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
				Path: r.path, PathType: &kind, Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
					Name: r.service, Port: networkingv1.ServiceBackendPort{Number: 80},
				}},
			}}},
		}})
	}
	return i
}

func TestFind(t *testing.T) {
	foreign := ingress("foreign", 0, rule{"foreign.test", "/", networkingv1.PathTypePrefix, "foreign"})
	*foreign.Spec.IngressClassName = "nginx"
	table := NewTable(Class, []*networkingv1.Ingress{
		ingress("young", 0, rule{"a.test", "/", networkingv1.PathTypePrefix, "usurper"}),
		ingress("old", time.Hour,
			rule{"a.test", "/", networkingv1.PathTypePrefix, "root"},
			rule{"a.test", "/api", networkingv1.PathTypePrefix, "api"},
			rule{"a.test", "/api/v1/", networkingv1.PathTypeImplementationSpecific, "v1"},
			rule{"a.test", "/api", networkingv1.PathTypeExact, "exactly"},
			rule{"A.upper.test", "/", networkingv1.PathTypePrefix, "upper"},
			rule{"*.wild.test", "/", networkingv1.PathTypePrefix, "wild"},
			rule{"known.wild.test", "/only", networkingv1.PathTypePrefix, "known"},
		),
		foreign,
	})
	for _, c := range []struct{ host, path, want string }{
		{"a.test", "/", "root"},
		{"A.Test.", "/", "root"},
		{"a.test", "/apiary", "root"},
		{"a.test", "/api", "exactly"},
		{"a.test", "/api/", "api"},
		{"a.test", "/api/v2", "api"},
		{"a.test", "/api/v1", "v1"},
		{"a.test", "/api/v1/x", "v1"},
		{"a.test", "/api/v10", "api"},
		{"a.upper.test", "/", "upper"},
		{"x.wild.test", "/", "wild"},
		{"x.y.wild.test", "/", ""},
		{"known.wild.test", "/only/this", "known"},
		{"known.wild.test", "/other", "wild"},
		{"foreign.test", "/", ""},
		{"unknown.test", "/", ""},
	} {
		got, ok := table.Find(c.host, c.path)
		if ok != (c.want != "") || got.Service != c.want {
			t.Errorf("Find(%q, %q) = %v, %v; want Service %q", c.host, c.path, got, ok, c.want)
		}
	}
	if got, want := table.Hosts(), []string{"a.test", "a.upper.test", "known.wild.test"}; !slices.Equal(got, want) {
		t.Errorf("Hosts() = %v, want %v", got, want)
	}
	for host, want := range map[string]bool{"a.test": true, "x.wild.test": true, "wild.test": false, "foreign.test": false} {
		if got := table.Knows(host); got != want {
			t.Errorf("Knows(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestADefaultBackendTakesWhatNobodyElseDoes(t *testing.T) {
	i := ingress("default", 0, rule{"a.test", "/x", networkingv1.PathTypePrefix, "x"})
	i.Spec.DefaultBackend = &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
		Name: "rest", Port: networkingv1.ServiceBackendPort{Name: "web"},
	}}
	table := NewTable(Class, []*networkingv1.Ingress{i})
	for path, want := range map[string]string{"/x": "ns/x:80", "/y": "ns/rest:web"} {
		if got, ok := table.Find("a.test", path); !ok || got.String() != want {
			t.Errorf("Find(%q) = %v, %v; want %s", path, got, ok, want)
		}
	}
}

func TestAnIngressBeingDeletedServesNothing(t *testing.T) {
	i := ingress("going", 0, rule{"a.test", "/", networkingv1.PathTypePrefix, "x"})
	i.DeletionTimestamp = &metav1.Time{Time: time.Unix(1e9, 0)}
	if b, ok := NewTable(Class, []*networkingv1.Ingress{i}).Find("a.test", "/"); ok {
		t.Errorf("found %v", b)
	}
}
