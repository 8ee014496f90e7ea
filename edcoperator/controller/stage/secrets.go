// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Secrets reads what rt's roles connect with and makes the internal Secret when it is absent.
func (r *Runner) Secrets(ctx context.Context, rt *workload.Runtime) error {
	rt.Tokens = map[workload.Role]string{}
	for _, role := range rt.Roles {
		keys := []string{workload.KeyToken}
		if role == workload.ControlPlane {
			keys = append(keys, workload.KeyManagementKey)
		}
		data, err := r.internal(ctx, rt, role, keys)
		if err != nil {
			return err
		}
		rt.Tokens[role] = data[workload.KeyToken]
		if role == workload.ControlPlane {
			rt.ManagementKey = data[workload.KeyManagementKey]
		}
	}
	rt.Accounts = map[workload.Role]workload.Credentials{}
	for _, role := range append([]workload.Role{workload.Migrate}, rt.Roles...) {
		data, err := r.secret(ctx, rt.Namespace, rt.DatabaseSecret(role), v1alpha1.ConditionDatabaseReady, workload.KeyUsername, workload.KeyPassword)
		if err != nil {
			return err
		}
		rt.Accounts[role] = workload.Credentials{User: data[workload.KeyUsername], Password: data[workload.KeyPassword]}
	}
	rt.VaultLogins = map[workload.Role]string{}
	for _, role := range rt.Roles {
		name, keys := rt.VaultSecret(role)
		if name == "" {
			continue
		}
		data, err := r.secret(ctx, rt.Namespace, name, v1alpha1.ConditionVaultReady, keys...)
		if err != nil {
			return err
		}
		for _, k := range keys {
			rt.VaultLogins[role] += data[k] + "\n"
		}
	}
	return nil
}

// InternalToken reads the token of a runtime's internal API.
func (r *Runner) InternalToken(ctx context.Context, namespace, secret, condition string) (string, error) {
	data, err := r.secret(ctx, namespace, secret, condition, workload.KeyToken)
	return data[workload.KeyToken], err
}

// secret returns the wanted keys of a Secret, or says which is missing.
func (r *Runner) secret(ctx context.Context, namespace, name, condition string, keys ...string) (map[string]string, error) {
	s, err := r.read(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, outcome.Waiting(RetryLate, condition, v1alpha1.ReasonSecretMissing,
			"Secret %s/%s does not exist: create it with %s", namespace, name, list("the key", "the keys", keys))
	}
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, k := range keys {
		if len(s.Data[k]) == 0 {
			return nil, outcome.Waiting(RetryLate, condition, v1alpha1.ReasonSecretMissing, "Secret %s/%s has no key %s", namespace, name, k)
		}
		out[k] = string(s.Data[k])
	}
	return out, nil
}

// read reads a Secret. It is the first thing that is done in a namespace, and so the one that finds out whether the operator may work there.
func (r *Runner) read(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	var s corev1.Secret
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &s)
	if apierrors.IsForbidden(err) {
		return nil, outcome.Waiting(RetryLate, v1alpha1.ConditionReady, v1alpha1.ReasonNotPermitted,
			"the operator was not given namespace %[1]s: kubectl create rolebinding edc-operator --namespace=%[1]s --clusterrole=%[2]s --serviceaccount=%[3]s:%[4]s",
			namespace, config.NamespaceRole, config.Namespace, config.ServiceAccount)
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	}
	return &s, nil
}

// internal reads the Secret of a role's internal API and makes it when it is absent. One that somebody else made is used as it is.
func (r *Runner) internal(ctx context.Context, rt *workload.Runtime, role workload.Role, keys []string) (map[string]string, error) {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name: rt.InternalSecret(role), Namespace: rt.Namespace, Labels: rt.Labels(role), OwnerReferences: []metav1.OwnerReference{rt.Owner},
	}, Type: corev1.SecretTypeOpaque, StringData: map[string]string{}}
	_, err := r.read(ctx, s.Namespace, s.Name)
	switch {
	case apierrors.IsNotFound(err):
		for _, k := range keys {
			s.StringData[k] = newSecret()
		}
		if err := r.Client.Create(ctx, s); err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("create Secret %s/%s: %w", s.Namespace, s.Name, err)
		}
	case err != nil:
		return nil, err
	}
	return r.secret(ctx, rt.Namespace, s.Name, v1alpha1.ConditionWorkloadsReady, keys...)
}

func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

func list(one, many string, items []string) string {
	if len(items) == 1 {
		return one + " " + items[0]
	}
	out := many + " "
	for i, it := range items {
		switch {
		case i == 0:
			out += it
		case i == len(items)-1:
			out += " and " + it
		default:
			out += ", " + it
		}
	}
	return out
}
