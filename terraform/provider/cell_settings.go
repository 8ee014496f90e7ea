// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// Settings of a cell: which authorities it trusts, where its images come from, its way to the cloud, where backends may be, how much each participant may
// have under way.

type trustModel struct {
	CABundle             types.String `tfsdk:"ca_bundle"`
	AllowPrivateNetworks types.Bool   `tfsdk:"allow_private_networks"`
}

type imagesModel struct {
	Agent       types.String `tfsdk:"agent"`
	Connector   types.String `tfsdk:"connector"`
	EDCOperator types.String `tfsdk:"edc_operator"`
}

type proxyModel struct {
	URL               types.String `tfsdk:"url"`
	CABundle          types.String `tfsdk:"ca_bundle"`
	CredentialsSecret types.String `tfsdk:"credentials_secret"`
}

type dataPlaneModel struct {
	AllowedNetworks []string `tfsdk:"allowed_networks"`
	DeniedNetworks  []string `tfsdk:"denied_networks"`
}

type perParticipantModel struct {
	Connections types.Int64 `tfsdk:"connections"`
	Requests    types.Int64 `tfsdk:"requests"`
	Messages    types.Int64 `tfsdk:"messages"`
	Accesses    types.Int64 `tfsdk:"accesses"`
}

type trustSpec struct {
	CABundle             string `json:"caBundle,omitempty"`
	AllowPrivateNetworks bool   `json:"allowPrivateNetworks,omitempty"`
}

type imagesSpec struct {
	Agent       string `json:"agent,omitempty"`
	Connector   string `json:"connector,omitempty"`
	EDCOperator string `json:"edcOperator,omitempty"`
}

type proxySpec struct {
	URL               string     `json:"url"`
	CABundle          string     `json:"caBundle,omitempty"`
	CredentialsSecret *secretRef `json:"credentialsSecret,omitempty"`
}

type dataPlaneSpec struct {
	AllowedNetworks []string `json:"allowedNetworks,omitempty"`
	DeniedNetworks  []string `json:"deniedNetworks,omitempty"`
}

type perParticipantSpec struct {
	Connections int64 `json:"connections,omitempty"`
	Requests    int64 `json:"requests,omitempty"`
	Messages    int64 `json:"messages,omitempty"`
	Accesses    int64 `json:"accesses,omitempty"`
}

func settingsAttributes() map[string]schema.Attribute {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Optional: true, MarkdownDescription: description}
	}
	number := func(description string) schema.Int64Attribute {
		return schema.Int64Attribute{Optional: true, MarkdownDescription: description, Validators: []validator.Int64{int64validator.AtLeast(1)}}
	}
	networks := func(description string) schema.SetAttribute {
		return schema.SetAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: description}
	}
	url := text("`http(s)://host:port`, without a login.")
	url.Optional, url.Required = false, true
	return map[string]schema.Attribute{
		"trust": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "Which authorities and addresses the connector of an on-premise cell accepts. Absent: what the platform says.",
			Attributes: map[string]schema.Attribute{
				"ca_bundle": text("PEM of the only authorities that are trusted. Absent: the system's."),
				"allow_private_networks": schema.BoolAttribute{
					Optional: true, Computed: true, Default: booldefault.StaticBool(false), MarkdownDescription: "Whether participants may be on private addresses.",
				},
			},
		},
		"images": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "Images of an on-premise cell, where its nodes pull them from a registry of the company's. Absent: the platform's.",
			Attributes: map[string]schema.Attribute{
				"agent": text("Image of the agent."), "connector": text("Image of the connector."), "edc_operator": text("Image of the EDC operator."),
			},
		},
		"image_pull_secrets": schema.ListAttribute{
			Optional: true, ElementType: types.StringType, MarkdownDescription: "Names of the Secrets of that registry, in namespace `cell-<name>` of the company's cluster.",
			Validators: []validator.List{listvalidator.UniqueValues(), listvalidator.SizeAtMost(8)},
		},
		"proxy": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "HTTP proxy on the way of the agent of an on-premise cell to the cloud.",
			Attributes: map[string]schema.Attribute{
				"url": url, "ca_bundle": text("PEM of the authority of an https proxy."),
				"credentials_secret": text("Name of the Secret (key `credentials`: user:password) in namespace `cell-<name>` of the company's cluster. Absent: the proxy wants no login."),
			},
		},
		"data_plane": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "Where the backends of the participants' assets may be.",
			Attributes: map[string]schema.Attribute{
				"allowed_networks": networks("The only networks (CIDR) in which a backend may be. Absent: everywhere."),
				"denied_networks":  networks("Networks (CIDR) in which none may be, also within an allowed one."),
			},
		},
		"per_participant": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "How much each participant may have under way at once, so that none slows the others.",
			Attributes: map[string]schema.Attribute{
				"connections": number("To the database, of the 10 that each process has. Default 5."), "requests": number("To its endpoints, in one process. Default 64."),
				"messages": number("That are being sent to counterparties. Default 8."), "accesses": number("To its data that one process serves. Default 128."),
			},
		},
	}
}

func (m *trustModel) spec() *trustSpec {
	if m == nil {
		return nil
	}
	return &trustSpec{m.CABundle.ValueString(), m.AllowPrivateNetworks.ValueBool()}
}

func (s *trustSpec) model(was *trustModel) *trustModel {
	if s == nil { // the API may leave an empty object out
		if was == nil {
			return nil
		}
		s = &trustSpec{}
	}
	return &trustModel{optional(s.CABundle), types.BoolValue(s.AllowPrivateNetworks)}
}

func (m *imagesModel) spec() *imagesSpec {
	if m == nil {
		return nil
	}
	return &imagesSpec{m.Agent.ValueString(), m.Connector.ValueString(), m.EDCOperator.ValueString()}
}

func (s *imagesSpec) model(was *imagesModel) *imagesModel {
	if s == nil {
		if was == nil {
			return nil
		}
		s = &imagesSpec{}
	}
	return &imagesModel{optional(s.Agent), optional(s.Connector), optional(s.EDCOperator)}
}

func (m *proxyModel) spec() *proxySpec {
	if m == nil {
		return nil
	}
	s := &proxySpec{URL: m.URL.ValueString(), CABundle: m.CABundle.ValueString()}
	if name := m.CredentialsSecret.ValueString(); name != "" {
		s.CredentialsSecret = &secretRef{name}
	}
	return s
}

func (s *proxySpec) model() *proxyModel {
	if s == nil {
		return nil
	}
	m := &proxyModel{URL: types.StringValue(s.URL), CABundle: optional(s.CABundle)}
	if s.CredentialsSecret != nil {
		m.CredentialsSecret = types.StringValue(s.CredentialsSecret.Name)
	}
	return m
}

func (m *dataPlaneModel) spec() *dataPlaneSpec {
	if m == nil {
		return nil
	}
	return &dataPlaneSpec{m.AllowedNetworks, m.DeniedNetworks}
}

func (s *dataPlaneSpec) model(was *dataPlaneModel) *dataPlaneModel {
	if s == nil {
		if was == nil {
			return nil
		}
		s = &dataPlaneSpec{}
	}
	if was == nil {
		was = &dataPlaneModel{}
	}
	return &dataPlaneModel{listed(s.AllowedNetworks, was.AllowedNetworks), listed(s.DeniedNetworks, was.DeniedNetworks)}
}

func (m *perParticipantModel) spec() *perParticipantSpec {
	if m == nil {
		return nil
	}
	return &perParticipantSpec{m.Connections.ValueInt64(), m.Requests.ValueInt64(), m.Messages.ValueInt64(), m.Accesses.ValueInt64()}
}

func (s *perParticipantSpec) model(was *perParticipantModel) *perParticipantModel {
	if s == nil {
		if was == nil {
			return nil
		}
		s = &perParticipantSpec{}
	}
	number := func(n int64) types.Int64 {
		if n == 0 {
			return types.Int64Null()
		}
		return types.Int64Value(n)
	}
	return &perParticipantModel{number(s.Connections), number(s.Requests), number(s.Messages), number(s.Accesses)}
}

// listed keeps what the configuration says where nothing and an empty list mean the same.
func listed(is, was []string) []string {
	if len(is)+len(was) == 0 {
		return was
	}
	return is
}
