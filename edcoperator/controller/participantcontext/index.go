// SPDX-License-Identifier: Apache-2.0

package participantcontext

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// indexConnector finds the ParticipantContexts of a Connector in the cache.
const indexConnector = "spec.connectorRef.name"

// Index registers the index that Of uses.
func Index(ctx context.Context, indexer client.FieldIndexer) error {
	return indexer.IndexField(ctx, &v1alpha1.ParticipantContext{}, indexConnector, func(o client.Object) []string {
		p, ok := o.(*v1alpha1.ParticipantContext)
		if !ok {
			return nil
		}
		return []string{p.Spec.ConnectorRef.Name}
	})
}

// Of lists the ParticipantContexts of a Connector, the oldest first.
func Of(ctx context.Context, c client.Reader, namespace, connector string) ([]v1alpha1.ParticipantContext, error) {
	var l v1alpha1.ParticipantContextList
	if err := c.List(ctx, &l, client.InNamespace(namespace), client.MatchingFields{indexConnector: connector}); err != nil {
		return nil, fmt.Errorf("list the participant contexts of Connector %s/%s: %w", namespace, connector, err)
	}
	slices.SortFunc(l.Items, func(a, b v1alpha1.ParticipantContext) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return l.Items, nil
}

// Holding returns what of contexts, oldest first, a Connector serves: of several with one id the oldest, and none at a host that is not the Connector's.
func Holding(c *v1alpha1.Connector, contexts []v1alpha1.ParticipantContext) []workload.Tenant {
	var out []workload.Tenant
	for i := range contexts {
		s := contexts[i].Spec
		if contexts[i].DeletionTimestamp.IsZero() && hosted(c, s.Hostname) && !slices.ContainsFunc(out, func(t workload.Tenant) bool { return t.Context == s.Context }) {
			out = append(out, workload.Tenant{Context: s.Context, Hostname: s.Hostname})
		}
	}
	return out
}

// hosted reports whether a Connector serves a host name; empty is its own.
func hosted(c *v1alpha1.Connector, hostname string) bool {
	return hostname == "" || hostname == c.Spec.Exposure.Hostname || slices.ContainsFunc(c.Spec.FurtherHosts, func(h v1alpha1.FurtherHost) bool { return h.Hostname == hostname })
}

// holder returns the object that has the context id of p: the oldest of those with it.
func holder(contexts []v1alpha1.ParticipantContext, p *v1alpha1.ParticipantContext) *v1alpha1.ParticipantContext {
	for i := range contexts {
		if contexts[i].Spec.Context == p.Spec.Context {
			return &contexts[i]
		}
	}
	return p
}
