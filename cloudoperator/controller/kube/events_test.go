// SPDX-License-Identifier: FSL-1.1-ALv2

package kube

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

func TestEventsTellWhatHasChanged(t *testing.T) {
	t.Parallel()
	ok := func(kind, message string) Condition {
		return Condition{Type: kind, OK: true, Reason: cloud.ReasonReady, Message: message}
	}
	not := func(kind, reason, message string) Condition {
		return Condition{Type: kind, Reason: reason, Message: message}
	}
	long := strings.Repeat("ä", 1000)
	for name, c := range map[string]struct {
		before, after []Condition
		want          []string
	}{
		"nothing has changed":     {[]Condition{ok("Connected", "the agent reports")}, []Condition{ok("Connected", "in other words")}, nil},
		"an agent reports":        {nil, []Condition{ok("Connected", "the agent reports")}, []string{"Normal Connected the agent reports"}},
		"an agent falls silent":   {[]Condition{ok("Connected", "x"), ok("Ready", "x")}, []Condition{not("Connected", cloud.ReasonSilent, "since noon"), not("Ready", cloud.ReasonWaiting, "since noon")}, []string{"Warning NotHeardFrom Connected: since noon"}},
		"it is refused otherwise": {[]Condition{not("Applied", cloud.ReasonRejected, "a")}, []Condition{not("Applied", cloud.ReasonFailed, "b")}, []string{"Warning Failed Applied: b"}},
		"something is under way":  {nil, []Condition{not("Applied", cloud.ReasonBehind, "x"), not("Ready", cloud.ReasonWaiting, "x")}, nil},
		"only Ready":              {nil, []Condition{not("Ready", cloud.ReasonMissing, "there is no Platform")}, []string{"Warning Missing Ready: there is no Platform"}},
		"a long message":          {nil, []Condition{not("Ready", cloud.ReasonFailed, long)}, []string{"Warning Failed Ready: " + strings.Repeat("ä", 448) + "…"}},
	} {
		r := events.NewFakeRecorder(10)
		before, after := &cloud.Cell{}, &cloud.Cell{ObjectMeta: metav1.ObjectMeta{Name: "shared"}}
		Set(&before.Status.Conditions, 1, c.before...)
		Set(&after.Status.Conditions, 1, c.after...)
		tell(r, before, after)
		close(r.Events)
		var got []string
		for e := range r.Events {
			got = append(got, e)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
