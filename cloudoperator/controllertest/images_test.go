// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// pulls names image pull secrets in the Platform and follows them into every pod and the cell's namespace, and out again.
func pulls(t *testing.T) {
	p, cell := &cloud.Platform{ObjectMeta: named("kaphera")}, &cloud.Cell{ObjectMeta: named("shared")}
	soon := func(check func(ctx context.Context) error) { // the pods are replaced meanwhile
		t.Helper()
		eventually(t, func(ctx context.Context) error { return errors.Join(replaced(ctx), check(ctx)) })
	}
	says := func(reason, text string) {
		t.Helper()
		soon(func(ctx context.Context) error {
			if err := condition(ctx, cell, cloud.ConditionReady, metav1.ConditionFalse, reason); err != nil {
				return err
			}
			if m := message(cell, cloud.ConditionReady); !strings.Contains(m, text) {
				return fmt.Errorf("%q", m)
			}
			return nil
		})
	}
	change(t, p, func() { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "registry"}} })
	says(cloud.ReasonMissing, "Secret registry in namespace "+system+" does not exist")
	create(t, &corev1.Secret{ObjectMeta: named("registry"), StringData: map[string]string{"token": "abc"}})
	says(cloud.ReasonInvalid, "type Opaque")
	if err := admin.Delete(t.Context(), &corev1.Secret{ObjectMeta: named("registry")}); err != nil {
		t.Fatal(err)
	}
	login := `{"auths":{"registry.example":{"auth":"YTpi"}}}`
	create(t, &corev1.Secret{ObjectMeta: named("registry"), Type: corev1.SecretTypeDockerConfigJson, StringData: map[string]string{corev1.DockerConfigJsonKey: login}})

	copied := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cellNamespace, Name: "pull-registry"}}
	has := func(login string) {
		t.Helper()
		soon(func(ctx context.Context) error {
			if err := admin.Get(ctx, client.ObjectKeyFromObject(copied), copied); err != nil {
				return err
			}
			if string(copied.Data[corev1.DockerConfigJsonKey]) != login || copied.Type != corev1.SecretTypeDockerConfigJson {
				return errors.New("the copy is another")
			}
			return nil
		})
	}
	has(login)
	pulling := func(want ...corev1.LocalObjectReference) {
		t.Helper()
		soon(func(ctx context.Context) error { return pullsWith(ctx, want) })
	}
	pulling(corev1.LocalObjectReference{Name: "registry"}, corev1.LocalObjectReference{Name: "pull-registry"})

	rotated := &corev1.Secret{ObjectMeta: named("registry")}
	login = `{"auths":{"registry.example":{"auth":"YTpj"}}}`
	change(t, rotated, func() { rotated.Data = map[string][]byte{corev1.DockerConfigJsonKey: []byte(login)} })
	change(t, cell, func() { cell.Annotations = map[string]string{"look": "again"} }) // sooner than by itself
	has(login)

	change(t, p, func() { p.Spec.ImagePullSecrets = nil })
	if err := admin.Delete(t.Context(), rotated); err != nil {
		t.Fatal(err)
	}
	soon(func(ctx context.Context) error { return absent(ctx, copied) })
	pulling()
	soon(func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionReady, metav1.ConditionTrue, "")
	})
}

// replaced says of the StatefulSets what their controller does once their pods are as the template says.
func replaced(ctx context.Context) error {
	for _, name := range []string{parts.PostgreSQL, parts.OpenBao, parts.NATS} {
		var s appsv1.StatefulSet
		if err := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: name}, &s); err != nil {
			return err
		}
		if s.Status.ObservedGeneration == s.Generation {
			continue
		}
		s.Status.ObservedGeneration = s.Generation
		if err := admin.Status().Update(ctx, &s); err != nil {
			return err
		}
	}
	return nil
}

// pullsWith says whether every pod of the platform pulls with the first, those of the cell with the second.
func pullsWith(ctx context.Context, want []corev1.LocalObjectReference) error {
	platform, cell := []corev1.LocalObjectReference(nil), []corev1.LocalObjectReference(nil)
	if len(want) > 0 {
		platform, cell = want[:1], want[1:]
	}
	check := func(name string, got, want []corev1.LocalObjectReference) error {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%s pulls with %v, and not %v", name, got, want)
		}
		return nil
	}
	var errs []error
	for _, name := range []string{parts.PostgreSQL, parts.OpenBao, parts.NATS} {
		var s appsv1.StatefulSet
		errs = append(errs, admin.Get(ctx, types.NamespacedName{Namespace: system, Name: name}, &s), check(name, s.Spec.Template.Spec.ImagePullSecrets, platform))
	}
	for _, d := range []struct {
		namespace, name string
		want            []corev1.LocalObjectReference
	}{{system, parts.Keycloak, platform}, {system, parts.Cloud, platform}, {cellNamespace, parts.Agent, cell}} {
		var found appsv1.Deployment
		errs = append(errs, admin.Get(ctx, types.NamespacedName{Namespace: d.namespace, Name: d.name}, &found), check(d.name, found.Spec.Template.Spec.ImagePullSecrets, d.want))
	}
	var connector edc.Connector
	var issuer edc.CredentialIssuer
	errs = append(errs,
		admin.Get(ctx, types.NamespacedName{Namespace: cellNamespace, Name: "connector"}, &connector), check("the connector", connector.Spec.ImagePullSecrets, cell),
		admin.Get(ctx, types.NamespacedName{Namespace: cellNamespace, Name: "authority"}, &issuer), check("the issuer", issuer.Spec.ImagePullSecrets, cell))
	return errors.Join(errs...)
}
