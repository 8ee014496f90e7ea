// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"context"
	"encoding/json"
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
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// object is an API object: {"name","spec","status"}.
type object struct {
	Name     string `json:"name"`
	Revision string `json:"revision,omitempty"`
	// Generation counts changes of the spec; a condition counts when it was observed at this generation.
	Generation int64           `json:"generation,omitempty"`
	Spec       json.RawMessage `json:"spec"`
	Status     json.RawMessage `json:"status,omitempty"`
}

// objectResource is what every resource here is: a model that turns into an API object's spec and back.
// M is the model's struct; its pointer implements modelOf.
type objectResource[M any, P modelOf[M]] struct {
	noun   string // as in the type name, kaphera_<noun>
	kind   string // as in the API's path
	schema func() schema.Schema
	// settled says whether a written object has taken effect; nil where writing is all there is to it. A returned reason is what it waits for.
	settled func(object) (done bool, waitsFor string)
	// inForce says whether a settled object is in force, for which no apply waits; nil where that is the same.
	inForce func(object) (done bool, waitsFor string)
	api     *api
}

// modelOf is a model's pointer.
type modelOf[M any] interface {
	*M
	objectName() string
	// spec returns the API's spec.
	spec() any
	// read fills the model from the API's object, keeping what the configuration says where both mean the same.
	read(o object) diag.Diagnostics
}

// settleTimeout bounds how long an apply waits for an object to take effect: credentials have to be issued and a connector started.
const settleTimeout = 6 * time.Minute

func (r *objectResource[M, P]) Metadata(_ context.Context, _ resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = "kaphera_" + r.noun
}

func (r *objectResource[M, P]) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = r.schema()
}

func (r *objectResource[M, P]) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	if a, ok := req.ProviderData.(*api); ok {
		r.api = a
	}
}

func (r *objectResource[M, P]) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	resource.ImportStatePassthroughID(ctx, path.Root("name"), req, resp)
}

// ModifyPlan asks the API whether it would accept the object, so that a mistake shows at plan time. References to objects that
// are planned but not there yet are not mistakes; the API leaves those out of a dry run.
func (r *objectResource[M, P]) ModifyPlan(ctx context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if r.api == nil || req.Plan.Raw.IsNull() || !req.Plan.Raw.IsFullyKnown() && anyConfigUnknown(req) {
		return
	}
	if req.State.Raw.Equal(req.Plan.Raw) {
		return
	}
	m := P(new(M))
	if diags := req.Plan.Get(ctx, m); diags.HasError() {
		return // unknown values inside typed fields: nothing to ask yet
	}
	if err := r.api.check(ctx, r.kind, m.objectName(), m.spec()); err != nil {
		addProblem(&resp.Diagnostics, "Not acceptable: "+r.noun+" "+m.objectName(), err)
	}
}

// anyConfigUnknown reports whether the configuration itself (not only computed attributes) is not known yet.
func anyConfigUnknown(req resource.ModifyPlanRequest) bool { return !req.Config.Raw.IsFullyKnown() }

func (r *objectResource[M, P]) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.Plan.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	_, err := r.api.get(ctx, r.kind, m.objectName())
	switch {
	case err == nil:
		resp.Diagnostics.AddAttributeError(path.Root("name"), "Already there: "+r.noun+" "+m.objectName(),
			fmt.Sprintf("It exists and is not in this state. To take it over: import it with the id %q.", m.objectName()))
		return
	case !errors.Is(err, errNotFound):
		addProblem(&resp.Diagnostics, "Could not look up "+r.noun+" "+m.objectName(), err)
		return
	}
	r.store(ctx, m, &resp.State, &resp.Diagnostics)
}

func (r *objectResource[M, P]) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.Plan.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	r.store(ctx, m, &resp.State, &resp.Diagnostics)
}

// store writes the model's object and puts it into the state, also when it does not settle in time, so that the next apply resumes there.
func (r *objectResource[M, P]) store(ctx context.Context, m P, state *tfsdk.State, diags *diag.Diagnostics) {
	o, err := r.write(ctx, m, diags)
	if o == nil {
		return
	}
	diags.Append(m.read(*o)...)
	diags.Append(state.Set(ctx, m)...)
	if err != nil {
		addProblem(diags, "Written, but not in effect: "+r.noun+" "+m.objectName(), err)
	} else if r.inForce != nil {
		if done, waitsFor := r.inForce(*o); !done {
			diags.AddWarning("Written, but not in force: "+r.noun+" "+m.objectName(), waitsFor)
		}
	}
}

// write puts the object and waits until it has settled. It returns nil after a refused write (reported), and the object together
// with an error when it did not settle.
func (r *objectResource[M, P]) write(ctx context.Context, m P, diags *diag.Diagnostics) (*object, error) {
	o, err := r.api.put(ctx, r.kind, m.objectName(), m.spec())
	if err != nil {
		addProblem(diags, "Could not write "+r.noun+" "+m.objectName(), err)
		return nil, nil
	}
	if r.settled == nil {
		return &o, nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		done, waitsFor := r.settled(o)
		if done {
			return &o, nil
		}
		select {
		case <-ctx.Done():
			return &o, fmt.Errorf("after %s it still waits for: %s. Look at it with: kaphera describe %s %s; then apply again", settleTimeout, waitsFor, r.noun, m.objectName())
		case <-tick.C:
		}
		seen, err := r.api.get(ctx, r.kind, m.objectName())
		if errors.Is(err, errNotFound) {
			return &o, fmt.Errorf("it was removed by somebody else while it was being set up")
		}
		if err == nil {
			o = seen
		}
	}
}

func (r *objectResource[M, P]) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	o, err := r.api.get(ctx, r.kind, m.objectName())
	if errors.Is(err, errNotFound) {
		resp.State.RemoveResource(ctx)
		return
	}
	if err != nil {
		addProblem(&resp.Diagnostics, "Could not read "+r.noun+" "+m.objectName(), err)
		return
	}
	resp.Diagnostics.Append(m.read(o)...)
	resp.Diagnostics.Append(resp.State.Set(ctx, m)...)
}

func (r *objectResource[M, P]) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	m := P(new(M))
	resp.Diagnostics.Append(req.State.Get(ctx, m)...)
	if resp.Diagnostics.HasError() {
		return
	}
	if err := r.api.remove(ctx, r.kind, m.objectName(), settleTimeout); err != nil {
		addProblem(&resp.Diagnostics, "Could not remove "+r.noun+" "+m.objectName(), err)
	}
}

// addProblem shows an API error: its sentence, and what to do next.
func addProblem(diags *diag.Diagnostics, summary string, err error) {
	diags.AddError(summary, err.Error())
}

// nameAttribute is the name of an object, which cannot change.
func nameAttribute(what string) schema.StringAttribute {
	return schema.StringAttribute{
		Required:            true,
		MarkdownDescription: "Name of the " + what + ". Changing it makes a new one.",
		PlanModifiers:       []planmodifier.String{stringplanmodifier.RequiresReplace()},
	}
}

// decode reads a spec or status; the error names the object's kind.
func decode(raw json.RawMessage, into any, what string) diag.Diagnostics {
	var diags diag.Diagnostics
	if len(raw) == 0 {
		return diags
	}
	if err := json.Unmarshal(raw, into); err != nil {
		diags.AddError("Unreadable answer of the Cloud API", fmt.Sprintf("the %s is not as expected: %v. Provider and cloud may be of different versions.", what, err))
	}
	return diags
}

// optional keeps null for an empty string, so that an absent value does not show as a change.
func optional(s string) types.String {
	if s == "" {
		return types.StringNull()
	}
	return types.StringValue(s)
}

// condition is the part of a Kubernetes-style condition that is of interest here.
type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`

	ObservedGeneration int64 `json:"observedGeneration"`
}

// conditionsTrue reports whether every condition of types is true, and otherwise which is not and why.
func conditionsTrue(o object, types ...string) (bool, string) {
	var status struct {
		Conditions []condition `json:"conditions"`
	}
	if len(o.Status) > 0 {
		if err := json.Unmarshal(o.Status, &status); err != nil {
			return false, "a readable status: " + err.Error()
		}
	}
	var missing []string
	for _, t := range types {
		found := false
		for _, c := range status.Conditions {
			if c.Type != t {
				continue
			}
			found = true
			if c.ObservedGeneration != 0 && c.ObservedGeneration < o.Generation {
				missing = append(missing, t+" (not looked at since the change)")
			} else if c.Status != "True" {
				missing = append(missing, strings.TrimSpace(t+": "+c.Message))
			}
		}
		if !found {
			missing = append(missing, t+" (not reported yet)")
		}
	}
	return len(missing) == 0, strings.Join(missing, "; ")
}
