// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Read reads manifests (YAML or JSON, several documents): one Connector or CredentialIssuer, or the on-premise cell that a connector is for, as
// `kaphera apply` takes it; and the Secrets it names as far as they are there. Everything else is passed over. namespace is of objects that
// name none.
func Read(r io.Reader, namespace string) (Options, error) {
	var found []Options
	var secrets []corev1.Secret
	docs := utilyaml.NewYAMLReader(bufio.NewReader(r))
	for {
		raw, err := docs.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Options{}, fmt.Errorf("read the manifest: %w", err)
		}
		var head metav1.TypeMeta
		if err := yaml.Unmarshal(raw, &head); err != nil {
			return Options{}, fmt.Errorf("a document of the manifest is no YAML: %w", err)
		}
		kind := head.GroupVersionKind()
		switch {
		case kind == v1alpha1.GroupVersion.WithKind("Connector"):
			var c v1alpha1.Connector
			err = strict(raw, kind.Kind, &c)
			found = append(found, Options{Runtime: workload.Connector(&c, "")})
		case kind == v1alpha1.GroupVersion.WithKind("CredentialIssuer"):
			var i v1alpha1.CredentialIssuer
			err = strict(raw, kind.Kind, &i)
			found = append(found, Options{Runtime: workload.CredentialIssuer(&i, "")})
		case kind.Group == "" && (kind.Kind == "cell" || kind.Kind == "cells"), kind.Group == "cloud.kaphera.io" && kind.Kind == "Cell":
			var c cell
			if err = yaml.Unmarshal(raw, &c); err == nil {
				found = append(found, c.options())
			}
		case kind == corev1.SchemeGroupVersion.WithKind("Secret"):
			var s corev1.Secret
			err = strict(raw, kind.Kind, &s)
			secrets = append(secrets, s)
		}
		if err != nil {
			return Options{}, err
		}
	}
	if len(found) != 1 {
		return Options{}, fmt.Errorf("the manifest holds %d connectors: give one object of kind Connector or CredentialIssuer (edc.kaphera.io/v1alpha1), or one cell", len(found))
	}
	o := found[0]
	if o.Runtime.Namespace == "" {
		o.Runtime.Namespace = namespace
	}
	defaults(&o.Runtime)
	o.Secrets = map[string]map[string]string{}
	for _, s := range secrets {
		if s.Namespace != "" && s.Namespace != o.Runtime.Namespace {
			continue
		}
		data := map[string]string{}
		for k, v := range s.Data {
			data[k] = string(v)
		}
		maps.Copy(data, s.StringData) // comes before data, as at the API server
		o.Secrets[s.Name] = data
	}
	return o, complete(o.Runtime)
}

var connectorRoles = []workload.Role{workload.ControlPlane, workload.Wallet, workload.DataPlane}

// cell is what of a cell says where its connector runs and on what.
type cell struct {
	Name     string            `json:"name"`
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Hostname string            `json:"hostname"`
		Replicas *int32            `json:"replicas"`
		Database v1alpha1.Database `json:"database"`
		Vault    v1alpha1.Vault    `json:"vault"`
		Ingress  struct {
			ClassName string `json:"className"`
		} `json:"ingress"`
		Trust            *v1alpha1.Trust               `json:"trust"`
		ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets"`
		Proxy            struct {
			URL               string                      `json:"url"`
			CABundle          string                      `json:"caBundle"`
			CredentialsSecret corev1.LocalObjectReference `json:"credentialsSecret"`
		} `json:"proxy"`
	} `json:"spec"`
}

// options are those of its connector and agent. Where no trust is said, the platform says it: where others may be is then taken to be the widest.
func (c cell) options() Options {
	name := cmp.Or(c.Name, c.Metadata.Name)
	proxy := c.Spec.Proxy
	return Options{Cell: name, PlatformTrust: c.Spec.Trust == nil, Proxy: proxy.URL, ProxyCA: proxy.CABundle, ProxySecret: proxy.CredentialsSecret.Name, Runtime: workload.Runtime{
		Name: "connector", Namespace: "cell-" + name, Roles: connectorRoles, PullSecrets: c.Spec.ImagePullSecrets,
		Exposure: v1alpha1.Exposure{Hostname: c.Spec.Hostname, IngressClassName: c.Spec.Ingress.ClassName}, Trust: *cmp.Or(c.Spec.Trust, &v1alpha1.Trust{AllowPrivateNetworks: true}),
		Database: c.Spec.Database, Vault: c.Spec.Vault, Replicas: c.Spec.Replicas,
	}}
}

// strict refuses members that the kind does not have, by name. The error holds no value: it may be a secret.
func strict(raw []byte, kind string, into any) error {
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		if kind == "Secret" {
			return errors.New("a Secret of the manifest is not valid: data is base64, stringData is text")
		}
		return fmt.Errorf("the %s of the manifest is not valid: %w", kind, err)
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
		{"its name", rt.Name}, {"its hostname", rt.Exposure.Hostname}, {"spec.database.host", rt.Database.Host}, {"spec.database.name", rt.Database.Name},
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
	case !slices.Contains([]string{v1alpha1.VaultMethodKubernetes, v1alpha1.VaultMethodJWT, v1alpha1.VaultMethodToken, v1alpha1.VaultMethodAppRole}, a.Method):
		errs = append(errs, fmt.Errorf("spec.vault.auth.method %q: use Kubernetes, JWT, Token or AppRole", a.Method))
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
