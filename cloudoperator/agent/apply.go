// SPDX-License-Identifier: FSL-1.1-ALv2

package agent

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/audit"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// FieldOwner of the agent in server-side apply.
const FieldOwner = "kaphera-cell-agent"

// kinds that a snapshot may hold, in the order in which they are applied. They are pruned the other way round, and what the later kinds need
// stays until those are gone: a participant context is taken down by its connector.
var kinds = []string{"Connector", "CredentialIssuer", "ParticipantContext"}

type applier struct {
	client    client.Client
	reader    client.Reader
	namespace string
	cell      string
	applied   map[string]applied // by kind/name
}

// applied is what was wanted of an object when it was applied, and what it became: while neither changes, applying it again would change nothing. So
// a snapshot costs what it changes, however many objects it holds.
type applied struct {
	wanted     [sha256.Size]byte
	uid        types.UID
	generation int64
}

func gvk(kind string) schema.GroupVersionKind { return edc.GroupVersion.WithKind(kind) }

// check refuses what a snapshot must not hold, before anything is applied.
func (a applier) check(objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		switch k := o.GroupVersionKind(); {
		case k.GroupVersion() != edc.GroupVersion || !slices.Contains(kinds, k.Kind):
			return fmt.Errorf("the snapshot holds a %s, which an agent does not apply", k)
		case o.GetNamespace() != a.namespace:
			return fmt.Errorf("the snapshot holds %s %s for namespace %q, this agent works in %q only", k.Kind, o.GetName(), o.GetNamespace(), a.namespace)
		case o.GetLabels()[snapshot.ManagedLabel] != a.cell:
			return fmt.Errorf("the snapshot holds %s %s without the label %s=%s", k.Kind, o.GetName(), snapshot.ManagedLabel, a.cell)
		}
	}
	return nil
}

// Apply makes the namespace hold exactly these objects. It says whether a deletion is still under way. One object that the cluster refuses does not keep
// the others from being applied. It is called for one snapshot after the other.
func (a *Agent) Apply(ctx context.Context, objects []*unstructured.Unstructured) (unfinished bool, err error) {
	return a.applier.apply(ctx, objects)
}

// apply makes the namespace hold exactly these objects. It says whether a deletion is still under way. One object that the cluster refuses
// does not keep the others from being applied.
func (a applier) apply(ctx context.Context, objects []*unstructured.Unstructured) (unfinished bool, err error) {
	if err := a.check(objects); err != nil {
		return false, err
	}
	wanted := map[string]bool{}
	var errs []error
	prune := len(a.applied) == 0 // nothing is known of what there is
	for _, kind := range kinds {
		there, err := a.there(ctx, kind)
		if err != nil {
			return false, err
		}
		for _, o := range objects {
			if o.GetKind() != kind {
				continue
			}
			wanted[kind+"/"+o.GetName()] = true
			if err := a.applyOne(ctx, o, there[o.GetName()]); err != nil {
				errs = append(errs, fmt.Errorf("apply %s %s: %w", kind, o.GetName(), err))
			}
		}
		for name := range there {
			prune = prune || !wanted[kind+"/"+name]
		}
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	for name := range a.applied { // also one that the cache does not have yet
		prune = prune || !wanted[name]
	}
	if !prune {
		return false, nil
	}
	for _, kind := range slices.Backward(kinds) {
		left, err := a.prune(ctx, kind, wanted)
		if err != nil {
			return false, err
		}
		if left > 0 {
			return true, nil // the kinds before it wait
		}
	}
	maps.DeleteFunc(a.applied, func(name string, _ applied) bool { return !wanted[name] })
	return false, nil
}

// there are the objects of a kind by name, as the cache has them.
func (a applier) there(ctx context.Context, kind string) (map[string]*unstructured.Unstructured, error) {
	items, err := a.list(ctx, a.reader, kind)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*unstructured.Unstructured, len(items))
	for i := range items {
		out[items[i].GetName()] = &items[i]
	}
	return out, nil
}

// applyOne applies an object unless it is there as it was applied last; live is what the cache has.
func (a applier) applyOne(ctx context.Context, o, live *unstructured.Unstructured) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	name, sum := o.GetKind()+"/"+o.GetName(), sha256.Sum256(raw)
	if live != nil && a.applied[name] == (applied{sum, live.GetUID(), live.GetGeneration()}) && holds(live.GetLabels(), o.GetLabels()) && holds(live.GetAnnotations(), o.GetAnnotations()) {
		return nil
	}
	delete(a.applied, name)
	became := o.DeepCopy() // the answer is written into it
	if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(became), client.FieldOwner(FieldOwner), client.ForceOwnership); err != nil {
		return err
	}
	a.applied[name] = applied{sum, became.GetUID(), became.GetGeneration()}
	return nil
}

// holds tells whether all of some is in m: a change of labels and annotations is no new generation.
func holds(m, some map[string]string) bool {
	for k, v := range some {
		if got, ok := m[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// prune deletes the objects of a kind that are not wanted and returns how many of those are still there.
func (a applier) prune(ctx context.Context, kind string, wanted map[string]bool) (int, error) {
	items, err := a.list(ctx, a.client, kind)
	if err != nil {
		return 0, err
	}
	left := 0
	for i := range items {
		o := &items[i]
		if wanted[kind+"/"+o.GetName()] {
			continue
		}
		left++
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		if err := a.client.Delete(ctx, o); err != nil && !apierrors.IsNotFound(err) {
			return left, fmt.Errorf("delete %s %s: %w", kind, o.GetName(), err)
		}
	}
	return left, nil
}

// list returns what a cache holds itself: it is not to be changed.
func (a applier) list(ctx context.Context, r client.Reader, kind string) ([]unstructured.Unstructured, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk(kind + "List"))
	if err := r.List(ctx, list, client.InNamespace(a.namespace), client.MatchingLabels{snapshot.ManagedLabel: a.cell}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list %ss: %w", kind, err)
	}
	return list.Items, nil
}

// observe returns the state of every managed object.
func (a applier) observe(ctx context.Context) ([]celllink.Object, error) {
	var out []celllink.Object
	for _, kind := range kinds {
		items, err := a.list(ctx, a.reader, kind)
		if err != nil {
			return nil, err
		}
		for i := range items {
			o := &items[i]
			obs := celllink.Object{Kind: kind, Name: o.GetName(), Generation: o.GetGeneration(), Deleting: o.GetDeletionTimestamp() != nil}
			if status, ok := o.Object["status"]; ok {
				if obs.Status, err = json.Marshal(status); err != nil {
					return nil, fmt.Errorf("status of %s %s: %w", kind, o.GetName(), err)
				}
			}
			out = append(out, obs)
		}
	}
	return out, nil
}

// resolve finds the connector of a participant of the snapshot, or one of its issuers, for calls from the cloud. An agent that has just taken the place of
// another one waits for the snapshot.
func (a *Agent) resolve(ctx context.Context, r cellrpc.Request) (cellrpc.Target, bool, error) {
	kind, name, of := "Connector", snapshot.ConnectorName, "ParticipantContext/"+r.Participant
	if r.Issuer != "" {
		kind, name, of = "CredentialIssuer", r.Issuer, "CredentialIssuer/"+r.Issuer
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case <-a.known:
	case <-ctx.Done():
		return cellrpc.Target{}, false, errors.New("the agent has no snapshot yet, and does not know what the cell runs")
	}
	a.mu.Lock()
	runs := a.state.served[of]
	a.mu.Unlock()
	if !runs {
		return cellrpc.Target{}, false, nil
	}
	t, err := a.internal(ctx, kind, name)
	return t, true, err
}

// internal is the internal API of the cell's connector, or of an issuer.
func (a *Agent) internal(ctx context.Context, kind, name string) (cellrpc.Target, error) {
	c := &unstructured.Unstructured{}
	c.SetGroupVersionKind(gvk(kind))
	if err := a.Cache.Get(ctx, types.NamespacedName{Namespace: a.Namespace, Name: name}, c); err != nil {
		return cellrpc.Target{}, fmt.Errorf("read the %s: %w", kind, err)
	}
	url, _, _ := unstructured.NestedString(c.Object, "status", "internalURL")
	secret, _, _ := unstructured.NestedString(c.Object, "status", "internalSecret")
	if url == "" || secret == "" {
		return cellrpc.Target{}, errors.New("it is not up yet: its status has no internal address")
	}
	var s corev1.Secret
	if err := a.Client.Get(ctx, types.NamespacedName{Namespace: a.Namespace, Name: secret}, &s); err != nil {
		return cellrpc.Target{}, fmt.Errorf("read its token: %w", err)
	}
	token := string(s.Data["token"])
	if token == "" {
		return cellrpc.Target{}, fmt.Errorf("secret %s has no key token", secret)
	}
	return cellrpc.Target{URL: url, Token: token}, nil
}

// heads asks the connector for the heads of its audit chains.
func (a *Agent) heads(ctx context.Context) ([]audit.Head, error) {
	t, err := a.internal(ctx, "Connector", snapshot.ConnectorName)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(t.URL, "/")+"/admin/v1/audit/heads", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+t.Token)
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the connector answered %s", resp.Status)
	}
	var heads []audit.Head
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxHeads)).Decode(&heads); err != nil {
		return nil, fmt.Errorf("the connector's answer: %w", err)
	}
	return heads, nil
}

const maxHeads = 512 << 10 // bytes of an answer, so that a report fits into a message

// Kinds that an agent applies and watches.
func Kinds() []string { return slices.Clone(kinds) }
