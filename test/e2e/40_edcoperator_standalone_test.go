// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/test/apiserver"
)

const (
	ownNamespace = "edc-operator-alone"
	ownSystem    = "kaphera-system"
	ownUser      = 10001 // of the third-party containers
)

// ownPostgres makes a database server from nothing; the README's user owns a database there and may do nothing else.
const ownPostgres = `set -eu
PATH="$PATH:$(echo /usr/lib/postgresql/*/bin)"
printf %s "$DB_PASSWORD" >/tmp/pw
initdb -D /tmp/data -U postgres --pwfile=/tmp/pw --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 >/dev/null
printf "CREATE ROLE acme LOGIN PASSWORD '%s'\nCREATE DATABASE acme OWNER acme\n" "$DB_PASSWORD" | postgres --single -D /tmp/data postgres >/dev/null
echo 'host all all all scram-sha-256' >>/tmp/data/pg_hba.conf
exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp`

// The README's quickstart, word by word, with an operator installed from its one file: a connector runs on a database and a Vault
// given by address, says what is wrong with a wrong Vault path, takes a participant, and goes without leaving anything.
func TestEDCOperatorAlone(t *testing.T) {
	tools, err := apiserver.Assets()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+string(os.PathListSeparator)+os.Getenv("PATH")) // kubectl
	c := crClient(t)
	images := replaceOperator(t, c)
	host, managementHost := "standalone."+domain(), "management-standalone."+domain()
	kubeconfig := namespaceOfOwn(t, c)
	database, vault := podOfOwn(t, c, "database", images["postgresql"], []string{"/bin/sh", "-c", ownPostgres}, 5432),
		podOfOwn(t, c, "vault", images["openbao"], []string{"bao", "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=quickstart", "-dev-listen-address=0.0.0.0:8200"}, 8200)
	for k, v := range map[string]string{
		"KUBECONFIG": kubeconfig, "HOST": host, "MANAGEMENT_HOST": managementHost, "CURL_CA_BUNDLE": filepath.Join(dir, "ca.crt"), "DB_HOST": database, "DB_NAME": "acme", "DB_USER": "acme", "DB_PASSWORD": "acme-password",
		"VAULT_ADDR": "http://" + vault + ":8200", "VAULT_TOKEN": "quickstart",
	} {
		t.Setenv(k, v)
	}
	quickstart, participant, management := readmeBlocks(t)
	if n := strings.Count(strings.TrimSpace(quickstart), "\n") + 1; n > 10 {
		t.Errorf("the quickstart has %d lines, and promises ten", n)
	}
	install := filepath.Join(t.TempDir(), "install.yaml")
	manifest, err := config.Install(images["operator"], images["connector"])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(install, manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "bash", "-euo", "pipefail", "-c", strings.Replace(quickstart, "edcoperator/config/install.yaml", install, 1))

	conn := &v1alpha1.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: "acme"}}
	patch(t, c, conn, func() { conn.Spec.Vault.Mount = "nowhere" })
	awaitCondition(t, c, conn, &conn.Status.Conditions, v1alpha1.ConditionVaultReady, metav1.ConditionFalse, `vault.mount "nowhere"`)
	if m := meta.FindStatusCondition(conn.Status.Conditions, v1alpha1.ConditionVaultReady).Message; !strings.Contains(m, "secret") {
		t.Errorf("the message does not name the mounts that exist: %s", m)
	}
	ca := readFile(t, filepath.Join(dir, "ca.crt"))
	patch(t, c, conn, func() {
		conn.Spec.Vault.Mount = "secret"
		conn.Spec.Trust = v1alpha1.Trust{CABundle: string(ca), AllowPrivateNetworks: true}
	})
	awaitCondition(t, c, conn, &conn.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, "")

	must(t, "bash", "-euo", "pipefail", "-c", participant)
	var doc struct {
		ID string `json:"id"`
	}
	if status, body := publicGet(t, ca, "https://"+host+"/acme/did.json"); status != http.StatusOK || json.Unmarshal(body, &doc) != nil || doc.ID != "did:web:"+host+":acme" {
		t.Errorf("DID document: %d %s", status, body)
	}
	if status, body := publicGet(t, ca, "https://"+host+"/acme/.well-known/dspace-version"); status != http.StatusOK || !strings.Contains(string(body), "2025-1") {
		t.Errorf("DSP versions: %d %s", status, body)
	}

	if said := strings.TrimSpace(must(t, "bash", "-euo", "pipefail", "-c", management)); !strings.HasSuffix(said, "\n[]") {
		t.Errorf("assets by the Management API: %s", said)
	}
	for path, want := range map[string]string{"/management/acme/v3/assets/x": "401", "/admin/v1/profiles/open": "404", "/acme/did.json": "404"} {
		if status := must(t, "curl", "-sS", "-o", os.DevNull, "-w", "%{http_code}", "https://"+managementHost+path); status != want {
			t.Errorf("%s of the Management API's host answers %s, want %s", path, status, want)
		}
	}

	must(t, "kubectl", "delete", "participantcontext/acme", "connector/acme", "--wait", "--timeout=3m")
	eventually(t, "everything of the connector gone", func(ctx context.Context) (bool, string) {
		var pods corev1.PodList
		if err := c.List(ctx, &pods, client.InNamespace(ownNamespace), client.MatchingLabels{"app.kubernetes.io/managed-by": "edc-operator"}); err != nil {
			return false, err.Error()
		}
		return len(pods.Items) == 0, fmt.Sprintf("%d pods", len(pods.Items))
	})
	// The host's name goes with its Ingress, sooner or later.
	if status, _, _ := command(t, "curl", "-sS", "-o", os.DevNull, "-w", "%{http_code}", "https://"+host+"/acme/did.json"); status == "200" {
		t.Error("the DID document still answers")
	}
}

// replaceOperator removes the operator that the cluster has, so that the one file has everything to install, and returns the
// images that the cluster runs. What is installed afterwards is the same again.
func replaceOperator(t *testing.T, c client.Client) map[string]string {
	t.Helper()
	_, cs := kube(t)
	d, err := cs.AppsV1().Deployments(ownSystem).Get(t.Context(), "edc-operator", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{"operator": d.Spec.Template.Spec.Containers[0].Image}
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		if e.Name == "RELATED_IMAGE_CONNECTOR" {
			out["connector"] = e.Value
		}
	}
	for _, name := range []string{"postgresql", "openbao"} {
		s, err := cs.AppsV1().StatefulSets(ownSystem).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out[name] = s.Spec.Template.Spec.Containers[0].Image
	}
	foreground := metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationForeground)}
	for _, err := range []error{
		cs.AppsV1().Deployments(ownSystem).Delete(t.Context(), "edc-operator", foreground),
		cs.PolicyV1().PodDisruptionBudgets(ownSystem).Delete(t.Context(), "edc-operator", foreground),
		cs.RbacV1().ClusterRoleBindings().Delete(t.Context(), "kaphera-edc-operator", foreground),
		cs.RbacV1().ClusterRoles().Delete(t.Context(), "kaphera-edc-operator", foreground),
		cs.RbacV1().ClusterRoles().Delete(t.Context(), config.NamespaceRole, foreground),
		cs.RbacV1().RoleBindings(ownSystem).Delete(t.Context(), "edc-operator-leader", foreground),
		cs.RbacV1().Roles(ownSystem).Delete(t.Context(), "edc-operator-leader", foreground),
		cs.CoreV1().ServiceAccounts(ownSystem).Delete(t.Context(), "edc-operator", foreground),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the old operator gone", func(ctx context.Context) (bool, string) {
		err := c.Get(ctx, client.ObjectKeyFromObject(d), d)
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	t.Cleanup(func() { // also when the test ended before it came to it
		manifest, err := config.Install(out["operator"], out["connector"])
		if err != nil {
			t.Error(err)
			return
		}
		file := filepath.Join(t.TempDir(), "install.yaml")
		if err := os.WriteFile(file, manifest, 0o600); err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		apply := exec.CommandContext(ctx, "kubectl", "--kubeconfig", filepath.Join(dir, "kubeconfig"), "apply", "--server-side", "--force-conflicts", "-f", file)
		if said, err := apply.CombinedOutput(); err != nil {
			t.Errorf("put the operator back: %v\n%s", err, said)
		}
	})
	return out
}

// namespaceOfOwn makes the namespace and a kubeconfig whose context is in it, as somebody has who follows the README.
func namespaceOfOwn(t *testing.T, c client.Client) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ownNamespace}}
	eventually(t, "namespace "+ownNamespace+" made, an earlier run's gone", func(ctx context.Context) (bool, string) {
		err := c.Create(ctx, ns)
		return err == nil, fmt.Sprint(err)
	})
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), ns); err != nil {
			t.Error(err)
		}
	})
	cfg, err := clientcmd.LoadFromFile(filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Contexts[cfg.CurrentContext].Namespace = ownNamespace
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// podOfOwn runs a server and returns its address, once it listens.
func podOfOwn(t *testing.T, c client.Client, name, image string, command []string, port int32) string {
	t.Helper()
	labels := map[string]string{"app": name}
	probe := corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}
	probe.TCPSocket.Port.IntVal = port
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](ownUser), RunAsGroup: ptr.To[int64](ownUser)},
			Containers: []corev1.Container{{
				Name: name, Image: image, Command: command,
				Env:            []corev1.EnvVar{{Name: "DB_PASSWORD", Value: "acme-password"}, {Name: "HOME", Value: "/tmp"}},
				ReadinessProbe: &corev1.Probe{ProbeHandler: probe, PeriodSeconds: 1},
				VolumeMounts:   []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}, {Name: "passwd", MountPath: "/etc/passwd", SubPath: "passwd"}},
			}},
			Volumes: []corev1.Volume{
				{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "passwd", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}},
			},
		},
	}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: name},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: port}}},
	}
	users := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: ownNamespace, Name: name},
		Data:       map[string]string{"passwd": fmt.Sprintf("own:x:%d:%d::/tmp:/bin/sh\n", ownUser, ownUser)},
	}
	for _, o := range []client.Object{users, svc, pod} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, name+" listens", func(ctx context.Context) (bool, string) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return false, err.Error()
		}
		for _, s := range pod.Status.ContainerStatuses {
			if s.Ready {
				return true, ""
			}
		}
		raw, err := json.Marshal(pod.Status.ContainerStatuses)
		return false, fmt.Sprint(string(raw), err)
	})
	return name + "." + ownNamespace + ".svc"
}

// readmeBlocks returns the shell blocks of the README: the quickstart, the first participant and the Management API from outside.
func readmeBlocks(t *testing.T) (quickstart, participant, management string) {
	t.Helper()
	found := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(readFile(t, filepath.Join("..", "..", "edcoperator", "README.md"))), -1)
	if len(found) != 3 {
		t.Fatalf("edcoperator/README.md has %d shell blocks, expected three", len(found))
	}
	return found[0][1], found[1][1], found[2][1]
}

func crClient(t *testing.T) client.Client {
	t.Helper()
	cfg, _ := kube(t)
	c, err := client.New(cfg, client.Options{Scheme: edcoperator.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func patch(t *testing.T, c client.Client, o client.Object, change func()) {
	t.Helper()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	before, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		t.Fatalf("%T is no object", o)
	}
	change()
	if err := c.Patch(t.Context(), o, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// awaitCondition waits for a condition of the present generation with a text in its message.
func awaitCondition(t *testing.T, c client.Client, o client.Object, conditions *[]metav1.Condition, kind string, status metav1.ConditionStatus, text string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s %s %q", kind, status, text), func(ctx context.Context) (bool, string) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return false, err.Error()
		}
		found := meta.FindStatusCondition(*conditions, kind)
		ok := found != nil && found.Status == status && found.ObservedGeneration == o.GetGeneration() && strings.Contains(found.Message, text)
		raw, err := json.Marshal(*conditions)
		return ok, fmt.Sprint(string(raw), err)
	})
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// publicGet asks a public address, trusting the cluster's authority only.
func publicGet(t *testing.T, ca []byte, address string) (int, []byte) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}
