// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type cellModel struct {
	Name             types.String         `tfsdk:"name"`
	Type             types.String         `tfsdk:"type"`
	Hostname         types.String         `tfsdk:"hostname"`
	OperatingParty   types.String         `tfsdk:"operating_party"`
	Replicas         types.Int64          `tfsdk:"replicas"`
	Organization     types.String         `tfsdk:"organization"`
	Quota            *cellQuotaModel      `tfsdk:"quota"`
	Access           *cellAccessModel     `tfsdk:"access"`
	Database         *databaseModel       `tfsdk:"database"`
	Vault            *vaultModel          `tfsdk:"vault"`
	Ingress          *ingressModel        `tfsdk:"ingress"`
	Trust            *trustModel          `tfsdk:"trust"`
	Images           *imagesModel         `tfsdk:"images"`
	ImagePullSecrets []string             `tfsdk:"image_pull_secrets"`
	Proxy            *proxyModel          `tfsdk:"proxy"`
	DataPlane        *dataPlaneModel      `tfsdk:"data_plane"`
	PerParticipant   *perParticipantModel `tfsdk:"per_participant"`
	Audit            *auditModel          `tfsdk:"audit"`
}

type cellQuotaModel struct {
	CPU             types.String `tfsdk:"cpu"`
	Memory          types.String `tfsdk:"memory"`
	ContainerMemory types.String `tfsdk:"container_memory"`
	Pods            types.Int64  `tfsdk:"pods"`
}

type cellAccessModel struct {
	Viewers   *cellSubjectsModel `tfsdk:"viewers"`
	Operators *cellSubjectsModel `tfsdk:"operators"`
}

type cellSubjectsModel struct {
	Groups []string `tfsdk:"groups"`
	Users  []string `tfsdk:"users"`
}

type auditModel struct {
	KeepBodies types.String `tfsdk:"keep_bodies"`
	Leaving    []string     `tfsdk:"leaving"`
}

type cellSpec struct {
	Type             string              `json:"type"`
	Hostname         string              `json:"hostname"`
	OperatingParty   string              `json:"operatingParty"`
	Replicas         *int64              `json:"replicas,omitempty"`
	Organization     string              `json:"organization,omitempty"`
	Quota            *cellQuota          `json:"quota,omitempty"`
	Access           *cellAccess         `json:"access,omitempty"`
	Database         *databaseSpec       `json:"database,omitempty"`
	Vault            *vaultSpec          `json:"vault,omitempty"`
	Ingress          *ingressSpec        `json:"ingress,omitempty"`
	Trust            *trustSpec          `json:"trust,omitempty"`
	Images           *imagesSpec         `json:"images,omitempty"`
	ImagePullSecrets []secretRef         `json:"imagePullSecrets,omitempty"`
	Proxy            *proxySpec          `json:"proxy,omitempty"`
	DataPlane        *dataPlaneSpec      `json:"dataPlane,omitempty"`
	PerParticipant   *perParticipantSpec `json:"perParticipant,omitempty"`
	Audit            *audit              `json:"audit,omitempty"`
}

type cellQuota struct {
	CPU             string `json:"cpu"`
	Memory          string `json:"memory"`
	ContainerMemory string `json:"containerMemory,omitempty"`
	Pods            int64  `json:"pods,omitempty"`
}

type cellAccess struct {
	Viewers   *cellSubjects `json:"viewers,omitempty"`
	Operators *cellSubjects `json:"operators,omitempty"`
}

type cellSubjects struct {
	Groups []string `json:"groups,omitempty"`
	Users  []string `json:"users,omitempty"`
}

type audit struct {
	KeepBodies string   `json:"keepBodies,omitempty"`
	Leaving    []string `json:"leaving,omitzero"`
}

func newCell() resource.Resource {
	return &objectResource[cellModel, *cellModel]{
		noun: "cell", kind: "cells", schema: cellSchema,
		settled: cellSettled,
	}
}

// cellSettled: a cell is usable once its agent reports; its connector starts with the first participant's profile. That of an on-premise cell comes with
// its installation.
func cellSettled(o object) (bool, string) {
	var s cellSpec
	if err := json.Unmarshal(o.Spec, &s); err == nil && s.Type == onPremise {
		return true, ""
	}
	return conditionsTrue(o, "Connected")
}

const onPremise = "on-premise"

func cellSchema() schema.Schema {
	s := schema.Schema{
		MarkdownDescription: "A place where connectors run: in the cloud's cluster, or in a company's own, where `kaphera_cell_installation` puts what runs it.",
		Attributes: map[string]schema.Attribute{
			"name": nameAttribute("cell"),
			"type": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "`shared`, `dedicated` to one organization, or `on-premise` in that organization's own cluster. A change makes a new cell.",
				Validators:          []validator.String{stringvalidator.OneOf("shared", "dedicated", onPremise)},
				PlanModifiers:       []planmodifier.String{stringplanmodifier.RequiresReplace()},
			},
			"organization": schema.StringAttribute{
				Optional: true, MarkdownDescription: "Organization that a dedicated or on-premise cell is for; participants of others are not placed in it. A change makes a new cell.",
				PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
			},
			"quota": schema.SingleNestedAttribute{
				Optional: true, MarkdownDescription: "What a dedicated cell may take, as Kubernetes quantities. A dedicated cell has one.",
				Attributes: map[string]schema.Attribute{
					"cpu":    schema.StringAttribute{Required: true, MarkdownDescription: "CPU that all pods together may reserve, such as `1`."},
					"memory": schema.StringAttribute{Required: true, MarkdownDescription: "Memory that all pods together may use, such as `4Gi`."},
					"container_memory": schema.StringAttribute{
						Optional: true, Computed: true, Default: stringdefault.StaticString("512Mi"), MarkdownDescription: "The most that one container may use.",
					},
					"pods": schema.Int64Attribute{
						Optional: true, Computed: true, Default: int64default.StaticInt64(20), MarkdownDescription: "Pods that there may be at once.",
						Validators: []validator.Int64{int64validator.AtLeast(1)},
					},
				},
			},
			"access": schema.SingleNestedAttribute{
				Optional: true, MarkdownDescription: "Who of the organization may do what in a dedicated cell through the Kubernetes API. Nobody reads Secrets.",
				Attributes: map[string]schema.Attribute{
					"viewers":   subjectsAttribute("They see what runs, its state, events and logs."),
					"operators": subjectsAttribute("They also restart pods."),
				},
			},
			"hostname": schema.StringAttribute{
				Required:            true,
				MarkdownDescription: "Public host name of the cell's gateway. Every DID of the cell contains it, so it cannot change: a cell elsewhere has another name.",
			},
			"operating_party": schema.StringAttribute{Required: true, MarkdownDescription: "Who runs the cell."},
			"replicas": schema.Int64Attribute{
				Optional: true, Computed: true, Default: int64default.StaticInt64(1),
				MarkdownDescription: "Replicas of each runtime role.",
				Validators:          []validator.Int64{int64validator.AtLeast(0)},
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
	maps.Copy(s.Attributes, ownAttributes())
	maps.Copy(s.Attributes, settingsAttributes())
	return s
}

func subjectsAttribute(description string) schema.Attribute {
	names := func(of string) schema.Attribute {
		return schema.SetAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: of + " as the cluster's authentication calls them."}
	}
	return schema.SingleNestedAttribute{
		Optional: true, MarkdownDescription: description,
		Attributes: map[string]schema.Attribute{"groups": names("Groups"), "users": names("Users")},
	}
}

func (m *cellModel) objectName() string { return m.Name.ValueString() }

func (m *cellModel) spec() any {
	s := cellSpec{
		Type: m.Type.ValueString(), Hostname: m.Hostname.ValueString(), OperatingParty: m.OperatingParty.ValueString(), Replicas: m.Replicas.ValueInt64Pointer(),
		Organization: m.Organization.ValueString(), Database: m.Database.spec(), Vault: m.Vault.spec(), Ingress: m.Ingress.spec(),
		Trust: m.Trust.spec(), Images: m.Images.spec(), Proxy: m.Proxy.spec(), DataPlane: m.DataPlane.spec(), PerParticipant: m.PerParticipant.spec(),
	}
	for _, name := range m.ImagePullSecrets {
		s.ImagePullSecrets = append(s.ImagePullSecrets, secretRef{name})
	}
	if q := m.Quota; q != nil {
		s.Quota = &cellQuota{CPU: q.CPU.ValueString(), Memory: q.Memory.ValueString(), ContainerMemory: q.ContainerMemory.ValueString(), Pods: q.Pods.ValueInt64()}
	}
	if a := m.Access; a != nil {
		s.Access = &cellAccess{Viewers: (*cellSubjects)(a.Viewers), Operators: (*cellSubjects)(a.Operators)}
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
	m.OperatingParty, m.Replicas, m.Organization = types.StringValue(s.OperatingParty), types.Int64PointerValue(s.Replicas), optional(s.Organization)
	m.Database, m.Vault, m.Ingress = s.Database.model(m.Database), s.Vault.model(m.Vault), s.Ingress.model(m.Ingress)
	m.Trust, m.Images, m.Proxy = s.Trust.model(m.Trust), s.Images.model(m.Images), s.Proxy.model()
	m.DataPlane, m.PerParticipant = s.DataPlane.model(m.DataPlane), s.PerParticipant.model(m.PerParticipant)
	var pull []string
	for _, ref := range s.ImagePullSecrets {
		pull = append(pull, ref.Name)
	}
	m.ImagePullSecrets = listed(pull, m.ImagePullSecrets)
	m.Quota = nil
	if q := s.Quota; q != nil {
		m.Quota = &cellQuotaModel{types.StringValue(q.CPU), types.StringValue(q.Memory), types.StringValue(q.ContainerMemory), types.Int64Value(q.Pods)}
	}
	if s.Access != nil || m.Access != nil {
		is, was := cellAccess{}, cellAccessModel{}
		if s.Access != nil {
			is = *s.Access
		}
		if m.Access != nil {
			was = *m.Access
		}
		m.Access = &cellAccessModel{Viewers: is.Viewers.model(was.Viewers), Operators: is.Operators.model(was.Operators)}
	}
	// The API leaves an empty object out.
	if s.Audit != nil {
		m.Audit = &auditModel{optional(s.Audit.KeepBodies), s.Audit.Leaving}
	} else if m.Audit != nil && (!m.Audit.KeepBodies.IsNull() || m.Audit.Leaving != nil) {
		m.Audit = nil
	}
	return diags
}

// model keeps what the configuration says where nothing and an empty list mean the same.
func (s *cellSubjects) model(was *cellSubjectsModel) *cellSubjectsModel {
	if s == nil {
		s = &cellSubjects{}
	}
	if len(s.Groups)+len(s.Users) == 0 && (was == nil || len(was.Groups)+len(was.Users) == 0) {
		return was
	}
	if was == nil {
		was = &cellSubjectsModel{}
	}
	return &cellSubjectsModel{listed(s.Groups, was.Groups), listed(s.Users, was.Users)}
}
