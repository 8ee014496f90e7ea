// SPDX-License-Identifier: FSL-1.1-ALv2

package participant

import (
	"bytes"
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
)

// Work that one participant makes must not grow with the number of its neighbours: they are found by index, and a report of their cell reaches those
// of whom it says something new.
const (
	indexCell    = "cells"
	indexContext = "spec.identity.context"
)

func index(ctx context.Context, indexer client.FieldIndexer) error {
	for name, of := range map[string]func(*cloud.Participant) []string{
		indexCell: (*cloud.Participant).Cells, indexContext: func(p *cloud.Participant) []string { return []string{p.Spec.Identity.Context} },
	} {
		if err := indexer.IndexField(ctx, &cloud.Participant{}, name, func(o client.Object) []string {
			p, ok := o.(*cloud.Participant)
			if !ok {
				return nil
			}
			return of(p)
		}); err != nil {
			return fmt.Errorf("index the participants by %s: %w", name, err)
		}
	}
	return nil
}

// list returns what the cache holds itself: it is not to be changed.
func (r *Reconciler) list(ctx context.Context, namespace, index, value string) ([]cloud.Participant, error) {
	var l cloud.ParticipantList
	if err := r.Client.List(ctx, &l, client.InNamespace(namespace), client.MatchingFields{index: value}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the participants by %s: %w", index, err)
	}
	return l.Items, nil
}

// ofContext are all participants that want the context of this one: the next gets it when this one goes.
func (r *Reconciler) ofContext(ctx context.Context, o client.Object) []reconcile.Request {
	p, ok := o.(*cloud.Participant)
	if !ok {
		return nil
	}
	return r.which(ctx, o.GetNamespace(), indexContext, p.Spec.Identity.Context, all)
}

// ofCell are all participants that have to do with a cell.
func (r *Reconciler) ofCell(ctx context.Context, o client.Object) []reconcile.Request {
	return r.which(ctx, o.GetNamespace(), indexCell, o.GetName(), all)
}

func all(*cloud.Participant) bool { return true }

func (r *Reconciler) which(ctx context.Context, namespace, index, value string, want func(*cloud.Participant) bool) (out []reconcile.Request) {
	found, err := r.list(ctx, namespace, index, value)
	if err != nil {
		return nil // the cache is stopping
	}
	for i := range found {
		if want(&found[i]) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&found[i])})
		}
	}
	return out
}

// reportedAnew are the participants of whom the cell's report says something else than the one before; all, when there was none for so long that they may
// have been told that the cell is silent.
func (r *Reconciler) reportedAnew(ctx context.Context, o client.Object) []reconcile.Request {
	report, at := r.Reports(o.GetName())
	now := heard{report, at}
	r.mu.Lock()
	before := r.last[o.GetName()]
	if r.last == nil {
		r.last = map[string]heard{}
	}
	r.last[o.GetName()] = now
	r.mu.Unlock()
	if before.report == nil || now.report == nil || now.at.Sub(before.at) > celllink.SilentAfter {
		return r.ofCell(ctx, o)
	}
	was, is := contexts(before.report), contexts(now.report)
	return r.which(ctx, o.GetNamespace(), indexCell, o.GetName(), func(p *cloud.Participant) bool {
		a, b := was[p.Spec.Identity.Context], is[p.Spec.Identity.Context]
		return (a == nil) != (b == nil) || a != nil && (a.Generation != b.Generation || a.Deleting != b.Deleting || !bytes.Equal(a.Status, b.Status))
	})
}

func contexts(r *celllink.Report) map[string]*celllink.Object {
	out := make(map[string]*celllink.Object, len(r.Objects))
	for i := range r.Objects {
		if o := &r.Objects[i]; o.Kind == "ParticipantContext" {
			out[o.Name] = o
		}
	}
	return out
}

// connectedChanged lets a Cell pass when it begins or ceases to be heard.
type connectedChanged struct{ predicate.Funcs }

func (connectedChanged) Update(e event.UpdateEvent) bool {
	return connected(e.ObjectOld) != connected(e.ObjectNew)
}

func connected(o client.Object) metav1.ConditionStatus {
	if c, ok := o.(*cloud.Cell); ok {
		if of := meta.FindStatusCondition(c.Status.Conditions, cloud.ConditionConnected); of != nil {
			return of.Status
		}
	}
	return ""
}
