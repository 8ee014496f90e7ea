// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"errors"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/workload"
	"github.com/kaphera/kaphera/test/networkpolicy"
)

// A connector's and an issuer's Pods are closed before they run, to all but those who have business there; the policies go with their owner.
func TestRuntimesAreIsolated(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	issuer := c.issuer()
	create(t, issuer)
	c.await(issuer, "WorkloadsReady", metav1.ConditionTrue, "Available", "")
	var list networkingv1.NetworkPolicyList
	must(t, admin.List(t.Context(), &list, client.InNamespace(c.namespace)))
	for i := range list.Items {
		if p := &list.Items[i]; !metav1.IsControlledBy(p, conn) && !metav1.IsControlledBy(p, issuer) {
			t.Errorf("policy %s would stay behind: %v", p.Name, p.OwnerReferences)
		}
	}
	cluster := networkpolicy.Cluster{Policies: list.Items}
	operator := networkpolicy.Pod{Namespace: "kaphera-system", Labels: map[string]string{workload.LabelName: "edc-operator"}}
	stranger := networkpolicy.Pod{Namespace: "default"}
	for _, pod := range []networkpolicy.Pod{
		{Namespace: c.namespace, Labels: map[string]string{workload.LabelName: "connector", workload.LabelInstance: "shared", workload.LabelComponent: "control-plane"}},
		{Namespace: c.namespace, Labels: map[string]string{workload.LabelName: "connector", workload.LabelInstance: "shared", workload.LabelComponent: "wallet"}},
		{Namespace: c.namespace, Labels: map[string]string{workload.LabelName: "credential-issuer", workload.LabelInstance: issuer.Name, workload.LabelComponent: "issuer"}},
	} {
		for port, want := range map[int32][2]bool{workload.PublicPort: {true, true}, workload.InternalPort: {true, false}, workload.HealthPort: {true, false}} {
			byOperator, err := cluster.Admits(operator, pod, port)
			byStranger, err2 := cluster.Admits(stranger, pod, port)
			must(t, errors.Join(err, err2))
			if got := [2]bool{byOperator, byStranger}; got != want {
				t.Errorf("port %d of %v lets in operator and stranger: %v, want %v", port, pod.Labels, got, want)
			}
		}
	}
	// Somebody's change is undone.
	shared := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "shared-wallet"}}
	update(t, shared, func(p *networkingv1.NetworkPolicy) { p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}} })
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(shared), shared); err != nil {
			return err
		}
		if len(shared.Spec.Ingress) < 3 {
			return errors.New("it is as somebody made it")
		}
		return nil
	})
	isolation := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "shared-isolation"}}
	must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(isolation), isolation))
	found := false
	for _, rule := range isolation.Spec.Egress {
		for _, to := range rule.To {
			found = found || to.IPBlock != nil && to.IPBlock.CIDR == apiServer+"/32"
		}
	}
	if !found {
		t.Errorf("the API server's address is no exception: %+v", isolation.Spec.Egress)
	}
}
