// SPDX-License-Identifier: Apache-2.0

package outcome

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// AddFinalizer holds back the deletion of o until RemoveFinalizer. Adding it comes before anything that needs to be undone.
func AddFinalizer(ctx context.Context, c client.Client, o client.Object) error {
	return patchFinalizer(ctx, c, o, controllerutil.AddFinalizer)
}

// RemoveFinalizer lets the deletion of o go on.
func RemoveFinalizer(ctx context.Context, c client.Client, o client.Object) error {
	return patchFinalizer(ctx, c, o, controllerutil.RemoveFinalizer)
}

func patchFinalizer(ctx context.Context, c client.Client, o client.Object, change func(client.Object, string) bool) error {
	patched, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T is no object", o)
	}
	if !change(patched, v1alpha1.Finalizer) {
		return nil
	}
	// The resource version guards the list: a finalizer that somebody else added meanwhile is not lost.
	patch := client.MergeFromWithOptions(o, client.MergeFromWithOptimisticLock{})
	if err := c.Patch(ctx, patched, patch); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("patch the finalizer: %w", err))
	}
	o.SetFinalizers(patched.GetFinalizers())
	o.SetResourceVersion(patched.GetResourceVersion())
	return nil
}
