// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
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

	Kubernetes *kubernetesModel `tfsdk:"kubernetes"`
}

// kubernetesModel is a company's cluster. A provider's configuration is never written to the state.
type kubernetesModel struct {
	ConfigPath           types.String `tfsdk:"config_path"`
	ConfigContext        types.String `tfsdk:"config_context"`
	Host                 types.String `tfsdk:"host"`
	Token                types.String `tfsdk:"token"`
	ClusterCACertificate types.String `tfsdk:"cluster_ca_certificate"`
}

// config is nil when something of it is not known yet.
func (m *kubernetesModel) config() (*rest.Config, error) {
	if m == nil || m.ConfigPath.IsUnknown() || m.ConfigContext.IsUnknown() || m.Host.IsUnknown() || m.Token.IsUnknown() || m.ClusterCACertificate.IsUnknown() {
		return nil, nil
	}
	file, host := m.ConfigPath.ValueString(), m.Host.ValueString()
	switch {
	case (file == "") == (host == ""):
		return nil, errors.New("name the cluster by config_path or by host, one of them")
	case host != "" && !strings.HasPrefix(host, "https://"):
		return nil, fmt.Errorf("host %q is not an https URL", host)
	case host != "":
		return &rest.Config{Host: host, BearerToken: m.Token.ValueString(), TLSClientConfig: rest.TLSClientConfig{CAData: []byte(m.ClusterCACertificate.ValueString())}}, nil
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: file},
		&clientcmd.ConfigOverrides{CurrentContext: m.ConfigContext.ValueString()}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("config_path %s: %w", file, err)
	}
	return cfg, nil
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
			"kubernetes": schema.SingleNestedAttribute{
				Optional:            true,
				MarkdownDescription: "A company's own cluster, for `kaphera_cell_installation`: a kubeconfig, or host and token. For several clusters, give the provider an alias for each.",
				Attributes: map[string]schema.Attribute{
					"config_path":            schema.StringAttribute{Optional: true, MarkdownDescription: "Path of a kubeconfig."},
					"config_context":         schema.StringAttribute{Optional: true, MarkdownDescription: "Context of it. Default: its current one."},
					"host":                   schema.StringAttribute{Optional: true, MarkdownDescription: "URL of the API server, in place of a kubeconfig."},
					"token":                  schema.StringAttribute{Optional: true, Sensitive: true, MarkdownDescription: "Token of a service account there."},
					"cluster_ca_certificate": schema.StringAttribute{Optional: true, MarkdownDescription: "PEM of the API server's authority."},
				},
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
	var err error
	if s.cluster, err = m.Kubernetes.config(); err != nil {
		resp.Diagnostics.AddAttributeError(path.Root("kubernetes"), "The company's cluster is not usable", err.Error())
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
	return []func() resource.Resource{newCell, newCellInstallation, newDataspaceProfile, newUseCase, newOrganization, newParticipant}
}

func (p *kapheraProvider) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{newStatus}
}
