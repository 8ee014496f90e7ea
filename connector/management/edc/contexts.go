// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"strings"

	"github.com/kaphera/kaphera/connector/odrl"
)

// Namespaces of what clients write.
const (
	namespace      = "https://w3id.org/edc/v0.0.1/ns/"
	dcterms        = "http://purl.org/dc/terms/"
	contextV4      = "https://w3id.org/edc/connector/management/v2"
	contextODRL    = "http://www.w3.org/ns/odrl.jsonld"
	contextDSP     = "https://w3id.org/dspace/2025/1/context.jsonld"
	contextEDC     = "https://w3id.org/edc/dspace/v0.0.1"
	tractusx       = "https://w3id.org/tractusx/v0.0.1/ns/"
	tractusxTokens = "https://w3id.org/tractusx/auth/" // #nosec G101 -- a namespace
	cxPolicy       = "https://w3id.org/catenax/2025/9/policy/"
	cxPolicyOld    = "https://w3id.org/catenax/policy/"
)

// bundled are the contexts that documents may name; nothing is ever fetched. They say what the published ones say about the terms that
// this API reads and writes.
var bundled = map[string]any{
	contextV4: define(management),
	"https://w3id.org/edc/connector/management/v0.0.1": define(management),
	contextODRL:                                          define(odrlTerms()),
	"https://www.w3.org/ns/odrl.jsonld":                  define(odrlTerms()),
	cxPolicy + "odrl.jsonld":                             define(odrlTerms()),
	"https://w3id.org/dspace/2025/1/odrl-profile.jsonld": define(odrlTerms()),
	contextDSP:                  define(odrlTerms(), terms("https://w3id.org/dspace/2025/1/", "dspace")),
	contextEDC:                  define(terms(namespace, "edc", "id", "description", "inForceDate")),
	cxPolicy + "context.jsonld": define(terms(cxPolicy, "cx-policy", cxOperands...)),
	"https://w3id.org/tractusx/policy/v1.0.0": define(terms(cxPolicyOld, "cx-policy", cxOperands...)),
	"https://w3id.org/tractusx/auth/v1.0.0":   define(terms(tractusxTokens, "tx-auth")),
	"https://w3id.org/tractusx/edc/v0.0.1": define(terms(tractusx, "tx"), terms(tractusxTokens, "tx-auth"), terms(cxPolicyOld, "cx-policy"),
		terms(namespace, "edc")),
}

// management holds the terms of version 4's context.
var management = managementTypes()

// cxOperands are the left operands of Catena-X's ODRL profile, and the action that its access policies permit.
var cxOperands = strings.Fields(`access Membership FrameworkAgreement UsagePurpose ContractReference BusinessPartnerNumber BusinessPartnerGroup
	UsageRestriction AffiliatesBpnl AffiliatesRegion DataFrequency VersionChanges ContractTermination ConfidentialInformationMeasures
	ConfidentialInformationSharing ExclusiveUsage Warranty WarrantyDefinition WarrantyDurationMonths Liability JurisdictionLocation
	JurisdictionLocationReference Precedence DataUsageEndDate DataUsageEndDurationDays DataUsageEndDefinition DataProvisioningEndDate
	DataProvisioningEndDurationDays ManagedLegalEntityBpnl ManagedLegalEntityRegion`)

// baseV3 is what a document of version 3 begins with, whatever it says itself. The two coerced terms make compact IRIs in operands mean
// what the document's prefixes say.
var baseV3 = map[string]any{"@version": 1.1, "@vocab": namespace, "edc": namespace, "odrl": odrl.Namespace, "dct": dcterms, "tx": tractusx,
	"tx-auth": tractusxTokens, "cx-policy": cxPolicy,
	"odrl:leftOperand": map[string]any{"@id": odrl.Namespace + "leftOperand", "@type": "@vocab"},
	"odrl:operator":    map[string]any{"@id": odrl.Namespace + "operator", "@type": "@vocab"}}

// contextV3 is the context of answers of version 3.
var contextV3 = map[string]any{"@vocab": namespace, "edc": namespace, "odrl": odrl.Namespace}

func define(parts ...map[string]any) any {
	out := map[string]any{"@version": 1.1}
	for _, p := range parts {
		for k, v := range p {
			out[k] = v
		}
	}
	return map[string]any{"@context": out}
}

// terms defines a prefix and names in its namespace.
func terms(iri, prefix string, names ...string) map[string]any {
	out := map[string]any{prefix: iri}
	for _, n := range names {
		out[n] = iri + n
	}
	return out
}

// odrlTerms are ODRL's terms with the types that its context gives them.
func odrlTerms() map[string]any {
	out := terms(odrl.Namespace, "odrl", "Policy", "Set", "Offer", "Agreement", "Permission", "Prohibition", "Duty", "Constraint", "LogicalConstraint",
		"use", "rightOperand", "eq", "neq", "gt", "gteq", "lt", "lteq", "isA", "hasPart", "isPartOf", "isAllOf", "isAnyOf", "isNoneOf")
	coerce := func(kind, container string, names ...string) {
		for _, n := range names {
			t := map[string]any{"@id": odrl.Namespace + n, "@type": kind}
			if container != "" {
				t["@container"] = container
			}
			out[n] = t
		}
	}
	coerce("@id", "@set", "permission", "prohibition", "obligation", "duty", "constraint", "and", "or", "xone", "andSequence")
	coerce("@id", "", "target", "assigner", "assignee", "profile", "hasPolicy")
	coerce("@vocab", "", "action", "leftOperand", "operator")
	return out
}

// managementTypes defines the types of version 4 and their members. A member with [] is always a list; one with {} holds what the client
// likes. What a type does not list is written with the prefix edc.
func managementTypes() map[string]any {
	out := map[string]any{"edc": namespace, "dct": dcterms, "odrl": odrl.Namespace}
	for name, members := range map[string]string{
		"Asset":                      "properties{} privateProperties{} dataAddress{}",
		"DataAddress":                "type{}",
		"PolicyDefinition":           "policy createdAt privateProperties{}",
		"ContractDefinition":         "accessPolicyId contractPolicyId assetsSelector[] privateProperties{}",
		"Criterion":                  "operandLeft operator operandRight",
		"QuerySpec":                  "offset limit filterExpression[] sortOrder sortField",
		"CatalogRequest":             "counterPartyAddress counterPartyId protocol profile additionalScopes[] querySpec",
		"DatasetRequest":             "counterPartyAddress counterPartyId protocol profile querySpec",
		"ContractRequest":            "policy counterPartyAddress counterPartyId callbackAddresses[] protocol profile",
		"ContractNegotiation":        "type counterPartyAddress counterPartyId protocol profile callbackAddresses[] state errorDetail contractAgreementId createdAt",
		"NegotiationState":           "state",
		"TerminateNegotiation":       "reason",
		"CallbackAddress":            "uri transactional events[] authKey authCodeId",
		"ContractAgreement":          "policy providerId consumerId assetId agreementId contractSigningDate",
		"TransferRequest":            "counterPartyAddress callbackAddresses[] transferType dataDestination contractId protocol profile privateProperties{}",
		"TransferProcess":            "type assetId contractId callbackAddresses[] stateTimestamp transferType dataDestination correlationId errorDetail state privateProperties{}",
		"TransferState":              "state",
		"TerminateTransfer":          "reason",
		"SuspendTransfer":            "reason",
		"Secret":                     "value",
		"PolicyValidationResult":     "isValid errors[]",
		"DataPlaneInstance":          "state url allowedSourceTypes[] allowedTransferTypes[] destinationProvisionTypes[] stateTimestamp lastActive",
		"IdResponse":                 "createdAt",
		"EndpointDataReferenceEntry": "providerId assetId transferProcessId contractNegotiationId agreementId createdAt",
	} {
		scoped := map[string]any{}
		for _, m := range strings.Fields(members) {
			switch n := strings.TrimRight(m, "[]{}"); {
			case strings.HasSuffix(m, "[]"):
				scoped[n] = map[string]any{"@id": namespace + n, "@container": "@set"}
			case name == "DataAddress":
				scoped["@vocab"] = namespace
			case strings.HasSuffix(m, "{}"):
				scoped[n] = map[string]any{"@id": namespace + n, "@context": map[string]any{"@vocab": namespace}}
			case n == "policy":
				for t, def := range odrlTerms() {
					scoped[t] = def
				}
				scoped["@propagate"] = true
				scoped[n] = namespace + n
			default:
				scoped[n] = namespace + n
			}
		}
		out[name] = map[string]any{"@id": namespace + name, "@context": scoped}
	}
	return out
}
