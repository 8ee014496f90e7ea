// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
)

// tenant is what a dedicated cell's namespace has besides: bounds, and its organization's people. A binding without subjects gives nobody
// anything, so that one who was taken out of the spec is out.
func (r *run) tenant() ([]client.Object, error) {
	q, access := r.cell.Spec.Quota, r.cell.Spec.Access
	if q == nil {
		return nil, nil
	}
	if access == nil {
		access = &cloud.CellAccess{}
	}
	cpu, memory, container := resource.Quantity{}, resource.Quantity{}, resource.Quantity{}
	for _, v := range []struct {
		to         *resource.Quantity
		path, text string
	}{{&cpu, "cpu", q.CPU}, {&memory, "memory", q.Memory}, {&container, "containerMemory", q.ContainerMemory}} {
		parsed, err := resource.ParseQuantity(v.text)
		if err != nil {
			return nil, &stopped{cloud.ReasonInvalid, fmt.Sprintf("$.spec.quota.%s: %q is no quantity", v.path, v.text)}
		}
		*v.to = parsed
	}
	return []client.Object{
		&corev1.ResourceQuota{ObjectMeta: r.objects.Meta("cell"), Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceRequestsCPU: cpu, corev1.ResourceLimitsMemory: memory, corev1.ResourcePods: *resource.NewQuantity(int64(q.Pods), resource.DecimalSI),
		}}},
		&corev1.LimitRange{ObjectMeta: r.objects.Meta("cell"), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{corev1.ResourceMemory: container}, Default: corev1.ResourceList{corev1.ResourceMemory: container},
			DefaultRequest: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m")},
		}}}},
		r.objects.Binding(manifest.ViewerRole, slices.Concat(people(access.Viewers), people(access.Operators))...),
		r.objects.Binding(OperatorRole, people(access.Operators)...),
	}, nil
}

func people(s cloud.CellSubjects) (out []rbacv1.Subject) {
	for _, name := range s.Groups {
		out = append(out, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name})
	}
	for _, name := range s.Users {
		out = append(out, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name})
	}
	return out
}
