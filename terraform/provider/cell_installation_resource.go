// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/kaphera/kaphera/client/install"
	"github.com/kaphera/kaphera/edcoperator/preflight"
)

// cellInstallation puts an on-premise cell into the cluster of the provider's configuration.
type cellInstallation struct{ api *api }

type cellInstallationModel struct {
	Cell          types.String    `tfsdk:"cell"`
	KeyGeneration types.Int64     `tfsdk:"key_generation"`
	Preflight     *preflightModel `tfsdk:"preflight"`
	Namespace     types.String    `tfsdk:"namespace"`
	AgentKey      types.String    `tfsdk:"agent_key"`
	Objects       types.Map       `tfsdk:"objects"`
}

type preflightModel struct {
	Counterparts []string `tfsdk:"counterparts"`
}

func newCellInstallation() resource.Resource { return &cellInstallation{} }

func (r *cellInstallation) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kaphera_cell_installation"
}

func (r *cellInstallation) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = schema.Schema{
		MarkdownDescription: "The agent and the EDC operator of an on-premise cell in its company's cluster, which the provider's `kubernetes` names. The agent's private key is made there and is in a Secret of that cluster alone, never in the state. " +
			"What was changed or removed there shows in a plan. Destroying it takes the cell's connector down, which waits until its participants are gone; the namespace, the kinds and the rights stay.",
		Attributes: map[string]schema.Attribute{
			"cell": schema.StringAttribute{
				Required: true, MarkdownDescription: "Name of the on-premise cell.", PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
			},
			"key_generation": schema.Int64Attribute{Optional: true, MarkdownDescription: "A change gives the agent a new key; the one before opens nothing any more."},
			"preflight": schema.SingleNestedAttribute{
				Optional:            true,
				MarkdownDescription: "Checks Vault, PostgreSQL, the ways to the cloud and to counterparts, and the clocks, from where this runs, at plan time and again before anything is deployed, as `kaphera cell check` does. Absent: the cluster alone is checked.",
				Attributes: map[string]schema.Attribute{
					"counterparts": schema.ListAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "DIDs of participants to which there must be a way."},
				},
			},
			"namespace": schema.StringAttribute{Computed: true, MarkdownDescription: "Namespace in the company's cluster.", PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()}},
			"agent_key": schema.StringAttribute{Computed: true, MarkdownDescription: "Public key of the agent that the cloud admits."},
			"objects": schema.MapAttribute{
				Computed: true, ElementType: types.StringType, MarkdownDescription: "What was applied, and whether it is in place, is missing, or what of it was changed.",
			},
		},
	}
}

func (r *cellInstallation) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	if a, ok := req.ProviderData.(*api); ok {
		r.api = a
	}
}

func (r *cellInstallation) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	resource.ImportStatePassthroughID(ctx, path.Root("cell"), req, resp)
}

// open prepares the installation; errNotFound when there is no such cell.
func (r *cellInstallation) open(ctx context.Context, cell string) (*install.Installation, error) {
	if r.api.cluster == nil {
		return nil, errors.New("the provider does not know the company's cluster: set kubernetes in its block")
	}
	i, err := install.Open(ctx, r.api.API, cell, r.api.cluster)
	return i, readable(err)
}

// ModifyPlan brings what is not in place back into place, and checks beforehand what can be checked.
func (r *cellInstallation) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if r.api == nil || req.Plan.Raw.IsNull() {
		return
	}
	var plan, state cellInstallationModel
	if diags := req.Plan.Get(ctx, &plan); diags.HasError() {
		return // unknown values inside typed fields, such as the DID of a counterpart that is still to be made
	}
	if !req.State.Raw.IsNull() {
		resp.Diagnostics.Append(req.State.Get(ctx, &state)...)
	}
	if resp.Diagnostics.HasError() || plan.Cell.IsUnknown() {
		return
	}
	changed := req.State.Raw.IsNull() || !plan.KeyGeneration.Equal(state.KeyGeneration)
	for id, seen := range state.Objects.Elements() {
		if seen.Equal(types.StringValue(install.InPlace)) {
			continue
		}
		changed = true
		if strings.HasPrefix(id, "Secret ") {
			plan.AgentKey = types.StringUnknown()
		}
	}
	if !changed {
		return
	}
	if r.api.cluster == nil {
		return // not known yet
	}
	i, err := r.open(ctx, plan.Cell.ValueString())
	if errors.Is(err, errNotFound) {
		return // the cell is to be made in the same apply
	}
	if err != nil {
		addProblem(&resp.Diagnostics, "Could not plan the installation of cell "+plan.Cell.ValueString(), err)
		return
	}
	if !req.State.Raw.IsNull() {
		plan.Objects = stateOf(ctx, i.IDs(), &resp.Diagnostics)
		resp.Diagnostics.Append(resp.Plan.Set(ctx, &plan)...)
	}
	r.check(ctx, i, &plan, &resp.Diagnostics)
}

func stateOf(ctx context.Context, objects map[string]string, diags *diag.Diagnostics) types.Map {
	m, d := types.MapValueFrom(ctx, types.StringType, objects)
	diags.Append(d...)
	return m
}

// check runs the preflight: what is required and fails is an error, the rest a warning.
func (r *cellInstallation) check(ctx context.Context, i *install.Installation, m *cellInstallationModel, diags *diag.Diagnostics) {
	var o install.CheckOptions
	if m.Preflight != nil {
		o.All, o.Counterparts = true, m.Preflight.Counterparts
	}
	report, err := i.Check(ctx, r.api.API, o)
	if err != nil {
		addProblem(diags, "Could not check cell "+m.Cell.ValueString(), readable(err))
		return
	}
	for _, c := range report.Checks {
		text := c.Detail
		if c.Remedy != "" {
			text += "\n\nNext: " + c.Remedy
		}
		switch {
		case c.Result == preflight.Failed && c.Required:
			diags.AddError("Preflight: "+c.Name+" failed", text)
		case c.Result == preflight.Failed || c.Result == preflight.Warning:
			diags.AddWarning("Preflight: "+c.Name, text)
		}
	}
}

func (r *cellInstallation) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	var m cellInstallationModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	if !resp.Diagnostics.HasError() && r.apply(ctx, &m, false, &resp.Diagnostics) {
		resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
	}
}

func (r *cellInstallation) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	var m, before cellInstallationModel
	resp.Diagnostics.Append(req.Plan.Get(ctx, &m)...)
	resp.Diagnostics.Append(req.State.Get(ctx, &before)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if r.apply(ctx, &m, !m.KeyGeneration.Equal(before.KeyGeneration), &resp.Diagnostics) {
		resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
	}
}

// apply installs and waits; it says whether anything may have been written, with which m is completed then.
func (r *cellInstallation) apply(ctx context.Context, m *cellInstallationModel, rotate bool, diags *diag.Diagnostics) bool {
	cell := m.Cell.ValueString()
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	i, err := r.open(ctx, cell)
	if err != nil {
		addProblem(diags, "Could not install cell "+cell, err)
		return false
	}
	if r.check(ctx, i, m, diags); diags.HasError() {
		return false
	}
	written, err := i.Apply(ctx, r.api.API, install.Options{RotateKey: rotate})
	if err != nil {
		var refused *install.RefusedError
		if errors.As(err, &refused) {
			err = fmt.Errorf("%w\n\nNext: %s", err, refused.Next())
		}
		addProblem(diags, "Could not install cell "+cell, readable(err))
		if len(written) == 0 {
			return false
		}
	} else if err := i.Wait(ctx, r.api.API, install.Options{}); err != nil {
		addProblem(diags, "Installed, but not connected: cell "+cell, err)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	r.fill(ctx, i, m, diags)
	return true
}

// fill completes the model with what is seen.
func (r *cellInstallation) fill(ctx context.Context, i *install.Installation, m *cellInstallationModel, diags *diag.Diagnostics) {
	state, err := i.State(ctx)
	if err != nil {
		addProblem(diags, "Could not read the installation of cell "+i.Cell, err)
	}
	m.Namespace, m.AgentKey, m.Objects = types.StringValue(i.Namespace), types.StringValue(i.AgentKey), stateOf(ctx, state, diags)
}

func (r *cellInstallation) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	var m cellInstallationModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	i, err := r.open(ctx, m.Cell.ValueString())
	if errors.Is(err, errNotFound) {
		resp.State.RemoveResource(ctx)
		return
	}
	if err != nil {
		addProblem(&resp.Diagnostics, "Could not read the installation of cell "+m.Cell.ValueString(), err)
		return
	}
	if r.fill(ctx, i, &m, &resp.Diagnostics); !resp.Diagnostics.HasError() {
		resp.Diagnostics.Append(resp.State.Set(ctx, &m)...)
	}
}

// Delete waits for participants that are being removed beside it.
func (r *cellInstallation) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	var m cellInstallationModel
	resp.Diagnostics.Append(req.State.Get(ctx, &m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	i, err := r.open(ctx, m.Cell.ValueString())
	for err == nil {
		err = i.Remove(ctx, r.api.API, install.Options{})
		if !errors.Is(err, install.ErrInUse) {
			break
		}
		select {
		case <-ctx.Done():
			addProblem(&resp.Diagnostics, "Could not uninstall cell "+m.Cell.ValueString(), err)
			return
		case <-time.After(attempt):
			err = nil
		}
	}
	if err != nil && !errors.Is(err, errNotFound) {
		addProblem(&resp.Diagnostics, "Could not uninstall cell "+m.Cell.ValueString(), readable(err))
	}
}
