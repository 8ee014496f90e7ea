// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type kapheraProvider struct{ version string }

var _ provider.Provider = (*kapheraProvider)(nil)

// New returns the provider as the plugin server wants it.
func New(version string) func() provider.Provider {
	return func() provider.Provider { return &kapheraProvider{version: version} }
}

type providerModel struct {
	API          types.String `tfsdk:"api"`
	CAFile       types.String `tfsdk:"ca_file"`
	ClientID     types.String `tfsdk:"client_id"`
	ClientSecret types.String `tfsdk:"client_secret"`
}

func (p *kapheraProvider) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName = "kaphera"
	resp.Version = p.version
}

func (p *kapheraProvider) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "Describes dataspaces, cells and participants in a Kaphera cloud.",
		Attributes: map[string]schema.Attribute{
			"api": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "Address of the Cloud API, for instance `https://api.demo.kaphera.test`. Default: environment variable `KAPHERA_API`.",
			},
			"ca_file": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "PEM file of the certificate authority to trust. Default: `KAPHERA_CA_FILE`, else the system's authorities.",
			},
			"client_id": schema.StringAttribute{
				Optional:            true,
				MarkdownDescription: "OpenID Connect client for the client-credentials flow. Default: `KAPHERA_CLIENT_ID`.",
			},
			"client_secret": schema.StringAttribute{
				Optional:            true,
				Sensitive:           true,
				MarkdownDescription: "Its secret; better given as `KAPHERA_CLIENT_SECRET`. A provider's configuration is never written to the state.",
			},
		},
	}
}

func (p *kapheraProvider) Configure(ctx context.Context, req provider.ConfigureRequest, resp *provider.ConfigureResponse) {
	var m providerModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	setting := func(v types.String, attribute, env string, required bool) string {
		if v.IsUnknown() {
			resp.Diagnostics.AddAttributeError(path.Root(attribute), "Provider setting not known yet",
				attribute+" depends on something that exists only after apply; give it as a plain value or as environment variable "+env+".")
			return ""
		}
		if s := v.ValueString(); s != "" {
			return s
		}
		s := os.Getenv(env)
		if s == "" && required {
			resp.Diagnostics.AddAttributeError(path.Root(attribute), "Provider setting missing",
				"Set "+attribute+" in the provider block or the environment variable "+env+".")
		}
		return s
	}
	s := settings{
		API:          setting(m.API, "api", "KAPHERA_API", true),
		CAFile:       setting(m.CAFile, "ca_file", "KAPHERA_CA_FILE", false),
		ClientID:     setting(m.ClientID, "client_id", "KAPHERA_CLIENT_ID", true),
		ClientSecret: setting(m.ClientSecret, "client_secret", "KAPHERA_CLIENT_SECRET", true),
	}
	if resp.Diagnostics.HasError() {
		return
	}
	api, err := connect(ctx, s)
	if err != nil {
		resp.Diagnostics.AddError("Cloud API not usable", err.Error())
		return
	}
	resp.ResourceData = api
	resp.DataSourceData = api
}

func (p *kapheraProvider) Resources(context.Context) []func() resource.Resource {
	return []func() resource.Resource{newCell, newDataspaceProfile, newUseCase, newOrganization, newParticipant}
}

func (p *kapheraProvider) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{newStatus}
}
