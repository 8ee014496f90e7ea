// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/pki"
)

// TestACertificateIsReadAgain by a part that serves another one than it has; a part that serves one that nobody trusts is started again, once.
func TestACertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(p pki.Pair, err error) pki.Pair {
		t.Helper()
		must(err)
		return p
	}
	const namespace = "kaphera-system"
	ca, other := pair(pki.NewCA("test", time.Now())), pair(pki.NewCA("test", time.Now()))
	host := parts.Host(parts.NATS, namespace)
	hosts := []string{host, parts.NATS, parts.NATS + "." + namespace, host + ".cluster.local", "localhost", "127.0.0.1"}
	right, former, untrusted := pair(ca.Issue(hosts, time.Now())), pair(ca.Issue(hosts, time.Now())), pair(other.Issue(hosts, time.Now()))

	var shown atomic.Pointer[pki.Pair]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				cert, err := tls.X509KeyPair(shown.Load().Cert, shown.Load().Key)
				if err == nil {
					_, err = conn.Write([]byte("INFO {\"tls_required\":true} \r\n"))
				}
				if err == nil {
					_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}).HandshakeContext(t.Context())
				}
			}()
		}
	}()

	scheme := runtime.NewScheme()
	must(errors.Join(corev1.AddToScheme(scheme), cloud.AddToScheme(scheme)))
	secret := func(name string, p pki.Pair) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{corev1.TLSCertKey: p.Cert, corev1.TLSPrivateKeyKey: p.Key}}
	}
	c := kubefake.NewClientBuilder().WithScheme(scheme).WithObjects(secret(parts.SecretCA, ca), secret(parts.TLSSecret(parts.NATS), right)).Build()
	access := parts.Access{Reader: c, Client: c, Namespace: namespace, Dial: map[string]string{parts.NATS: l.Addr().String()}}
	expiry := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "expiry"}, []string{"secret"})
	r := &run{Reconciler: &Reconciler{Now: time.Now, expiry: expiry}, access: access, client: c, platform: &cloud.Platform{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}}

	var marks []string
	for _, step := range []struct {
		name    string
		shows   pki.Pair
		reloads bool
		refused bool
		restart int // how often it was started again by then
	}{
		{"its own", right, false, false, 0}, {"one of before", former, true, false, 0}, {"one that nobody trusts", untrusted, false, true, 1},
		{"the same, while it is started", untrusted, false, true, 1}, {"its own again", right, false, false, 1},
	} {
		shown.Store(&step.shows)
		mark, err := r.reloadable(t.Context(), parts.NATS)
		must(err)
		if mark != "" && (len(marks) == 0 || marks[len(marks)-1] != mark) {
			marks = append(marks, mark)
		}
		reloads := false
		err = r.reload(t.Context(), parts.NATS, func(context.Context) error { reloads = true; return nil })
		if reloads != step.reloads || (err != nil) != step.refused || len(marks) != step.restart {
			t.Errorf("%s: reloads is %v, %v; started again for %v", step.name, reloads, err, marks)
		}
	}
	authority, err := tls.X509KeyPair(right.Cert, right.Key)
	must(err)
	if !ca.Signed(authority.Leaf) || other.Signed(authority.Leaf) || !pki.Is(right, authority.Leaf) || pki.Is(former, authority.Leaf) || bytes.Equal(right.Cert, former.Cert) {
		t.Error("a certificate is taken for another one, or for one of another authority")
	}
}

// TestTheNextAuthorityWaits until what runs in cells has come to trust it, connectors and issuers.
func TestTheNextAuthorityWaits(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), cloud.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	named := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "kaphera-system", Name: name}
	}
	ready := []metav1.Condition{{Type: cloud.ConditionReady, Status: metav1.ConditionTrue}}
	issuers := cloud.DataspaceProfileSpec{Issuers: []cloud.Issuer{{Name: "authority"}}}
	for name, c := range map[string]struct {
		cell    cloud.Cell
		profile cloud.DataspaceProfile
		passes  time.Duration
		waits   string
	}{
		"all are ready":               {cloud.Cell{Status: cloud.CellStatus{Conditions: ready}}, cloud.DataspaceProfile{Spec: issuers, Status: cloud.DataspaceProfileStatus{Conditions: ready}}, announced, ""},
		"it was just made":            {cloud.Cell{Status: cloud.CellStatus{Conditions: ready}}, cloud.DataspaceProfile{}, announced - time.Second, "signs not before"},
		"a connector is not ready":    {cloud.Cell{}, cloud.DataspaceProfile{}, announced, "cell x is not ready"},
		"an issuer is not ready":      {cloud.Cell{Status: cloud.CellStatus{Conditions: ready}}, cloud.DataspaceProfile{Spec: issuers}, announced, "dataspace profile x is not ready"},
		"an on-premise cell is not":   {cloud.Cell{Spec: cloud.CellSpec{Type: cloud.OnPremise}}, cloud.DataspaceProfile{}, announced, ""},
		"a profile without an issuer": {cloud.Cell{Status: cloud.CellStatus{Conditions: ready}}, cloud.DataspaceProfile{}, announced, ""},
	} {
		c.cell.ObjectMeta, c.profile.ObjectMeta = named("x"), named("x")
		now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
		k := kubefake.NewClientBuilder().WithScheme(scheme).WithObjects(&c.cell, &c.profile).Build()
		r := &run{Reconciler: &Reconciler{Now: func() time.Time { return now }}, client: k, platform: &cloud.Platform{ObjectMeta: named("kaphera")}}
		next := pki.Pair{Cert: []byte("next")}
		if waits, err := r.trusted(t.Context(), next); err != nil || waits == "" {
			t.Errorf("%s: at first: %q, %v", name, waits, err)
		}
		now = now.Add(c.passes)
		if waits, err := r.trusted(t.Context(), next); err != nil || (waits == "") != (c.waits == "") || !strings.Contains(waits, c.waits) {
			t.Errorf("%s: %q, %v", name, waits, err)
		}
	}
}
