// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// checkTimeout bounds one question whether something is ready.
const checkTimeout = 5 * time.Second

type client struct{ *kubernetes.Clientset }

// newClient asks from inside the cluster's network: a company's lets nobody else in.
func newClient(l layout) (client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", l.adminKubeconfig())
	if err != nil {
		return client{}, fmt.Errorf("kubeconfig %s: %w", l.adminKubeconfig(), err)
	}
	config.Dial = DialIn(l.netnsPath())
	config.Timeout = checkTimeout
	set, err := kubernetes.NewForConfig(config)
	return client{set}, err
}

func (c client) apiReady(ctx context.Context) error {
	return c.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// accountsMade tells that the controllers work: they make the first service account.
func (c client) accountsMade(ctx context.Context) error {
	_, err := c.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	return err
}

// nodeReady tells that the node takes pods, and that its kubelet has reported
// since: what is recorded of a kubelet before may no longer be true.
func (c client) nodeReady(name string, since time.Time) func(context.Context) error {
	return func(ctx context.Context) error {
		lease, err := c.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if t := lease.Spec.RenewTime; t == nil || t.Time.Before(since) {
			return fmt.Errorf("the kubelet of node %s has not reported since it was started", name)
		}
		node, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, t := range node.Spec.Taints {
			if t.Key == corev1.TaintNodeNotReady {
				return fmt.Errorf("node %s still has the taint %s", name, t.Key)
			}
		}
		for _, cond := range node.Status.Conditions {
			if cond.Type == corev1.NodeReady && cond.Status == corev1.ConditionTrue {
				return nil
			} else if cond.Type == corev1.NodeReady {
				return fmt.Errorf("node %s is not ready: %s", name, cond.Message)
			}
		}
		return fmt.Errorf("node %s has not reported yet", name)
	}
}

// httpOK asks url, without a proxy, and wants the status 200.
func (l layout) httpOK(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ca, err := os.ReadFile(l.pki("ca.crt"))
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		c := &http.Client{Timeout: checkTimeout, Transport: &http.Transport{
			DialContext: DialIn(l.netnsPath()), DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13},
		}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 512))
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s: %.200s", url, resp.Status, body)
		}
		return err
	}
}
