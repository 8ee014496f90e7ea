// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

// What the cloud answers is applied by an administrator: it reaches no further than the cell, whatever the cloud has become.
func TestTheCloudIsLentRightsForItsCellOnly(t *testing.T) {
	t.Parallel()
	const (
		finder  = `"name":"kaphera-edc-operator-api-servers-cell-x","namespace":"default"`
		rbac    = `"apiVersion":"rbac.authorization.k8s.io/v1",`
		find    = `{` + rbac + `"kind":"Role","metadata":{` + finder + `},"rules":[{"apiGroups":["discovery.k8s.io"],"resources":["endpointslices"],"resourceNames":["kubernetes"],"verbs":["get"]}]}`
		role    = `{` + rbac + `"kind":"Role","metadata":{"name":"r","namespace":"cell-x"},"rules":[]}`
		inside  = `"subjects":[{"kind":"ServiceAccount","name":"a","namespace":"cell-x"}]}`
		toRole  = `"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},`
		binding = `{` + rbac + `"kind":"RoleBinding","metadata":{"name":"b","namespace":"cell-x"},`
	)
	take := func(namespace string, objects ...string) error {
		is := client.CellInstallation{Cell: "x", Namespace: namespace}
		for _, o := range objects {
			is.Objects = append(is.Objects, json.RawMessage(o))
		}
		return (&Installation{}).take(is)
	}
	if err := take("cell-x", `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"cell-x","labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"connectors.edc.kaphera.io"},"spec":{}}`,
		find, role, binding+toRole+inside, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"cell-x"}}`); err != nil {
		t.Fatal(err)
	}
	if err := take("kube-system"); err == nil {
		t.Error("another namespace is taken")
	}
	for name, objects := range map[string][]string{
		"another namespace":                {`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-system","labels":{"pod-security.kubernetes.io/enforce":"restricted"}}}`},
		"privileged pods":                  {`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"cell-x","labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`},
		"workload elsewhere":               {`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d","namespace":"default"}}`},
		"a DaemonSet":                      {`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"d","namespace":"cell-x"}}`},
		"a Secret":                         {`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"cell-x"}}`},
		"rights in the cluster":            {`{` + rbac + `"kind":"ClusterRole","metadata":{"name":"r"},"rules":[]}`},
		"a webhook":                        {`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration","metadata":{"name":"w"}}`},
		"another's kind":                   {`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"certificates.cert-manager.io"},"spec":{}}`},
		"a kind converted elsewhere":       {`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"connectors.edc.kaphera.io"},"spec":{"conversion":{"strategy":"Webhook"}}}`},
		"more in namespace default":        {strings.Replace(find, "endpointslices", "secrets", 1)},
		"another role there":               {strings.Replace(find, "api-servers", "more", 1)},
		"a binding to a ClusterRole":       {role, binding + strings.Replace(toRole, `"Role"`, `"ClusterRole"`, 1) + inside},
		"a binding to a role not in it":    {binding + toRole + inside},
		"a binding of somebody else":       {role, binding + toRole + strings.Replace(inside, "cell-x", "default", 1)},
		"a binding of a group":             {role, binding + toRole + strings.Replace(inside, "ServiceAccount", "Group", 1)},
		"a binding of somebody in default": {find, `{` + rbac + `"kind":"RoleBinding","metadata":{` + finder + `},` + strings.Replace(toRole, `"r"`, `"kaphera-edc-operator-api-servers-cell-x"`, 1) + strings.Replace(inside, "cell-x", "default", 1)},
		"no object":                        {`{}`},
	} {
		if err := take("cell-x", objects...); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
