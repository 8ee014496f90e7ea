// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/edcoperator/config"
)

func TestInstallFileIsUpToDate(t *testing.T) {
	t.Parallel()
	want, err := config.Install(config.OperatorImage, config.ConnectorImage)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("install.yaml differs from its parts: run go generate ./edcoperator/config")
	}
}

// What is installed into one namespace gives no right in another, but to find the Kubernetes API.
func TestInNamespaceStaysThere(t *testing.T) {
	t.Parallel()
	objects, err := config.InNamespace("mine", "operator:1", "connector:2")
	if err != nil {
		t.Fatal(err)
	}
	roles, bound := map[string]bool{}, map[string]bool{}
	for _, o := range objects {
		name := o.GetNamespace() + "/" + o.GetName()
		switch o.GetKind() {
		case "CustomResourceDefinition":
			continue
		case "Role":
			roles[name] = true
		case "RoleBinding":
			role, _, _ := unstructured.NestedStringMap(o.Object, "roleRef")
			if role["kind"] != "Role" {
				t.Errorf("%s binds a %s", name, role["kind"])
			}
			bound[o.GetNamespace()+"/"+role["name"]] = true
			subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
			if want := []any{map[string]any{"kind": "ServiceAccount", "name": config.ServiceAccount, "namespace": "mine"}}; !reflect.DeepEqual(subjects, want) {
				t.Errorf("%s is for %v", name, subjects)
			}
		}
		if o.GetNamespace() != "mine" && name != "default/kaphera-edc-operator-api-servers-mine" {
			t.Errorf("%s %s is outside the namespace", o.GetKind(), name)
		}
	}
	want := map[string]bool{"mine/kaphera-edc-operator": true, "mine/" + config.NamespaceRole: true, "mine/edc-operator-leader": true, "default/kaphera-edc-operator-api-servers-mine": true}
	if !reflect.DeepEqual(roles, want) || !reflect.DeepEqual(bound, want) {
		t.Errorf("roles %v, bound %v", roles, bound)
	}
	all, err := yaml.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	for part, times := range map[string]int{"--namespaces=mine": 1, "image: operator:1": 1, "value: connector:2": 1, config.Namespace: 0} {
		if n := strings.Count(string(all), part); n != times {
			t.Errorf("%q is there %d times, want %d", part, n, times)
		}
	}
}

func TestInstallTakesImages(t *testing.T) {
	t.Parallel()
	raw, err := config.Install("registry.example/operator:1", "registry.example/connector:2")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"image: registry.example/operator:1\n", "value: registry.example/connector:2\n"} {
		if strings.Count(string(raw), want) != 1 {
			t.Errorf("install does not hold %q once", want)
		}
	}
	if strings.Contains(string(raw), "kaphera.local/") {
		t.Error("a default image is left")
	}
}
