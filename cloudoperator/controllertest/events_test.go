// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// told looks for the events of what has come about so far. None of them holds anything of a Secret.
func told(t *testing.T) {
	var all eventsv1.EventList
	for _, c := range []struct{ kind, name, reason string }{
		{"Platform", "kaphera", cloud.ConditionPostgreSQLReady},
		{"Platform", "kaphera", cloud.ConditionNATSReady},
		{"Cell", "shared", cloud.ConditionConnected},
		{"Cell", "shared", cloud.ConditionApplied},
		{"Participant", "supplier", cloud.ReasonChecks},
		{"Participant", "supplier", cloud.ConditionOnboarded},
		{"Participant", "supplier", cloud.ConditionActive},
	} {
		eventually(t, func(ctx context.Context) error {
			if err := admin.List(ctx, &all, client.InNamespace(system)); err != nil {
				return err
			}
			for _, e := range all.Items {
				if e.Regarding.Kind == c.kind && e.Regarding.Name == c.name && e.Reason == c.reason && e.Note != "" {
					return nil
				}
			}
			return fmt.Errorf("no event %s of %s %s", c.reason, c.kind, c.name)
		})
	}
	for _, ns := range []string{system, cellNamespace} {
		var secrets corev1.SecretList
		if err := admin.List(t.Context(), &secrets, client.InNamespace(ns)); err != nil {
			t.Fatal(err)
		}
		for _, s := range secrets.Items {
			for key, value := range s.Data {
				for _, e := range all.Items {
					if len(value) >= 16 && bytes.Contains([]byte(e.Note), value) {
						t.Errorf("event %s of %s holds %s of secret %s", e.Reason, e.Regarding.Name, key, s.Name)
					}
				}
			}
		}
	}
}
