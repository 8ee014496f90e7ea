// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

var update = flag.Bool("update", false, "write openapi.json anew")

func TestDocumentFollowsTheRoutes(t *testing.T) {
	built, err := (&API{}).OpenAPI()
	must(t, err)
	if *update {
		must(t, os.WriteFile("openapi.json", built, 0o644))
	}
	if string(built) != string(document) {
		t.Error("openapi.json is not what the routes say: run go test ./connector/management/edc -run TestDocument -update, and again")
	}
}

const vocab = `"@context":{"@vocab":"https://w3id.org/edc/v0.0.1/ns/"}`

func asset(id, more string) string {
	return `{` + vocab + `,"@id":"` + id + `","@type":"Asset","properties":{"name":"asset ` + id + `"` + more + `},"dataAddress":{"@type":"DataAddress","type":"HttpData","baseUrl":"https://backend.example/` + id + `"}}`
}

const policyBody = `{` + vocab + `,"@id":"p","policy":{"@context":"http://www.w3.org/ns/odrl.jsonld","@type":"Set","permission":[{"action":"use"}]}}`

func definition(id, access, contract string) string {
	return `{` + vocab + `,"@id":"` + id + `","accessPolicyId":"` + access + `","contractPolicyId":"` + contract + `","assetsSelector":{"operandLeft":"id","operator":"=","operandRight":"a"}}`
}

func TestObjectsAreMadeChangedAndRemoved(t *testing.T) {
	r := newRig(t)
	for _, v := range []string{"/v3", "/v4beta", "/v4"} {
		for _, x := range []struct {
			path, body, id string
			onItem         bool
		}{
			{"/assets", asset("a", ""), "a", false},
			{"/policydefinitions", policyBody, "p", true},
			{"/contractdefinitions", definition("d", "p", "p"), "d", false},
			{"/secrets", `{` + vocab + `,"@id":"s","value":"1"}`, "s", false},
		} {
			one, put := v+x.path+"/"+x.id, v+x.path
			if x.onItem {
				put = one
			}
			r.call(http.MethodGet, one, "", 404)
			r.call(http.MethodDelete, one, "", 404)
			r.call(http.MethodPut, put, x.body, 404)
			if made := r.object(http.MethodPost, v+x.path, x.body); made["@id"] != x.id || made["@type"] != "IdResponse" {
				t.Errorf("%s%s: %v", v, x.path, made)
			}
			r.call(http.MethodPost, v+x.path, x.body, 409)
			r.call(http.MethodPut, put, x.body, 204)
			if read := r.object(http.MethodGet, one, ""); read["@id"] != x.id {
				t.Errorf("%s: %v", one, read)
			}
		}
		r.call(http.MethodDelete, v+"/policydefinitions/p", "", 409)
		for _, path := range []string{"/contractdefinitions/d", "/policydefinitions/p", "/assets/a", "/secrets/s"} {
			r.call(http.MethodDelete, v+path, "", 204)
			r.call(http.MethodGet, v+path, "", 404)
		}
	}
	if made := r.object(http.MethodPost, "/v3/assets", strings.Replace(asset("a", ""), `"@id":"a",`, "", 1)); len(made["@id"].(string)) != 36 {
		t.Errorf("an asset without id gets %v", made)
	}
	if list := r.call(http.MethodGet, "/v4/dataplanes", "", 200); !strings.Contains(string(list), "HttpData-PULL") {
		t.Errorf("data planes %s", list)
	}
}

// TestDocumentsKeepTheirMeaning: what was written in one style reads the same in the other.
func TestDocumentsKeepTheirMeaning(t *testing.T) {
	r := newRig(t)
	r.call(http.MethodPost, "/v3/assets", `{"@context":{"@vocab":"https://w3id.org/edc/v0.0.1/ns/","dct":"http://purl.org/dc/terms/","cx":"https://example.org/cx#"},"@id":"a",
		"properties":{"name":"gear","n":5,"dct:type":{"@id":"https://w3id.org/catenax/taxonomy#PcfExchange"},"cx:version":"1.3","tags":["x","y"]},
		"privateProperties":{"useCase":"pcf"},
		"https://w3id.org/edc/v0.0.1/ns/dataAddress":{"edc:type":"HttpData","baseUrl":"https://b.example","proxyPath":true}}`, 200)
	for version, want := range map[string]string{
		"v3": `{"@context":{"@vocab":"https://w3id.org/edc/v0.0.1/ns/","edc":"https://w3id.org/edc/v0.0.1/ns/","odrl":"http://www.w3.org/ns/odrl/2/"},"@id":"a","@type":"Asset",
			"properties":{"id":"a","name":"gear","n":5,"http://purl.org/dc/terms/type":{"@id":"https://w3id.org/catenax/taxonomy#PcfExchange"},"https://example.org/cx#version":"1.3","tags":["x","y"]},
			"privateProperties":{"useCase":"pcf"},"dataAddress":{"@type":"DataAddress","type":"HttpData","baseUrl":"https://b.example","proxyPath":"true"}}`,
		"v4": `{"@context":["https://w3id.org/edc/connector/management/v2"],"@id":"a","@type":"Asset",
			"properties":{"id":"a","name":"gear","n":5,"dct:type":{"@id":"https://w3id.org/catenax/taxonomy#PcfExchange"},"https://example.org/cx#version":"1.3","tags":["x","y"]},
			"privateProperties":{"useCase":"pcf"},"dataAddress":{"@type":"DataAddress","type":"HttpData","baseUrl":"https://b.example","proxyPath":"true"}}`,
	} {
		got := r.object(http.MethodGet, "/"+version+"/assets/a", "")
		delete(got, "createdAt")
		delete(got, "edc:createdAt")
		same(t, version+" asset", got, want)
	}
	r.call(http.MethodPost, "/v4/policydefinitions", `{"@context":["https://w3id.org/edc/connector/management/v2"],"@type":"PolicyDefinition","@id":"p","policy":{"@type":"Set",
		"permission":[{"action":"use","constraint":[{"and":[{"leftOperand":"`+member+`","operator":"eq","rightOperand":"active"},{"leftOperand":"Membership","operator":"isAnyOf","rightOperand":["active","b"]}]}]}]}}`, 200)
	for version, want := range map[string]string{
		"v3": `{"@type":"odrl:Set","odrl:obligation":[],"odrl:prohibition":[],"odrl:permission":{"odrl:action":{"@id":"odrl:use"},"odrl:constraint":{"odrl:and":[
			{"odrl:leftOperand":{"@id":"` + member + `"},"odrl:operator":{"@id":"odrl:eq"},"odrl:rightOperand":"active"},
			{"odrl:leftOperand":{"@id":"edc:Membership"},"odrl:operator":{"@id":"odrl:isAnyOf"},"odrl:rightOperand":["active","b"]}]}}}`,
		"v4beta": `{"@type":"Set","obligation":[],"prohibition":[],"permission":[{"action":"use","constraint":[{"and":[
			{"leftOperand":"` + member + `","operator":"eq","rightOperand":"active"},{"leftOperand":"edc:Membership","operator":"isAnyOf","rightOperand":["active","b"]}]}]}]}`,
	} {
		doc := r.object(http.MethodGet, "/"+version+"/policydefinitions/p", "")
		same(t, version+" policy", doc["policy"], want)
		raw, err := json.Marshal(doc)
		must(t, err)
		r.call(http.MethodPut, "/"+version+"/policydefinitions/p", string(raw), 204)
		same(t, version+" policy, written back", r.object(http.MethodGet, "/"+version+"/policydefinitions/p", "")["policy"], want)
	}
	same(t, "validation", r.object(http.MethodPost, "/v3/policydefinitions/p/validate", "")["isValid"], `true`)
}

func same(t *testing.T, what string, got any, want string) {
	t.Helper()
	var w any
	must(t, json.Unmarshal([]byte(want), &w))
	if !reflect.DeepEqual(got, w) {
		raw, _ := json.Marshal(got)
		t.Errorf("%s is\n%s\nwant\n%s", what, raw, want)
	}
}

// TestPoliciesInEveryForm: what clients write, and what it means.
func TestPoliciesInEveryForm(t *testing.T) {
	const constraint = `"leftOperand":"Membership","operator":"eq","rightOperand":"active"`
	constrained := func(c string) string {
		return `"@type":"Set","permission":[{"action":"use","constraint":[{` + c + `}]}]`
	}
	for name, tc := range map[string]struct{ version, body, left string }{
		"ODRL's context":     {"v3", `{` + vocab + `,"policy":{"@context":"http://www.w3.org/ns/odrl.jsonld",` + constrained(constraint) + `}}`, "Membership"},
		"ODRL and Catena-X":  {"v3", `{"@context":["https://w3id.org/catenax/2025/9/policy/odrl.jsonld","https://w3id.org/catenax/2025/9/policy/context.jsonld",{"@vocab":"https://w3id.org/edc/v0.0.1/ns/"}],"policy":{` + constrained(constraint) + `}}`, member},
		"its context inside": {"v3", `{` + vocab + `,"policy":{"@context":["https://w3id.org/catenax/2025/9/policy/odrl.jsonld","https://w3id.org/catenax/2025/9/policy/context.jsonld"],` + constrained(constraint) + `}}`, member},
		"its older context":  {"v3", `{` + vocab + `,"policy":{"@context":["http://www.w3.org/ns/odrl.jsonld","https://w3id.org/tractusx/policy/v1.0.0"],` + constrained(constraint) + `}}`, "https://w3id.org/catenax/policy/Membership"},
		"EDC's vocabulary":   {"v3", `{` + vocab + `,"policy":{` + constrained(constraint) + `}}`, "Membership"},
		"no context":         {"v3", `{"policy":{` + constrained(constraint) + `}}`, "Membership"},
		"prefixes": {"v3", `{"@context":{"@vocab":"https://w3id.org/edc/v0.0.1/ns/","odrl":"http://www.w3.org/ns/odrl/2/"},"policy":{"@type":"odrl:Set","odrl:permission":{"odrl:action":{"@id":"odrl:use"},
			"odrl:constraint":{"odrl:leftOperand":"cx-policy:Membership","odrl:operator":{"@id":"odrl:eq"},"odrl:rightOperand":"active"}}}}`, member},
		"prefixes and references": {"v3", `{` + vocab + `,"policy":{"@type":"odrl:Set","odrl:permission":{"odrl:action":{"@id":"odrl:use"},
			"odrl:constraint":{"odrl:leftOperand":{"@id":"cx-policy:Membership"},"odrl:operator":{"@id":"odrl:eq"},"odrl:rightOperand":"active"}}}}`, member},
		"expanded": {"v3", `{"https://w3id.org/edc/v0.0.1/ns/policy":[{"@type":["http://www.w3.org/ns/odrl/2/Set"],"http://www.w3.org/ns/odrl/2/permission":[{"http://www.w3.org/ns/odrl/2/action":[{"@id":"http://www.w3.org/ns/odrl/2/use"}],
			"http://www.w3.org/ns/odrl/2/constraint":[{"http://www.w3.org/ns/odrl/2/leftOperand":[{"@id":"` + member + `"}],"http://www.w3.org/ns/odrl/2/operator":[{"@id":"http://www.w3.org/ns/odrl/2/eq"}],"http://www.w3.org/ns/odrl/2/rightOperand":[{"@value":"active"}]}]}]}]}`, member},
		"old action":               {"v3", `{` + vocab + `,"policy":{"@context":"http://www.w3.org/ns/odrl.jsonld","@type":"Set","permission":{"action":{"type":"USE"},"constraint":{` + constraint + `}}}}`, "Membership"},
		"version 4":                {"v4", `{"@context":["https://w3id.org/edc/connector/management/v2"],"@type":"PolicyDefinition","policy":{` + constrained(constraint) + `}}`, "Membership"},
		"version 4 without a type": {"v4beta", `{"policy":{` + constrained(constraint) + `}}`, "Membership"},
		"version 4 and Catena-X":   {"v4", `{"@context":["https://w3id.org/catenax/2025/9/policy/context.jsonld","https://w3id.org/edc/connector/management/v2"],"@type":"PolicyDefinition","policy":{` + constrained(constraint) + `}}`, member},
		"the catalog's contexts":   {"v3", `{` + vocab + `,"policy":{"@context":["https://w3id.org/dspace/2025/1/context.jsonld","https://w3id.org/edc/dspace/v0.0.1"],` + constrained(`"leftOperand":"`+member+`","operator":"eq","rightOperand":"active"`) + `}}`, member},
	} {
		t.Run(name, func(t *testing.T) {
			doc, err := read(Version(tc.version), []byte(tc.body), "PolicyDefinition")
			must(t, err)
			c := &call{body: doc, participant: &store.Participant{Profile: profile.Profile{Operands: []profile.Operand{{Name: member}}}}}
			p, err := c.policy()
			must(t, err)
			if p.Kind != "Set" || len(p.Permissions) != 1 || p.Permissions[0].Actions[0] != "use" || len(p.Permissions[0].Constraints) != 1 {
				t.Fatalf("policy %s", p.Raw)
			}
			got := p.Permissions[0].Constraints[0]
			if got.Left != tc.left || got.Operator != "eq" || len(got.Right.Values) != 1 || got.Right.Values[0] != "active" {
				t.Errorf("constraint %+v, want %s eq active", got, tc.left)
			}
		})
	}
}

// TestRefusals: every refusal is an array of errors with a path, and nothing is stored.
func TestRefusals(t *testing.T) {
	r := newRig(t)
	r.call(http.MethodPost, "/v3/policydefinitions", policyBody, 200)
	policy := func(members string) string {
		return `{` + vocab + `,"policy":{"@context":"http://www.w3.org/ns/odrl.jsonld","@type":"Set",` + members + `}}`
	}
	address := func(members string) string { return `{"@id":"x","dataAddress":{` + members + `}}` }
	negotiation := func(more string) string {
		return `{` + vocab + `,"counterPartyId":"did:web:y","counterPartyAddress":"http://127.0.0.1:1/dsp","policy":{"@context":"http://www.w3.org/ns/odrl.jsonld","@type":"Offer","@id":"o","target":"a","permission":{"action":"use"}}` + more + `}`
	}
	callback := func(members string) string { return negotiation(`,"callbackAddresses":[{` + members + `}]`) }
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		kind, at, says     string
	}{
		"not JSON":                         {"POST", "/v3/assets", `{`, 400, typeInvalid, "$", "JSON"},
		"nothing":                          {"POST", "/v3/assets", ``, 400, typeInvalid, "$", "JSON"},
		"a list":                           {"POST", "/v3/assets", `[]`, 400, typeInvalid, "$", "object"},
		"a NUL":                            {"POST", "/v3/assets", `{"@id":"a\u0000"}`, 400, typeInvalid, "$", "NUL"},
		"too deep":                         {"POST", "/v3/assets", strings.Repeat(`{"a":`, 60) + `1` + strings.Repeat(`}`, 60), 400, typeInvalid, "$", "deep"},
		"member twice":                     {"POST", "/v3/policydefinitions", `{"policy":{"permission":[{"action":"use","constraint":[]}],"permission":[{"action":"use"}]}}`, 400, typeInvalid, "$.policy", "stands there twice"},
		"too many contexts":                {"POST", "/v3/assets", `{"a":[` + strings.Repeat(`{"@context":{}},`, 60) + `1]}`, 400, typeInvalid, "$", "contexts"},
		"too long":                         {"POST", "/v3/assets", `{"a":"` + strings.Repeat("x", maxBody) + `"}`, 413, typeRequest, "", "bytes"},
		"a context that is not here":       {"POST", "/v3/assets", `{"@context":["https://example.org/context.jsonld"],"@id":"x"}`, 400, typeInvalid, "$.@context", `"https://example.org/context.jsonld" is not bundled`},
		"a context within":                 {"POST", "/v3/policydefinitions", `{` + vocab + `,"policy":{"@context":"https://example.org/c"}}`, 400, typeInvalid, "$.@context", "https://example.org/c"},
		"a context that is none":           {"POST", "/v3/assets", `{"@context":{"a":5},"@id":"x"}`, 400, typeInvalid, "$", "JSON-LD"},
		"no address":                       {"POST", "/v3/assets", `{"@id":"x"}`, 400, typeInvalid, "$.dataAddress", "missing"},
		"an address of another kind":       {"POST", "/v3/assets", address(`"type":"AmazonS3"`), 400, typeInvalid, "$.dataAddress", "AmazonS3"},
		"an address with a key in it":      {"POST", "/v3/assets", address(`"type":"HttpData","baseUrl":"https://b","header:Authorization":"hidden"`), 400, typeInvalid, "$.dataAddress.header:Authorization", "secret"},
		"an address of this machine's own": {"POST", "/v3/assets", address(`"type":"HttpData","baseUrl":"http://169.254.169.254/"`), 400, typeInvalid, "$.dataAddress.baseUrl", "169.254.169.254"},
		"two secrets":                      {"POST", "/v3/assets", address(`"type":"HttpData","baseUrl":"https://b","authKey":"k","authCode":"hidden","secretName":"s"`), 400, typeInvalid, "$.dataAddress.authCode", "either"},
		"metadata":                         {"POST", "/v4/assets", `{"@id":"x","dataplaneMetadata":{"labels":["a"]},"dataAddress":{}}`, 400, typeInvalid, "$.dataplaneMetadata", "dataAddress"},
		"an unnamed change":                {"PUT", "/v3/assets", asset("", ""), 400, typeInvalid, "$.@id", "missing"},
		"another name":                     {"PUT", "/v3/policydefinitions/q", policyBody, 400, typeInvalid, "$.@id", `"q"`},
		"no policy":                        {"POST", "/v3/policydefinitions", `{"@id":"x"}`, 400, typeInvalid, "$.policy", "missing"},
		"an operand that is unknown":       {"POST", "/v3/policydefinitions", policy(`"permission":{"action":"use","constraint":{"and":[{"leftOperand":"` + member + `","operator":"eq","rightOperand":"a"},{"leftOperand":"https://example.org/unknown","operator":"eq","rightOperand":"x"}]}}`), 400, typeInvalid, "$.policy.permission[0].constraint[0].and[1].leftOperand", "https://example.org/unknown"},
		"an operator that is unknown":      {"POST", "/v3/policydefinitions", policy(`"permission":{"action":"use","constraint":{"leftOperand":"` + member + `","operator":"gt","rightOperand":"a"}}`), 400, typeInvalid, "$.policy.permission[0].constraint[0].operator", `"gt"`},
		"a policy that permits nothing":    {"POST", "/v4/policydefinitions", `{"policy":{"@type":"Set"}}`, 400, typeInvalid, "$.policy.permission", "permits nothing"},
		"a policy that there is not":       {"POST", "/v3/contractdefinitions", definition("x", "p", "q"), 400, typeInvalid, "$.contractPolicyId", `"q"`},
		"a definition without policy":      {"POST", "/v3/contractdefinitions", `{"contractPolicyId":"p"}`, 400, typeInvalid, "$.accessPolicyId", "missing"},
		"a criterion that is unknown":      {"POST", "/v3/contractdefinitions", strings.Replace(definition("x", "p", "p"), `"="`, `"near"`, 1), 400, typeInvalid, "$.assetsSelector[0].operator", "in, like"},
		"a field that is unknown":          {"POST", "/v3/contractnegotiations/request", `{"filterExpression":{"operandLeft":"colour","operator":"=","operandRight":"red"}}`, 400, typeInvalid, "$.filterExpression[0].operandLeft", "counterPartyId"},
		"an order that is unknown":         {"POST", "/v3/assets/request", `{"sortField":"privateProperties","sortOrder":"up"}`, 400, typeInvalid, "$.sortOrder", "DESC"},
		"a page that there is not":         {"POST", "/v3/assets/request", `{"limit":0}`, 400, typeInvalid, "$", "limit 0"},
		"a limit that is no number":        {"POST", "/v3/assets/request", `{"limit":"many"}`, 400, typeInvalid, "$.limit", "number"},
		"a secret's bad name":              {"POST", "/v3/secrets", `{"@id":"a/b","value":"hidden"}`, 400, typeInvalid, "$.@id", "a/b"},
		"a secret without value":           {"POST", "/v3/secrets", `{"@id":"ab"}`, 400, typeInvalid, "$.value", "missing"},
		"another protocol":                 {"POST", "/v3/catalog/request", `{"counterPartyId":"did:web:y","protocol":"dataspace-protocol-http"}`, 400, typeInvalid, "$.protocol", "2025-1"},
		"nobody to ask":                    {"POST", "/v3/catalog/request", `{}`, 400, typeInvalid, "$.counterPartyId", "missing"},
		"scopes":                           {"POST", "/v3/catalog/request", `{"counterPartyId":"did:web:y","additionalScopes":["s"]}`, 400, typeInvalid, "$.additionalScopes", "profile"},
		"a catalog's order":                {"POST", "/v3/catalog/request", `{"counterPartyId":"did:web:y","querySpec":{"sortField":"id"}}`, 400, typeInvalid, "$.querySpec.sortField", "provider"},
		"nobody to reach":                  {"POST", "/v3/catalog/request", `{"counterPartyId":"did:web:y"}`, 502, typeGateway, "", "did:web:y"},
		"a dataset without name":           {"POST", "/v4/catalog/dataset/request", `{"counterPartyId":"did:web:y"}`, 400, typeInvalid, "$.@id", "missing"},
		"an offer without name":            {"POST", "/v3/contractnegotiations", strings.Replace(negotiation(""), `"@id":"o",`, "", 1), 400, typeInvalid, "$.policy.@id", "missing"},
		"an offer about nothing":           {"POST", "/v3/contractnegotiations", strings.Replace(negotiation(""), `"target":"a",`, "", 1), 400, typeInvalid, "$.policy.target", "missing"},
		"an offer of nobody":               {"POST", "/v3/contractnegotiations", strings.Replace(negotiation(""), `"counterPartyId":"did:web:y",`, "", 1), 400, typeInvalid, "$.counterPartyId", "assigner"},
		"a callback to nowhere":            {"POST", "/v3/contractnegotiations", callback(`"uri":"x","events":["contract.negotiation"]`), 400, typeInvalid, "$.callbackAddresses[0].uri", "address"},
		"a callback in the open":           {"POST", "/v3/contractnegotiations", callback(`"uri":"http://x","events":["contract.negotiation"]`), 400, typeInvalid, "$.callbackAddresses[0].uri", "https"},
		"a callback in a transaction":      {"POST", "/v3/contractnegotiations", callback(`"uri":"https://x","events":["contract.negotiation"],"transactional":"true"`), 400, typeInvalid, "$.callbackAddresses[0].transactional", "not supported"},
		"a callback of another event":      {"POST", "/v3/contractnegotiations", callback(`"uri":"https://x","events":["asset"]`), 400, typeInvalid, "$.callbackAddresses[0].events[0]", "transfer.process"},
		"a callback of no event":           {"POST", "/v3/contractnegotiations", callback(`"uri":"https://x"`), 400, typeInvalid, "$.callbackAddresses[0].events", "missing"},
		"a callback with a key":            {"POST", "/v3/contractnegotiations", callback(`"uri":"https://x","events":"contract.negotiation","authKey":"k","authCodeId":"s"`), 400, typeInvalid, "$.callbackAddresses[0].authKey", "cannot read"},
		"a transfer of nothing":            {"POST", "/v3/transferprocesses", `{"transferType":"HttpData-PULL"}`, 400, typeInvalid, "$.contractId", "missing"},
		"a push":                           {"POST", "/v3/transferprocesses", `{"contractId":"c","transferType":"HttpData-PUSH"}`, 400, typeInvalid, "$.transferType", "HttpData-PULL"},
		"a destination":                    {"POST", "/v3/transferprocesses", `{"contractId":"c","transferType":"HttpData-PULL","dataDestination":{"type":"HttpData","baseUrl":"https://x"}}`, 400, typeInvalid, "$.dataDestination.type", "HttpProxy"},
		"an agreement that there is not":   {"POST", "/v3/transferprocesses", `{"contractId":"c","transferType":"HttpData-PULL","dataDestination":{"type":"HttpProxy"}}`, 404, typeNotFound, "", `"c"`},
		"a negotiation that there is not":  {"GET", "/v3/contractnegotiations/n/state", ``, 404, typeNotFound, "", `"n"`},
		"ending what there is not":         {"POST", "/v3/contractnegotiations/n/terminate", `{"reason":"x"}`, 404, typeNotFound, "", `"n"`},
		"removing what there is not":       {"DELETE", "/v4/contractnegotiations/n", ``, 404, typeNotFound, "", `"n"`},
		"suspending what there is not":     {"POST", "/v3/transferprocesses/t/suspend", ``, 404, typeNotFound, "", `"t"`},
		"deprovisioning nothing":           {"POST", "/v3/transferprocesses/t/deprovision", ``, 404, typeNotFound, "", `"t"`},
		"no reference":                     {"GET", "/v3/edrs/t/dataaddress", ``, 404, typeNotFound, "", `"t"`},
		"references of version 4":          {"GET", "/v4/edrs/t/dataaddress", ``, 404, typeNotFound, "", "no GET"},
		"an unknown version":               {"GET", "/v2/assets/a", ``, 404, typeNotFound, "", "no GET"},
	} {
		t.Run(name, func(t *testing.T) {
			status, raw := r.do("X-Api-Key", key, tc.method, "/management/acme"+tc.path, tc.body)
			var all []map[string]any
			if err := json.Unmarshal(raw, &all); err != nil || status != tc.status || len(all) == 0 {
				t.Fatalf("answers %d %s, want %d", status, raw, tc.status)
			}
			e := all[0]
			if path, _ := e["path"].(string); e["type"] != tc.kind || path != tc.at || !strings.Contains(e["message"].(string), tc.says) {
				t.Errorf("says %s, want %s at %s with %q", raw, tc.kind, tc.at, tc.says)
			}
			if strings.Contains(string(raw), "hidden") {
				t.Errorf("%s echoes a secret", raw)
			}
		})
	}
	if status, raw := r.do("X-Api-Key", key, "GET", "/management/nobody/v3/assets/a", ""); status != 404 || !strings.Contains(string(raw), "nobody") {
		t.Errorf("a participant that there is not: %d %s", status, raw)
	}
}

func TestQueriesSelectOrderAndPage(t *testing.T) {
	r := newRig(t)
	for i, name := range []string{"a1", "a2", "b1", "b2"} {
		r.call(http.MethodPost, "/v3/assets", asset(name, fmt.Sprintf(`,"size":%d,"dct:type":"t%d","tags":["x","%s"]`, i*9, i%2, name)), 200)
	}
	r.call(http.MethodPut, "/v3/assets", strings.Replace(asset("b2", `,"size":27`), `"dataAddress"`, `"privateProperties":{"https://example.org/use":"pcf"},"dataAddress"`, 1), 204)
	r.call(http.MethodPost, "/v3/policydefinitions", policyBody, 200)
	r.call(http.MethodPost, "/v3/contractdefinitions", definition("d", "p", "p"), 200)
	if _, raw := r.do("X-Api-Key", key, http.MethodPost, "/management/other/v3/assets/request", ""); string(raw) != "[]\n" {
		t.Errorf("another participant sees %s", raw)
	}
	for query, want := range map[string]string{
		``:                                      "a1 a2 b1 b2",
		`{` + vocab + `,"@type":"QuerySpec"}`:   "a1 a2 b1 b2",
		`{"offset":1,"limit":2}`:                "a2 b1",
		`{"offset":"3","limit":"2"}`:            "b2",
		`{"offset":9}`:                          "",
		`{"sortField":"id","sortOrder":"DESC"}`: "b2 b1 a2 a1",
		`{"sortField":"size","sortOrder":"DESC","limit":2}`:                          "b2 b1",
		`{"sortField":"https://w3id.org/edc/v0.0.1/ns/size"}`:                        "a1 a2 b1 b2",
		`{"sortField":"properties.'https://w3id.org/edc/v0.0.1/ns/size'","limit":1}`: "a1",
	} {
		if got := r.ids("/v3/assets/request", query); got != want {
			t.Errorf("%s selects %q, want %q", query, got, want)
		}
	}
	for filter, want := range map[string]string{
		`{"operandLeft":"https://w3id.org/edc/v0.0.1/ns/id","operator":"=","operandRight":"a2"}`:                              "a2",
		`{"operandLeft":"id","operator":"in","operandRight":["a1","b2","zz"]}`:                                                "a1 b2",
		`{"operandLeft":"id","operator":"!=","operandRight":"a2"}`:                                                            "a1 b1 b2",
		`{"operandLeft":"name","operator":"like","operandRight":"asset a%"}`:                                                  "a1 a2",
		`{"operandLeft":"name","operator":"ilike","operandRight":"ASSET _1"}`:                                                 "a1 b1",
		`{"operandLeft":"name","operator":"like","operandRight":"ASSET%"}`:                                                    "",
		`{"operandLeft":"size","operator":">","operandRight":9}`:                                                              "b1 b2",
		`{"operandLeft":"size","operator":"<=","operandRight":9}`:                                                             "a1 a2",
		`{"operandLeft":"size","operator":"=","operandRight":9}`:                                                              "a2",
		`{"operandLeft":"name","operator":">=","operandRight":"asset b1"}`:                                                    "b1 b2",
		`{"operandLeft":"'http://purl.org/dc/terms/type'","operator":"=","operandRight":"t1"}`:                                "a2",
		`{"operandLeft":"tags","operator":"contains","operandRight":"b1"}`:                                                    "b1",
		`{"operandLeft":"tags","operator":"contains","operandRight":"x"}`:                                                     "a1 a2 b1",
		`{"operandLeft":"nothing","operator":"!=","operandRight":"x"}`:                                                        "",
		`{"operandLeft":"privateProperties.'https://example.org/use'","operator":"=","operandRight":"pcf"}`:                   "b2",
		`{"operandLeft":"dataAddress.type","operator":"=","operandRight":"HttpData"}`:                                         "a1 a2 b1 b2",
		`{"operandLeft":"name';--","operator":"=","operandRight":"'"}`:                                                        "",
		`[{"operandLeft":"size","operator":">","operandRight":0},{"operandLeft":"id","operator":"like","operandRight":"%2"}]`: "a2 b2",
	} {
		if got := r.ids("/v3/assets/request", `{"filterExpression":`+filter+`}`); got != want {
			t.Errorf("%s selects %q, want %q", filter, got, want)
		}
		// A selector of a contract definition means the same.
		doc, err := read(V3, []byte(`{"assetsSelector":`+filter+`}`), "ContractDefinition")
		must(t, err)
		selector, err := criteria(doc, "$", "assetsSelector")
		must(t, err)
		all, err := r.store.Assets(t.Context(), "acme")
		must(t, err)
		var selected []string
		for _, a := range all {
			if (&store.Definition{Selector: selector}).Selects(a) {
				selected = append(selected, a.ID)
			}
		}
		if got := strings.Join(selected, " "); got != want {
			t.Errorf("as selector, %s selects %q, want %q", filter, got, want)
		}
	}
	for path, query := range map[string]string{
		"/policydefinitions":   `{"sortField":"createdAt","filterExpression":{"operandLeft":"id","operator":"=","operandRight":"p"}}`,
		"/contractdefinitions": `{"filterExpression":[{"operandLeft":"contractPolicyId","operator":"=","operandRight":"p"},{"operandLeft":"assetsSelector.operandRight","operator":"contains","operandRight":"a"}]}`,
	} {
		for _, v := range []string{"/v3", "/v4"} {
			if got := r.ids(v+path+"/request", query); got != "p" && got != "d" {
				t.Errorf("%s%s selects %q", v, path, got)
			}
		}
	}
	for _, path := range []string{"/contractnegotiations", "/contractagreements", "/transferprocesses", "/edrs"} {
		for field := range map[string]bool{"id": true, "createdAt": true, "assetId": true} {
			r.ids("/v3"+path+"/request", `{"sortField":"`+field+`","filterExpression":{"operandLeft":"`+field+`","operator":"=","operandRight":"x"}}`)
		}
	}
}

// TestSecretsStayInTheVault: a secret in a data address is moved, and goes with its asset; no answer shows one.
func TestSecretsStayInTheVault(t *testing.T) {
	r := newRig(t)
	body := func(code string) string {
		return `{"@id":"a","dataAddress":{"type":"HttpData","baseUrl":"https://b.example","authKey":"X-Api-Key","authCode":"` + code + `"}}`
	}
	name := func() string {
		raw := r.call(http.MethodGet, "/v3/assets/a", "", 200)
		if strings.Contains(string(raw), "hidden") {
			t.Fatalf("%s shows the secret", raw)
		}
		var doc struct {
			DataAddress struct {
				SecretName string `json:"secretName"`
			} `json:"dataAddress"`
		}
		must(t, json.Unmarshal(raw, &doc))
		return doc.DataAddress.SecretName
	}
	holds := func(name, want string) {
		t.Helper()
		if got, err := r.vault.Secret(t.Context(), "acme", name, time.Time{}); got != want || (want == "") != (err != nil) {
			t.Errorf("secret %s is %q, %v; want %q", name, got, err, want)
		}
	}
	r.call(http.MethodPost, "/v3/assets", body("hidden-1"), 200)
	first := name()
	holds(first, "hidden-1")
	r.call(http.MethodPost, "/v3/assets", body("hidden-2"), 409)
	holds(name(), "hidden-1")
	r.call(http.MethodPut, "/v3/assets", body("hidden-3"), 204)
	second := name()
	holds(second, "hidden-3")
	holds(first, "")
	r.call(http.MethodPut, "/v3/assets", string(r.call(http.MethodGet, "/v3/assets/a", "", 200)), 204)
	if name() != second {
		t.Error("writing an asset back loses its secret")
	}
	holds(second, "hidden-3")
	r.call(http.MethodDelete, "/v3/assets/a", "", 204)
	holds(second, "")

	r.call(http.MethodPost, "/v4/secrets", `{"@id":"own","value":"hidden-4"}`, 200)
	if raw := r.call(http.MethodGet, "/v4/secrets/own", "", 200); strings.Contains(string(raw), "hidden") || !strings.Contains(string(raw), `"own"`) {
		t.Errorf("reading a secret shows %s", raw)
	}
	holds("own", "hidden-4")
	r.call(http.MethodPut, "/v4/secrets", `{"@id":"own","value":"hidden-5"}`, 204)
	holds("own", "hidden-5")
}

// TestDocumentedCalls runs the calls of docs/connector.md as they stand there.
func TestDocumentedCalls(t *testing.T) {
	r := newRig(t)
	page, err := os.ReadFile("../../../docs/connector.md")
	must(t, err)
	_, rest, ok := strings.Cut(string(page), "<!-- run by TestDocumentedCalls in connector/management/edc -->\n```sh\n")
	script, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("docs/connector.md has no block of calls")
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = append(os.Environ(), "BASE="+r.server.URL+"/management/acme/v3", "KEY="+key, "no_proxy=*")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := r.ids("/v4/contractdefinitions/request", ""); got != "offer-pcf-4711" {
		t.Errorf("the calls leave %q", got)
	}
}
