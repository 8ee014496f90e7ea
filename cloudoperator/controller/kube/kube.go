// SPDX-License-Identifier: FSL-1.1-ALv2

// Package kube holds what the controllers share about Kubernetes objects: server-side apply, Secrets made once, conditions and
// finalizers. It knows no kind of the cloud's own.
package kube

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// FieldOwner is the Cloud operator in server-side apply.
const FieldOwner = "kaphera-cloud-operator"

// Labels of everything that the Cloud operator makes.
const (
	PartOfLabel = "app.kubernetes.io/part-of"
	NameLabel   = "app.kubernetes.io/name"
	ManagedBy   = "app.kubernetes.io/managed-by"
	PartOf      = "kaphera"
)

// Labels returns the labels of a part.
func Labels(name string) map[string]string {
	return map[string]string{PartOfLabel: PartOf, NameLabel: name, ManagedBy: FieldOwner}
}

// Apply applies obj by server-side apply, taking over fields that others own. owner, when not nil, becomes the controller reference.
func Apply(ctx context.Context, c client.Client, owner, obj client.Object) error {
	if owner != nil {
		if err := setOwner(c, owner, obj); err != nil {
			return err
		}
	}
	u, err := Unstructured(c, obj)
	if err != nil {
		return err
	}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(FieldOwner), client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s %s: %w", u.GetKind(), name(obj), err)
	}
	return nil
}

func setOwner(c client.Client, owner, obj client.Object) error {
	gvk, err := apiutil.GVKForObject(owner, c.Scheme())
	if err != nil {
		return fmt.Errorf("owner of %s: %w", name(obj), err)
	}
	obj.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(owner, gvk)})
	return nil
}

// Unstructured converts obj for server-side apply: with its kind, without what only the server sets.
func Unstructured(c client.Client, obj client.Object) (*unstructured.Unstructured, error) {
	gvk, err := apiutil.GVKForObject(obj, c.Scheme())
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", name(obj), err)
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %s %s: %w", gvk.Kind, name(obj), err)
	}
	u := &unstructured.Unstructured{Object: m}
	u.SetGroupVersionKind(gvk)
	delete(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(u.Object, "spec", "template", "metadata", "creationTimestamp")
	return u, nil
}

func name(obj client.Object) string {
	if obj.GetNamespace() == "" {
		return obj.GetName()
	}
	return obj.GetNamespace() + "/" + obj.GetName()
}

// Delete deletes obj; a missing one is no error.
func Delete(ctx context.Context, c client.Client, obj client.Object, opts ...client.DeleteOption) error {
	if err := client.IgnoreNotFound(c.Delete(ctx, obj, opts...)); err != nil {
		return fmt.Errorf("delete %s: %w", name(obj), err)
	}
	return nil
}

// Make makes the value of a Secret's key.
type Make func() ([]byte, error)

// EnsureSecret returns the Secret with every key of want; missing keys are made, present ones are kept. r must read from the API server
// itself: a stale cache would make a second value. Neither an owner nor a label change ever removes a value.
func EnsureSecret(ctx context.Context, r client.Reader, c client.Client, s *corev1.Secret, want map[string]Make) (map[string][]byte, error) {
	found := &corev1.Secret{}
	err := r.Get(ctx, client.ObjectKeyFromObject(s), found)
	exists := err == nil
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read secret %s: %w", name(s), err)
	}
	if !exists {
		found = s.DeepCopy()
	}
	if found.Data == nil {
		found.Data = map[string][]byte{}
	}
	changed := false
	for key, mk := range want {
		if len(found.Data[key]) > 0 {
			continue
		}
		if found.Data[key], err = mk(); err != nil {
			return nil, fmt.Errorf("make key %s of secret %s: %w", key, name(s), err)
		}
		changed = true
	}
	switch {
	case !exists:
		err = c.Create(ctx, found, client.FieldOwner(FieldOwner))
	case changed:
		err = c.Update(ctx, found, client.FieldOwner(FieldOwner))
	}
	if err != nil {
		return nil, fmt.Errorf("write secret %s: %w", name(s), err)
	}
	return found.Data, nil
}

// Password makes 32 random bytes, spelled in 43 URL-safe characters.
func Password() ([]byte, error) {
	raw, err := Random(32)
	if err != nil {
		return nil, err
	}
	return []byte(base64.RawURLEncoding.EncodeToString(raw)), nil
}

// Random makes n random bytes.
func Random(n int) ([]byte, error) {
	raw := make([]byte, n)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	return raw, nil
}

// Text makes a Make of a constant.
func Text(s string) Make { return func() ([]byte, error) { return []byte(s), nil } }

// Digest is a short hash of values, for annotations that restart pods when what they mount changes.
func Digest(values ...any) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, v := range values {
		_ = enc.Encode(v) //nolint:errchkjson // strings, byte slices and structs and maps of them can be encoded
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// SortedKeys of a map.
func SortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Condition is a condition without the times.
type Condition struct {
	Type    string
	OK      bool
	Unknown bool
	Reason  string
	Message string
}

// Set stores conditions; the transition time moves only when the status changes.
func Set(conditions *[]metav1.Condition, generation int64, cs ...Condition) {
	for _, c := range cs {
		status := metav1.ConditionFalse
		switch {
		case c.Unknown:
			status = metav1.ConditionUnknown
		case c.OK:
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(conditions, metav1.Condition{
			Type: c.Type, Status: status, Reason: c.Reason, Message: Shorten(c.Message), ObservedGeneration: generation,
		})
	}
}

// maxMessage keeps conditions readable; the API allows 32768.
const maxMessage = 1024

// Shorten cuts a message at a length that fits a condition.
func Shorten(s string) string {
	return shortenTo(s, maxMessage)
}

// shortenTo cuts s at a number of bytes.
func shortenTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}
