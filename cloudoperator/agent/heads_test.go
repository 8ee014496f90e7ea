// SPDX-License-Identifier: FSL-1.1-ALv2

package agent

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/audit"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// TestHeadsComeFromTheConnector: an answer that is none, or not whole, is an error and no heads, so that a report never tells of fewer than there are.
func TestHeadsComeFromTheConnector(t *testing.T) {
	want := []audit.Head{{Chain: "c1", Ctx: "acme", Seq: 3, At: time.Unix(1, 0).UTC(), Hash: "ab", Open: true}, {Chain: "c2", Ctx: "acme", Seq: 1, At: time.Unix(1, 0).UTC(), Hash: "cd"}}
	good, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	up := &edc.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-a", Name: snapshot.ConnectorName}}
	token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "cell-a", Name: "internal"}, Data: map[string][]byte{"token": []byte("s3cr3t")}}
	for name, tc := range map[string]struct {
		objects []client.Object
		answer  func(w http.ResponseWriter)
		bad     string // part of the error; empty: the heads come
	}{
		"two chains":               {[]client.Object{up, token}, func(w http.ResponseWriter) { _, _ = w.Write(good) }, ""},
		"no connector":             {[]client.Object{token}, nil, "read the Connector"},
		"no token":                 {[]client.Object{up}, nil, "read its token"},
		"it fails":                 {[]client.Object{up, token}, func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, "500"},
		"something else":           {[]client.Object{up, token}, func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }, "invalid character"},
		"cut off":                  {[]client.Object{up, token}, func(w http.ResponseWriter) { _, _ = w.Write(good[:len(good)-5]) }, "unexpected EOF"},
		"more than a report holds": {[]client.Object{up, token}, func(w http.ResponseWriter) { _, _ = w.Write([]byte("[" + strings.Repeat(" ", maxHeads) + "]")) }, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			connector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/admin/v1/audit/heads" || r.Header.Get("Authorization") != "Bearer s3cr3t" {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				tc.answer(w)
			}))
			defer connector.Close()
			if err := edc.AddToScheme(scheme.Scheme); err != nil {
				t.Fatal(err)
			}
			up.Status = edc.ConnectorStatus{InternalURL: connector.URL + "/", InternalSecret: "internal"}
			got, err := New(Options{Cell: "a", Namespace: "cell-a", Client: kubefake.NewClientBuilder().WithObjects(tc.objects...).Build()}).heads(t.Context())
			switch {
			case tc.bad != "" && (err == nil || got != nil || !strings.Contains(err.Error(), tc.bad)):
				t.Errorf("%v, %v", got, err)
			case tc.bad != "":
			case err != nil || !cmp.Equal(got, want):
				t.Errorf("%v, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the token is in the error: %v", err)
			}
		})
	}
}
