// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// Backend names one port of a Service.
type Backend struct {
	Namespace, Service string
	PortName           string // empty: PortNumber
	PortNumber         int32
}

func (b Backend) String() string {
	if b.PortName != "" {
		return fmt.Sprintf("%s/%s:%s", b.Namespace, b.Service, b.PortName)
	}
	return fmt.Sprintf("%s/%s:%d", b.Namespace, b.Service, b.PortNumber)
}

// route is one path of a host.
type route struct {
	path    string
	exact   bool
	backend Backend
}

// Table finds the backend of a request. It does not change once made.
type Table struct {
	hosts  map[string][]route // "" is every host; "*.x" any first label below x
	orphan []route            // default backends, tried last
}

// NewTable makes the table of the Ingress objects of one class. Of two that
// claim the same path of a host the older one has it.
func NewTable(class string, ingresses []*networkingv1.Ingress) *Table {
	mine := slices.DeleteFunc(slices.Clone(ingresses), func(i *networkingv1.Ingress) bool {
		return i.DeletionTimestamp != nil || i.Spec.IngressClassName == nil || *i.Spec.IngressClassName != class
	})
	slices.SortFunc(mine, func(a, b *networkingv1.Ingress) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	t := &Table{hosts: map[string][]route{}}
	for _, ingress := range mine {
		if b := ingress.Spec.DefaultBackend; b != nil && b.Service != nil {
			t.orphan = append(t.orphan, route{"/", false, backendOf(ingress.Namespace, b.Service)})
		}
		for _, rule := range ingress.Spec.Rules {
			if rule.HTTP == nil {
				continue
			}
			for _, p := range rule.HTTP.Paths {
				if p.Backend.Service == nil {
					continue // a resource backend: nothing here serves one
				}
				exact := p.PathType != nil && *p.PathType == networkingv1.PathTypeExact
				host := strings.ToLower(rule.Host)
				t.hosts[host] = append(t.hosts[host], route{cmp.Or(p.Path, "/"), exact, backendOf(ingress.Namespace, p.Backend.Service)})
			}
		}
	}
	for _, routes := range t.hosts {
		// Longest first, an exact path before a prefix; the sort keeps the older one first.
		slices.SortStableFunc(routes, func(a, b route) int {
			if a.exact != b.exact && a.path == b.path {
				return map[bool]int{true: -1, false: 1}[a.exact]
			}
			return cmp.Compare(len(b.path), len(a.path))
		})
	}
	return t
}

func backendOf(namespace string, s *networkingv1.IngressServiceBackend) Backend {
	return Backend{Namespace: namespace, Service: s.Name, PortName: s.Port.Name, PortNumber: s.Port.Number}
}

// Find returns the backend of a request and whether there is one.
func (t *Table) Find(host, path string) (Backend, bool) {
	for _, name := range candidates(host) {
		for _, r := range t.hosts[name] {
			if r.matches(path) {
				return r.backend, true
			}
		}
	}
	if len(t.orphan) > 0 {
		return t.orphan[0].backend, true
	}
	return Backend{}, false
}

// Knows tells whether any Ingress names the host.
func (t *Table) Knows(host string) bool {
	return slices.ContainsFunc(candidates(host), func(name string) bool { return name != "" && len(t.hosts[name]) > 0 })
}

// Hosts lists the full host names of the table, in order.
func (t *Table) Hosts() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(t.hosts)), func(h string) bool { return h == "" || strings.HasPrefix(h, "*") })
}

func candidates(host string) []string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	return []string{host, "*." + parent, ""}
}

// matches compares whole path elements, as the Ingress API says: /a matches
// /a, /a/ and /a/b, not /ab.
func (r route) matches(path string) bool {
	if r.exact {
		return path == r.path
	}
	prefix := strings.TrimSuffix(r.path, "/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}
