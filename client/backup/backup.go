// SPDX-License-Identifier: Apache-2.0

// Package backup writes archives of what the connector and the issuers of a cell keep, and brings them into the cell again when it is empty (package
// connector/archive says what is in one). It needs the Kubernetes API of the cell's cluster and nothing else of it: each archive is made, or read, in a
// Pod under the account that the EDC operator keeps for that, and streamed to or from a file here. The key that opens archives
// stays here.
package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/utils/ptr"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

const (
	callTimeout  = 30 * time.Second // of one call to the cluster
	pollInterval = 500 * time.Millisecond
	// extension of the files' names.
	extension = ".archive"
)

// Cell is a namespace in which the EDC operator runs a connector, and maybe issuers.
type Cell struct {
	Namespace string
	// VaultSecret is the Secret, in the namespace, with which archives are made or read where connectors log in to the Vault by AppRole (keys role-id and
	// secret-id), or by a token that may not do that (key token).
	VaultSecret string
	// Progress is told what is done.
	Progress func(format string, args ...any)

	config  *rest.Config
	cluster kube.Client
	pods    rest.Interface
	execute func(ctx context.Context, pod *corev1.Pod, command []string, streams remotecommand.StreamOptions) error // exec
}

// Archive is a file with what one runtime keeps.
type Archive struct {
	Runtime  string    `json:"runtime"` // name of the Connector or CredentialIssuer
	File     string    `json:"file"`
	MadeAt   time.Time `json:"madeAt,omitzero"` // of one that was restored
	Contexts []string  `json:"contexts"`        // participants, or the issuer
	Rows     int64     `json:"rows"`
	Secrets  int64     `json:"secrets"`
	SHA256   string    `json:"sha256,omitempty"` // of the file of one that was written
}

// Open prepares to reach the cluster; it asks nothing yet.
func Open(cluster *rest.Config, namespace string) (*Cell, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), edc.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("kubernetes types: %w", err)
	}
	c := &Cell{Namespace: namespace, Progress: func(string, ...any) {}, config: cluster}
	cfg := rest.CopyConfig(cluster)
	cfg.Timeout = callTimeout
	var err error
	if c.cluster, err = kube.New(cfg, kube.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	typed, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	c.pods, c.execute = typed.CoreV1().RESTClient(), c.exec
	return c, nil
}

// unit is a runtime in the cell.
type unit struct {
	workload.Runtime

	generation int64
	conditions []metav1.Condition
}

// errNotYet says that the operators have not come to it.
var errNotYet = errors.New("not prepared yet")

// units are the cell's connector and its issuers, as they are now.
func (c *Cell) units(ctx context.Context) ([]unit, error) {
	var connectors edc.ConnectorList
	var issuers edc.CredentialIssuerList
	for _, l := range []kube.ObjectList{&connectors, &issuers} {
		if err := c.cluster.List(ctx, l, kube.InNamespace(c.Namespace)); err != nil {
			return nil, fmt.Errorf("list connectors and issuers in namespace %s: %w", c.Namespace, err)
		}
	}
	var out []unit
	for i := range connectors.Items {
		o := &connectors.Items[i]
		out = append(out, unit{workload.Connector(o, ""), o.Generation, o.Status.Conditions})
	}
	for i := range issuers.Items {
		o := &issuers.Items[i]
		out = append(out, unit{workload.CredentialIssuer(o, ""), o.Generation, o.Status.Conditions})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: namespace %s has no Connector and no CredentialIssuer: is it the cell's, and has its agent applied what the cell runs?", errNotYet, c.Namespace)
	}
	for n := range out {
		u := &out[n]
		u.ArchiveLogin = c.VaultSecret
		if u.Vault.Auth.Method == edc.VaultMethodAppRole && c.VaultSecret == "" {
			return nil, fmt.Errorf("%s logs in to its Vault by AppRole: name a Secret in namespace %s with role-id and secret-id of an AppRole for this", u.Name, c.Namespace)
		}
		// The release that runs, whose schema the database has.
		var d appsv1.Deployment
		err := c.cluster.Get(ctx, kube.ObjectKey{Namespace: c.Namespace, Name: u.ObjectName(u.Roles[0])}, &d)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("%w: the EDC operator has not deployed %s", errNotYet, u.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("read the Deployment of %s: %w", u.Name, err)
		}
		u.Image = d.Spec.Template.Spec.Containers[0].Image
	}
	return out, nil
}

// idle says why an archive cannot be brought into u yet, as words; empty when it can. The error is final.
func (c *Cell) idle(ctx context.Context, u *unit) (string, error) {
	if n := ptr.Deref(u.Replicas, 1); n > 0 {
		return "", fmt.Errorf("%s has replicas %d and may be running: set replicas to 0 first, so that nothing works on what is restored", u.Name, n)
	}
	ready := meta.FindStatusCondition(u.conditions, edc.ConditionWorkloadsReady)
	if ready == nil || ready.ObservedGeneration != u.generation || ready.Reason != edc.ReasonScaledToZero {
		for _, found := range u.conditions {
			if found.Status == metav1.ConditionFalse && found.Reason != edc.ReasonScaledToZero {
				return fmt.Sprintf("%s: %s: %s", u.Name, found.Type, found.Message), nil
			}
		}
		return u.Name + ": the EDC operator has not prepared it yet", nil
	}
	for _, role := range u.Roles {
		var pods corev1.PodList
		if err := c.cluster.List(ctx, &pods, kube.InNamespace(c.Namespace), kube.MatchingLabels(u.Selector(role))); err != nil {
			return "", fmt.Errorf("list the pods of %s: %w", u.Name, err)
		}
		if len(pods.Items) > 0 {
			return fmt.Sprintf("%s: pod %s is still ending", u.Name, pods.Items[0].Name), nil
		}
	}
	return "", nil
}

// awaitIdle waits until archives can be brought into the runtimes of these names, and returns them as they are then.
func (c *Cell) awaitIdle(ctx context.Context, names []string) (ready []unit, err error) {
	err = c.await(ctx, func() (string, error) {
		all, err := c.units(ctx)
		if errors.Is(err, errNotYet) {
			return err.Error(), nil
		}
		if err != nil {
			return "", err
		}
		ready = nil
		for _, name := range names {
			at := slices.IndexFunc(all, func(u unit) bool { return u.Name == name })
			if at < 0 {
				return fmt.Sprintf("namespace %s has no Connector or CredentialIssuer %s yet", c.Namespace, name), nil
			}
			if why, err := c.idle(ctx, &all[at]); why != "" || err != nil {
				return why, err
			}
			ready = append(ready, all[at])
		}
		return "", nil
	})
	return ready, err
}

// await looks again until there is nothing to wait for; the error says what there was.
func (c *Cell) await(ctx context.Context, missing func() (string, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for last := ""; ; {
		why, err := missing()
		if err != nil && ctx.Err() != nil && last != "" {
			return fmt.Errorf("%s: %w", last, ctx.Err())
		}
		if err != nil || why == "" {
			return err
		}
		if why != last && ctx.Err() == nil {
			last = why
			c.Progress("waiting: %s", why)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", why, ctx.Err())
		case <-tick.C:
		}
	}
}

// said is the last line that a process logged.
type said struct {
	Error    string    `json:"error"`
	Made     time.Time `json:"made"`
	Contexts []string  `json:"contexts"`
	Rows     int64     `json:"rows"`
	Secrets  int64     `json:"secrets"`
	SHA256   string    `json:"sha256"`
}

// lifetime of a Pod is that of the caller's patience and somewhat more, so that one that its caller could not remove ends.
func lifetime(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 24 * time.Hour
	}
	return time.Until(deadline) + time.Minute
}

// run executes a command of the connector in a Pod of role of its own, which is removed whatever comes of it.
func (c *Cell) run(ctx context.Context, u *unit, role workload.Role, in io.Reader, out io.Writer, command ...string) (*said, error) {
	pod := u.ArchivePod(role, lifetime(ctx))
	if err := c.cluster.Create(ctx, pod); err != nil {
		return nil, fmt.Errorf("%s: create a pod under account %s: %w", u.Name, pod.Spec.ServiceAccountName, err)
	}
	defer c.remove(ctx, pod)
	if err := c.await(ctx, func() (string, error) { return c.starting(ctx, pod) }); err != nil {
		return nil, fmt.Errorf("%s: %w", u.Name, err)
	}
	log := &tail{}
	err := c.execute(ctx, pod, append([]string{"/proc/1/exe"}, command...), remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: log})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %s was cut off: %w", u.Name, role, ctx.Err())
	}
	s := &said{}
	known := json.Unmarshal(log.last(), s) == nil
	switch {
	case err != nil && known && s.Error != "":
		return nil, fmt.Errorf("%s: %s", u.Name, s.Error)
	case err != nil:
		return nil, fmt.Errorf("%s: %s in pod %s: %w %s", u.Name, role, pod.Name, err, log.last())
	case !known:
		return nil, fmt.Errorf("%s: %s in pod %s ended without a word: %s", u.Name, role, pod.Name, log.last())
	}
	return s, nil
}

// starting says what a Pod waits for; empty when it runs. The error is final.
func (c *Cell) starting(ctx context.Context, pod *corev1.Pod) (string, error) {
	if err := c.cluster.Get(ctx, kube.ObjectKeyFromObject(pod), pod); err != nil {
		return "", fmt.Errorf("read pod %s: %w", pod.Name, err)
	}
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return "", fmt.Errorf("pod %s ended: %s %s", pod.Name, pod.Status.Reason, pod.Status.Message)
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Running != nil {
			return "", nil
		}
		if w := s.State.Waiting; w != nil && w.Message != "" {
			return fmt.Sprintf("pod %s: %s: %s", pod.Name, w.Reason, w.Message), nil
		}
	}
	for _, k := range pod.Status.Conditions {
		if k.Type == corev1.PodScheduled && k.Status == corev1.ConditionFalse {
			return fmt.Sprintf("pod %s is not placed: %s", pod.Name, k.Message), nil
		}
	}
	return "pod " + pod.Name + " starts", nil
}

// remove removes a Pod, also after the caller's time.
func (c *Cell) remove(ctx context.Context, pod *corev1.Pod) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := c.cluster.Delete(ctx, pod, kube.GracePeriodSeconds(1)); kube.IgnoreNotFound(err) != nil {
		c.Progress("pod %s could not be removed, it ends by itself: %v", pod.Name, err)
	}
}

// exec executes a command in the one container of a Pod.
func (c *Cell) exec(ctx context.Context, pod *corev1.Pod, command []string, streams remotecommand.StreamOptions) error {
	u := c.pods.Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec").VersionedParams(&corev1.PodExecOptions{
		Container: pod.Spec.Containers[0].Name, Command: command, Stdin: streams.Stdin != nil, Stdout: streams.Stdout != nil, Stderr: true,
	}, clientgoscheme.ParameterCodec).URL()
	websocket, err := remotecommand.NewWebSocketExecutor(c.config, "GET", u.String())
	if err != nil {
		return err
	}
	spdy, err := remotecommand.NewSPDYExecutor(c.config, "POST", u)
	if err != nil {
		return err
	}
	e, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool { return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err) })
	if err != nil {
		return err
	}
	return e.StreamWithContext(ctx, streams)
}

// tail keeps the end of what is written.
type tail struct{ end []byte }

const tailSize = 1 << 16

func (t *tail) Write(p []byte) (int, error) {
	t.end = append(t.end, p...)
	t.end = t.end[max(0, len(t.end)-tailSize):]
	return len(p), nil
}

// last is the last line.
func (t *tail) last() []byte {
	text := bytes.TrimSpace(t.end)
	return text[bytes.LastIndexByte(text, '\n')+1:]
}

// runtimeOf is the name of the runtime that a file is of.
func runtimeOf(file string) string { return strings.TrimSuffix(file, extension) }
