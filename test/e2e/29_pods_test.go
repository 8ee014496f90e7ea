// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kaphera/kaphera/client"
)

// Of each part of ours that runs more than once one pod is deleted in turn, without the time to end what it does, and of those of which one leads that
// one, while people read and participants negotiate. What the client repeats makes up for it, and nothing is lost.
func TestAPodOfEachPartGoes(t *testing.T) {
	_, cs := kube(t)
	twice(t, cs)
	leaders := []string{takePod(t, cs, part(t, cs, "cloud-operator")), takePod(t, cs, part(t, cs, "edc-operator"))}
	f := newFaults(t, cs) // what is desired comes about without them
	l := f.load(t)
	for _, name := range []string{"kaphera-cell-agent", "kaphera-cloud", "connector-control-plane", "connector-wallet", "connector-data-plane", "membership"} {
		begin := time.Now()
		whole(t, cs, name, []string{takePod(t, cs, part(t, cs, name))})
		l.goesOn(t)
		if failed := l.failures(); len(failed) > 0 {
			t.Errorf("when a pod of %s went: %s", name, strings.Join(failed, "; "))
		}
		t.Logf("%s: whole again after %s", name, time.Since(begin).Round(100*time.Millisecond))
	}
	f.caughtUp(t, l.stop())
	for _, name := range []string{"cloud-operator", "edc-operator"} {
		whole(t, cs, name, leaders)
	}
}

// twice runs two of each part of ours, and has it as it was afterwards.
func twice(t *testing.T, cs *kubernetes.Clientset) {
	t.Helper()
	scale := func(ctx context.Context, n int32) {
		t.Helper()
		var errs []error
		for path, body := range map[string]string{
			"/apis/cloud.kaphera.io/v1alpha1/namespaces/" + ownSystem + "/platforms/kaphera": `{"spec":{"cloud":{"replicas":%d}}}`,
			"/apis/cloud.kaphera.io/v1alpha1/namespaces/" + ownSystem + "/cells/shared":      `{"spec":{"replicas":%d}}`,
			"/apis/apps/v1/namespaces/" + ownSystem + "/deployments/cloud-operator":          `{"spec":{"replicas":%d}}`,
			"/apis/apps/v1/namespaces/" + ownSystem + "/deployments/edc-operator":            `{"spec":{"replicas":%d}}`,
		} {
			errs = append(errs, cs.RESTClient().Patch(types.MergePatchType).AbsPath(path).Body(fmt.Appendf(nil, body, n)).Do(ctx).Error())
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		scale(ctx, 1)
	})
	scale(t.Context(), 2)
	eventually(t, "two of each part", func(context.Context) (bool, string) { return running(ours(t, cs), 2) })
}

// ours are the Deployments of the platform and of the shared cell, but for those of parts that are somebody else's.
func ours(t *testing.T, cs *kubernetes.Clientset) (out []appsv1.Deployment) {
	t.Helper()
	for _, namespace := range []string{ownSystem, cellNamespace} {
		l, err := cs.AppsV1().Deployments(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range l.Items {
			if d.Name != "keycloak" {
				out = append(out, d)
			}
		}
	}
	return out
}

// part is the one of ours with a name that begins so.
func part(t *testing.T, cs *kubernetes.Clientset, name string) appsv1.Deployment {
	t.Helper()
	all := ours(t, cs)
	at := slices.IndexFunc(all, func(d appsv1.Deployment) bool { return strings.HasPrefix(d.Name, name) })
	if at < 0 {
		t.Fatalf("no Deployment %s", name)
	}
	return all[at]
}

// whole waits until two pods of a part are ready, none of which is gone.
func whole(t *testing.T, cs *kubernetes.Clientset, name string, gone []string) {
	t.Helper()
	d := part(t, cs, name)
	eventually(t, name+" is whole again", func(ctx context.Context) (bool, string) {
		var ready []string
		for _, p := range podsOf(ctx, t, cs, d) {
			if !slices.Contains(gone, p.Name) && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
				ready = append(ready, p.Name)
			}
		}
		return len(ready) == 2, fmt.Sprint(ready)
	})
}

func podsOf(ctx context.Context, t *testing.T, cs *kubernetes.Clientset, d appsv1.Deployment) []corev1.Pod {
	t.Helper()
	l, err := cs.CoreV1().Pods(d.Namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
	if err != nil {
		t.Fatal(err)
	}
	return l.Items
}

// takePod deletes a pod, the one that leads where one does, and returns its name.
func takePod(t *testing.T, cs *kubernetes.Clientset, d appsv1.Deployment) (victim string) {
	t.Helper()
	leases, err := cs.CoordinationV1().Leases(d.Namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range podsOf(t.Context(), t, cs, d) {
		leads := slices.ContainsFunc(leases.Items, func(l coordinationv1.Lease) bool {
			return l.Spec.HolderIdentity != nil && strings.HasPrefix(*l.Spec.HolderIdentity, p.Name)
		})
		if victim == "" || leads {
			victim = p.Name
		}
	}
	if err := cs.CoreV1().Pods(d.Namespace).Delete(t.Context(), victim, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	return victim
}

// load is what goes on meanwhile, each kind by itself, one after the other.
type load struct {
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu     sync.Mutex
	done   map[string]int // by kind
	begun  []string       // negotiations
	failed []string
}

func (f *faults) load(t *testing.T) *load {
	t.Helper()
	api := cloud(t)
	h, err := client.HTTPClient(client.Config{CAFile: caFile()})
	if err != nil {
		t.Fatal(err)
	}
	n := f.begin(t)
	becomes(t, f.consumer, n, "FINALIZED")
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, done: map[string]int{}, begun: []string{n}}
	t.Cleanup(func() { l.stop() })
	l.repeat(ctx, "reading a participant", func(ctx context.Context) error {
		_, err := api.GetParticipantWithResponse(ctx, f.provider)
		return err
	})
	l.repeat(ctx, "reading a negotiation", func(ctx context.Context) error {
		_, err := api.GetNegotiationWithResponse(ctx, f.consumer, n)
		return err
	})
	for what, address := range map[string]string{
		"opening the console": consoleAddress() + "/", "a participant's DID document": "https://shared." + domain() + "/" + f.provider + "/did.json",
		"an issuer's DID document": "https://authority." + domain() + "/issuer/did.json",
	} {
		l.repeat(ctx, what, func(ctx context.Context) error { return reachable(ctx, h, address) })
	}
	id := uuid.NewString()
	l.repeat(ctx, "negotiating", func(ctx context.Context) (err error) {
		for range attempts { // the same one, as often as the client repeats what may be repeated
			if _, err = api.StartNegotiationWithResponse(context.WithoutCancel(ctx), f.consumer, client.NegotiationStart{ID: id, Counterparty: f.provider, OfferID: f.offer}); err == nil {
				l.mu.Lock()
				l.begun = append(l.begun, id)
				l.mu.Unlock()
				id = uuid.NewString()
				pause(ctx)
				return nil
			}
			pause(ctx)
		}
		return err
	})
	return l
}

// attempts of the client.
const attempts = 3

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// reachable asks as often as the client would.
func reachable(ctx context.Context, h *http.Client, address string) (err error) {
	for range attempts {
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody); err != nil {
			return err
		}
		var resp *http.Response
		if resp, err = h.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode < http.StatusBadRequest {
				return nil
			}
			err = errors.New(resp.Status)
		}
		pause(ctx)
	}
	return err
}

// inARow is how often something may fail, with all that the client repeats of it, before a person would call it an outage: on a machine with little to
// spare others hear of a pod's end a few seconds late.
const inARow = 3

// repeat does something until ctx ends.
func (l *load) repeat(ctx context.Context, what string, do func(context.Context) error) {
	l.group.Go(func() {
		failed := 0
		for ctx.Err() == nil {
			err := do(ctx)
			if ctx.Err() != nil {
				return
			}
			l.mu.Lock()
			if err == nil {
				failed = 0
				l.done[what]++
			} else if failed++; failed == inARow {
				l.failed = append(l.failed, what+": "+err.Error())
			}
			l.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

// goesOn waits until each kind has been done again.
func (l *load) goesOn(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	l.done = map[string]int{}
	l.mu.Unlock()
	eventually(t, "everything goes on", func(context.Context) (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.done) == 6, fmt.Sprint(l.done, l.failed)
	})
}

// failures are those since it was asked last.
func (l *load) failures() (failed []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	failed, l.failed = l.failed, nil
	return failed
}

// stop ends it and returns the negotiations that were begun.
func (l *load) stop() []string {
	l.cancel()
	l.group.Wait()
	return l.begun
}
