// SPDX-License-Identifier: Apache-2.0

package edc

import (
	_ "embed"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// document is what OpenAPI returns, as it was when it was published last; a test holds it to the routes.
//
//go:embed openapi.json
var document []byte

type dict = map[string]any

func sorted(m dict) []string { return slices.Sorted(maps.Keys(m)) }

// OpenAPI describes the API in OpenAPI 3.1: every route with its bodies, errors and scopes. Bodies are shown in compact form; other forms
// of the same JSON-LD are read too.
func (a *API) OpenAPI() ([]byte, error) {
	paths := dict{}
	for _, rt := range a.routes() {
		for _, v := range rt.versions() {
			path := "/management/{ctx}/" + string(v) + rt.path
			if paths[path] == nil {
				params := []any{parameter("ctx", "participant context")}
				if strings.Contains(rt.path, "{id}") {
					params = append(params, parameter("id", "id of the object"))
				}
				paths[path] = dict{"parameters": params}
			}
			paths[path].(dict)[strings.ToLower(rt.method)] = operation(v, &rt) //nolint:forcetypeassert // made above
		}
	}
	out, err := json.MarshalIndent(dict{
		"openapi": "3.1.0",
		"info": dict{"title": "EDC Management API", "version": "v3, v4", "license": dict{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			"description": "The Management API of Eclipse EDC as this connector serves it. Documents are JSON-LD: the schemas show the compact form, version 3 with @vocab, version 4 with the context " + contextV4 + "."},
		"paths": paths,
		"components": dict{"schemas": schemas(), "securitySchemes": dict{
			"apiKey": dict{"type": "apiKey", "in": "header", "name": "X-Api-Key"},
			"bearer": dict{"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token whose sub is the participant context and whose scope names one of the roles listed."}}},
	}, "", " ")
	return append(out, '\n'), err
}

func parameter(name, description string) any {
	return dict{"name": name, "in": "path", "required": true, "description": description, "schema": dict{"type": "string"}}
}

func reference(name string) dict { return dict{"$ref": "#/components/schemas/" + name} }

func content(schema any) dict { return dict{"application/json": dict{"schema": schema}} }

func operation(v Version, rt *route) any {
	security := []any{dict{"apiKey": []any{}}}
	for _, s := range rt.scopes() {
		security = append(security, dict{"bearer": []any{s}})
	}
	answers := dict{"default": dict{"description": "What was wrong, one entry for each fault.", "content": content(reference("Errors"))}}
	switch {
	case rt.answer == "":
		answers["204"] = dict{"description": "Done."}
	case rt.list:
		answers["200"] = dict{"description": "OK", "content": content(dict{"type": "array", "items": reference(rt.answer)})}
	default:
		answers["200"] = dict{"description": "OK", "content": content(reference(rt.answer))}
	}
	id := string(v) + "-" + strings.ToLower(rt.method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(rt.path)
	out := dict{"operationId": id, "summary": rt.summary, "tags": []any{rt.area}, "security": security, "responses": answers}
	if rt.body != "" {
		out["requestBody"] = dict{"required": !rt.optional, "content": content(reference(rt.body))}
	}
	return out
}

// schema describes an object: its members by name, those that must be there marked with an exclamation mark. What else there may be is open,
// as in JSON-LD.
func schema(members dict) dict {
	props, required := dict{"@context": dict{}, "@type": dict{"type": []any{"string", "array"}}}, []any{}
	for _, name := range sorted(members) {
		n := strings.TrimSuffix(name, "!")
		if n != name {
			required = append(required, n)
		}
		props[n] = members[name]
	}
	out := dict{"type": "object", "properties": props}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func schemas() dict {
	str, number, flag, anything := dict{"type": "string"}, dict{"type": "integer"}, dict{"type": []any{"boolean", "string"}}, dict{}
	bag, strs := dict{"type": "object"}, dict{"type": []any{"array", "string"}, "items": dict{"type": "string"}}
	either := func(name string) dict {
		return dict{"oneOf": []any{reference(name), dict{"type": "array", "items": reference(name)}}}
	}
	callbacks := either("CallbackAddress")
	process := dict{"@id!": str, "state!": str, "type!": dict{"enum": []any{"CONSUMER", "PROVIDER"}},
		"stateTimestamp": number, "createdAt": number, "assetId": str, "edc:assetId": str, "correlationId": str, "edc:correlationId": str, "errorDetail": str,
		"callbackAddresses!": callbacks, "privateProperties": bag}
	with := func(more dict) dict {
		for k, v := range process {
			more[k] = v
		}
		return schema(more)
	}
	state := schema(dict{"state!": str})
	state["properties"].(dict)["@type"] = str //nolint:forcetypeassert // made by schema
	end := schema(dict{"reason": str})
	counterparty := func(more dict) dict {
		for _, name := range []string{"counterPartyAddress", "counterPartyId", "protocol", "profile"} {
			more[name] = str
		}
		return schema(more)
	}
	return dict{
		"Asset": schema(dict{"@id": str, "properties": bag, "privateProperties": bag, "dataAddress!": reference("DataAddress"), "createdAt": number}),
		"DataAddress": schema(dict{"type": str, "baseUrl": str, "authKey": str, "secretName": str, "authCode": dict{"type": "string", "writeOnly": true,
			"description": "Moved into the Vault; answers show secretName instead."}, "endpoint": str, "endpointType": str, "authorization": str}),
		"Policy":                 schema(dict{"@type!": anything, "@id": str}),
		"PolicyDefinition":       schema(dict{"@id": str, "policy!": reference("Policy"), "privateProperties": bag, "createdAt": number}),
		"PolicyValidationResult": schema(dict{"isValid!": dict{"type": "boolean"}, "errors!": strs}),
		"ContractDefinition":     schema(dict{"@id": str, "accessPolicyId!": str, "contractPolicyId!": str, "assetsSelector": either("Criterion"), "privateProperties": bag, "createdAt": number}),
		"Criterion":              schema(dict{"operandLeft!": str, "operator!": str, "operandRight!": anything}),
		"QuerySpec": schema(dict{"offset": dict{"type": []any{"integer", "string"}}, "limit": dict{"type": []any{"integer", "string"}}, "sortField": str,
			"sortOrder": dict{"enum": []any{"ASC", "DESC"}}, "filterExpression": either("Criterion")}),
		"CatalogRequest": counterparty(dict{"querySpec": reference("QuerySpec"), "additionalScopes": strs}),
		"DatasetRequest": counterparty(dict{"@id!": str}),
		"Catalog":        schema(dict{"@id!": str, "participantId!": str, "dataset": either("Dataset"), "service": dict{}}),
		"Dataset": schema(dict{"@id!": str, "id": str, "hasPolicy!": dict{"type": "array", "items": schema(dict{"@id!": str, "@type!": str})},
			"distribution!": dict{"type": "array", "items": schema(dict{"format!": str, "accessService!": dict{}})}}),
		"ContractRequest":      counterparty(dict{"policy!": reference("Policy"), "callbackAddresses": callbacks}),
		"CallbackAddress":      schema(dict{"uri!": str, "events!": strs, "transactional": flag}),
		"ContractNegotiation":  with(dict{"counterPartyId!": str, "counterPartyAddress!": str, "protocol!": str, "profile": str, "contractAgreementId": str}),
		"NegotiationState":     state,
		"TerminateNegotiation": end,
		"ContractAgreement": schema(dict{"@id!": str, "agreementId!": str, "assetId!": str, "providerId!": str, "consumerId!": str, "contractSigningDate!": number,
			"policy!": reference("Policy")}),
		"TransferRequest": counterparty(dict{"contractId!": str, "transferType!": str, "dataDestination": reference("DataAddress"), "privateProperties": bag,
			"callbackAddresses": callbacks}),
		"TransferProcess":   with(dict{"contractId!": str, "transferType!": str}),
		"TransferState":     state,
		"TerminateTransfer": end,
		"SuspendTransfer":   end,
		"EndpointDataReferenceEntry": schema(dict{"@id!": str, "transferProcessId!": str, "agreementId!": str, "assetId!": str, "providerId!": str,
			"contractNegotiationId!": str, "createdAt!": number}),
		"DataPlaneInstance": schema(dict{"@id!": str, "url!": str, "state!": str, "allowedSourceTypes!": strs, "allowedTransferTypes!": strs}),
		"Secret":            schema(dict{"@id": str, "value": dict{"type": "string", "writeOnly": true}}),
		"IdResponse":        schema(dict{"@id!": str, "createdAt": number}),
		"Errors": dict{"type": "array", "minItems": 1, "items": dict{"type": "object", "required": []any{"message", "type", "path", "invalidValue"},
			"properties": dict{"message": str, "type": str, "path": dict{"type": []any{"string", "null"}}, "invalidValue": anything}}},
	}
}
