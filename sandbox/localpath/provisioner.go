// SPDX-License-Identifier: Apache-2.0

// Package localpath gives every PersistentVolumeClaim of a sandbox cluster a
// folder on the node, and removes the folder when the claim goes. Sizes are
// recorded, not enforced.
package localpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Provisioner is the name that storage classes and volumes carry.
const Provisioner = "kaphera.local/local-path"

const (
	selectedNode  = "volume.kubernetes.io/selected-node" // set by the scheduler
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

// Config is where the folders lie and in which cluster.
type Config struct {
	Dir    string
	Node   string
	Client kubernetes.Interface
	Log    *slog.Logger
}

type controller struct {
	Config
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	queue   workqueue.TypedRateLimitingInterface[item]
}

// item is a claim (with a namespace) or a volume (without).
type item struct{ namespace, name string }

// Run works until ctx ends. It starts the informers that it needs from factory.
func Run(ctx context.Context, c Config, factory informers.SharedInformerFactory) error {
	core := factory.Core().V1()
	p := &controller{
		Config: c, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[item](100*time.Millisecond, 30*time.Second)),
	}
	add := func(obj any) {
		if o, ok := obj.(metav1.Object); ok {
			p.queue.Add(item{o.GetNamespace(), o.GetName()})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, now any) { add(now) }}
	var synced []cache.InformerSynced
	for _, informer := range []cache.SharedIndexInformer{
		core.PersistentVolumeClaims().Informer(), core.PersistentVolumes().Informer(), factory.Storage().V1().StorageClasses().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
		synced = append(synced, informer.HasSynced)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return context.Cause(ctx)
	}
	go func() { <-ctx.Done(); p.queue.ShutDown() }()
	for {
		next, shutdown := p.queue.Get()
		if shutdown {
			return nil
		}
		if err := p.handle(ctx, next); err != nil {
			c.Log.Warn("storage; tried again soon", "namespace", next.namespace, "name", next.name, "error", err)
			p.queue.AddRateLimited(next)
		} else {
			p.queue.Forget(next)
		}
		p.queue.Done(next)
	}
}

func (p *controller) handle(ctx context.Context, i item) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if i.namespace != "" {
		claim, err := p.claims.PersistentVolumeClaims(i.namespace).Get(i.name)
		if err == nil {
			err = p.provision(ctx, claim)
		}
		return ignoreMissing(err)
	}
	volume, err := p.volumes.Get(i.name)
	if err == nil {
		err = p.reclaim(ctx, volume)
	}
	return ignoreMissing(err) // a storage class has nothing to be done
}

// provision makes the folder and the volume of a claim that waits for one.
func (p *controller) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil {
		return err
	}
	if class.Provisioner != Provisioner || claim.Annotations[selectedNode] != p.Node {
		return nil // another's, or no pod uses it yet
	}
	if claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock {
		p.Log.Warn("a block volume cannot be a folder", "namespace", claim.Namespace, "claim", claim.Name)
		return nil
	}
	name := "pvc-" + string(claim.UID)
	path := filepath.Join(p.Dir, name)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return fmt.Errorf("make folder of volume %s: %w", name, err)
	}
	if err := os.Chmod(path, 0o777); err != nil { //nolint:gosec // the mask took bits away
		return fmt.Errorf("make folder of volume %s: %w", name, err)
	}
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	_, err = p.Client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: Provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: claim.Spec.AccessModes, StorageClassName: class.Name, PersistentVolumeReclaimPolicy: policy,
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			// Unlike a host path, a local volume gets the pod's fsGroup.
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{p.Node}}},
			}}}},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // made before the cache knew
	}
	return err
}

// reclaim removes a volume of ours, with its folder, once its claim has gone.
func (p *controller) reclaim(ctx context.Context, v *corev1.PersistentVolume) error {
	if v.Status.Phase != corev1.VolumeReleased || v.Annotations[provisionedBy] != Provisioner || v.DeletionTimestamp != nil ||
		v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || v.Spec.Local == nil {
		return nil
	}
	path := filepath.Clean(v.Spec.Local.Path)
	if !strings.HasPrefix(path, filepath.Clean(p.Dir)+"/pvc-") {
		return fmt.Errorf("volume %s has the path %s outside %s; its data stays, delete the volume by hand", v.Name, path, p.Dir)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove data of volume %s: %w", v.Name, err)
	}
	return p.Client.CoreV1().PersistentVolumes().Delete(ctx, v.Name, metav1.DeleteOptions{})
}

func ignoreMissing(err error) error {
	if apierrors.IsNotFound(err) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
