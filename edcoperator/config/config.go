// SPDX-License-Identifier: Apache-2.0

// Package config holds what gets installed: the CRDs (generated from api/v1alpha1), the operator's rights and its Deployment, and
// install.yaml, which is all of them in one file. After a change run `go generate ./edcoperator/config`; a test fails when that was
// forgotten.
package config

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

//go:generate go run ./gen

//go:embed namespace.yaml rbac.yaml deployment.yaml crd/*.yaml
var parts embed.FS

// Default images of install.yaml.
const (
	OperatorImage  = "kaphera.local/edc-operator:dev"
	ConnectorImage = "kaphera.local/connector:dev"
)

// Who the operator is in install.yaml, and the ClusterRole that a RoleBinding gives it in each namespace in which it is to work.
const (
	Namespace      = "kaphera-system"
	ServiceAccount = "edc-operator"
	NamespaceRole  = "kaphera-edc-operator-namespace"
)

const header = "# SPDX-License-Identifier: Apache-2.0\n# Made by `go generate ./edcoperator/config` from crd/, namespace.yaml, rbac.yaml and deployment.yaml. Do not edit.\n"

// Install returns everything that `kubectl apply -f` needs, with the given images.
func Install(operatorImage, connectorImage string) ([]byte, error) {
	crds, err := fs.Glob(parts, "crd/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list CRDs: %w", err)
	}
	out := bytes.NewBufferString(header)
	for _, name := range append(append([]string{"namespace.yaml"}, crds...), "rbac.yaml", "deployment.yaml") {
		raw, err := parts.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		text := strings.TrimPrefix(string(raw), "# SPDX-License-Identifier: Apache-2.0\n")
		text = strings.TrimPrefix(text, "---\n")
		fmt.Fprintf(out, "---\n%s\n", strings.TrimSpace(text))
	}
	images := strings.NewReplacer("image: "+OperatorImage, "image: "+operatorImage, "value: "+ConnectorImage, "value: "+connectorImage)
	return []byte(images.Replace(out.String())), nil
}

// Rights are what the operator may do in a namespace, or everywhere where that is empty.
type Rights struct {
	Namespace string
	Rules     []rbacv1.PolicyRule
}

// OperatorRights returns all that rbac.yaml gives to the operator when it works in a namespace.
func OperatorRights(namespace string) ([]Rights, error) {
	raw, err := parts.ReadFile("rbac.yaml")
	if err != nil {
		return nil, fmt.Errorf("read rbac.yaml: %w", err)
	}
	var out []Rights
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		var role rbacv1.Role // a ClusterRole has the same fields
		err := dec.Decode(&role)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("rbac.yaml: %w", err)
		}
		switch {
		case role.Name == NamespaceRole:
			out = append(out, Rights{namespace, role.Rules})
		case role.Kind == "ClusterRole" || role.Kind == "Role":
			out = append(out, Rights{role.Namespace, role.Rules})
		}
	}
}

// OperatorRightsIn returns what OperatorRights does, for an operator that works in a namespace alone.
func OperatorRightsIn(namespace string) ([]Rights, error) {
	out, err := OperatorRights(namespace)
	for i, r := range out {
		if r.Namespace == "" || r.Namespace == Namespace {
			out[i].Namespace = namespace
		}
	}
	return out, err
}

// InNamespace returns what Install does, for an operator that runs in one namespace and works there alone: its rights are Roles in it, and one in
// namespace default to read where the Kubernetes API is. The namespace is the caller's to make, and in it pullSecrets of the registry that the image comes
// from, if it wants any.
func InNamespace(namespace, operatorImage, connectorImage string, pullSecrets ...corev1.LocalObjectReference) ([]*unstructured.Unstructured, error) {
	raw, err := Install(operatorImage, connectorImage)
	if err != nil {
		return nil, err
	}
	bind := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": rbacv1.SchemeGroupVersion.String(), "kind": "RoleBinding",
		"metadata": map[string]any{"name": NamespaceRole, "namespace": namespace},
		"roleRef":  map[string]any{"apiGroup": rbacv1.GroupName, "kind": "Role", "name": NamespaceRole},
		"subjects": []any{map[string]any{"kind": rbacv1.ServiceAccountKind, "name": ServiceAccount, "namespace": namespace}},
	}}
	var out []*unstructured.Unstructured
	for dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096); ; {
		o := &unstructured.Unstructured{}
		if err := dec.Decode(o); errors.Is(err, io.EOF) {
			return append(out, bind), nil
		} else if err != nil {
			return nil, fmt.Errorf("install.yaml: %w", err)
		}
		switch {
		case len(o.Object) == 0 || o.GetKind() == "Namespace":
			continue
		case o.GetKind() == "ClusterRole" || o.GetKind() == "ClusterRoleBinding":
			o.SetKind(strings.TrimPrefix(o.GetKind(), "Cluster"))
			o.SetNamespace(namespace)
		case o.GetNamespace() == Namespace:
			o.SetNamespace(namespace)
		}
		if len(pullSecrets) > 0 && o.GetKind() == "Deployment" {
			var refs []any
			for _, s := range pullSecrets {
				refs = append(refs, map[string]any{"name": s.Name})
			}
			if err := unstructured.SetNestedSlice(o.Object, refs, "spec", "template", "spec", "imagePullSecrets"); err != nil {
				return nil, fmt.Errorf("install.yaml: %s %s: %w", o.GetKind(), o.GetName(), err)
			}
		}
		if err := scope(o, namespace); err != nil {
			return nil, fmt.Errorf("install.yaml: %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		out = append(out, o)
	}
}

// scope puts namespace where an object speaks of another. What is in namespace default may be there several times.
func scope(o *unstructured.Unstructured, namespace string) error {
	if o.GetNamespace() != "" && o.GetNamespace() != namespace {
		o.SetName(o.GetName() + "-" + namespace)
	}
	switch o.GetKind() {
	case "RoleBinding":
		subjects, _, err := unstructured.NestedSlice(o.Object, "subjects")
		if err != nil {
			return err
		}
		for _, s := range subjects {
			if m, ok := s.(map[string]any); ok {
				m["namespace"] = namespace
			}
		}
		role, _, err := unstructured.NestedString(o.Object, "roleRef", "name")
		if err != nil {
			return err
		}
		if o.GetNamespace() != namespace {
			role += "-" + namespace
		}
		return errors.Join(unstructured.SetNestedSlice(o.Object, subjects, "subjects"),
			unstructured.SetNestedField(o.Object, "Role", "roleRef", "kind"), unstructured.SetNestedField(o.Object, role, "roleRef", "name"))
	case "Deployment":
		containers, _, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		if err != nil {
			return err
		}
		for _, c := range containers {
			if m, ok := c.(map[string]any); ok {
				args, _ := m["args"].([]any)
				m["args"] = append(args, "--namespaces="+namespace)
			}
		}
		return unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers")
	}
	return nil
}
