// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type profileModel struct {
	Name                types.String   `tfsdk:"name"`
	Protocol            types.String   `tfsdk:"protocol"`
	Issuers             []issuerModel  `tfsdk:"issuers"`
	RequiredCredentials []string       `tfsdk:"required_credentials"`
	Operands            []operandModel `tfsdk:"operands"`
	Duties              []dutyModel    `tfsdk:"duties"`
	OnboardingChecks    []string       `tfsdk:"onboarding_checks"`
}

type issuerModel struct {
	Name            types.String          `tfsdk:"name"`
	Cell            types.String          `tfsdk:"cell"`
	Hostname        types.String          `tfsdk:"hostname"`
	CredentialTypes []credentialTypeModel `tfsdk:"credential_types"`
}

type credentialTypeModel struct {
	Type           types.String `tfsdk:"type"`
	Validity       types.String `tfsdk:"validity"`
	RequiredClaims []string     `tfsdk:"required_claims"`
}

type operandModel struct {
	Name       types.String      `tfsdk:"name"`
	Aliases    []string          `tfsdk:"aliases"`
	Subject    types.String      `tfsdk:"subject"`
	Credential types.String      `tfsdk:"credential"`
	Expression types.String      `tfsdk:"expression"`
	ValueType  types.String      `tfsdk:"value_type"`
	Operators  []string          `tfsdk:"operators"`
	Phases     []string          `tfsdk:"phases"`
	Purpose    types.Bool        `tfsdk:"purpose"`
	Sentence   *translationModel `tfsdk:"sentence"`
	Remedy     *translationModel `tfsdk:"remedy"`
}

type dutyModel struct {
	Name       types.String      `tfsdk:"name"`
	Aliases    []string          `tfsdk:"aliases"`
	Fulfilment types.String      `tfsdk:"fulfilment"`
	Sentence   *translationModel `tfsdk:"sentence"`
}

type translationModel struct {
	EN types.String `tfsdk:"en"`
	DE types.String `tfsdk:"de"`
}

type profileSpec struct {
	Protocol            string        `json:"protocol,omitempty"`
	Issuers             []issuerSpec  `json:"issuers"`
	RequiredCredentials []string      `json:"requiredCredentials"`
	Operands            []operandSpec `json:"operands,omitempty"`
	Duties              []dutySpec    `json:"duties,omitempty"`
	OnboardingChecks    []string      `json:"onboardingChecks,omitempty"`
}

type issuerSpec struct {
	Name            string               `json:"name"`
	Cell            string               `json:"cell"`
	Hostname        string               `json:"hostname"`
	CredentialTypes []credentialTypeSpec `json:"credentialTypes"`
}

type credentialTypeSpec struct {
	Type           string   `json:"type"`
	Validity       string   `json:"validity,omitempty"`
	RequiredClaims []string `json:"requiredClaims,omitempty"`
}

type operandSpec struct {
	Name       string           `json:"name"`
	Aliases    []string         `json:"aliases,omitempty"`
	Subject    string           `json:"subject"`
	Credential string           `json:"credential,omitempty"`
	Expression string           `json:"expression"`
	ValueType  string           `json:"valueType"`
	Operators  []string         `json:"operators"`
	Phases     []string         `json:"phases"`
	Purpose    bool             `json:"purpose,omitempty"`
	Sentence   translationSpec  `json:"sentence"`
	Remedy     *translationSpec `json:"remedy,omitempty"`
}

type dutySpec struct {
	Name       string          `json:"name"`
	Aliases    []string        `json:"aliases,omitempty"`
	Fulfilment string          `json:"fulfilment"`
	Sentence   translationSpec `json:"sentence"`
}

type translationSpec struct {
	EN string `json:"en,omitempty"`
	DE string `json:"de,omitempty"`
}

func newDataspaceProfile() resource.Resource {
	return &objectResource[profileModel, *profileModel]{
		noun: "dataspace_profile", kind: "dataspace-profiles", schema: profileSchema,
		settled: func(o object) (bool, string) { return conditionsTrue(o, "PolicyValid") },
	}
}

func profileSchema() schema.Schema {
	translation := map[string]schema.Attribute{
		"en": schema.StringAttribute{Optional: true, MarkdownDescription: "English."},
		"de": schema.StringAttribute{Optional: true, MarkdownDescription: "German."},
	}
	strings := func(required bool, description string) schema.ListAttribute {
		return schema.ListAttribute{ElementType: types.StringType, Required: required, Optional: !required, MarkdownDescription: description}
	}
	return schema.Schema{
		MarkdownDescription: "The rules of a dataspace: trust anchors, credentials that everybody must hold, vocabulary of policies, onboarding checks.",
		Attributes: map[string]schema.Attribute{
			"name": nameAttribute("profile"),
			"protocol": schema.StringAttribute{
				Optional: true, Computed: true, Default: stringdefault.StaticString("dataspace-protocol-http:2025-1"),
				MarkdownDescription: "Protocol version.",
			},
			"issuers": schema.ListNestedAttribute{
				Required: true, MarkdownDescription: "Trust anchors. The platform runs each in the cell named.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"name":     schema.StringAttribute{Required: true, MarkdownDescription: "Name of the issuer."},
					"cell":     schema.StringAttribute{Required: true, MarkdownDescription: "Cell in which it runs."},
					"hostname": schema.StringAttribute{Required: true, MarkdownDescription: "Its public host name; the DID is `did:web:<hostname>:issuer`."},
					"credential_types": schema.ListNestedAttribute{
						Required: true, MarkdownDescription: "What it issues and is trusted for.",
						NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
							"type": schema.StringAttribute{Required: true, MarkdownDescription: "Type of the credential."},
							"validity": schema.StringAttribute{
								Optional: true, Computed: true, Default: stringdefault.StaticString("P365D"),
								MarkdownDescription: "ISO 8601 duration.",
							},
							"required_claims": strings(false, "Claims without which it is not issued."),
						}},
					},
				}},
			},
			"required_credentials": strings(true, "Types that every participant must hold."),
			"operands": schema.ListNestedAttribute{
				Optional: true, MarkdownDescription: "Left operands that policies may use.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"name":    schema.StringAttribute{Required: true, MarkdownDescription: "IRI."},
					"aliases": strings(false, "Further spellings."),
					"subject": schema.StringAttribute{
						Required: true, MarkdownDescription: "Whose credential it reads: `provider` or `consumer`.",
						Validators: []validator.String{stringvalidator.OneOf("provider", "consumer")},
					},
					"credential": schema.StringAttribute{Optional: true, MarkdownDescription: "Type of the credential it needs."},
					"expression": schema.StringAttribute{Required: true, MarkdownDescription: "CEL expression that yields the value seen."},
					"value_type": schema.StringAttribute{
						Required: true, MarkdownDescription: "`string`, `number`, `timestamp`, `age`, `strings` or `bool`.",
						Validators: []validator.String{stringvalidator.OneOf("string", "number", "timestamp", "age", "strings", "bool")},
					},
					"operators": strings(true, "ODRL operators it supports."),
					"phases":    strings(true, "When it is evaluated: `catalog`, `negotiation`, `transfer`, `access`."),
					"purpose": schema.BoolAttribute{
						Optional: true, Computed: true, Default: booldefault.StaticBool(false),
						MarkdownDescription: "Its right operands name purposes of use, which whoever asks for the offer states by it: `request.purpose`.",
					},
					"sentence": schema.SingleNestedAttribute{Required: true, Attributes: translation, MarkdownDescription: "What it demands, for people. `{right}` is the right operand."},
					"remedy":   schema.SingleNestedAttribute{Optional: true, Attributes: translation, MarkdownDescription: "What to do when it fails."},
				}},
			},
			"duties": schema.ListNestedAttribute{
				Optional: true, MarkdownDescription: "Duties without a constraint that policies may have, since the connectors fulfil them themselves.",
				NestedObject: schema.NestedAttributeObject{Attributes: map[string]schema.Attribute{
					"name":    schema.StringAttribute{Required: true, MarkdownDescription: "IRI of the action."},
					"aliases": strings(false, "Further spellings."),
					"fulfilment": schema.StringAttribute{
						Required: true, MarkdownDescription: "`record-access`: every access to the data is recorded, or refused.",
						Validators: []validator.String{stringvalidator.OneOf("record-access")},
					},
					"sentence": schema.SingleNestedAttribute{Required: true, Attributes: translation, MarkdownDescription: "What it demands, for people."},
				}},
			},
			"onboarding_checks": strings(false, "`DIDReachable`, `CredentialsHeld`, `ContactNamed`."),
		},
	}
}

func (m *profileModel) objectName() string { return m.Name.ValueString() }

func (m *profileModel) spec() any {
	s := profileSpec{Protocol: m.Protocol.ValueString(), RequiredCredentials: m.RequiredCredentials, OnboardingChecks: m.OnboardingChecks}
	for _, i := range m.Issuers {
		is := issuerSpec{Name: i.Name.ValueString(), Cell: i.Cell.ValueString(), Hostname: i.Hostname.ValueString()}
		for _, t := range i.CredentialTypes {
			is.CredentialTypes = append(is.CredentialTypes, credentialTypeSpec{Type: t.Type.ValueString(), Validity: t.Validity.ValueString(), RequiredClaims: t.RequiredClaims})
		}
		s.Issuers = append(s.Issuers, is)
	}
	for _, o := range m.Operands {
		os := operandSpec{
			Name: o.Name.ValueString(), Aliases: o.Aliases, Subject: o.Subject.ValueString(), Credential: o.Credential.ValueString(),
			Expression: o.Expression.ValueString(), ValueType: o.ValueType.ValueString(), Operators: o.Operators, Phases: o.Phases, Purpose: o.Purpose.ValueBool(),
		}
		if t := o.Sentence.spec(); t != nil {
			os.Sentence = *t
		}
		os.Remedy = o.Remedy.spec()
		s.Operands = append(s.Operands, os)
	}
	for _, d := range m.Duties {
		ds := dutySpec{Name: d.Name.ValueString(), Aliases: d.Aliases, Fulfilment: d.Fulfilment.ValueString()}
		if t := d.Sentence.spec(); t != nil {
			ds.Sentence = *t
		}
		s.Duties = append(s.Duties, ds)
	}
	return s
}

func (t *translationModel) spec() *translationSpec {
	if t == nil {
		return nil
	}
	return &translationSpec{EN: t.EN.ValueString(), DE: t.DE.ValueString()}
}

func (t *translationSpec) model() *translationModel {
	if t == nil || *t == (translationSpec{}) {
		return nil
	}
	return &translationModel{EN: optional(t.EN), DE: optional(t.DE)}
}

func (m *profileModel) read(o object) diag.Diagnostics {
	var s profileSpec
	diags := decode(o.Spec, &s, "dataspace profile")
	m.Name, m.Protocol = types.StringValue(o.Name), types.StringValue(s.Protocol)
	m.RequiredCredentials, m.OnboardingChecks = s.RequiredCredentials, s.OnboardingChecks
	m.Issuers, m.Operands, m.Duties = nil, nil, nil
	for _, i := range s.Issuers {
		im := issuerModel{Name: types.StringValue(i.Name), Cell: types.StringValue(i.Cell), Hostname: types.StringValue(i.Hostname)}
		for _, t := range i.CredentialTypes {
			im.CredentialTypes = append(im.CredentialTypes, credentialTypeModel{Type: types.StringValue(t.Type), Validity: types.StringValue(t.Validity), RequiredClaims: t.RequiredClaims})
		}
		m.Issuers = append(m.Issuers, im)
	}
	for _, op := range s.Operands {
		m.Operands = append(m.Operands, operandModel{
			Name: types.StringValue(op.Name), Aliases: op.Aliases, Subject: types.StringValue(op.Subject), Credential: optional(op.Credential),
			Expression: types.StringValue(op.Expression), ValueType: types.StringValue(op.ValueType), Operators: op.Operators, Phases: op.Phases,
			Purpose: types.BoolValue(op.Purpose), Sentence: op.Sentence.model(), Remedy: op.Remedy.model(),
		})
	}
	for _, d := range s.Duties {
		m.Duties = append(m.Duties, dutyModel{Name: types.StringValue(d.Name), Aliases: d.Aliases, Fulfilment: types.StringValue(d.Fulfilment), Sentence: d.Sentence.model()})
	}
	return diags
}
