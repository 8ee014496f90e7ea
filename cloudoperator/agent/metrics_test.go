// SPDX-License-Identifier: FSL-1.1-ALv2

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/audit"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// TestAuditRecordsThatWaitAreCounted: those that the cloud has not been told of while its message server is away.
func TestAuditRecordsThatWaitAreCounted(t *testing.T) {
	var seq atomic.Int64
	seq.Store(3)
	connector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode([]audit.Head{{Chain: "1", Ctx: "a", Seq: seq.Load()}, {Chain: "2", Ctx: "b", Seq: 1}})
	}))
	defer connector.Close()
	if err := edc.AddToScheme(scheme.Scheme); err != nil {
		t.Fatal(err)
	}
	up := &edc.Connector{
		ObjectMeta: metav1.ObjectMeta{Namespace: "cell-a", Name: snapshot.ConnectorName},
		Status:     edc.ConnectorStatus{InternalURL: connector.URL, InternalSecret: "internal"},
	}
	token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-a", Name: "internal"}, Data: map[string][]byte{"token": []byte("s3cr3t")}}
	server, err := natstest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	seed, err := server.Cell(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := server.Connect(seed, celllink.AgentPermissions)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	a := New(Options{
		Cell: "a", Namespace: "cell-a", Client: kubefake.NewClientBuilder().WithObjects(up, token).Build(), Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	counts := func(when string, reported, waiting float64) {
		t.Helper()
		if r, w := testutil.ToFloat64(a.metrics.reported), testutil.ToFloat64(a.metrics.waiting); r != reported || w != waiting {
			t.Errorf("%s: %v are reported, %v wait", when, r, w)
		}
	}
	until := func(done func() error) {
		t.Helper()
		deadline := time.After(2 * time.Minute)
		for err := done(); err != nil; err = done() {
			select {
			case <-deadline:
				t.Fatal(err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	until(func() error { return a.report(t.Context(), nc, "") })
	counts("first", 4, 0)

	server.Stop()
	seq.Store(5)
	until(func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if a.report(ctx, nc, "") == nil {
			t.Error("nobody has taken a report")
		}
		if w := testutil.ToFloat64(a.metrics.waiting); w == 0 {
			return errors.New("nothing waits") // the connector was too slow for this try
		}
		return nil
	})
	counts("without the message server", 4, 2)

	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	until(func() error { return a.report(t.Context(), nc, "") })
	counts("caught up", 6, 0)
}
