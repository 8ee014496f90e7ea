// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"net/http"
	"strings"
	"testing"

	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

func TestRotationOfCredentials(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.onPremise()
	const path = "/cells/shared/rotate-credentials"
	annotations := func() (rotate, now string) {
		t.Helper()
		var c cloudv1.Cell
		if err := kube.Get(t.Context(), ctrl.ObjectKey{Namespace: b.namespace, Name: "shared"}, &c); err != nil {
			t.Fatal(err)
		}
		return c.Annotations[cloudv1.RotateAnnotation], c.Annotations[cloudv1.RevokeNowAnnotation]
	}
	first := decodeTo[CellRotationRequest](t, b.want(http.StatusAccepted, b.call(operator, "POST", path, map[string]any{})))
	if rotate, now := annotations(); rotate == "" || rotate != first.Requested || now != "" {
		t.Errorf("requested %q: %q, at once %q", first.Requested, rotate, now)
	}
	second := decodeTo[CellRotationRequest](t, b.want(http.StatusAccepted, b.call(operator, "POST", path, map[string]any{"revokeNow": true})))
	if rotate, now := annotations(); rotate != second.Requested || now != rotate || rotate == first.Requested {
		t.Errorf("requested %q after %q: %q, at once %q", second.Requested, first.Requested, rotate, now)
	}
	// What else is written keeps the request.
	b.want(http.StatusOK, b.call(operator, "PUT", "/cells/shared?force=true", wrap(`{"type":"shared","hostname":"shared.example","operatingParty":"Somebody else"}`)))
	if rotate, _ := annotations(); rotate != second.Requested {
		t.Errorf("after another change: %q", rotate)
	}
	for name, c := range map[string]struct {
		who    map[string]any
		cell   string
		status int
		says   string
	}{
		"no cell":         {operator, "nowhere", http.StatusNotFound, "nowhere"},
		"on premise":      {operator, "foundry", http.StatusConflict, "--rotate-key"},
		"a viewer":        {viewer, "shared", http.StatusForbidden, "rotate-cell-credentials"},
		"an organization": {cloudtest.Claims("ruth", "rheintal-motoren", "organization-admin"), "shared", http.StatusForbidden, "rotate-cell-credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			if a := b.call(c.who, "POST", "/cells/"+c.cell+"/rotate-credentials", map[string]any{}); a.status != c.status || !strings.Contains(string(a.body), c.says) {
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
	if rotate, _ := annotations(); rotate != second.Requested {
		t.Errorf("after what was refused: %q", rotate)
	}
}
