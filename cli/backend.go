// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// What the demo's backend is called; see examples/pcf-backend/deploy.yaml.
const (
	backendName      = "pcf-backend"
	backendKeys      = "pcf-backend-keys" // Secret with keys writer and reader
	backendPort      = 8080
	backendKeyHeader = "X-Api-Key"
	backendTimeout   = 30 * time.Second
)

type backendOptions struct {
	kubeconfig, namespace, address, url, writerFile, readerFile string
}

// backend is the demo's way to the supplier's backend.
type backend struct {
	url, address         string
	writerKey, readerKey string
	http                 *http.Client
	stop                 func()
}

func (b *backend) close() { b.stop() }

// openBackend opens a port-forward, or takes the address given.
func openBackend(ctx context.Context, o backendOptions) (*backend, error) {
	b := &backend{
		url: strings.TrimSuffix(o.url, "/"), address: first(strings.TrimSuffix(o.address, "/"), fmt.Sprintf("http://%s.%s.svc", backendName, o.namespace)),
		http: &http.Client{Timeout: backendTimeout}, stop: func() {},
	}
	switch {
	case o.url != "" && (o.writerFile == "" || o.readerFile == ""):
		return nil, usage("--backend-url needs --backend-writer-token-file and --backend-reader-token-file")
	case o.url != "":
		return b, errors.Join(readKey(o.writerFile, &b.writerKey), readKey(o.readerFile, &b.readerKey))
	case o.kubeconfig == "":
		return nil, usage("the demo seeds the supplier's backend in the cluster: give --kubeconfig FILE (make demo leaves .demo/kubeconfig), or --backend-url")
	}
	conf, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return nil, fail(ExitFailed, "give the cluster's kubeconfig with --kubeconfig", "kubeconfig %s: %s", o.kubeconfig, err)
	}
	conf.Timeout = backendTimeout
	if err := b.forward(ctx, conf, o.namespace); err != nil {
		return nil, err
	}
	return b, nil
}

func readKey(file string, into *string) error {
	raw, err := os.ReadFile(file) //nolint:gosec // the path is the caller's
	if err != nil {
		return fail(ExitUsage, "give a file with the key", "backend key: %s", err)
	}
	*into = strings.TrimSpace(string(raw))
	return nil
}

// forward reads the backend's keys and opens a port-forward to its pod on a free loopback port.
func (b *backend) forward(ctx context.Context, conf *rest.Config, namespace string) error {
	k, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return fmt.Errorf("kubernetes client: %w", err)
	}
	secret, err := k.CoreV1().Secrets(namespace).Get(ctx, backendKeys, metav1.GetOptions{})
	if err != nil {
		return fail(ExitFailed, "deploy examples/pcf-backend as its deploy.yaml says (make demo does)", "keys of the backend in namespace %s: %s", namespace, err)
	}
	b.writerKey, b.readerKey = string(secret.Data["writer"]), string(secret.Data["reader"])
	pod, err := backendPod(ctx, k, namespace)
	if err != nil {
		return err
	}
	streaming := rest.CopyConfig(conf)
	streaming.Timeout = 0 // the forward lives as long as the demo
	transport, upgrader, err := spdy.RoundTripperFor(streaming)
	if err != nil {
		return fmt.Errorf("port-forward: %w", err)
	}
	target := k.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	stop, ready, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var said bytes.Buffer
	fw, err := portforward.New(spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target), []string{fmt.Sprintf("0:%d", backendPort)}, stop, ready, io.Discard, &said)
	if err != nil {
		return fmt.Errorf("port-forward: %w", err)
	}
	go func() { failed <- fw.ForwardPorts() }()
	waiting, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	select {
	case <-ready:
	case err := <-failed:
		return fail(ExitUnreachable, "look at the pod: kubectl -n "+namespace+" describe pod "+pod, "port-forward to pod %s: %s", pod, err)
	case <-waiting.Done():
		close(stop)
		return fail(ExitUnreachable, "look at the pod: kubectl -n "+namespace+" describe pod "+pod, "port-forward to pod %s: not open after %s", pod, backendTimeout)
	}
	b.stop = func() {
		close(stop)
		if err := <-failed; err != nil {
			return // it is over either way
		}
	}
	ports, err := fw.GetPorts()
	if err != nil {
		return fmt.Errorf("port-forward: %w", err)
	}
	b.url = fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local)
	return nil
}

func backendPod(ctx context.Context, k kubernetes.Interface, namespace string) (string, error) {
	pods, err := k.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + backendName})
	if err != nil {
		return "", fail(ExitUnreachable, "check the kubeconfig", "pods of the backend in namespace %s: %s", namespace, err)
	}
	for i := range pods.Items {
		for _, c := range pods.Items[i].Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return pods.Items[i].Name, nil
			}
		}
	}
	return "", fail(ExitFailed, "kubectl -n "+namespace+" get pods", "the backend in namespace %s has no ready pod (%d pods)", namespace, len(pods.Items))
}

// inCluster is where the data plane finds a document.
func (b *backend) inCluster(document string) string { return b.address + "/documents/" + document }

func (b *backend) put(ctx context.Context, document string, doc []byte) error {
	status, err := b.do(ctx, http.MethodPut, document, b.writerKey, doc)
	if err == nil && status != http.StatusNoContent {
		err = fail(ExitFailed, "look at the backend's log; its Secret "+backendKeys+" may have changed since it started", "the backend answered %d %s to the footprint", status, http.StatusText(status))
	}
	return err
}

// getWithoutKey asks for a document as somebody who is not the data plane.
func (b *backend) getWithoutKey(ctx context.Context, document string) (int, error) {
	return b.do(ctx, http.MethodGet, document, "", nil)
}

func (b *backend) do(ctx context.Context, method, document, key string, body []byte) (int, error) {
	r, err := http.NewRequestWithContext(ctx, method, b.url+"/documents/"+document, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("backend: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set(backendKeyHeader, key)
	}
	resp, err := b.http.Do(r)
	if err != nil {
		return 0, fail(ExitUnreachable, "kubectl get pods --all-namespaces -l app.kubernetes.io/name="+backendName, "the supplier's backend does not answer: %s", err)
	}
	defer func() { _ = resp.Body.Close() }()
	const most = 1 << 20
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, most))
	return resp.StatusCode, err
}
