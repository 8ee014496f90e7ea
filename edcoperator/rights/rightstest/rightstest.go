// SPDX-License-Identifier: Apache-2.0

// Package rightstest tests an account's rights against a real API server: that each is missed, that each is used, and that none opens a Secret elsewhere.
// It belongs to tests only.
package rightstest

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/rights"
)

const patience = 3 * time.Minute

// EachIsMissed takes each verb of each rule of the roles away in turn. The account must then say which of its needed rights it lacks, in its readiness and
// in its log, and be ready again when it has them back.
func EachIsMissed(t *testing.T, admin client.Client, account *rest.Config, needed []config.Rights, roles ...*rbacv1.Role) {
	t.Helper()
	var mu sync.Mutex
	var log strings.Builder
	own, err := rights.NewOwn(account, needed, funcr.New(func(_, args string) {
		mu.Lock()
		defer mu.Unlock()
		log.WriteString(args + "\n")
	}, funcr.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	own.Every = 1 // asks again whenever it is looked at
	logged := func() string {
		mu.Lock()
		defer mu.Unlock()
		defer log.Reset()
		return log.String()
	}
	becomes := func(want ...string) {
		t.Helper()
		eventually(t, func() error {
			is := own.Check(nil)
			if is != nil && len(want) == 0 {
				return is
			}
			for _, w := range want {
				if is == nil || !strings.Contains(is.Error(), w) {
					return fmt.Errorf("it says %w, and not %q", is, w)
				}
			}
			return nil
		})
	}
	becomes()
	for _, role := range roles {
		for n, rule := range role.Rules {
			for _, verb := range rule.Verbs {
				var without rbacv1.Role
				role.DeepCopyInto(&without)
				r := &without.Rules[n]
				if r.Verbs = slices.DeleteFunc(r.Verbs, func(v string) bool { return v == verb }); len(r.Verbs) == 0 {
					without.Rules = slices.Delete(without.Rules, n, n+1)
				}
				logged()
				if err := admin.Update(t.Context(), &without); err != nil {
					t.Fatal(err)
				}
				missed := named(role.Namespace, verb, rule)
				becomes(missed...)
				for said := logged(); len(missed) > 0; missed = missed[1:] {
					if !strings.Contains(said, missed[0]) {
						t.Errorf("the log does not say %q: %s", missed[0], said)
					}
				}
				role.ResourceVersion = without.ResourceVersion
				if err := admin.Update(t.Context(), role); err != nil {
					t.Fatal(err)
				}
				becomes()
			}
		}
	}
	if len(roles) == 0 {
		t.Error("there was no right to take away")
	}
}

// named is how a verb of a rule is called when it is lacking, for each kind and name.
func named(namespace, verb string, rule rbacv1.PolicyRule) []string {
	var out []string
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			what := verb + " " + resource
			if group != "" {
				what += "." + group
			}
			for _, name := range append(rule.ResourceNames, "")[:max(1, len(rule.ResourceNames))] {
				out = append(out, strings.TrimSuffix(what+" "+name, " ")+" in namespace "+namespace)
			}
		}
	}
	return out
}

// NoSecretElsewhere tries to read Secrets with an account whose rights are those in a namespace.
func NoSecretElsewhere(t *testing.T, admin client.Client, account *rest.Config, namespace string) {
	t.Helper()
	as, err := client.New(account, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	other := namespace + "-other"
	if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}}); err != nil {
		t.Fatal(err)
	}
	// One of each name that it may read in its own.
	for _, ns := range []string{other, metav1.NamespaceDefault} {
		for _, name := range []string{"connector-internal", "db-owner"} {
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
			if err := admin.Create(t.Context(), s); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
			if err := as.Get(t.Context(), client.ObjectKeyFromObject(s), s); !apierrors.IsForbidden(err) {
				t.Errorf("it reads Secret %s in %s: %v", name, ns, err)
			}
		}
	}
	for _, ns := range []string{"", other, metav1.NamespaceDefault, namespace} {
		if err := as.List(t.Context(), &corev1.SecretList{}, client.InNamespace(ns)); !apierrors.IsForbidden(err) {
			t.Errorf("it lists the Secrets of %q: %v", ns, err)
		}
	}
}

// Asked records what clients ask an API server for.
type Asked struct {
	mu   sync.Mutex
	seen map[asked]bool
}

type asked struct{ verb, group, resource, name string }

// By returns cfg for clients whose requests are recorded.
func (a *Asked) By(cfg *rest.Config) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			is := parse(r)
			a.add(is)
			if r.URL.Query().Get("sendInitialEvents") == "true" { // where the API server can't stream a list, the client lists instead
				list := is
				list.verb = "list"
				a.add(list)
			}
			resp, err := next.RoundTrip(r)
			if err == nil && is.verb == "patch" && resp.StatusCode == http.StatusCreated { // for which the API server asks for both
				is.verb = "create"
				a.add(is)
			}
			return resp, err
		})
	})
	return cfg
}

func (a *Asked) add(is asked) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil {
		a.seen = map[asked]bool{}
	}
	a.seen[is] = true
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// parse reads a request as the API server does: /api/v1 or /apis/group/version, then namespaces/NAME, then resource/NAME/subresource.
func parse(r *http.Request) asked {
	var a asked
	p := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case p[0] == "apis" && len(p) > 3:
		a.group, p = p[1], p[3:]
	case p[0] == "api" && len(p) > 2:
		p = p[2:]
	default:
		return a // discovery
	}
	if p[0] == "namespaces" && len(p) > 2 {
		p = p[2:]
	}
	a.resource = p[0]
	if len(p) > 1 {
		a.name = p[1]
	}
	if len(p) > 2 {
		a.resource += "/" + p[2]
	}
	switch q := r.URL.Query(); {
	case r.Method == http.MethodGet && (q.Get("watch") == "true" || q.Get("watch") == "1"):
		a.verb = "watch"
	case r.Method == http.MethodGet && a.name == "":
		a.verb = "list"
	case r.Method == http.MethodDelete && a.name == "":
		a.verb = "deletecollection"
	default:
		a.verb = map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method]
	}
	return a
}

// Unused is an error when rules hold rights, such as "get secrets", that no request needed and for which no reason is given.
func (a *Asked) Unused(rules []rbacv1.PolicyRule, reasons map[string]string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					used := false
					for s := range a.seen {
						used = used || s.verb == verb && s.group == group && s.resource == resource && (len(rule.ResourceNames) == 0 || slices.Contains(rule.ResourceNames, s.name))
					}
					right := verb + " " + resource
					if group != "" {
						right += "." + group
					}
					if !used && reasons[right] == "" {
						out = append(out, right)
					}
				}
			}
		}
	}
	if len(out) > 0 {
		return fmt.Errorf("rights that no request needed: take them away, or give the reason where this is called: %s", strings.Join(out, "; "))
	}
	return nil
}

// Whole tells whether all tests of the package ran, and not some that were chosen.
func Whole() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("did not come about: %v", err)
		case <-tick.C:
		}
	}
}
