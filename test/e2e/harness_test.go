// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/kaphera/kaphera/client"
)

// patience bounds every wait for the cluster; nothing is asserted about how long things take.
const patience = 5 * time.Minute

// sandbox is the program that made the cluster.
var sandbox = filepath.Join("..", "..", "bin", "sandbox")

// dir is where the cluster's files are: kubeconfig, ca.crt, env.
var dir string

func TestMain(m *testing.M) {
	dir = os.Getenv("KAPHERA_E2E_DIR")
	if dir == "" {
		fmt.Fprintln(os.Stderr, "KAPHERA_E2E_DIR is not set: run make e2e, which brings up the cluster these tests need")
		os.Exit(1)
	}
	if err := loadEnv(filepath.Join(dir, "env")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// loadEnv takes the assignments of a file that a shell would source.
func loadEnv(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		k, v, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(sc.Text()), "export "), "=")
		if !ok || strings.HasPrefix(k, "#") {
			continue
		}
		v = strings.NewReplacer("'", "", `"`, "").Replace(v)
		if err := os.Setenv(k, os.ExpandEnv(v)); err != nil {
			return err
		}
	}
	return sc.Err()
}

func domain() string { return os.Getenv("TF_VAR_domain") }

func caFile() string { return os.Getenv("KAPHERA_CA_FILE") }

// cloud is a client of the Cloud API with the governance authority's and the platform operator's rights.
func cloud(t *testing.T) *client.API {
	t.Helper()
	c, err := client.New(client.Config{
		API: os.Getenv("KAPHERA_API"), CAFile: os.Getenv("KAPHERA_CA_FILE"),
		ClientID: os.Getenv("KAPHERA_CLIENT_ID"), ClientSecret: os.Getenv("KAPHERA_CLIENT_SECRET"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// command runs a program with the cluster's environment and returns its standard output, both outputs together, and its exit code.
func command(t *testing.T, name string, args ...string) (stdout, all string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	var both lockedBuffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &both), &both
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return out.String(), both.String(), cmd.ProcessState.ExitCode()
}

// lockedBuffer takes what two streams write at once.
type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// must runs a program that has to succeed.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	stdout, all, code := command(t, name, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s", name, strings.Join(args, " "), code, all)
	}
	return stdout
}

// eventually waits for a condition; what it waits for is in the failure.
func eventually(t *testing.T, what string, done func(ctx context.Context) (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		ok, seen := done(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s; last seen: %s", what, patience, seen)
		case <-tick.C:
		}
	}
}

func kube(t *testing.T) (*rest.Config, *kubernetes.Clientset) {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, "kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	cs, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, cs
}

// forward opens a local port to a port of a ready pod behind a Service, for which it waits, and returns its base URL.
func forward(t *testing.T, namespace, service string, port int) string {
	t.Helper()
	cfg, cs := kube(t)
	svc, err := cs.CoreV1().Services(namespace).Get(t.Context(), service, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	selector := metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: svc.Spec.Selector})}
	var pod string
	eventually(t, "a ready pod behind Service "+namespace+"/"+service, func(ctx context.Context) (bool, string) {
		pods, err := cs.CoreV1().Pods(namespace).List(ctx, selector)
		if err != nil {
			return false, err.Error()
		}
		for _, p := range pods.Items {
			for _, c := range p.Status.Conditions {
				if p.DeletionTimestamp == nil && c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					pod = p.Name
				}
			}
		}
		return pod != "", fmt.Sprintf("%d pods", len(pods.Items))
	})
	rt, upgrader, err := spdy.RoundTripperFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	target := cs.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	stop, ready := make(chan struct{}), make(chan struct{})
	fw, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: rt}, http.MethodPost, target), []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- fw.ForwardPorts() }()
	t.Cleanup(func() { close(stop) })
	select {
	case <-ready:
	case err := <-failed:
		t.Fatalf("port-forward to %s/%s: %v", namespace, pod, err)
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
	ports, err := fw.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local)
}

// internalAPI returns the base URL and the token of a runtime's internal API, as the operator's status names them.
func internalAPI(t *testing.T, namespace, internalURL, secret string) (base, token string) {
	t.Helper()
	u, err := url.Parse(internalURL)
	if err != nil {
		t.Fatal(err)
	}
	service, _, _ := strings.Cut(u.Hostname(), ".")
	_, cs := kube(t)
	s, err := cs.CoreV1().Secrets(namespace).Get(t.Context(), secret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return forward(t, namespace, service, 8081), string(s.Data["token"])
}

// call sends a JSON request with a bearer token and returns status and body.
func call(t *testing.T, method, address, token string, body []byte) (int, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	out, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, out
}
