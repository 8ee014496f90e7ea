// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kaphera/kaphera/sandbox/image"
	"github.com/kaphera/kaphera/sandbox/stage"
)

func TestWrongOptionsAreRefusedWithWhatToDo(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options Options
		want    []string
	}{
		"an unknown kind":              {Options{Cluster: "k3s", Name: "demo"}, []string{"CLUSTER=k3s", "sandbox, kind or existing"}},
		"a name with a space":          {Options{Cluster: Sandbox, Name: "my demo"}, []string{`"my demo"`, "lower-case"}},
		"a domain of one label":        {Options{Cluster: Sandbox, Name: "demo", Domain: "demo"}, []string{"DOMAIN=demo", "two labels"}},
		"a registry for the sandbox":   {Options{Cluster: Sandbox, Name: "demo", Registry: "localhost:5000"}, []string{"REGISTRY", "CLUSTER=existing"}},
		"kind without ingress class":   {Options{Cluster: Kind, Name: "demo"}, []string{"INGRESS_CLASS"}},
		"existing without kubeconfig":  {Options{Cluster: Existing, Name: "demo"}, []string{"KUBECONFIG"}},
		"existing without registry":    {Options{Cluster: Existing, Name: "demo", Kubeconfig: kubeconfig}, []string{"REGISTRY", "localhost:5000"}},
		"existing without a domain":    {Options{Cluster: Existing, Name: "demo", Kubeconfig: kubeconfig, Registry: "r", IngressClass: "nginx"}, []string{"DOMAIN"}},
		"a kubeconfig that is missing": {Options{Cluster: Existing, Name: "demo", Kubeconfig: "/no/such", Registry: "r", IngressClass: "nginx", Domain: "a.test"}, []string{"KUBECONFIG", "/no/such"}},
		"an authority that is missing": {Options{Cluster: Kind, Name: "demo", IngressClass: "nginx", CAFile: "/no/ca"}, []string{"CA_FILE", "/no/ca"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.options.settle()
			if err == nil {
				t.Fatal("was accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

func TestTheWordsThatRemoveADemoFindItsCluster(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"make demo-down":          {Cluster: Sandbox, Name: "demo"},
		"make demo-down NAME=two": {Cluster: Sandbox, Name: "two"},
		"make demo-down CLUSTER=existing KUBECONFIG=" + kubeconfig + " REGISTRY=r DOMAIN=a.test INGRESS_CLASS=nginx": {
			Cluster: Existing, Name: "demo", Kubeconfig: kubeconfig, Registry: "r", IngressClass: "nginx", Domain: "a.test"},
	} {
		d := demo{Options: o}
		if err := d.settle(); err != nil {
			t.Fatal(err)
		}
		if got := d.downCommand(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestManifestsGetTheNamesThatTheClusterKnows(t *testing.T) {
	const manifest = `# a comment
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  template:
    spec:
      containers:
      - image: kaphera.local/connector:dev
        args: [--image=kaphera.local/cloud:dev, "about kaphera.local/cloud:dev"]
        env: [{name: RELATED_IMAGE_CLOUD, value: kaphera.local/cloud:dev}]
---
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
`
	objects, err := parse([]byte(manifest), map[string]string{"kaphera.local/connector:dev": "r/connector:dev-1", "kaphera.local/cloud:dev": "r/cloud:dev-2"})
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != 2 {
		t.Fatalf("%d objects, want 2", len(objects))
	}
	containers, _, err := unstructured.NestedSlice(objects[0].Object, "spec", "template", "spec", "containers")
	if err != nil {
		t.Fatal(err)
	}
	want := "[map[args:[--image=r/cloud:dev-2 about kaphera.local/cloud:dev] env:[map[name:RELATED_IMAGE_CLOUD value:r/cloud:dev-2]] image:r/connector:dev-1]]"
	if got := fmt.Sprint(containers); got != want {
		t.Errorf("containers are\n%s, want\n%s", got, want)
	}
}

// newTestDemo is a demo whose folder is the test's.
func newTestDemo(t *testing.T, o Options) *demo {
	t.Helper()
	d := &demo{Options: o, built: map[string]image.Built{}, loaded: map[string]string{}}
	d.dir = t.TempDir()
	d.root = t.TempDir()
	return d
}

func TestPlatformCarriesAuthorityClassAndImages(t *testing.T) {
	d := newTestDemo(t, Options{Domain: "x.test", IngressClass: "nginx"})
	d.loaded["kaphera.local/cloud:dev"] = "r/cloud:dev-2"
	p, err := d.platform("-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"domain": "x.test", "ingress.className": "nginx", "images.cloud": "r/cloud:dev-2", "images.keycloak": "kaphera.local/keycloak:26",
		"caBundle": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
	} {
		got, _, err := unstructured.NestedString(p.Object, append([]string{"spec"}, strings.Split(path, ".")...)...)
		if err != nil || got != want {
			t.Errorf("spec.%s is %q, want %q (%v)", path, got, want, err)
		}
	}
	list, err := logins(p, map[string][]byte{"olga": []byte("p1"), "gabriel": []byte("p2"), "renate": []byte("p3"), "bruno": []byte("p4"), "robert": []byte("p5"), "berta": []byte("p6")})
	if err != nil || strings.Count(list, "\n") != 6 || !strings.Contains(list, "organization-admin of rheintal-motoren") {
		t.Errorf("log-ins are\n%s%v", list, err)
	}
	if _, err := logins(p, map[string][]byte{"olga": []byte("p1")}); err == nil || !strings.Contains(err.Error(), "gabriel") {
		t.Errorf("a missing password gives %v, want whose it is", err)
	}
}

func TestEnvironmentCanBeSourcedAndKeepsTheAttestationsDate(t *testing.T) {
	d := newTestDemo(t, Options{Domain: "x.test"})
	first, err := d.environment("s3cret")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path("env"), append(first.shell(), []byte("export "+attestationDate+"='2026-01-02T00:00:00Z'\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `. "$1"; echo "$KAPHERA_API $KAPHERA_CLIENT_SECRET"; case $PATH in "$2":*/*) echo path;; esac`, "sh", d.path("env"), d.path("bin")).CombinedOutput()
	if err != nil || string(out) != "https://api.x.test s3cret\npath\n" {
		t.Errorf("a shell sees %q, %v", out, err)
	}
	saved, err := d.savedEnvironment()
	if err != nil || saved.get("KAPHERA_CLIENT_SECRET") != "s3cret" {
		t.Errorf("read back %v, %v", saved, err)
	}

	date := first.get(attestationDate)
	for months, kept := range map[int]bool{-2: true, -11: false} { // what has become too old to offer with is renewed
		before := time.Now().UTC().AddDate(0, months, 0).Truncate(time.Second).Format(time.RFC3339)
		if err := os.WriteFile(d.path("env"), []byte(strings.ReplaceAll(string(first.shell()), date, before)), 0o600); err != nil {
			t.Fatal(err)
		}
		second, err := d.environment("s3cret")
		if err != nil || (second.get(attestationDate) == before) != kept {
			t.Errorf("%s became %s, %v", before, second.get(attestationDate), err)
		}
	}
}

func TestTheReportHasStagesAndShowings(t *testing.T) {
	d := newTestDemo(t, Options{})
	if err := d.writeReport(report{Report: stage.Report{Stages: []stage.Entry{{Name: "cluster"}}}, Showings: []shown{{"audit", 2}}}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(d.path("report.json"))
	if got := strings.Join(strings.Fields(string(raw)), ""); err != nil || !strings.Contains(got, `"stages":[{"name":"cluster"`) || !strings.Contains(got, `"showings":[{"name":"audit","elapsed":2}]`) {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestWhatIsNotInForceIsSignedOff(t *testing.T) {
	waiting, err := unsigned([]byte(`{"items":[
		{"name":"first","status":{"revision":{"number":1,"hash":"ab"}}},
		{"name":"changed","status":{"revision":{"number":2,"hash":"cd"},"inForce":{"number":1,"hash":"ab","signedBy":"Gabriel Okafor"}}},
		{"name":"signed","status":{"revision":{"number":1,"hash":"ef","signedBy":"Gabriel Okafor"},"inForce":{"number":1,"hash":"ef","signedBy":"Gabriel Okafor"}}},
		{"name":"invalid","status":{}}]}`))
	if err != nil || len(waiting) != 2 || waiting[0].Name != "first" || waiting[1].Name != "changed" || waiting[1].Status.Revision.Hash != "cd" {
		t.Errorf("to be signed off: %+v, %v", waiting, err)
	}
}

func TestNotReadyNamesWhatIsMissing(t *testing.T) {
	condition := func(kind, status, message string) any {
		return map[string]any{"type": kind, "status": status, "message": message}
	}
	for name, c := range map[string]struct {
		observed   int64
		conditions []any
		want       string
	}{
		"nothing reported":      {0, nil, "no controller has looked at it yet"},
		"a part is missing":     {2, []any{condition("Ready", "False", "x"), condition("VaultReady", "False", "sealed")}, "VaultReady: sealed"},
		"ready for an old spec": {1, []any{condition("Ready", "True", "")}, "not Ready yet"},
		"ready":                 {2, []any{condition("Ready", "True", ""), condition("VaultReady", "True", "")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unstructured.Unstructured{Object: map[string]any{
				"metadata": map[string]any{"generation": int64(2)},
				"status":   map[string]any{"observedGeneration": c.observed, "conditions": c.conditions},
			}}
			if got := notReady(u); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestExistingClusterGetsItsImagesFromTheRegistry(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")

	root := t.TempDir()
	for path, text := range map[string]string{"go.mod": "module example.test/p\n\ngo 1.26.0\n", "cmd/connector/main.go": "package main\n\nfunc main() {}\n"} {
		file := filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	built, err := image.Store{Dir: t.TempDir()}.Build(t.Context(), image.Program("connector", root, t.TempDir()), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Cluster: Existing, Registry: host + "/team"}
	load := func() map[string]string {
		t.Helper()
		var names map[string]string
		d := newTestDemo(t, o)
		_, err := stage.Run(t.Context(), []stage.Stage{{Name: "load", Run: func(ctx context.Context, log *stage.Log) (err error) {
			names, err = existingTarget{&o}.load(ctx, log, []image.Built{built})
			return err
		}}}, stage.Options{Out: t.Output(), LogDir: d.dir})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	names := load()
	load() // what is there is not pushed again, and is no error
	pushed := names["kaphera.local/connector:dev"]
	if !strings.HasPrefix(pushed, host+"/team/connector:dev-") {
		t.Fatalf("the cluster is told %q", pushed)
	}
	ref, err := name.ParseReference(pushed, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err := img.Digest(); err != nil || digest.String() != built.Digest {
		t.Errorf("the registry has %s, %v, want %s", digest, err, built.Digest)
	}
	server.Close()
	o.Registry = host + "/other"
	_, err = stage.Run(t.Context(), []stage.Stage{{Name: "load", Run: func(ctx context.Context, log *stage.Log) error {
		_, err := existingTarget{&o}.load(ctx, log, []image.Built{built})
		return err
	}}}, stage.Options{Out: t.Output(), LogDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "REGISTRY="+o.Registry) {
		t.Errorf("an unreachable registry gives %v", err)
	}
}

func TestEveryStageNeedsOnlyWhatExists(t *testing.T) {
	for _, cluster := range []string{Sandbox, Kind, Existing} {
		d := newTestDemo(t, Options{Cluster: cluster, Name: "demo"})
		d.target, d.company = newTarget(&d.Options)
		names := map[string]bool{}
		for _, s := range d.stages() {
			names[s.Name] = true
		}
		for _, s := range d.stages() {
			for _, need := range s.Needs {
				if !names[need] {
					t.Errorf("%s: stage %q needs %q, which does not exist", cluster, s.Name, need)
				}
			}
		}
	}
}
