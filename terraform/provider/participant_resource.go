// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type participantModel struct {
	Name            types.String               `tfsdk:"name"`
	Organization    types.String               `tfsdk:"organization"`
	Identity        identityModel              `tfsdk:"identity"`
	Cell            types.String               `tfsdk:"cell"`
	Profile         types.String               `tfsdk:"profile"`
	FurtherProfiles []string                   `tfsdk:"further_profiles"`
	OperatingParty  types.String               `tfsdk:"operating_party"`
	SelfCheck       types.String               `tfsdk:"self_check"`
	Key             *keyModel                  `tfsdk:"key"`
	Credentials     map[string]credentialModel `tfsdk:"credentials"`
	DID             types.String               `tfsdk:"did"`
	ProtocolURL     types.String               `tfsdk:"protocol_url"`
}

type identityModel struct {
	Context types.String `tfsdk:"context"`
	BPN     types.String `tfsdk:"business_partner_number"`
}

type keyModel struct {
	Algorithm  types.String `tfsdk:"algorithm"`
	Generation types.Int32  `tfsdk:"generation"`
}

type credentialModel struct {
	Claims map[string]string `tfsdk:"claims"`
}

type participantSpec struct {
	Organization    string           `json:"organization"`
	Identity        identitySpec     `json:"identity"`
	Cell            string           `json:"cell"`
	Profile         string           `json:"profile"`
	FurtherProfiles []string         `json:"furtherProfiles,omitempty"`
	OperatingParty  string           `json:"operatingParty,omitempty"`
	Credentials     []credentialSpec `json:"credentials,omitempty"`
	SelfCheck       string           `json:"selfCheck,omitempty"`
	Key             keySpec          `json:"key,omitzero"`
}

type identitySpec struct {
	Context string `json:"context"`
	BPN     string `json:"businessPartnerNumber"`
}

type keySpec struct {
	Algorithm  string `json:"algorithm,omitempty"`
	Generation int32  `json:"generation,omitempty"`
}

type credentialSpec struct {
	Type   string         `json:"type"`
	Claims map[string]any `json:"claims,omitempty"`
}

func newParticipant() resource.Resource {
	return &objectResource[participantModel, *participantModel]{
		noun: "participant", kind: "participants", schema: participantSchema,
		// Onboarding needs the profile's credentials only; what else is granted has to have arrived too, or the participant could not offer yet.
		settled: func(o object) (bool, string) {
			if done, waitsFor := arrived(o); !done {
				return false, waitsFor
			}
			return conditionsTrue(o, "Onboarded", "Active", "CredentialsHeld")
		},
	}
}

// arrived says whether a participant runs in the cell that it names, and otherwise what its move waits for.
func arrived(o object) (bool, string) {
	var s participantSpec
	var status struct {
		Cell       string      `json:"cell"`
		Conditions []condition `json:"conditions"`
	}
	if diags := append(decode(o.Spec, &s, "participant"), decode(o.Status, &status, "participant's status")...); diags.HasError() {
		return false, "a readable answer: " + diags[0].Detail()
	}
	if status.Cell == "" || status.Cell == s.Cell {
		return true, "" // what goes on then shows in the conditions
	}
	waitsFor := "Moving (not reported yet)"
	for _, c := range status.Conditions {
		if c.Type == "Moving" {
			waitsFor = "Moving: " + c.Message
		}
	}
	return false, waitsFor
}

func participantSchema() schema.Schema {
	return schema.Schema{
		MarkdownDescription: "A legal entity in a dataspace with its own connector identity: organization, identity, cell.",
		Attributes: map[string]schema.Attribute{
			"name": nameAttribute("participant"),
			"organization": schema.StringAttribute{
				Required: true, MarkdownDescription: "Organization that owns it.",
				PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
			},
			"identity": schema.SingleNestedAttribute{
				Required: true, MarkdownDescription: "Its identity in the dataspace.",
				Attributes: map[string]schema.Attribute{
					"context": schema.StringAttribute{
						Required: true, MarkdownDescription: "Last part of the DID `did:web:<host>:<context>`, whose host is that of the cell in which it is made.",
						PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
					},
					"business_partner_number": schema.StringAttribute{
						Required: true, MarkdownDescription: "`BPNL` and 12 digits or capital letters. A change makes a new participant.",
						PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()},
					},
				},
			},
			"cell":    schema.StringAttribute{Required: true, MarkdownDescription: "Cell in which its connector runs. Another one of type shared or dedicated moves it there, with its DID, keys and history, and apply waits for that."},
			"profile": schema.StringAttribute{Required: true, MarkdownDescription: "Dataspace profile: the default one, whose protocol address is `protocol_url`."},
			"further_profiles": schema.SetAttribute{
				Optional: true, ElementType: types.StringType,
				MarkdownDescription: "Profiles of other dataspaces that it takes part in besides, each at an address of its own.",
			},
			"operating_party": schema.StringAttribute{Optional: true, MarkdownDescription: "Who runs the connector on its behalf. Absent: the cell's operating party."},
			"self_check": schema.StringAttribute{
				Optional: true, Computed: true, Default: stringdefault.StaticString("Enforce"),
				MarkdownDescription: "`Enforce`: it evaluates its own obligations before it offers. `Off`: it does not, as other connectors; its counterparties evaluate them all the same.",
				Validators:          []validator.String{stringvalidator.OneOf("Enforce", "Off")},
			},
			"key": schema.SingleNestedAttribute{
				Optional: true, MarkdownDescription: "The key that signs for its DID. A key that is replaced stays published until nothing that it signed is valid any more.",
				Attributes: map[string]schema.Attribute{
					"algorithm": schema.StringAttribute{
						Optional: true, MarkdownDescription: "`ES256` or `EdDSA` (Ed25519); another one replaces the key. Absent: as it is, and `ES256` for the first.",
						Validators: []validator.String{stringvalidator.OneOf("ES256", "EdDSA")},
					},
					"generation": schema.Int32Attribute{Optional: true, MarkdownDescription: "The number in the key's id, `key-2`; raising it replaces the key."},
				},
			},
			"credentials": schema.MapNestedAttribute{
				Optional:            true,
				MarkdownDescription: "Credentials that the profile's issuers grant it, by type. Needs the governance authority's role.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"claims": schema.MapAttribute{
						Optional: true, ElementType: types.StringType,
						MarkdownDescription: "Facts that the issuer vouches for; they become the credential's subject.",
					},
				}},
			},
			"did": schema.StringAttribute{
				Computed: true, MarkdownDescription: "Decentralised identifier.",
				PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			},
			"protocol_url": schema.StringAttribute{
				Computed: true, MarkdownDescription: "Base of the Dataspace Protocol.",
				PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
			},
		},
	}
}

func (m *participantModel) objectName() string { return m.Name.ValueString() }

func (m *participantModel) spec() any {
	s := participantSpec{
		Organization: m.Organization.ValueString(),
		Identity:     identitySpec{Context: m.Identity.Context.ValueString(), BPN: m.Identity.BPN.ValueString()},
		Cell:         m.Cell.ValueString(), Profile: m.Profile.ValueString(), FurtherProfiles: m.FurtherProfiles,
		OperatingParty: m.OperatingParty.ValueString(), SelfCheck: m.SelfCheck.ValueString(),
	}
	if m.Key != nil {
		s.Key = keySpec{m.Key.Algorithm.ValueString(), m.Key.Generation.ValueInt32()}
	}
	for t, c := range m.Credentials {
		claims := make(map[string]any, len(c.Claims))
		for k, v := range c.Claims {
			claims[k] = v
		}
		s.Credentials = append(s.Credentials, credentialSpec{Type: t, Claims: claims})
	}
	slices.SortFunc(s.Credentials, func(a, b credentialSpec) int { return strings.Compare(a.Type, b.Type) })
	return s
}

func (m *participantModel) read(o object) diag.Diagnostics {
	var (
		s      participantSpec
		status struct {
			DID         string `json:"did"`
			ProtocolURL string `json:"protocolURL"`
			Cell        string `json:"cell"` // until a move has ended, the one that it has yet to leave
		}
	)
	diags := decode(o.Spec, &s, "participant")
	diags.Append(decode(o.Status, &status, "participant's status")...)
	m.Name, m.Organization = types.StringValue(o.Name), types.StringValue(s.Organization)
	m.Identity = identityModel{Context: types.StringValue(s.Identity.Context), BPN: types.StringValue(s.Identity.BPN)}
	m.Cell, m.Profile = types.StringValue(cmp.Or(status.Cell, s.Cell)), types.StringValue(s.Profile)
	if len(s.FurtherProfiles) > 0 || m.FurtherProfiles != nil {
		m.FurtherProfiles = append([]string{}, s.FurtherProfiles...)
	}
	if s.Key != (keySpec{}) || m.Key != nil {
		m.Key = &keyModel{Algorithm: optional(s.Key.Algorithm), Generation: types.Int32Null()}
		if s.Key.Generation != 0 {
			m.Key.Generation = types.Int32Value(s.Key.Generation)
		}
	}
	m.OperatingParty, m.SelfCheck = optional(s.OperatingParty), types.StringValue(s.SelfCheck)
	m.DID, m.ProtocolURL = types.StringValue(status.DID), types.StringValue(status.ProtocolURL)

	configured := m.Credentials
	m.Credentials = nil
	if len(s.Credentials) > 0 || configured != nil {
		m.Credentials = make(map[string]credentialModel, len(s.Credentials))
	}
	for _, c := range s.Credentials {
		claims := make(map[string]string, len(c.Claims))
		for k, v := range c.Claims {
			claims[k] = text(v)
		}
		if len(claims) == 0 && configured[c.Type].Claims == nil {
			claims = nil // the configuration leaves them out; so does the state
		}
		m.Credentials[c.Type] = credentialModel{Claims: claims}
	}
	return diags
}

// text renders a claim that somebody may have written as another JSON type, so that the change shows.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
