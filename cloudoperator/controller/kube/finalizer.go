// SPDX-License-Identifier: FSL-1.1-ALv2

package kube

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

// AddFinalizer holds back the deletion of o until RemoveFinalizer.
func AddFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer string) error {
	return patchFinalizer(ctx, c, o, finalizer, controllerutil.AddFinalizer)
}

// RemoveFinalizer lets the deletion of o go on.
func RemoveFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer string) error {
	return patchFinalizer(ctx, c, o, finalizer, controllerutil.RemoveFinalizer)
}

// patchFinalizer changes nothing but the list, and only when nobody else has changed the object meanwhile.
func patchFinalizer(ctx context.Context, c client.Client, o client.Object, finalizer string, change func(client.Object, string) bool) error {
	patched, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T is no object", o)
	}
	if !change(patched, finalizer) {
		return nil
	}
	if err := c.Patch(ctx, patched, client.MergeFromWithOptions(o, client.MergeFromWithOptimisticLock{})); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("patch the finalizer of %s: %w", name(o), err))
	}
	o.SetFinalizers(patched.GetFinalizers())
	o.SetResourceVersion(patched.GetResourceVersion())
	return nil
}
