// SPDX-License-Identifier: Apache-2.0

package localpath

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func newController(t *testing.T) (*controller, *fake.Clientset) {
	t.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local-path"}, Provisioner: Provisioner}
	foreign := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Provisioner: "somebody.else"}
	client := fake.NewClientset(class, foreign)
	factory := informers.NewSharedInformerFactory(client, 0)
	for _, c := range []*storagev1.StorageClass{class, foreign} {
		must(t, factory.Storage().V1().StorageClasses().Informer().GetStore().Add(c))
	}
	return &controller{
		Config:  Config{Dir: t.TempDir(), Node: "node", Client: client, Log: slog.New(slog.DiscardHandler)},
		classes: factory.Storage().V1().StorageClasses().Lister(),
	}, client
}

func claim(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	class := "local-path"
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "u1", Annotations: map[string]string{selectedNode: "node"}},
		Spec:       corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
	}
	change(c)
	return c
}

func TestOnlyAClaimThatWaitsForUsGetsAVolume(t *testing.T) {
	block, foreign := corev1.PersistentVolumeBlock, "foreign"
	for name, c := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   bool
	}{
		"waiting":            {func(*corev1.PersistentVolumeClaim) {}, true},
		"no pod uses it yet": {func(c *corev1.PersistentVolumeClaim) { c.Annotations = nil }, false},
		"for another node":   {func(c *corev1.PersistentVolumeClaim) { c.Annotations[selectedNode] = "other" }, false},
		"bound":              {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv" }, false},
		"being deleted":      {func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} }, false},
		"of another class":   {func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &foreign }, false},
		"a raw block device": {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = &block }, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, client := newController(t)
			must(t, p.provision(t.Context(), claim(c.change)))
			must(t, p.provision(t.Context(), claim(c.change))) // before the cache knows
			pv, err := client.CoreV1().PersistentVolumes().Get(t.Context(), "pvc-u1", metav1.GetOptions{})
			if !c.want {
				if !apierrors.IsNotFound(err) {
					t.Fatalf("a volume was made: %v, %v", pv, err)
				}
				return
			}
			must(t, err)
			info, err := os.Stat(pv.Spec.Local.Path)
			must(t, err)
			if info.Mode().Perm() != 0o777 || pv.Spec.ClaimRef.UID != "u1" || pv.Annotations[provisionedBy] != Provisioner {
				t.Errorf("folder %v, volume %+v", info.Mode(), pv)
			}
		})
	}
}

func TestDataIsRemovedOnlyBelowOurFolderAndOnlyWhenReleased(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(p *controller, v *corev1.PersistentVolume)
		removed bool
		fails   string
	}{
		"released":    {func(*controller, *corev1.PersistentVolume) {}, true, ""},
		"still bound": {func(_ *controller, v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound }, false, ""},
		"to be retained": {func(_ *controller, v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		}, false, ""},
		"another's": {func(_ *controller, v *corev1.PersistentVolume) { v.Annotations = nil }, false, ""},
		"outside":   {func(p *controller, _ *corev1.PersistentVolume) { p.Dir = filepath.Join(p.Dir, "elsewhere") }, false, "by hand"},
		"out by the dots": {func(p *controller, v *corev1.PersistentVolume) {
			v.Spec.Local.Path = p.Dir + "/pvc-u1/../../" + filepath.Base(p.Dir)
		}, false, "by hand"},
		"the folder itself": {func(p *controller, v *corev1.PersistentVolume) { v.Spec.Local.Path = p.Dir }, false, "by hand"},
	} {
		t.Run(name, func(t *testing.T) {
			p, client := newController(t)
			path := filepath.Join(p.Dir, "pvc-u1")
			must(t, os.MkdirAll(filepath.Join(path, "data"), 0o755))
			v := &corev1.PersistentVolume{
				ObjectMeta: metav1.ObjectMeta{Name: "pvc-u1", Annotations: map[string]string{provisionedBy: Provisioner}},
				Spec: corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
					PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}}},
				Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased},
			}
			c.change(p, v)
			_, err := client.CoreV1().PersistentVolumes().Create(t.Context(), v, metav1.CreateOptions{})
			must(t, err)
			err = p.reclaim(t.Context(), v)
			if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("reclaim: %v", err)
			}
			_, statErr := os.Stat(path)
			_, getErr := client.CoreV1().PersistentVolumes().Get(t.Context(), v.Name, metav1.GetOptions{})
			if errors.Is(statErr, fs.ErrNotExist) != c.removed || apierrors.IsNotFound(getErr) != c.removed {
				t.Errorf("folder: %v, volume: %v; removed should be %v", statErr, getErr, c.removed)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
