// SPDX-License-Identifier: Apache-2.0

package participantcontext

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
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

// Holding returns the context ids that contexts, oldest first, hold: of several objects with one id the oldest has it.
func Holding(contexts []v1alpha1.ParticipantContext) []string {
	var ids []string
	for i := range contexts {
		if id := contexts[i].Spec.Context; contexts[i].DeletionTimestamp.IsZero() && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
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
