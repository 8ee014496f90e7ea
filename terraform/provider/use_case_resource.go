// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"

	"github.com/hashicorp/terraform-plugin-framework-jsontypes/jsontypes"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type useCaseModel struct {
	Name           types.String         `tfsdk:"name"`
	Profile        types.String         `tfsdk:"profile"`
	Title          types.String         `tfsdk:"title"`
	Description    types.String         `tfsdk:"description"`
	AssetType      types.String         `tfsdk:"asset_type"`
	AccessPolicy   jsontypes.Normalized `tfsdk:"access_policy"`
	ContractPolicy jsontypes.Normalized `tfsdk:"contract_policy"`
	Gates          jsontypes.Normalized `tfsdk:"gates"`
}

type useCaseSpec struct {
	Profile        string          `json:"profile"`
	Title          string          `json:"title"`
	Description    string          `json:"description,omitempty"`
	AssetType      string          `json:"assetType"`
	AccessPolicy   json.RawMessage `json:"accessPolicy,omitempty"`
	ContractPolicy json.RawMessage `json:"contractPolicy"`
	Gates          json.RawMessage `json:"gates,omitempty"`
}

func newUseCase() resource.Resource {
	return &objectResource[useCaseModel, *useCaseModel]{
		noun: "use_case", kind: "use-cases", schema: useCaseSchema,
		settled: func(o object) (bool, string) { return conditionsTrue(o, "PolicyValid") },
	}
}

func useCaseSchema() schema.Schema {
	return schema.Schema{
		MarkdownDescription: "A purpose for which data is exchanged: its policies, and the kind of asset it is for.",
		Attributes: map[string]schema.Attribute{
			"name":        nameAttribute("use case"),
			"profile":     schema.StringAttribute{Required: true, MarkdownDescription: "Dataspace profile whose operands the policies use."},
			"title":       schema.StringAttribute{Required: true, MarkdownDescription: "Title that people see."},
			"description": schema.StringAttribute{Optional: true, MarkdownDescription: "What it is for."},
			"asset_type":  schema.StringAttribute{Required: true, MarkdownDescription: "IRI of the kind of asset (`dct:type`)."},
			"access_policy": schema.StringAttribute{
				Optional: true, CustomType: jsontypes.NormalizedType{},
				MarkdownDescription: "ODRL policy (JSON) that decides who sees the offer. Absent: every participant of the profile.",
			},
			"contract_policy": schema.StringAttribute{
				Required: true, CustomType: jsontypes.NormalizedType{},
				MarkdownDescription: "ODRL policy (JSON) that both sides sign.",
			},
			"gates": schema.StringAttribute{
				Optional: true, CustomType: jsontypes.NormalizedType{},
				MarkdownDescription: "Gates (JSON array) that hold each negotiation at its provider until people have approved or a credential is there; see the documentation for governance authorities.",
			},
		},
	}
}

func (m *useCaseModel) objectName() string { return m.Name.ValueString() }

func (m *useCaseModel) spec() any {
	s := useCaseSpec{
		Profile: m.Profile.ValueString(), Title: m.Title.ValueString(), Description: m.Description.ValueString(),
		AssetType: m.AssetType.ValueString(), ContractPolicy: json.RawMessage(m.ContractPolicy.ValueString()),
	}
	if p := m.AccessPolicy.ValueString(); p != "" {
		s.AccessPolicy = json.RawMessage(p)
	}
	if g := m.Gates.ValueString(); g != "" {
		s.Gates = json.RawMessage(g)
	}
	return s
}

func (m *useCaseModel) read(o object) diag.Diagnostics {
	var s useCaseSpec
	diags := decode(o.Spec, &s, "use case")
	m.Name, m.Profile, m.Title = types.StringValue(o.Name), types.StringValue(s.Profile), types.StringValue(s.Title)
	m.Description, m.AssetType = optional(s.Description), types.StringValue(s.AssetType)
	m.ContractPolicy = jsontypes.NewNormalizedValue(string(s.ContractPolicy))
	m.AccessPolicy = jsontypes.NewNormalizedNull()
	if len(s.AccessPolicy) > 0 {
		m.AccessPolicy = jsontypes.NewNormalizedValue(string(s.AccessPolicy))
	}
	m.Gates = jsontypes.NewNormalizedNull()
	if len(s.Gates) > 0 {
		m.Gates = jsontypes.NewNormalizedValue(string(s.Gates))
	}
	return diags
}
