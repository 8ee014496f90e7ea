// SPDX-License-Identifier: Apache-2.0

// Package config holds what gets installed: the CRDs (generated from api/v1alpha1), the operator's rights and its Deployment, and
// install.yaml, which is all of them in one file. After a change run `go generate ./edcoperator/config`; a test fails when that was
// forgotten.
package config

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"strings"
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
