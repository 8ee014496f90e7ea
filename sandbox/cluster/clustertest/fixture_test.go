// SPDX-License-Identifier: Apache-2.0

package clustertest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kaphera/kaphera/sandbox/cluster"
	"github.com/kaphera/kaphera/sandbox/cluster/staticimage"
	"github.com/kaphera/kaphera/sandbox/image"
	"github.com/kaphera/kaphera/sandbox/internal/place"
)

// patience bounds each wait; nothing measures against it.
const patience = 2 * time.Minute

// fixture is one cluster under test.
type fixture struct {
	options   cluster.Options
	info      cluster.Info
	dir       string // its state folder
	namespace string
	client    *kubernetes.Clientset
	http      *http.Client
}

func up(t *testing.T, o cluster.Options) *fixture {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root: run it as `make test` does")
	}
	t.Cleanup(func() {
		if err := cluster.Down(context.Background(), o.Name, report(t)); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{options: o, namespace: "probe"}
	f.up(t)
	f.dir = filepath.Dir(filepath.Dir(f.info.Kubeconfig))
	config, err := clientcmd.BuildConfigFromFlags("", f.info.Kubeconfig)
	must(t, err)
	f.client, err = kubernetes.NewForConfig(config)
	must(t, err)
	ca, err := os.ReadFile(f.info.CAFile)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	f.http = &http.Client{
		Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		// A new connection each time: the gateway may have been started again.
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
	}
	return f
}

func (f *fixture) up(t *testing.T) {
	t.Helper()
	info, err := cluster.Up(t.Context(), f.options, report(t))
	must(t, err)
	f.info = info
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (f *fixture) do(ctx context.Context, method, target, body string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, string(data)}, err
}

func (f *fixture) get(t *testing.T, target string, status int) answer {
	t.Helper()
	got, err := f.do(t.Context(), http.MethodGet, target, "")
	must(t, err)
	if got.status != status {
		t.Fatalf("GET %s: status %d, want %d:\n%s", target, got.status, status, got.body)
	}
	return got
}

func (f *fixture) put(t *testing.T, target, body string) {
	t.Helper()
	got, err := f.do(t.Context(), http.MethodPut, target, body)
	must(t, err)
	if got.status != http.StatusOK {
		t.Fatalf("PUT %s: status %d:\n%s", target, got.status, got.body)
	}
}

// eventually gets target until it answers with status and a body that contains want.
func (f *fixture) eventually(t *testing.T, target string, status int, want string) string {
	t.Helper()
	var got answer
	waitFor(t, target, func() error {
		var err error
		if got, err = f.do(t.Context(), http.MethodGet, target, ""); err != nil {
			return err
		}
		if got.status != status || !strings.Contains(got.body, want) {
			return fmt.Errorf("status %d: %s", got.status, got.body)
		}
		return nil
	})
	return got.body
}

// inPod asks the probe, through the gateway, to do something in its pod.
func (f *fixture) inPod(t *testing.T, request string, status int) string {
	t.Helper()
	path, query, _ := strings.Cut(request, "?")
	key, value, _ := strings.Cut(query, "=")
	return f.get(t, "https://probe."+f.info.Domain+path+"?"+url.Values{key: {value}}.Encode(), status).body
}

func (f *fixture) service(t *testing.T, name string) string {
	t.Helper()
	s, err := f.client.CoreV1().Services(f.namespace).Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	return s.Spec.ClusterIP
}

func (f *fixture) restartPod(t *testing.T) {
	t.Helper()
	pods, err := f.client.CoreV1().Pods(f.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=probe"})
	must(t, err)
	for _, pod := range pods.Items {
		must(t, f.client.CoreV1().Pods(f.namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{}))
		waitFor(t, "pod "+pod.Name+" to go", func() error {
			_, err := f.client.CoreV1().Pods(f.namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(errors.New("it is still there"), err)
		})
	}
}

func (f *fixture) tokenReview(t *testing.T) {
	ask := func(token, audience string) authv1.TokenReviewStatus {
		review, err := f.client.AuthenticationV1().TokenReviews().Create(t.Context(), &authv1.TokenReview{
			Spec: authv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
		}, metav1.CreateOptions{})
		must(t, err)
		return review.Status
	}
	token, err := f.client.CoreV1().ServiceAccounts(f.namespace).CreateToken(t.Context(), "default", &authv1.TokenRequest{
		Spec: authv1.TokenRequestSpec{Audiences: []string{"vault"}},
	}, metav1.CreateOptions{})
	must(t, err)
	if got := ask(token.Status.Token, "vault"); !got.Authenticated || got.User.Username != "system:serviceaccount:"+f.namespace+":default" {
		t.Errorf("its own audience: %+v", got)
	}
	if got := ask(token.Status.Token, "somebody-else"); got.Authenticated {
		t.Errorf("another audience was accepted: %+v", got)
	}
}

// networkPolicy looks at the probe from another pod, by its Service, while the
// policy names that pod and while it does not.
func (f *fixture) networkPolicy(t *testing.T) {
	policy, err := os.ReadFile("testdata/policy.yaml")
	must(t, err)
	apply := func(allowed string) {
		f.kubectl(t, strings.ReplaceAll(string(policy), "ALLOWED", allowed), "apply", "-f", "-")
	}
	fromOutsider := "https://outsider." + f.info.Domain + "/fetch?url=" + url.QueryEscape("http://probe."+f.namespace+".svc.cluster.local/inside")
	f.eventually(t, fromOutsider, http.StatusOK, "path=/inside")
	apply("nobody")
	f.eventually(t, fromOutsider, http.StatusBadGateway, "deadline")
	f.get(t, "https://probe."+f.info.Domain+"/", http.StatusOK) // the gateway is the node's
	apply("outsider")
	f.eventually(t, fromOutsider, http.StatusOK, "path=/inside")
	f.kubectl(t, "", "-n", f.namespace, "delete", "networkpolicy", "probe")
}

func (f *fixture) reclaim(t *testing.T) {
	folders, err := filepath.Glob(filepath.Join(f.dir, "volumes", "pvc-*"))
	must(t, err)
	if len(folders) != 1 {
		t.Fatalf("want one folder of a volume, have %v", folders)
	}
	must(t, f.client.CoreV1().Namespaces().Delete(t.Context(), f.namespace, metav1.DeleteOptions{}))
	waitFor(t, "the volume to go", func() error {
		volumes, err := f.client.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(volumes.Items) > 0 {
			return fmt.Errorf("%s is %s", volumes.Items[0].Name, volumes.Items[0].Status.Phase)
		}
		return nil
	})
	if _, err := os.Stat(folders[0]); err == nil {
		t.Errorf("%s is still there", folders[0])
	}
}

// running is nil when the cluster says of itself that all of it runs.
func (f *fixture) running(t *testing.T) error {
	t.Helper()
	list, err := cluster.List(t.Context())
	must(t, err)
	for _, s := range list {
		if s.Name == f.info.Name {
			if s.State == "running" {
				return nil
			}
			return fmt.Errorf("%s: %s", s.State, s.Reason)
		}
	}
	return fmt.Errorf("cluster %s is not listed", f.info.Name)
}

// pids is the record of the cluster's processes.
func (f *fixture) pids(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(f.dir, "run", "*.json"))
	must(t, err)
	var all strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		fmt.Fprintf(&all, "%s %s\n", filepath.Base(file), data)
	}
	return all.String()
}

func waitFor(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waiting for %s: %v", what, err)
		case <-t.Context().Done():
			t.Fatalf("waiting for %s: %v: %v", what, t.Context().Err(), err)
		}
	}
}

// linkOf is the host's network interface that has the node's network.
func linkOf(t *testing.T, node string) string {
	t.Helper()
	all, err := net.Interfaces()
	must(t, err)
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			continue // it went away
		}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.Contains(net.ParseIP(node)) {
				return i.Name
			}
		}
	}
	return ""
}

func probeImage(t *testing.T) string {
	t.Helper()
	root, err := place.Root()
	must(t, err)
	cache, err := place.Cache()
	must(t, err)
	built, err := image.Store{Dir: filepath.Join(cache, "images")}.Build(t.Context(), staticimage.Recipe{
		Image: "probe", Version: "test", Module: filepath.Join(root, "sandbox"), Package: "./cluster/clustertest/probe", Cache: cache,
	}, io.Discard)
	must(t, err)
	return built.Path
}

// deploy brings the probe up with its claim, Services and Ingress.
func (f *fixture) deploy(t *testing.T) {
	t.Helper()
	manifest, err := os.ReadFile("testdata/probe.yaml")
	must(t, err)
	f.kubectl(t, strings.ReplaceAll(string(manifest), "DOMAIN", f.info.Domain), "apply", "-f", "-")
	cm, err := f.client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(t.Context(), "sandbox-ca", metav1.GetOptions{})
	must(t, err)
	_, err = f.client.CoreV1().ConfigMaps(f.namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "sandbox-ca"}, Data: cm.Data,
	}, metav1.CreateOptions{})
	must(t, err)
	f.kubectl(t, "", "-n", f.namespace, "rollout", "status", "deployment/probe", "--timeout=120s")
	f.kubectl(t, "", "-n", f.namespace, "rollout", "status", "deployment/outsider", "--timeout=120s")
}

func (f *fixture) kubectl(t *testing.T, stdin string, args ...string) {
	t.Helper()
	dir, err := cluster.Envtest(t.Context(), report(t))
	must(t, err)
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "kubectl"), append([]string{"--kubeconfig=" + f.info.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
}
