// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
)

const healthyVault = `{"initialized":true,"sealed":false}`

// cell is a namespace with what a connector needs, and the servers that the operator reaches for it.
type cell struct {
	t         *testing.T
	namespace string
	hostname  string
	vault     string
	ca        string
	double    *runtimeDouble
	public    *http.ServeMux // of https://hostname
}

// newCell makes a namespace and gives it to the operator; Secrets, Vault and public host name are there, workloads are the test's to play.
func newCell(t *testing.T) *cell {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "cell-"}}
	create(t, ns)
	create(t, binding(ns.Name))
	c := &cell{
		t: t, namespace: ns.Name, hostname: ns.Name + ".kaphera.example", vault: "vault." + ns.Name + ":8200",
		double: newDouble(), public: http.NewServeMux(),
	}
	c.secret("db-owner", map[string]string{"username": "owner", "password": "hush-owner"})
	net1.route(c.vault, vaultDouble(t, healthyVault))
	gateway := c.gateway()
	net1.route(c.hostname+":443", gateway)
	net1.route(c.birthplace()+":443", gateway)
	return c
}

// birthplace is the host name of a participant that was moved here.
func (c *cell) birthplace() string { return "born." + c.hostname }

// gateway serves the public host names with a certificate of an authority of its own.
func (c *cell) gateway() *httptest.Server {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(c.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{c.hostname, c.birthplace()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(c.t, err)
	c.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	s := httptest.NewUnstartedServer(c.public)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	s.StartTLS()
	c.t.Cleanup(s.Close)
	return s
}

// publish serves a DID document at the public host name.
func (c *cell) publish(id, did string) {
	c.public.HandleFunc("GET /"+id+"/did.json", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"id": did})
	})
}

func (c *cell) secret(name string, data map[string]string) *corev1.Secret {
	c.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace}, StringData: data}
	create(c.t, s)
	return s
}

// connector returns a Connector that lacks nothing; it is not created yet.
func (c *cell) connector() *v1alpha1.Connector {
	return &v1alpha1.Connector{
		ObjectMeta: metav1.ObjectMeta{Name: "shared", Namespace: c.namespace},
		Spec: v1alpha1.ConnectorSpec{
			Exposure: v1alpha1.Exposure{Hostname: c.hostname},
			Trust:    v1alpha1.Trust{CABundle: c.ca},
			Database: v1alpha1.Database{Host: "postgresql.example", Name: "shared", SSLMode: "disable", OwnerSecret: corev1.LocalObjectReference{Name: "db-owner"}},
			Vault:    v1alpha1.Vault{Address: "http://" + c.vault, Prefix: "connectors/shared", Auth: v1alpha1.VaultAuth{Method: v1alpha1.VaultMethodKubernetes}},
			Profiles: []profile.Profile{{Name: "automotive", Protocol: "dataspace-protocol-http:2025-1", TrustedIssuers: []profile.TrustedIssuer{
				{DID: "did:web:authority.example:issuer", Types: []string{"MembershipCredential"}},
			}}},
		},
	}
}

func (c *cell) participant(name, context string) *v1alpha1.ParticipantContext {
	return &v1alpha1.ParticipantContext{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace},
		Spec: v1alpha1.ParticipantContextSpec{
			ConnectorRef: corev1.LocalObjectReference{Name: "shared"}, Context: context, BusinessPartnerNumber: "BPNL0000000CAST1",
			Profile: "automotive", Active: true,
		},
	}
}

func (c *cell) did(context string) string { return "did:web:" + c.hostname + ":" + context }

// runConnector creates a Connector, plays its workloads and waits until it is ready.
func (c *cell) runConnector() *v1alpha1.Connector {
	c.t.Helper()
	conn := c.connector()
	create(c.t, conn)
	c.play()
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	c.serve()
	return conn
}

// serve puts the double behind the Services of the connector.
func (c *cell) serve() {
	c.t.Helper()
	net1.route("shared-control-plane."+c.namespace+".svc:8081", c.double.server(c.t, c.internalToken("shared-internal"), c.double.controlPlane()))
	net1.route("shared-wallet."+c.namespace+".svc:8081", c.double.server(c.t, c.internalToken("shared-wallet-internal"), c.double.wallet()))
}

func (c *cell) internalToken(name string) string {
	c.t.Helper()
	var s corev1.Secret
	eventually(c.t, func(ctx context.Context) error {
		return admin.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, &s)
	})
	return string(s.Data["token"])
}

// play is the cluster's controllers and kubelet: until the test ends, migrations succeed and Deployments become available.
func (c *cell) play() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				playOnce(ctx, c.namespace)
			}
		}
	}()
	c.t.Cleanup(func() { cancel(); <-done })
}

// playOnce ignores errors: a conflict is met again with the next tick, and a test that waits says what is missing.
func playOnce(ctx context.Context, namespace string) {
	var jobs batchv1.JobList
	if admin.List(ctx, &jobs, client.InNamespace(namespace)) == nil {
		for i := range jobs.Items {
			if j := &jobs.Items[i]; len(j.Status.Conditions) == 0 {
				_ = endJob(ctx, j, batchv1.JobSuccessCriteriaMet, batchv1.JobComplete, time.Now())
			}
		}
	}
	var deployments appsv1.DeploymentList
	if admin.List(ctx, &deployments, client.InNamespace(namespace)) == nil {
		for i := range deployments.Items {
			if d := &deployments.Items[i]; d.Status.ObservedGeneration != d.Generation {
				n := *d.Spec.Replicas
				d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
				_ = admin.Status().Update(ctx, d)
			}
		}
	}
}

func endJob(ctx context.Context, j *batchv1.Job, before, end batchv1.JobConditionType, at time.Time) error {
	when := metav1.NewTime(at)
	j.Status.StartTime = &when
	if end == batchv1.JobComplete {
		j.Status.CompletionTime, j.Status.Succeeded = &when, 1
	} else {
		j.Status.Failed = 1
	}
	for _, kind := range []batchv1.JobConditionType{before, end} {
		j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{
			Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: when, Reason: "Played", Message: "played by the test",
		})
	}
	return admin.Status().Update(ctx, j)
}

// pod makes a Pod with the given status, as a kubelet reports it.
func (c *cell) pod(name string, labels map[string]string, status corev1.PodStatus) {
	c.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: c.namespace, Labels: labels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: connectorImage}}},
	}
	create(c.t, p)
	p.Status = status
	must(c.t, admin.Status().Update(c.t.Context(), p))
}

// readyz answers for the Pod at ip.
func (c *cell) readyz(ip string, r adminapi.Readiness) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusServiceUnavailable, r)
	}))
	c.t.Cleanup(s.Close)
	net1.route(ip+":8082", s)
}

// await waits for a condition of an object with a text in its message, and reads the object.
func (c *cell) await(o outcome.Object, condition string, status metav1.ConditionStatus, reason, text string) {
	c.t.Helper()
	eventually(c.t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		found := meta.FindStatusCondition(*o.GetConditions(), condition)
		if found == nil || found.Status != status || found.Reason != reason || !strings.Contains(found.Message, text) {
			raw, err := json.MarshalIndent(o.GetConditions(), "", " ")
			return fmt.Errorf("want %s %s %s %q, conditions are %s (%w)", condition, status, reason, text, raw, err)
		}
		if found.ObservedGeneration != o.GetGeneration() {
			return fmt.Errorf("%s is of generation %d, the object of %d", condition, found.ObservedGeneration, o.GetGeneration())
		}
		return nil
	})
}

func create(t *testing.T, o client.Object) {
	t.Helper()
	must(t, admin.Create(t.Context(), o))
}

// update changes an object as somebody else's change allows.
func update[T client.Object](t *testing.T, o T, change func(T)) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		change(o)
		return admin.Update(ctx, o)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
