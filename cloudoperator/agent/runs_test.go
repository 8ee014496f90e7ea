// SPDX-License-Identifier: FSL-1.1-ALv2

package agent

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// TestTheOlderConnectionTakesNothingBack: while one connection takes over from another, what still waits in that one is older than what this one has applied.
func TestTheOlderConnectionTakesNothingBack(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := edc.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	a := New(Options{Cell: "a", Namespace: "cell-a", Client: kubefake.NewClientBuilder().WithScheme(scheme).Build(), Log: slog.New(slog.DiscardHandler), Now: time.Now})
	for _, step := range []struct {
		run, revision, want int64
	}{
		{1, 3, 3}, {2, 5, 5}, {1, 4, 5}, {2, 6, 6}, {3, 2, 2}, // the cloud's state was restored
	} {
		const none = `[]`
		data, err := json.Marshal(celllink.Snapshot{Cell: "a", Revision: step.revision, Hash: celllink.HashOf([]byte(none)), Objects: json.RawMessage(none)})
		if err != nil {
			t.Fatal(err)
		}
		a.take(t.Context(), step.run, data)
		if a.state.appliedRevision != step.want || a.state.err != "" {
			t.Errorf("%+v: revision %d is applied, %s", step, a.state.appliedRevision, a.state.err)
		}
	}
}
