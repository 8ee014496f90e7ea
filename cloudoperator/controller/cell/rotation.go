// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"fmt"
	"strings"
	"time"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
)

// rotation is the newest request for other credentials, empty when there never was one. What is no time asks for nothing.
func (r *run) rotation() string {
	requested := r.cell.Annotations[cloud.RotateAnnotation]
	if timeOf(requested).IsZero() {
		return ""
	}
	return requested
}

// revokesNow says that the former credentials are to be revoked while they are still in use. It is so until a rotation that was asked for then, or later, has ended.
func (r *run) revokesNow() bool {
	now := timeOf(r.cell.Annotations[cloud.RevokeNowAnnotation])
	return now.After(timeOf(r.cell.Status.RotatedFor)) && !now.After(timeOf(r.rotation()))
}

func timeOf(s string) time.Time {
	t, _ := time.Parse(time.RFC3339, s) // zero of what is none
	return t
}

// rotated says how far a rotation has come. err is why provisioning ended early.
func (r *run) rotated(err error) kube.Condition {
	c := kube.Condition{Type: cloud.ConditionRotated, Reason: cloud.ReasonWaiting}
	switch {
	case err != nil:
		c.Message = "not known: " + err.Error()
	case len(r.former) > 0:
		c.Message = "these still open something: " + strings.Join(r.former, "; ")
	default:
		r.cell.Status.RotatedFor = r.rotation()
		c.OK, c.Reason, c.Message = true, cloud.ReasonReady, fmt.Sprintf("all credentials are those of the rotation of %s or newer; those before open nothing", r.rotation())
	}
	return c
}
