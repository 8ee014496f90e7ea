// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type cellModel struct {
	Name           types.String `tfsdk:"name"`
	Type           types.String `tfsdk:"type"`
	Hostname       types.String `tfsdk:"hostname"`
	OperatingParty types.String `tfsdk:"operating_party"`
	Replicas       types.Int64  `tfsdk:"replicas"`
	Audit          *auditModel  `tfsdk:"audit"`
}

type auditModel struct {
	KeepBodies types.String `tfsdk:"keep_bodies"`
	Leaving    []string     `tfsdk:"leaving"`
}

type cellSpec struct {
	Type           string `json:"type"`
	Hostname       string `json:"hostname"`
	OperatingParty string `json:"operatingParty"`
	Replicas       *int64 `json:"replicas,omitempty"`
	Audit          *audit `json:"audit,omitempty"`
}

type audit struct {
	KeepBodies string   `json:"keepBodies,omitempty"`
	Leaving    []string `json:"leaving,omitzero"`
}

func newCell() resource.Resource {
	return &objectResource[cellModel, *cellModel]{
		noun: "cell", kind: "cells", schema: cellSchema,
		// A cell is usable once its agent reports; its connector starts with the first participant's profile.
		settled: func(o object) (bool, string) { return conditionsTrue(o, "Connected") },
	}
}

func cellSchema() schema.Schema {
	return schema.Schema{
		MarkdownDescription: "A place where connectors run.",
		Attributes: map[string]schema.Attribute{
			"name": nameAttribute("cell"),
			"type": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "`shared`.",
				Validators:          []validator.String{stringvalidator.OneOf("shared")},
			},
			"hostname": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "Public host name of the cell's gateway. Every DID of the cell contains it, so it cannot change: a cell elsewhere has another name.",
			},
			"operating_party": schema.StringAttribute{Required: true, MarkdownDescription: "Who runs the cell."},
			"replicas": schema.Int64Attribute{
				Optional: true, Computed: true, Default: int64default.StaticInt64(1),
				MarkdownDescription: "Replicas of each runtime role.",
				Validators:          []validator.Int64{int64validator.AtLeast(1)},
			},
			"audit": schema.SingleNestedAttribute{
				Optional:            true,
				MarkdownDescription: "What becomes of the audit records of the cell's participants. Absent: bodies are kept for ever, and all but those of `policy` may leave the cell.",
				Attributes: map[string]schema.Attribute{
					"keep_bodies": schema.StringAttribute{Optional: true, MarkdownDescription: "How long the bodies of records are kept, such as `8760h`; the records stay, and their chain verifies. Absent: for ever."},
					"leaving": schema.ListAttribute{Optional: true, ElementType: types.StringType,
						MarkdownDescription: "The types of records whose bodies somebody outside the cell may read; of others there is the digest. Absent: all but `policy`; an empty list keeps all bodies inside."},
				},
			},
		},
	}
}

func (m *cellModel) objectName() string { return m.Name.ValueString() }

func (m *cellModel) spec() any {
	s := cellSpec{
		Type: m.Type.ValueString(), Hostname: m.Hostname.ValueString(),
		OperatingParty: m.OperatingParty.ValueString(), Replicas: m.Replicas.ValueInt64Pointer(),
	}
	if m.Audit != nil {
		s.Audit = &audit{m.Audit.KeepBodies.ValueString(), m.Audit.Leaving}
	}
	return s
}

func (m *cellModel) read(o object) diag.Diagnostics {
	var s cellSpec
	diags := decode(o.Spec, &s, "cell")
	m.Name, m.Type, m.Hostname = types.StringValue(o.Name), types.StringValue(s.Type), types.StringValue(s.Hostname)
	m.OperatingParty, m.Replicas = types.StringValue(s.OperatingParty), types.Int64PointerValue(s.Replicas)
	// The API leaves an empty object out.
	if s.Audit != nil {
		m.Audit = &auditModel{optional(s.Audit.KeepBodies), s.Audit.Leaving}
	} else if m.Audit != nil && (!m.Audit.KeepBodies.IsNull() || m.Audit.Leaving != nil) {
		m.Audit = nil
	}
	return diags
}
