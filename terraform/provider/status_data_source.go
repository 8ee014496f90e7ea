// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type statusDataSource struct{ api *api }

type statusModel struct {
	Participants []participantStatusModel `tfsdk:"participants"`
}

type participantStatusModel struct {
	Participant  types.String `tfsdk:"participant"`
	Organization types.String `tfsdk:"organization"`
	Cell         types.String `tfsdk:"cell"`
	Connector    types.String `tfsdk:"connector"`
	Credentials  types.String `tfsdk:"credentials"`
	Contracts    types.String `tfsdk:"contracts"`
	Reason       types.String `tfsdk:"reason"`
}

func newStatus() datasource.DataSource { return &statusDataSource{} }

func (d *statusDataSource) Metadata(_ context.Context, _ datasource.MetadataRequest, resp *datasource.MetadataResponse) {
	resp.TypeName = "kaphera_status"
}

func (d *statusDataSource) Schema(_ context.Context, _ datasource.SchemaRequest, resp *datasource.SchemaResponse) {
	text := func(description string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: description}
	}
	resp.Schema = schema.Schema{
		MarkdownDescription: "State of every participant that the caller may see: the table of `kaphera status`.",
		Attributes: map[string]schema.Attribute{
			"participants": schema.ListNestedAttribute{
				Computed: true, MarkdownDescription: "One for each participant.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"participant":  text("Name."),
					"organization": text("Organization that owns it."),
					"cell":         text("Where its connector runs."),
					"connector":    text("State of its connector."),
					"credentials":  text("State of its credentials."),
					"contracts":    text("State of its contracts."),
					"reason":       text("Why its connector is not as it should be; empty when it is."),
				}},
			},
		},
	}
}

func (d *statusDataSource) Configure(_ context.Context, req datasource.ConfigureRequest, _ *datasource.ConfigureResponse) {
	if a, ok := req.ProviderData.(*api); ok {
		d.api = a
	}
}

func (d *statusDataSource) Read(ctx context.Context, _ datasource.ReadRequest, resp *datasource.ReadResponse) {
	report, err := d.api.GetStatusWithResponse(ctx)
	if err != nil {
		addProblem(&resp.Diagnostics, "Could not read the status", readable(err))
		return
	}
	m := statusModel{Participants: []participantStatusModel{}}
	for _, p := range report.JSON200.Participants {
		m.Participants = append(m.Participants, participantStatusModel{
			Participant: types.StringValue(p.Participant), Organization: types.StringValue(p.Organization), Cell: types.StringValue(p.Cell),
			Connector: types.StringValue(string(p.Connector.State)), Credentials: types.StringValue(string(p.Credentials.State)),
			Contracts: types.StringValue(string(p.Contracts.State)), Reason: types.StringValue(p.Connector.Reason),
		})
	}
	resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
}
