// SPDX-License-Identifier: Apache-2.0

// Package stage holds the steps that running a connector image takes whatever its role, in the order in which they happen: Secrets,
// Vault, migration, Deployments. Each returns nil when its step is done, an outcome.StopError when it cannot be yet, with the reason in
// words, or another error when a call to the cluster failed. What is particular to a kind lives with that kind.
package stage

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// FieldOwner is the operator's name in server-side apply.
const FieldOwner = "kaphera-edc-operator"

// How long to wait before looking again.
const (
	RetrySoon = 3 * time.Second  // something is under way
	RetryLate = 10 * time.Second // somebody has to do something
)

// Runner runs the steps.
type Runner struct {
	// Client reads what it watches from a cache. Reader asks the API server: Secrets and Pods, which are not watched, so that the
	// operator needs no right to list Secrets and keeps no copy of every Pod.
	Client client.Client
	Reader client.Reader
	// Dial opens connections to pods, services and the Vault; nil is the network.
	Dial runtimeclient.DialFunc
	Now  func() time.Time
	// Namespace of the operator's own Pods; empty when it runs outside the cluster.
	Namespace string
}

// Apply makes an object as it should be and leaves alone what others own in it. Nothing is written when nothing differs.
func (r *Runner) Apply(ctx context.Context, o client.Object) error {
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return fmt.Errorf("convert %s: %w", describe(o), err)
	}
	delete(tree, "status")
	for _, path := range [][]string{{"metadata", "creationTimestamp"}, {"spec", "template", "metadata", "creationTimestamp"}} {
		unstructured.RemoveNestedField(tree, path...)
	}
	u := &unstructured.Unstructured{Object: tree}
	if err := r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldOwner), client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s: %w", describe(o), err)
	}
	return nil
}

// Delete removes an object that is not wanted any more; one that is not there is no error.
func (r *Runner) Delete(ctx context.Context, o client.Object) error {
	err := r.Client.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", describe(o), err)
	}
	return nil
}

// Run takes rt through every step and sets its conditions in o. ingress is nil when there is nothing to route.
func (r *Runner) Run(ctx context.Context, rt *workload.Runtime, o outcome.Object, ingress *networkingv1.Ingress) error {
	if err := r.Secrets(ctx, rt); err != nil {
		return err
	}
	for _, obj := range []client.Object{rt.ConfigMap(), rt.ServiceAccount(workload.Migrate), rt.ServiceAccount(workload.Backup), rt.ServiceAccount(workload.Restore)} {
		if err := r.Apply(ctx, obj); err != nil {
			return err
		}
	}
	if err := r.isolate(ctx, rt); err != nil { // before any Pod runs
		return err
	}
	if err := r.Vault(ctx, rt.Vault); err != nil {
		return err
	}
	VaultAnswers(o)
	if err := r.Migrate(ctx, rt, meta.FindStatusCondition(*o.GetConditions(), v1alpha1.ConditionDatabaseReady)); err != nil {
		return err
	}
	Migrated(o, rt)
	if err := r.route(ctx, rt, ingress); err != nil {
		return err
	}
	return r.Workloads(ctx, rt, o)
}

// isolate applies the NetworkPolicies.
func (r *Runner) isolate(ctx context.Context, rt *workload.Runtime) error {
	var api discoveryv1.EndpointSlice
	if err := r.Reader.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, &api); err != nil {
		return fmt.Errorf("read EndpointSlice default/kubernetes, the addresses that connectors are kept from: %w", err)
	}
	rt.OperatorNamespace, rt.APIServers = r.Namespace, apiServers(&api)
	for _, p := range rt.NetworkPolicies() {
		if err := r.Apply(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func apiServers(s *discoveryv1.EndpointSlice) []netip.AddrPort {
	var out []netip.AddrPort
	for _, e := range s.Endpoints {
		for _, address := range e.Addresses {
			a, err := netip.ParseAddr(address)
			if err != nil {
				continue // a name
			}
			for _, p := range s.Ports {
				if port := ptr.Deref(p.Port, 0); port > 0 && ptr.Deref(p.Name, "") == "https" {
					out = append(out, netip.AddrPortFrom(a, uint16(port)))
				}
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// route applies the Ingress, or removes the one that is not wanted any more.
func (r *Runner) route(ctx context.Context, rt *workload.Runtime, want *networkingv1.Ingress) error {
	if want != nil {
		return r.Apply(ctx, want)
	}
	var found networkingv1.Ingress
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: rt.Namespace, Name: rt.Name}, &found)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Ingress %s/%s: %w", rt.Namespace, rt.Name, err)
	}
	if !metav1.IsControlledBy(&found, &metav1.ObjectMeta{UID: rt.Owner.UID}) {
		return nil
	}
	return r.Delete(ctx, &found)
}

func describe(o client.Object) string {
	return fmt.Sprintf("%s %s/%s", o.GetObjectKind().GroupVersionKind().Kind, o.GetNamespace(), o.GetName())
}
