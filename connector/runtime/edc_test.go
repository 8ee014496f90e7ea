// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/runtime"
)

// edc makes a call of the EDC Management API, version 3.
func (c *connector) edc(t *testing.T, method, path, body string, want int) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.parts[runtime.ControlPlane].internal+"/management/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", managementKey)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != want {
		t.Fatalf("%s %s answered %d, want %d: %s", method, path, res.StatusCode, want, raw)
	}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 {
		return nil
	}
	if raw[0] == '[' {
		raw = []byte(`{"list":` + string(raw) + `}`)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return out
}

// edcExchange offers, negotiates and transfers with the bodies that EDC's own clients send.
func edcExchange(t *testing.T, supplier, buyer *connector, backend, value string) {
	const vocab = `"@context":{"@vocab":"https://w3id.org/edc/v0.0.1/ns/"}`
	supplier.edc(t, http.MethodPost, "supplier/v3/assets", `{`+vocab+`,"@id":"asset-1","@type":"Asset","properties":{"name":"asset 1","contenttype":"application/json"},
		"https://w3id.org/edc/v0.0.1/ns/dataAddress":{"@type":"DataAddress","edc:type":"HttpData","baseUrl":"`+backend+`","authKey":"X-Api-Key","secretName":"backend"}}`, http.StatusOK)
	supplier.edc(t, http.MethodPost, "supplier/v3/assets", `{"@id":"asset-1","properties":{},"dataAddress":{"type":"HttpData"}}`, http.StatusConflict)
	supplier.edc(t, http.MethodPost, "supplier/v3/assets", `{"@id":"asset-2","properties":{},"dataAddress":{"type":"HttpData","baseUrl":"http://169.254.169.254/"}}`, http.StatusBadRequest)
	supplier.edc(t, http.MethodPost, "supplier/v3/policydefinitions", `{`+vocab+`,"@id":"pol-1","@type":"PolicyDefinition","policy":{
		"@context":"http://www.w3.org/ns/odrl.jsonld","@type":"Set","permission":[{"action":"use"}]}}`, http.StatusOK)
	refused := supplier.edc(t, http.MethodPost, "supplier/v3/policydefinitions", `{"@id":"pol-2","policy":{"@type":"Set","permission":[{"action":"use",
		"constraint":[{"leftOperand":"https://example.org/unknown","operator":"eq","rightOperand":"x"}]}]}}`, http.StatusBadRequest)
	if e, _ := json.Marshal(refused); !bytes.Contains(e, []byte("https://example.org/unknown")) || !bytes.Contains(e, []byte("permission[0].constraint[0]")) {
		t.Errorf("an operand that is not declared is refused with %s", e)
	}
	supplier.edc(t, http.MethodPost, "supplier/v3/contractdefinitions", `{`+vocab+`,"@id":"cd-1","@type":"ContractDefinition","accessPolicyId":"pol-1","contractPolicyId":"pol-1",
		"assetsSelector":[{"@type":"Criterion","operandLeft":"https://w3id.org/edc/v0.0.1/ns/id","operator":"=","operandRight":"asset-1"}]}`, http.StatusOK)
	supplier.edc(t, http.MethodDelete, "supplier/v3/policydefinitions/pol-1", "", http.StatusConflict)
	if list := supplier.edc(t, http.MethodPost, "supplier/v3/contractdefinitions/request", "", http.StatusOK)["list"].([]any); len(list) != 2 {
		t.Errorf("contract definitions %v", list)
	}

	address := supplier.public + "/supplier/dsp/2025-1"
	catalog := buyer.edc(t, http.MethodPost, "buyer/v3/catalog/request", `{`+vocab+`,"@type":"CatalogRequest","counterPartyAddress":"`+address+`","counterPartyId":"`+supplier.did("supplier")+`",
		"protocol":"dataspace-protocol-http:2025-1","querySpec":{"@type":"QuerySpec","offset":0,"limit":50,
		"filterExpression":[{"operandLeft":"https://w3id.org/edc/v0.0.1/ns/id","operator":"=","operandRight":"asset-1"}]}}`, http.StatusOK)
	datasets := catalog["dataset"].([]any)
	if len(datasets) != 1 {
		t.Fatalf("catalog %v", catalog)
	}
	offerID := datasets[0].(map[string]any)["hasPolicy"].([]any)[0].(map[string]any)["@id"].(string)
	n := buyer.edc(t, http.MethodPost, "buyer/v3/contractnegotiations", `{`+vocab+`,"@type":"ContractRequest","counterPartyAddress":"`+address+`","counterPartyId":"`+supplier.did("supplier")+`",
		"protocol":"dataspace-protocol-http:2025-1","policy":{"@context":"http://www.w3.org/ns/odrl.jsonld","@type":"Offer","@id":"`+offerID+`","assigner":"`+supplier.did("supplier")+`",
		"target":"asset-1","permission":[{"action":"use"}],"prohibition":[],"obligation":[]}}`, http.StatusOK)
	negotiation := "buyer/v3/contractnegotiations/" + n["@id"].(string)
	buyer.until("FINALIZED", func() bool {
		return buyer.edc(t, http.MethodGet, negotiation+"/state", "", http.StatusOK)["state"] == "FINALIZED"
	})
	agreement := buyer.edc(t, http.MethodGet, negotiation, "", http.StatusOK)["contractAgreementId"].(string)
	if a := buyer.edc(t, http.MethodGet, negotiation+"/agreement", "", http.StatusOK); a["@id"] != agreement || a["consumerId"] != buyer.did("buyer") {
		t.Errorf("agreement %v", a)
	}

	tp := buyer.edc(t, http.MethodPost, "buyer/v3/transferprocesses", `{`+vocab+`,"@type":"TransferRequest","counterPartyAddress":"`+address+`",
		"protocol":"dataspace-protocol-http:2025-1","contractId":"`+agreement+`","transferType":"HttpData-PULL"}`, http.StatusOK)
	transfer := "buyer/v3/transferprocesses/" + tp["@id"].(string)
	buyer.until("STARTED", func() bool {
		return buyer.edc(t, http.MethodGet, transfer+"/state", "", http.StatusOK)["state"] == "STARTED"
	})
	edr := buyer.edc(t, http.MethodGet, "buyer/v3/edrs/"+tp["@id"].(string)+"/dataaddress", "", http.StatusOK)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, edr["endpoint"].(string), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", edr["authorization"].(string))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if raw, err := io.ReadAll(res.Body); err != nil || !bytes.Contains(raw, []byte(value)) {
		t.Errorf("fetched %d %s, %v", res.StatusCode, raw, err)
	}
	buyer.edc(t, http.MethodPost, transfer+"/terminate", `{`+vocab+`,"@type":"TerminateTransfer","reason":"done"}`, http.StatusNoContent)
	buyer.until("TERMINATED", func() bool { return buyer.edc(t, http.MethodGet, transfer, "", http.StatusOK)["state"] == "TERMINATED" })
	buyer.edc(t, http.MethodGet, "buyer/v3/edrs/"+tp["@id"].(string)+"/dataaddress", "", http.StatusNotFound)
}
