// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
	"github.com/kaphera/kaphera/test/apiserver"
)

var admin *rest.Config

func TestMain(m *testing.M) {
	env, err := apiserver.Start("../../edcoperator/config/crd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	admin = env.Config
	code := m.Run()
	_ = env.Stop()
	os.Exit(code)
}

const patience = 5 * time.Minute

// process plays what runs in the Pod.
type process func(pod *corev1.Pod, command []string, streams remotecommand.StreamOptions) error

// cell makes a namespace with a connector and an issuer, whose Pods run as soon as they are made, and do what p does.
func cell(t *testing.T, p process) (*Cell, *edc.Connector) {
	t.Helper()
	c, err := Open(admin, "default")
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "cell-"}}
	create(t, c, ns)
	c.Namespace, c.Progress = ns.Name, t.Logf
	spec := edc.ConnectorSpec{
		Exposure: edc.Exposure{Hostname: "connector.example", TLSSecretName: "tls"},
		Database: edc.Database{Host: "db", Name: "acme", OwnerSecret: corev1.LocalObjectReference{Name: "owner"}},
		Vault:    edc.Vault{Address: "https://vault:8200", Mount: "kv", Prefix: "acme", Auth: edc.VaultAuth{Method: edc.VaultMethodKubernetes}},
	}
	conn := &edc.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "connector"}, Spec: spec}
	issuer := &edc.CredentialIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "authority"}, Spec: edc.CredentialIssuerSpec{
		Exposure: spec.Exposure, Database: spec.Database, Vault: spec.Vault, Context: "issuer", CredentialTypes: []edc.CredentialType{{Type: "MembershipCredential"}},
	}}
	create(t, c, conn)
	create(t, c, issuer)
	for _, rt := range []workload.Runtime{workload.Connector(conn, "connector:1"), workload.CredentialIssuer(issuer, "connector:1")} {
		rt.Tokens, rt.Accounts = map[workload.Role]string{rt.Roles[0]: "token"}, map[workload.Role]workload.Credentials{}
		d := rt.Deployment(rt.Roles[0])
		d.OwnerReferences = nil
		create(t, c, d)
		for _, role := range []workload.Role{workload.Backup, workload.Restore} { // admission wants accounts
			a := rt.ServiceAccount(role)
			a.OwnerReferences = nil
			create(t, c, a)
		}
	}
	c.execute = func(_ context.Context, pod *corev1.Pod, command []string, streams remotecommand.StreamOptions) error {
		return p(pod, command, streams)
	}
	kubelet(t, c)
	return c, conn
}

func create(t *testing.T, c *Cell, o kube.Object) {
	t.Helper()
	if err := c.cluster.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// kubelet says of each Pod that it runs.
func kubelet(t *testing.T, c *Cell) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			pods, _ := list(ctx, c) // asked for again
			for i := range pods {
				if len(pods[i].Status.ContainerStatuses) > 0 {
					continue
				}
				pods[i].Status.Phase = corev1.PodRunning
				pods[i].Status.ContainerStatuses = []corev1.ContainerStatus{{Name: pods[i].Spec.Containers[0].Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
				_ = c.cluster.Status().Update(ctx, &pods[i]) // or it is gone
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
}

func list(ctx context.Context, c *Cell) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := c.cluster.List(ctx, &pods, kube.InNamespace(c.Namespace))
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }), err
}

func nothingLeft(t *testing.T, c *Cell) {
	t.Helper()
	if pods, err := list(t.Context(), c); err != nil || len(pods) > 0 {
		t.Errorf("%d pods are left, %v", len(pods), err)
	}
}

// exports is a process that writes an archive; what it says of it is of content.
func exports(archive, content string) process {
	return func(_ *corev1.Pod, _ []string, streams remotecommand.StreamOptions) error {
		_, err := io.WriteString(streams.Stdout, archive)
		sum := sha256.Sum256([]byte(content))
		_, logged := fmt.Fprintf(streams.Stderr, `{"level":"INFO","msg":"something"}`+"\n"+`{"level":"INFO","msg":"the archive is written","contexts":["acme"],"rows":7,"secrets":2,"sha256":%q}`+"\n", hex.EncodeToString(sum[:]))
		return errors.Join(err, logged)
	}
}

func key(t *testing.T) *age.X25519Identity {
	t.Helper()
	k, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestWrite(t *testing.T) {
	t.Parallel()
	k := key(t)
	var seen []string
	c, _ := cell(t, func(pod *corev1.Pod, command []string, streams remotecommand.StreamOptions) error {
		seen = append(seen, pod.Spec.ServiceAccountName)
		if want := "/proc/1/exe export --config=/etc/kaphera/config.yaml --to=- --recipient=" + k.Recipient().String(); strings.Join(command, " ") != want || streams.Stdin != nil {
			return fmt.Errorf("command %v", command)
		}
		return exports("sealed", "sealed")(pod, command, streams)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	to := filepath.Join(t.TempDir(), "archives")
	got, err := c.Write(ctx, to, []age.Recipient{k.Recipient()})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Runtime != "connector" || got[1].Runtime != "authority" || got[0].Rows != 7 || got[0].Secrets != 2 {
		t.Errorf("archives %+v", got)
	}
	for _, a := range got {
		if raw, err := os.ReadFile(a.File); string(raw) != "sealed" || filepath.Dir(a.File) != to {
			t.Errorf("%s holds %q, %v", a.File, raw, err)
		}
	}
	if !slices.Equal(seen, []string{"connector-backup", "authority-backup"}) {
		t.Errorf("under the accounts %v", seen)
	}
	nothingLeft(t, c)
	if _, err := c.Write(ctx, to, []age.Recipient{k.Recipient()}); err == nil || !strings.Contains(err.Error(), "is there") {
		t.Errorf("over archives that are there: %v", err)
	}
}

// What does not come whole leaves nothing behind, here or there.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		process process
		says    string
	}{
		"what came is not what was made": {exports("seal", "sealed"), "connector: the archive was cut off or changed on the way"},
		"the connector says why": {func(_ *corev1.Pod, _ []string, s remotecommand.StreamOptions) error {
			_, err := fmt.Fprintln(s.Stderr, `{"level":"ERROR","msg":"connector ends","error":"export: the vault is sealed"}`)
			return errors.Join(err, errors.New("command terminated with exit code 1"))
		}, "connector: export: the vault is sealed"},
		"the connection breaks":  {func(*corev1.Pod, []string, remotecommand.StreamOptions) error { return io.ErrUnexpectedEOF }, "unexpected EOF"},
		"it ends without a word": {func(*corev1.Pod, []string, remotecommand.StreamOptions) error { return nil }, "ended without a word"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cell, _ := cell(t, c.process)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			dir := t.TempDir()
			if _, err := cell.Write(ctx, filepath.Join(dir, "archives"), []age.Recipient{key(t).Recipient()}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it says %v", err)
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("it leaves %v", left)
			}
			nothingLeft(t, cell)
		})
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	k := key(t)
	content := strings.Repeat("what a connector keeps ", 10000)
	c, conn := cell(t, func(pod *corev1.Pod, command []string, streams remotecommand.StreamOptions) error {
		sent, err := io.ReadAll(streams.Stdin)
		if err != nil {
			return err
		}
		head, sealed, _ := bytes.Cut(sent, []byte("\n\n"))
		once, err := age.ParseX25519Identity(string(head))
		if err != nil || once.String() == k.String() || pod.Spec.ServiceAccountName != "connector-restore" || bytes.Contains(fmt.Append(nil, pod, command), head) {
			return fmt.Errorf("%s reads %q, %w", pod.Spec.ServiceAccountName, sent, err)
		}
		opened, err := age.Decrypt(bytes.NewReader(sealed), once)
		if err != nil {
			return err
		}
		if got, err := io.ReadAll(opened); err != nil || string(got) != content {
			return fmt.Errorf("%d bytes, %w", len(got), err)
		}
		_, err = fmt.Fprintln(streams.Stderr, `{"level":"INFO","msg":"the archive is imported","made":"2026-11-28T12:00:00Z","contexts":["acme"],"rows":7,"secrets":2}`)
		return err
	})
	from := filepath.Join(t.TempDir(), "connector.archive")
	var archive bytes.Buffer
	if err := seal(&archive, strings.NewReader(content), k.Recipient()); err != nil {
		t.Fatal(err)
	}
	file := func(raw []byte) {
		t.Helper()
		if err := os.WriteFile(from, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file(archive.Bytes())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := c.Restore(ctx, from, []age.Identity{k}); err == nil || !strings.Contains(err.Error(), "connector has replicas 1") {
		t.Errorf("while it runs: %v", err)
	}
	conn.Spec.Replicas = ptr.To[int32](0)
	if err := c.cluster.Update(ctx, conn); err != nil {
		t.Fatal(err)
	}
	// A Pod that still ends keeps it waiting, until the operator has seen the change and the Pod is gone.
	rt := workload.Connector(conn, "connector:1")
	ending := rt.ArchivePod(workload.Backup, time.Minute)
	ending.Labels = rt.Labels(workload.Wallet)
	create(t, c, ending)
	waits := make(chan string, 1<<10)
	c.Progress = func(format string, args ...any) { waits <- fmt.Sprintf(format, args...) }
	restored := make(chan error, 1)
	var got []Archive
	go func() {
		var err error
		got, err = c.Restore(ctx, filepath.Dir(from), []age.Identity{k})
		restored <- err
	}()
	await := func(what string) {
		t.Helper()
		for {
			select {
			case said := <-waits:
				if strings.Contains(said, what) {
					return
				}
			case err := <-restored:
				t.Fatalf("it did not wait because %s: %v", what, err)
			}
		}
	}
	await("the EDC operator has not prepared it yet")
	meta.SetStatusCondition(&conn.Status.Conditions, metav1.Condition{
		Type: edc.ConditionWorkloadsReady, Status: metav1.ConditionFalse, Reason: edc.ReasonScaledToZero, ObservedGeneration: conn.Generation, Message: "spec.replicas is 0: nothing runs",
	})
	if err := c.cluster.Status().Update(ctx, conn); err != nil {
		t.Fatal(err)
	}
	await("is still ending")
	if err := c.cluster.Delete(ctx, ending, kube.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	if err := <-restored; err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(ctx, from, []age.Identity{key(t)}); err == nil || !strings.Contains(err.Error(), "no identity matched") {
		t.Errorf("with another key: %v", err)
	}
	file(archive.Bytes()[:archive.Len()/2])
	if _, err := c.Restore(ctx, from, []age.Identity{k}); err == nil || !strings.Contains(err.Error(), from+" is damaged") {
		t.Errorf("half of it: %v", err)
	}
	if len(got) != 1 || got[0].Runtime != "connector" || got[0].Rows != 7 || got[0].MadeAt.IsZero() {
		t.Errorf("restored %+v", got)
	}
	nothingLeft(t, c)
}

// A Secret of its own is needed where neither an account nor a token logs in.
func TestAppRole(t *testing.T) {
	t.Parallel()
	var login string
	c, conn := cell(t, func(pod *corev1.Pod, command []string, streams remotecommand.StreamOptions) error {
		for _, s := range pod.Spec.Volumes[1].Projected.Sources {
			if s.Secret != nil && s.Secret.Items[0].Key == workload.KeyRoleID {
				login = s.Secret.Name
			}
		}
		return exports("sealed", "sealed")(pod, command, streams)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn.Spec.Vault.Auth = edc.VaultAuth{Method: edc.VaultMethodAppRole, AppRoleSecrets: &edc.RoleSecrets{ControlPlane: "c", Wallet: "w", DataPlane: "d"}}
	if err := c.cluster.Update(ctx, conn); err != nil {
		t.Fatal(err)
	}
	to, k := t.TempDir(), []age.Recipient{key(t).Recipient()}
	if _, err := c.Write(ctx, filepath.Join(to, "without"), k, "acme"); err == nil || !strings.Contains(err.Error(), "by AppRole: name a Secret") {
		t.Errorf("without a Secret: %v", err)
	}
	c.VaultSecret = "archives"
	if got, err := c.Write(ctx, filepath.Join(to, "with"), k, "acme"); err != nil || len(got) != 1 || login != "archives" {
		t.Errorf("%+v, %v, logged in with %q", got, err, login)
	}
}
