// SPDX-License-Identifier: FSL-1.1-ALv2

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// An agent that takes the place of another one is called before it has the snapshot, and may not be able to apply it: no participant is unknown for that.
func TestACallWaitsForTheSnapshot(t *testing.T) {
	t.Parallel()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, edc.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	up := &edc.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-a", Name: snapshot.ConnectorName}, Status: edc.ConnectorStatus{InternalURL: "http://c", InternalSecret: "internal"}}
	token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-a", Name: "internal"}, Data: map[string][]byte{"token": []byte("s3cr3t")}}
	refuses := interceptor.Funcs{Apply: func(context.Context, client.WithWatch, runtime.ApplyConfiguration, ...client.ApplyOption) error {
		return errors.New("refused")
	}}
	cluster := kubefake.NewClientBuilder().WithScheme(s).WithObjects(up, token).WithInterceptorFuncs(refuses).Build()
	a := New(Options{Cell: "a", Namespace: "cell-a", Client: cluster, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	call := func(ctx context.Context, participant string) (bool, error) {
		_, ok, err := a.resolve(ctx, cellrpc.Request{Participant: participant})
		return ok, err
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if ok, err := call(short, "supplier"); ok || err == nil || !strings.Contains(err.Error(), "no snapshot yet") {
		t.Errorf("without a snapshot: %v, %v", ok, err)
	}
	type answer struct {
		ok  bool
		err error
	}
	early := make(chan answer, 1)
	go func() {
		ok, err := call(t.Context(), "supplier")
		early <- answer{ok, err}
	}()
	objects := `[{"apiVersion":"` + edc.GroupVersion.String() + `","kind":"ParticipantContext","metadata":{"name":"supplier","namespace":"cell-a","labels":{"` + snapshot.ManagedLabel + `":"a"}}}]`
	raw, err := json.Marshal(celllink.Snapshot{Cell: "a", Revision: 7, Hash: celllink.HashOf([]byte(objects)), Objects: json.RawMessage(objects)})
	if err != nil {
		t.Fatal(err)
	}
	if again := a.take(t.Context(), 1, raw); !again {
		t.Error("the snapshot is applied")
	}
	if is := <-early; !is.ok || is.err != nil {
		t.Errorf("a call that came before the snapshot: %+v", is)
	}
	if ok, err := call(t.Context(), "stranger"); ok || err != nil {
		t.Errorf("a participant of no snapshot: %v, %v", ok, err)
	}
}
