// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type organizationModel struct {
	Name         types.String `tfsdk:"name"`
	DisplayName  types.String `tfsdk:"display_name"`
	ContactEmail types.String `tfsdk:"contact_email"`
}

type organizationSpec struct {
	DisplayName  string `json:"displayName"`
	ContactEmail string `json:"contactEmail,omitempty"`
}

func newOrganization() resource.Resource {
	return &objectResource[organizationModel, *organizationModel]{noun: "organization", kind: "organizations", schema: organizationSchema}
}

func organizationSchema() schema.Schema {
	return schema.Schema{
		MarkdownDescription: "A company; it owns participants.",
		Attributes: map[string]schema.Attribute{
			"name":          nameAttribute("organization"),
			"display_name":  schema.StringAttribute{Required: true, MarkdownDescription: "Name that people see."},
			"contact_email": schema.StringAttribute{Optional: true, MarkdownDescription: "Whom the other participants may ask. The onboarding check `ContactNamed` needs it."},
		},
	}
}

func (m *organizationModel) objectName() string { return m.Name.ValueString() }

func (m *organizationModel) spec() any {
	return organizationSpec{DisplayName: m.DisplayName.ValueString(), ContactEmail: m.ContactEmail.ValueString()}
}

func (m *organizationModel) read(o object) diag.Diagnostics {
	var s organizationSpec
	diags := decode(o.Spec, &s, "organization")
	m.Name, m.DisplayName, m.ContactEmail = types.StringValue(o.Name), types.StringValue(s.DisplayName), optional(s.ContactEmail)
	return diags
}
