// SPDX-License-Identifier: FSL-1.1-ALv2

package kube

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// WriteStatus patches in the status of o what differs from before, and tells people, in events, which conditions have changed; r may be nil. Each status
// has one writer, so that no lock is needed.
func WriteStatus(ctx context.Context, c client.Client, r events.EventRecorder, o, before Object) error {
	return writeStatus(ctx, c, r, o, before, client.MergeFrom(before))
}

// WriteStatusOver is WriteStatus, and fails with a conflict when o is no more what before was.
func WriteStatusOver(ctx context.Context, c client.Client, r events.EventRecorder, o, before Object) error {
	return writeStatus(ctx, c, r, o, before, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

func writeStatus(ctx context.Context, c client.Client, r events.EventRecorder, o, before Object, patch client.Patch) error {
	if equality.Semantic.DeepEqual(before, o) {
		return nil
	}
	if err := c.Status().Patch(ctx, o, patch); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("write the status of %s: %w", name(o), err))
	}
	if r != nil {
		tell(r, before, o)
	}
	return nil
}

// EnqueueAll makes every object of a list in the event's namespace reconciled: for few objects that depend on many. list returns a new,
// empty list each time.
func EnqueueAll(c client.Reader, list func() client.ObjectList) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		l := list()
		if err := c.List(ctx, l, client.InNamespace(o.GetNamespace())); err != nil {
			return nil // the cache is stopping
		}
		return Requests(l)
	})
}

// In lists the names of users for a condition's message.
func In(users []string) string {
	const few = 5
	if len(users) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(users[:few], ", "), len(users)-few)
	}
	return strings.Join(users, ", ")
}

// Requests are the requests for the items of a list.
func Requests(l client.ObjectList) []reconcile.Request {
	var out []reconcile.Request
	_ = apimeta.EachListItem(l, func(item runtime.Object) error { // the callback never fails
		if o, ok := item.(client.Object); ok {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		}
		return nil
	})
	return out
}
