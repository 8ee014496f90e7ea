// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Read reads manifests (YAML or JSON, several documents): one Connector or CredentialIssuer, and the Secrets it names as far as they are there.
// Everything else is passed over. namespace is of objects that name none.
func Read(r io.Reader, namespace string) (workload.Runtime, map[string]map[string]string, error) {
	var found []workload.Runtime
	var secrets []corev1.Secret
	docs := utilyaml.NewYAMLReader(bufio.NewReader(r))
	for {
		raw, err := docs.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return workload.Runtime{}, nil, fmt.Errorf("read the manifest: %w", err)
		}
		var head metav1.TypeMeta
		if err := yaml.Unmarshal(raw, &head); err != nil {
			return workload.Runtime{}, nil, fmt.Errorf("a document of the manifest is no YAML: %w", err)
		}
		switch head.GroupVersionKind() {
		case v1alpha1.GroupVersion.WithKind("Connector"):
			var c v1alpha1.Connector
			if err := strict(raw, head, &c); err != nil {
				return workload.Runtime{}, nil, err
			}
			found = append(found, workload.Runtime{
				Name: c.Name, Namespace: c.Namespace, Roles: []workload.Role{workload.ControlPlane, workload.Wallet, workload.DataPlane},
				Exposure: c.Spec.Exposure, Trust: c.Spec.Trust, Database: c.Spec.Database, Vault: c.Spec.Vault, Replicas: c.Spec.Replicas,
			})
		case v1alpha1.GroupVersion.WithKind("CredentialIssuer"):
			var i v1alpha1.CredentialIssuer
			if err := strict(raw, head, &i); err != nil {
				return workload.Runtime{}, nil, err
			}
			found = append(found, workload.Runtime{
				Name: i.Name, Namespace: i.Namespace, Roles: []workload.Role{workload.Issuer},
				Exposure: i.Spec.Exposure, Trust: i.Spec.Trust, Database: i.Spec.Database, Vault: i.Spec.Vault, Replicas: i.Spec.Replicas,
			})
		case corev1.SchemeGroupVersion.WithKind("Secret"):
			var s corev1.Secret
			if err := strict(raw, head, &s); err != nil {
				return workload.Runtime{}, nil, err
			}
			secrets = append(secrets, s)
		}
	}
	if len(found) != 1 {
		return workload.Runtime{}, nil, fmt.Errorf("the manifest holds %d objects of kind Connector or CredentialIssuer (edc.kaphera.io/v1alpha1): give one", len(found))
	}
	rt := found[0]
	if rt.Namespace == "" {
		rt.Namespace = namespace
	}
	defaults(&rt)
	given := map[string]map[string]string{}
	for _, s := range secrets {
		if s.Namespace != "" && s.Namespace != rt.Namespace {
			continue
		}
		given[s.Name] = s.StringData
		if given[s.Name] == nil {
			given[s.Name] = map[string]string{}
		}
		for k, v := range s.Data {
			if _, plain := given[s.Name][k]; !plain { // stringData comes before data, as at the API server
				given[s.Name][k] = string(v)
			}
		}
	}
	return rt, given, complete(rt)
}

// strict refuses members that the kind does not have, by name. The error holds no value: it may be a secret.
func strict(raw []byte, head metav1.TypeMeta, into any) error {
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		if head.Kind == "Secret" {
			return errors.New("a Secret of the manifest is not valid: data is base64, stringData is text")
		}
		return fmt.Errorf("the %s of the manifest is not valid: %w", head.Kind, err)
	}
	return nil
}

// defaults are those of the custom resources' schema, which the API server fills in.
func defaults(rt *workload.Runtime) {
	if rt.Database.Port == 0 {
		rt.Database.Port = 5432
	}
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&rt.Database.SSLMode, "verify-full")
	set(&rt.Vault.Mount, "kv")
	set(&rt.Vault.Auth.Audience, "vault")
}

// complete says which member is missing that the checks cannot do without; the API server says the rest.
func complete(rt workload.Runtime) error {
	var errs []error
	for _, f := range []struct{ name, value string }{
		{"metadata.name", rt.Name}, {"spec.exposure.hostname", rt.Exposure.Hostname}, {"spec.database.host", rt.Database.Host}, {"spec.database.name", rt.Database.Name},
		{"spec.database.ownerSecret.name", rt.Database.OwnerSecret.Name}, {"spec.vault.address", rt.Vault.Address}, {"spec.vault.prefix", rt.Vault.Prefix},
	} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s: missing", f.name))
		}
	}
	switch a := rt.Vault.Auth; {
	case a.Method == v1alpha1.VaultMethodToken && a.TokenSecret == nil:
		errs = append(errs, errors.New("spec.vault.auth.tokenSecret: missing; the Token method needs it"))
	case a.Method == v1alpha1.VaultMethodAppRole && a.AppRoleSecrets == nil:
		errs = append(errs, errors.New("spec.vault.auth.appRoleSecrets: missing; the AppRole method needs it"))
	case a.Method != v1alpha1.VaultMethodToken && a.Method != v1alpha1.VaultMethodAppRole && a.Method != v1alpha1.VaultMethodKubernetes:
		errs = append(errs, fmt.Errorf("spec.vault.auth.method %q: use Kubernetes, Token or AppRole", a.Method))
	}
	if len(errs) == 0 && rt.Vault.Auth.Method == v1alpha1.VaultMethodAppRole {
		for _, role := range rt.Roles {
			if name, _ := rt.VaultSecret(role); name == "" {
				errs = append(errs, fmt.Errorf("spec.vault.auth.appRoleSecrets: names no Secret for %s", role))
			}
		}
	}
	return errors.Join(errs...)
}
