// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// With --namespaces a RoleBinding in each of them is enough: the caches fill, and nothing is read elsewhere.
func TestWatchedNamespacesNeedNoClusterWideRight(t *testing.T) {
	t.Parallel()
	mine, other := newCell(t), newCell(t)
	create(t, mine.participant("mine", "mine"))
	create(t, other.participant("other", "other"))
	create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "scoped", Namespace: mine.namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "kaphera-edc-operator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "scoped", Namespace: mine.namespace}},
	})
	mgr, err := edcoperator.NewManager(t.Context(), as("system:serviceaccount:"+mine.namespace+":scoped"), edcoperator.Options{
		ConnectorImage: connectorImage, Namespaces: []string{mine.namespace}, MetricsAddress: "0", HealthAddress: "0", Dial: net1.dial, SkipNameValidation: true,
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		t.Error("the caches did not fill")
	}
	var l v1alpha1.ParticipantContextList
	must(t, mgr.GetClient().List(ctx, &l))
	if len(l.Items) != 1 || l.Items[0].Name != "mine" {
		t.Errorf("sees %v", l.Items)
	}
	err = mgr.GetAPIReader().List(ctx, &v1alpha1.ParticipantContextList{}, client.InNamespace(other.namespace))
	if err == nil {
		t.Error("may read another namespace")
	}
	cancel()
	must(t, <-done)
}
