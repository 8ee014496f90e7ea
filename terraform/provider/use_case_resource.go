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
	Signers        jsontypes.Normalized `tfsdk:"signers"`
	Revision       types.Int64          `tfsdk:"revision"`
	Hash           types.String         `tfsdk:"hash"`
	InForce        types.Int64          `tfsdk:"in_force"`
}

type useCaseSpec struct {
	Profile        string          `json:"profile"`
	Title          string          `json:"title"`
	Description    string          `json:"description,omitempty"`
	AssetType      string          `json:"assetType"`
	AccessPolicy   json.RawMessage `json:"accessPolicy,omitempty"`
	ContractPolicy json.RawMessage `json:"contractPolicy"`
	Gates          json.RawMessage `json:"gates,omitempty"`
	Signers        json.RawMessage `json:"signers,omitempty"`
}

// useCaseStatus is what the provider shows of a use case's status.
type useCaseStatus struct {
	Revision *revisionStatus `json:"revision"`
	InForce  *revisionStatus `json:"inForce"`
}

type revisionStatus struct {
	Number int64  `json:"number"`
	Hash   string `json:"hash"`
}

func newUseCase() resource.Resource {
	return &objectResource[useCaseModel, *useCaseModel]{
		noun: "use_case", kind: "use-cases", schema: useCaseSchema,
		settled: func(o object) (bool, string) { return conditionsTrue(o, "PolicyValid") },
		inForce: func(o object) (bool, string) { return conditionsTrue(o, "SignedOff") },
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
			"signers": schema.StringAttribute{
				Optional: true, CustomType: jsontypes.NormalizedType{},
				MarkdownDescription: "Those (JSON array of `person` or `role`) one of whom signs each change off before it takes effect: `kaphera usecase sign-off`. Absent: at once. Applying does not wait for it, and warns.",
			},
			"revision": schema.Int64Attribute{Computed: true, MarkdownDescription: "Number of the newest revision."},
			"hash":     schema.StringAttribute{Computed: true, MarkdownDescription: "SHA-256 of the newest revision's content."},
			"in_force": schema.Int64Attribute{Computed: true, MarkdownDescription: "Number of the revision in force; null while none is signed off."},
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
	if g := m.Signers.ValueString(); g != "" {
		s.Signers = json.RawMessage(g)
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
	m.Signers = jsontypes.NewNormalizedNull()
	if len(s.Signers) > 0 {
		m.Signers = jsontypes.NewNormalizedValue(string(s.Signers))
	}
	var status useCaseStatus
	if len(o.Status) > 0 {
		diags.Append(decode(o.Status, &status, "use case")...)
	}
	m.Revision, m.Hash, m.InForce = types.Int64Null(), types.StringNull(), types.Int64Null()
	if r := status.Revision; r != nil {
		m.Revision, m.Hash = types.Int64Value(r.Number), types.StringValue(r.Hash)
	}
	if r := status.InForce; r != nil {
		m.InForce = types.Int64Value(r.Number)
	}
	return diags
}
