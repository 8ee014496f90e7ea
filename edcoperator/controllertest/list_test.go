// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func eachItem(l client.ObjectList, f func(client.Object)) error {
	return meta.EachListItem(l, func(o runtime.Object) error {
		object, ok := o.(client.Object)
		if !ok {
			return fmt.Errorf("%T is no object", o)
		}
		f(object)
		return nil
	})
}
