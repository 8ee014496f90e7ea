// SPDX-License-Identifier: FSL-1.1-ALv2

// Package config holds what gets installed: the CRDs (generated from api/v1alpha1), the operator's, the agents' and the Cloud API's
// rights, the operator's Deployment, and install.yaml, which is all of them in one file. After a change run
// `go generate ./cloudoperator/config`; a test fails when that was forgotten.
package config

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	cloud "github.com/kaphera/kaphera/cloud/config"
)

//go:generate go run ./gen

//go:embed namespace.yaml rbac.yaml admission.yaml deployment.yaml crd/*.yaml
var files embed.FS

// Namespace that everything is installed in.
const Namespace = "kaphera-system"

// OperatorImage is the default image of install.yaml.
const OperatorImage = "kaphera.local/cloud-operator:dev"

const (
	license = "# SPDX-License-Identifier: FSL-1.1-ALv2\n"
	header  = license + "# Made by `go generate ./cloudoperator/config` from crd/, namespace.yaml, rbac.yaml, admission.yaml, deployment.yaml and cloud/config/rbac.yaml. Do not edit.\n"
)

// Install returns everything that `kubectl apply -f` needs. images maps the default image references to the wanted ones; those that it
// does not name stay.
func Install(images map[string]string) ([]byte, error) {
	crds, err := fs.Glob(files, "crd/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list CRDs: %w", err)
	}
	out := bytes.NewBufferString(header)
	add := func(raw []byte) {
		text := strings.TrimPrefix(strings.TrimPrefix(string(raw), license), "---\n")
		fmt.Fprintf(out, "---\n%s\n", strings.TrimSpace(text))
	}
	for _, name := range append(append([]string{"namespace.yaml"}, crds...), "rbac.yaml", "admission.yaml") {
		raw, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		add(raw)
	}
	add(bytes.Replace(cloud.RBAC, []byte("  name: kaphera-cloud\n"), []byte("  name: kaphera-cloud\n  namespace: "+Namespace+"\n"), 1))
	deployment, err := files.ReadFile("deployment.yaml")
	if err != nil {
		return nil, fmt.Errorf("read deployment.yaml: %w", err)
	}
	for from, to := range images {
		for _, field := range []string{"image: ", "value: "} {
			deployment = bytes.ReplaceAll(deployment, []byte(field+from+"\n"), []byte(field+to+"\n"))
		}
	}
	add(deployment)
	return out.Bytes(), nil
}

// Rules are those of a ClusterRole in rbac.yaml.
func Rules(role string) ([]rbacv1.PolicyRule, error) {
	raw, err := files.ReadFile("rbac.yaml")
	if err != nil {
		return nil, fmt.Errorf("read rbac.yaml: %w", err)
	}
	for dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096); ; {
		var r rbacv1.ClusterRole
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("rbac.yaml has no ClusterRole %s", role)
		} else if err != nil {
			return nil, fmt.Errorf("rbac.yaml: %w", err)
		}
		if r.Kind == "ClusterRole" && r.Name == role {
			return r.Rules, nil
		}
	}
}
