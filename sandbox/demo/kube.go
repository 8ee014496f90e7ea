// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kaphera/kaphera/sandbox/cluster"
	"github.com/kaphera/kaphera/sandbox/stage"
)

// fieldManager is who the API server says applied the demo's objects.
const fieldManager = "kaphera-demo"

// poll is how often the demo looks whether something has come about.
const poll = time.Second

// kube talks to the demo's cluster.
type kube struct {
	dynamic dynamic.Interface
	typed   kubernetes.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// newKube uses a kubeconfig from inside a network namespace; an empty one is the machine's own.
func newKube(kubeconfig, netns string) (*kube, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	config.Timeout, config.Dial = 30*time.Second, cluster.DialIn(netns)
	config.QPS, config.Burst = 50, 100
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(typed.Discovery()))
	return &kube{dynamic: dyn, typed: typed, mapper: mapper}, nil
}

// parse reads the objects of a YAML file of several documents, with image
// names replaced wherever they stand.
func parse(data []byte, images map[string]string) ([]*unstructured.Unstructured, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var objects []*unstructured.Unstructured
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(u)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(u.Object) == 0 {
			continue
		}
		u.Object, _ = replace(u.Object, images).(map[string]any)
		objects = append(objects, u)
	}
}

// replace returns value with every string that is, or ends in, an image name
// (as "--image=NAME" does) carrying the name that the cluster knows.
func replace(value any, images map[string]string) any {
	switch v := value.(type) {
	case map[string]any:
		for k := range v {
			v[k] = replace(v[k], images)
		}
	case []any:
		for i := range v {
			v[i] = replace(v[i], images)
		}
	case string:
		for name, actual := range images {
			if before, ok := strings.CutSuffix(v, name); ok && (before == "" || strings.HasSuffix(before, "=")) {
				return before + actual
			}
		}
	}
	return value
}

// first says which objects others depend on.
var first = []string{"Namespace", "CustomResourceDefinition"}

// apply applies the objects server-side, namespaces and definitions first.
func (k *kube) apply(ctx context.Context, log *stage.Log, objects []*unstructured.Unstructured) error {
	ordered := slices.Clone(objects)
	rank := func(u *unstructured.Unstructured) int {
		if i := slices.Index(first, u.GetKind()); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortStableFunc(ordered, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	for _, u := range ordered {
		if err := k.applyOne(ctx, log, u); err != nil {
			return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}

func (k *kube) applyOne(ctx context.Context, log *stage.Log, u *unstructured.Unstructured) error {
	return k.until(ctx, time.Minute, func(ctx context.Context) (string, error) {
		resource, err := k.resource(u)
		if err != nil {
			return later(err) // its definition may be a moment old
		}
		_, err = resource.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if transient(err) {
			return later(err)
		}
		if err == nil {
			_, _ = fmt.Fprintf(log, "%s %s applied\n", strings.ToLower(u.GetKind()), u.GetName())
		}
		return "", err
	})
}

// transient errors pass by themselves while a cluster comes up.
func transient(err error) bool {
	return err != nil && (apierrors.IsNotFound(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsConflict(err))
}

func (k *kube) resource(u *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := u.GroupVersionKind()
	mapping, err := k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		k.mapper.Reset()
		mapping, err = k.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return k.dynamic.Resource(mapping.Resource), nil
	}
	return k.dynamic.Resource(mapping.Resource).Namespace(u.GetNamespace()), nil
}

// until calls check until it returns no reason to wait. When the limit passes
// first the error repeats the last reason.
func (k *kube) until(ctx context.Context, limit time.Duration, check func(context.Context) (waitingFor string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		reason, err := check(ctx)
		if err != nil || reason == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not so within %s: %s: %w", limit, reason, ctx.Err())
		case <-tick.C:
		}
	}
}

// later says that an error is a reason to look again.
func later(err error) (string, error) { return err.Error(), nil }

// ready waits until the object's condition Ready is true for its newest
// generation, showing the conditions that are not.
func (k *kube) ready(ctx context.Context, log *stage.Log, u *unstructured.Unstructured, limit time.Duration) error {
	shown := ""
	err := k.until(ctx, limit, func(ctx context.Context) (string, error) {
		resource, err := k.resource(u)
		if err != nil {
			return later(err)
		}
		now, err := resource.Get(ctx, u.GetName(), metav1.GetOptions{})
		if err != nil {
			return later(err)
		}
		reason := notReady(now)
		if reason != shown && reason != "" {
			shown = reason
			log.Printf("%s", reason)
		}
		return reason, nil
	})
	if err != nil {
		k.explain(context.WithoutCancel(ctx), log)
		return fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}

// notReady says which conditions of an object are not true, in words; empty
// when it is ready.
func notReady(u *unstructured.Unstructured) string {
	observed, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	ready, missing := false, []string{}
	for _, c := range list {
		condition, _ := c.(map[string]any)
		kind, status := condition["type"], condition["status"]
		if kind == "Ready" {
			ready = status == "True"
			continue
		}
		if status != "True" {
			missing = append(missing, fmt.Sprintf("%v: %v", kind, condition["message"]))
		}
	}
	switch {
	case ready && observed >= u.GetGeneration():
		return ""
	case len(missing) > 0:
		return strings.Join(missing, "; ")
	case len(list) == 0:
		return "no controller has looked at it yet"
	default:
		return "not Ready yet"
	}
}

// deployed waits until the Deployments among the objects run what they say.
func (k *kube) deployed(ctx context.Context, log *stage.Log, objects []*unstructured.Unstructured, limit time.Duration) error {
	for _, u := range objects {
		if u.GetKind() != "Deployment" {
			continue
		}
		err := k.until(ctx, limit, func(ctx context.Context) (string, error) {
			d, err := k.typed.AppsV1().Deployments(u.GetNamespace()).Get(ctx, u.GetName(), metav1.GetOptions{})
			if err != nil {
				return later(err)
			}
			want, s := int32(1), d.Status
			if d.Spec.Replicas != nil {
				want = *d.Spec.Replicas
			}
			if s.ObservedGeneration >= d.Generation && s.UpdatedReplicas >= want && s.AvailableReplicas >= want && s.Replicas == s.UpdatedReplicas {
				return "", nil
			}
			return fmt.Sprintf("%d of %d pods run", s.AvailableReplicas, want), nil
		})
		if err != nil {
			k.explain(context.WithoutCancel(ctx), log)
			return fmt.Errorf("deployment %s: %w", u.GetName(), err)
		}
	}
	return nil
}

// explain writes what keeps pods from running into the log: why a container
// waits and the last lines that it printed.
func (k *kube) explain(ctx context.Context, log *stage.Log) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	pods, err := k.typed.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		_, _ = fmt.Fprintf(log, "list the pods: %v\n", err)
		return
	}
	for _, p := range pods.Items {
		if p.Status.Phase == corev1.PodSucceeded {
			continue
		}
		for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			if c.Ready || c.State.Terminated != nil && c.State.Terminated.ExitCode == 0 {
				continue
			}
			_, _ = fmt.Fprintf(log, "pod %s/%s, container %s is not ready (%s), restarts: %d\n", p.Namespace, p.Name, c.Name, waiting(c), c.RestartCount)
			tail := int64(15)
			text, err := k.typed.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: c.Name, TailLines: &tail}).DoRaw(ctx)
			if err == nil {
				_, _ = fmt.Fprintf(log, "%s\n", text)
			}
		}
	}
}

func waiting(c corev1.ContainerStatus) string {
	switch {
	case c.State.Waiting != nil:
		return strings.TrimSpace(c.State.Waiting.Reason + " " + c.State.Waiting.Message)
	case c.State.Terminated != nil:
		return fmt.Sprintf("ended with code %d", c.State.Terminated.ExitCode)
	default:
		return "its readiness check fails"
	}
}

// secret returns a Secret's values.
func (k *kube) secret(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	s, err := k.typed.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the Secret %s/%s: %w", namespace, name, err)
	}
	return s.Data, nil
}

// ingressClass checks that the cluster serves Ingresses of the class.
func (k *kube) ingressClass(ctx context.Context, class string) error {
	_, err := k.typed.NetworkingV1().IngressClasses().Get(ctx, class, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("INGRESS_CLASS=%s: the cluster has no such ingress class; install an ingress controller, or name the class of the one that is there", class)
	}
	return err
}

// remove deletes the objects, the last first, and waits until they are gone.
func (k *kube) remove(ctx context.Context, log *stage.Log, objects []*unstructured.Unstructured, limit time.Duration) error {
	for _, u := range slices.Backward(objects) {
		err := k.until(ctx, limit, func(ctx context.Context) (string, error) {
			resource, err := k.resource(u)
			if meta.IsNoMatchError(err) {
				return "", nil
			}
			if err != nil {
				return "", err
			}
			err = resource.Delete(ctx, u.GetName(), metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				return "", nil
			}
			if err != nil && !transient(err) {
				return "", err
			}
			return "it is being deleted", nil
		})
		if err != nil {
			return fmt.Errorf("delete %s %s: %w", u.GetKind(), u.GetName(), err)
		}
		_, _ = fmt.Fprintf(log, "%s %s is gone\n", strings.ToLower(u.GetKind()), u.GetName())
	}
	return nil
}

// platformObject names the demo's Platform.
func platformObject() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(schema.GroupVersionKind{Group: "cloud.kaphera.io", Version: "v1alpha1", Kind: "Platform"})
	u.SetNamespace(platformNamespace)
	u.SetName("kaphera")
	return u
}
