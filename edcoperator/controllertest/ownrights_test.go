// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator"
	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/rights"
	"github.com/kaphera/kaphera/edcoperator/rights/rightstest"
	"github.com/kaphera/kaphera/test/freeport"
)

// As in a company's cluster: each verb of each rule of the operator's Roles is taken away in turn; the operator is not ready, says which it lacks, and is
// ready again when it has it back.
func TestEachOfItsRightsIsMissed(t *testing.T) {
	t.Parallel()
	const namespace = "cell-own-rights"
	create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	objects, err := config.InNamespace(namespace, config.OperatorImage, connectorImage)
	must(t, err)
	var roles []*rbacv1.Role
	for _, o := range objects {
		if o.GetKind() != "Role" && o.GetKind() != "RoleBinding" {
			continue
		}
		must(t, admin.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o.DeepCopy()), client.FieldOwner("test")))
		if o.GetKind() == "Role" {
			role := &rbacv1.Role{}
			must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(o), role))
			roles = append(roles, role)
		}
	}
	account := as("system:serviceaccount:" + namespace + ":" + config.ServiceAccount)
	needed, err := config.OperatorRightsIn(namespace)
	must(t, err)
	rightstest.EachIsMissed(t, admin, account, needed, roles...)
	rightstest.NoSecretElsewhere(t, admin, account, namespace)
}

// The operator's readiness is that of its rights, also before its caches have filled, for which it may lack one.
func TestAnOperatorWithoutItsRightsIsNotReady(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	port, err := freeport.Pick()
	must(t, err)
	mgr, err := edcoperator.NewManager(t.Context(), as("system:serviceaccount:"+c.namespace+":nobody"), edcoperator.Options{
		ConnectorImage: connectorImage, Namespace: c.namespace, Namespaces: []string{c.namespace}, MetricsAddress: "0", HealthAddress: fmt.Sprintf("127.0.0.1:%d", port), Dial: net1.dial, SkipNameValidation: true,
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		t.Log("the manager ended: ", <-done) // it may have given up waiting for its caches
	})
	ready := func(want int) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/readyz", port), http.NoBody)
			if err != nil {
				return err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer func() { _ = resp.Body.Close() }()
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
				return fmt.Errorf("%s %s", resp.Status, body)
			}
			return nil
		})
	}
	ready(http.StatusInternalServerError)
	given, err := config.OperatorRightsIn(c.namespace)
	must(t, err)
	for n, r := range given {
		meta := metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", c.namespace, n), Namespace: r.Namespace}
		create(t, &rbacv1.Role{ObjectMeta: meta, Rules: r.Rules})
		create(t, &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "nobody", Namespace: c.namespace}}})
	}
	ready(http.StatusOK)
}

// A cluster may forbid it to ask: the operator says so, and works.
func TestRightsThatMayNotBeAskedFor(t *testing.T) {
	t.Parallel()
	cfg := rest.CopyConfig(adminTo)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:anonymous"}
	needed, err := config.OperatorRightsIn("default")
	must(t, err)
	said := make(chan string, 1)
	own, err := rights.NewOwn(cfg, needed, funcr.New(func(_, args string) { said <- args }, funcr.Options{}))
	must(t, err)
	eventually(t, func(context.Context) error { return own.Check(nil) })
	if log := <-said; !strings.Contains(log, "does not let the operator ask for its rights") {
		t.Errorf("the log says %s", log)
	}
}
