// SPDX-License-Identifier: FSL-1.1-ALv2

package manifest

import (
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator/config"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	edcconfig "github.com/kaphera/kaphera/edcoperator/config"
)

// Bundle is what a company applies in its own cluster for an on-premise cell, in this order: the cell's namespace, and in it the EDC operator and the
// agent, whose rights are Roles there. Outside it are only the EDC operator's CustomResourceDefinitions and its right to read where the Kubernetes API
// is. The Role ViewerRole, which the company binds to its own people, sees everything in the namespace but Secrets. Nothing in it is secret: the Secret
// AgentCredentials, which the agent waits for, and those that the cell's database and vault name are the company's to make.
func (c Cell) Bundle(a Agent, edcOperatorImage, connectorImage string) ([]client.Object, error) {
	rules, err := config.Rules(AgentRole)
	if err != nil {
		return nil, err
	}
	viewer, err := config.Rules(ViewerRole)
	if err != nil {
		return nil, err
	}
	edc, err := edcconfig.InNamespace(c.Namespace(), edcOperatorImage, connectorImage, a.PullSecrets...)
	if err != nil {
		return nil, err
	}
	out := []client.Object{c.NamespaceObject()}
	for _, o := range edc {
		out = append(out, o)
	}
	out = append(out, c.common()...)
	bound := c.Binding(AgentRole, account(c.Namespace(), parts.Agent))
	bound.RoleRef.Kind = "Role"
	out = append(out, &rbacv1.Role{ObjectMeta: c.Meta(AgentRole), Rules: rules}, bound, &rbacv1.Role{ObjectMeta: c.Meta(ViewerRole), Rules: viewer})
	return append(out, c.Deployment(a)...), nil
}
