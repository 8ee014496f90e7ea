// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/test/apiserver"
)

// socket is a port of a pod.
type socket struct {
	namespace, selector string
	port                int
}

// inside are ports that only their own callers reach, and open are those where everybody may come in.
var (
	inside = map[string]socket{
		"PostgreSQL":                       {ownSystem, "app.kubernetes.io/name=postgresql", 5432},
		"OpenBao":                          {ownSystem, "app.kubernetes.io/name=openbao", 8200},
		"NATS":                             {ownSystem, "app.kubernetes.io/name=nats", 4222},
		"WebSocket of NATS":                {ownSystem, "app.kubernetes.io/name=nats", 8080},
		"monitoring of NATS":               {ownSystem, "app.kubernetes.io/name=nats", 8222},
		"Keycloak, TLS":                    {ownSystem, "app.kubernetes.io/name=keycloak", 8443},
		"management of Keycloak":           {ownSystem, "app.kubernetes.io/name=keycloak", 9000},
		"health of the Cloud API":          {ownSystem, "app.kubernetes.io/name=kaphera-cloud", 8082},
		"metrics of the Cloud operator":    {ownSystem, "app.kubernetes.io/name=cloud-operator", 8080},
		"metrics of the EDC operator":      {ownSystem, "app.kubernetes.io/name=edc-operator", 8080},
		"internal port of a control plane": {cellNamespace, "app.kubernetes.io/component=control-plane", 8081},
		"health of a control plane":        {cellNamespace, "app.kubernetes.io/component=control-plane", 8082},
		"internal port of a wallet":        {cellNamespace, "app.kubernetes.io/component=wallet", 8081},
		"internal port of a data plane":    {cellNamespace, "app.kubernetes.io/component=data-plane", 8081},
		"internal port of an issuer":       {cellNamespace, "app.kubernetes.io/component=issuer", 8081},
		"health of a cell's agent":         {cellNamespace, "app.kubernetes.io/name=kaphera-cell-agent", 8082},
	}
	open = map[string]socket{
		"Cloud API":                      {ownSystem, "app.kubernetes.io/name=kaphera-cloud", 8080},
		"Keycloak":                       {ownSystem, "app.kubernetes.io/name=keycloak", 8080},
		"public port of a control plane": {cellNamespace, "app.kubernetes.io/component=control-plane", 8080},
	}
)

// address is that of a running pod and the port.
func (s socket) address(t *testing.T) string {
	t.Helper()
	_, cs := kube(t)
	pods, err := cs.CoreV1().Pods(s.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: s.selector})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil {
			return net.JoinHostPort(p.Status.PodIP, strconv.Itoa(s.port))
		}
	}
	t.Fatalf("no pod runs in %s with %s", s.namespace, s.selector)
	return ""
}

// A pod in a namespace that has nothing to do with the platform reaches what is public, and nothing else.
func TestAStrangersPodReachesNothingInside(t *testing.T) { //nolint:tparallel // its probes wait side by side, other tests change what they look at
	const namespace = "stranger"
	c := crClient(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	eventually(t, "namespace "+namespace+" made, an earlier run's gone", func(ctx context.Context) (bool, string) {
		err := c.Create(ctx, ns)
		return err == nil, fmt.Sprint(err)
	})
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), ns); err != nil {
			t.Error(err)
		}
	})
	probe := prober(t, namespace, nil)
	for group, want := range map[bool]map[string]socket{true: open, false: inside} {
		for name, s := range want {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // most of it is waiting
				probe(t, s.address(t), group)
			})
		}
	}
}

// prober runs a pod until the test ends, and returns what fails if it connects to a closed address, or never to an open one. The Vault's program is
// also an HTTP client that says how a connection fails.
func prober(t *testing.T, namespace string, labels map[string]string) func(t *testing.T, address string, open bool) {
	t.Helper()
	tools, err := apiserver.Assets()
	if err != nil {
		t.Fatal(err)
	}
	c := crClient(t)
	_, cs := kube(t)
	vault, err := cs.AppsV1().StatefulSets(ownSystem).Get(t.Context(), "openbao", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const name = "prober"
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsUser: ptr.To[int64](ownUser), RunAsGroup: ptr.To[int64](ownUser), RunAsNonRoot: ptr.To(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: name, Image: vault.Spec.Template.Spec.Containers[0].Image, Command: []string{"bao", "server", "-dev", "-dev-no-store-token"},
				Env:             []corev1.EnvVar{{Name: "HOME", Value: "/tmp"}, {Name: "BAO_CLIENT_TIMEOUT", Value: "5s"}, {Name: "BAO_MAX_RETRIES", Value: "0"}},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
	if err := c.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := crclient.IgnoreNotFound(c.Delete(context.Background(), pod)); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the pod runs", func(ctx context.Context) (bool, string) {
		err := c.Get(ctx, crclient.ObjectKeyFromObject(pod), pod)
		return err == nil && pod.Status.Phase == corev1.PodRunning, fmt.Sprint(pod.Status.Phase, err)
	})
	return func(t *testing.T, address string, open bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("connected to %s: %v", address, open), func(context.Context) (bool, string) {
			_, said, code := command(t, filepath.Join(tools, "kubectl"), "--kubeconfig", filepath.Join(dir, "kubeconfig"), "exec", "--namespace", namespace, name, "--", "bao", "status", "-address=http://"+address)
			if code != 0 && !strings.Contains(said, "Error checking seal status") {
				return false, said // it did not run
			}
			late := strings.Contains(said, "i/o timeout") || strings.Contains(said, "deadline exceeded")
			if !open && !late {
				t.Fatalf("connected to %s, which is to be closed:\n%s", address, said)
			}
			return late != open, said
		})
	}
}

// Whoever may write an asset gets at nothing of the platform through the data plane, by whatever name or address: only at a backend.
func TestTheDataPlaneReadsNothingOfThePlatform(t *testing.T) {
	api := cloud(t)
	agreements, err := api.ListAgreementsWithResponse(t.Context(), "oem")
	if err != nil {
		t.Fatal(err)
	}
	about := slices.IndexFunc(agreements.JSON200.Items, func(a client.Agreement) bool { return a.AssetID == "pcf-gearbox-housing-gh-4711" })
	if about < 0 {
		t.Fatal("there is no agreement about a carbon footprint: the exchange has to run first")
	}
	agreement := agreements.JSON200.Items[about]
	asset, err := api.GetAssetWithResponse(t.Context(), "supplier", agreement.AssetID)
	if err != nil {
		t.Fatal(err)
	}
	put := func(baseURL string) error {
		changed := *asset.JSON200
		changed.DataAddress = maps.Clone(changed.DataAddress)
		changed.DataAddress["baseUrl"] = baseURL
		_, err := api.PutAssetWithResponse(context.WithoutCancel(t.Context()), "supplier", changed.ID, changed)
		return err
	}
	backend := asset.JSON200.DataAddress["baseUrl"]
	t.Cleanup(func() {
		if err := put(backend); err != nil {
			t.Error(err)
		}
	})
	read := func(t *testing.T) (data, all string, code int) {
		t.Helper()
		return command(t, "kaphera", "transfer", "oem", "--agreement", agreement.ID, "--fetch")
	}
	if data, all, code := read(t); code != 0 || !strings.Contains(data, "pcf") {
		t.Fatalf("the ordinary backend is not read (exit code %d):\n%s", code, all)
	}
	for name, address := range map[string]string{
		"PostgreSQL":                       "http://postgresql." + ownSystem + ".svc:5432/",
		"OpenBao":                          "https://openbao." + ownSystem + ".svc:8200/v1/sys/health",
		"OpenBao, by its whole name":       "https://openbao." + ownSystem + ".svc.cluster.local:8200/v1/sys/health",
		"internal port of a control plane": "http://connector-control-plane." + cellNamespace + ".svc:8081/metrics",
		"internal port of a data plane":    "http://connector-data-plane." + cellNamespace + ".svc:8081/dataflows/x/status",
		"Kubernetes API":                   "https://kubernetes.default.svc/version",
		"cloud metadata":                   "http://169.254.169.254/latest/meta-data/",
		"its own health":                   "http://127.0.0.1:8082/metrics",
	} {
		t.Run(name+" is refused when it is written", func(t *testing.T) {
			err := put(address)
			if e := client.AsError(err); e == nil || !strings.Contains(e.Error(), "baseUrl") {
				t.Errorf("%s: %v", address, err)
			}
		})
	}
	_, cs := kube(t)
	slice, err := cs.DiscoveryV1().EndpointSlices("default").Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{
		"Kubernetes API": "https://" + net.JoinHostPort(slice.Endpoints[0].Addresses[0], strconv.Itoa(int(*slice.Ports[0].Port))) + "/version",
	}
	for name, s := range inside {
		scheme := "http"
		if s.port == inside["OpenBao"].port {
			scheme = "https"
		}
		addresses[name] = scheme + "://" + s.address(t) + "/"
	}
	for name, address := range addresses {
		t.Run(name+" by its pod's address is not read", func(t *testing.T) {
			if err := put(address); err != nil {
				t.Fatalf("%s: %v", address, err)
			}
			if data, all, code := read(t); code == 0 || data != "" {
				t.Errorf("%s: exit code %d:\n%s", address, code, all)
			}
		})
	}
	if err := put(backend); err != nil {
		t.Fatal(err)
	}
	if data, all, code := read(t); code != 0 || !strings.Contains(data, "pcf") {
		t.Errorf("the ordinary backend is not read any more (exit code %d):\n%s", code, all)
	}
}
