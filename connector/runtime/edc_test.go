// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kaphera/kaphera/connector/runtime"
)

// edcClient makes calls of the EDC Management API, and holds them and their answers to the published document.
type edcClient struct {
	t        *testing.T
	base     string
	document map[string]any
	schemas  *jsonschema.Compiler
}

const published = "https://connector.example/openapi.json"

func (c *connector) management(t *testing.T) *edcClient {
	t.Helper()
	e := &edcClient{t: t, base: c.parts[runtime.ControlPlane].internal + "/management/", schemas: jsonschema.NewCompiler()}
	_, raw := e.do(http.MethodGet, "openapi.json", nil)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	e.document = doc.(map[string]any)
	if err := e.schemas.AddResource(published, doc); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *edcClient) do(method, path string, body []byte) (int, []byte) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), method, e.base+path, bytes.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", managementKey)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return res.StatusCode, raw
}

// valid checks a document against the schema at a place of the published document.
func (e *edcClient) valid(what string, raw []byte, place ...string) {
	e.t.Helper()
	pointer := published + "#"
	for _, p := range place {
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(p)
	}
	schema, err := e.schemas.Compile(pointer)
	if err != nil {
		e.t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		e.t.Fatalf("%s: %v: %s", what, err, raw)
	}
	if err := schema.Validate(doc); err != nil {
		e.t.Errorf("%s is not what the document says: %v\n%s", what, err, raw)
	}
}

// call makes a call in a participant context and returns the answer, which must be want and both as documented.
func (e *edcClient) call(method, ctx, path string, body any, want int) any {
	e.t.Helper()
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			e.t.Fatal(err)
		}
	}
	status, answer := e.do(method, ctx+path, raw)
	if status != want {
		e.t.Fatalf("%s %s answers %d, want %d: %s", method, path, status, want, answer)
	}
	place := e.route(method, "/management/"+ctx+path)
	if body != nil {
		e.valid("the body of "+method+" "+path, raw, append(place, "requestBody", "content", "application/json", "schema")...)
	}
	if len(answer) == 0 {
		return nil
	}
	response := "default"
	if status == http.StatusOK {
		response = strconv.Itoa(status)
	}
	e.valid("the answer to "+method+" "+path, answer, append(place, "responses", response, "content", "application/json", "schema")...)
	var out any
	if err := json.Unmarshal(answer, &out); err != nil {
		e.t.Fatal(err)
	}
	return out
}

// route finds the place of an operation in the document: the template whose fixed parts fit.
func (e *edcClient) route(method, path string) []string {
	e.t.Helper()
	parts := strings.Split(strings.SplitN(path, "?", 2)[0], "/")
	best := ""
	for template, item := range e.document["paths"].(map[string]any) {
		want := strings.Split(template, "/")
		fits := len(want) == len(parts)
		for i := range want {
			fits = fits && (want[i] == parts[i] || strings.HasPrefix(want[i], "{"))
		}
		if _, ok := item.(map[string]any)[strings.ToLower(method)]; fits && ok && (best == "" || strings.Count(template, "{") < strings.Count(best, "{")) {
			best = template
		}
	}
	if best == "" {
		e.t.Fatalf("the document has no %s %s", method, path)
	}
	return []string{"paths", best, strings.ToLower(method)}
}

// recording is one exchange of a client with Eclipse EDC 0.15.1.
type recording struct {
	Method   string `json:"method"`
	Path     string `json:"path"`
	Host     string `json:"host"`
	Request  any    `json:"request"`
	Status   int    `json:"status"`
	Response any    `json:"response"`
}

// replace changes strings within a JSON value, as a whole or in part.
func replace(v any, change *strings.Replacer, whole map[string]string) any {
	switch t := v.(type) {
	case string:
		if w, ok := whole[t]; ok {
			return w
		}
		return change.Replace(t)
	case []any:
		out := make([]any, len(t))
		for i := range t {
			out[i] = replace(t[i], change, whole)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, item := range t {
			out[k] = replace(item, change, whole)
		}
		return out
	}
	return v
}

// lacks lists what a recorded answer has and another has not: members, and the types of their values. Of lists the first entries count.
func lacks(path string, recorded, got any) (out []string) {
	switch want := recorded.(type) {
	case map[string]any:
		have, ok := got.(map[string]any)
		if !ok {
			return []string{fmt.Sprintf("%s is %T", path, got)}
		}
		for k, v := range want {
			if _, ok := have[k]; !ok {
				out = append(out, path+"."+k)
				continue
			}
			out = append(out, lacks(path+"."+k, v, have[k])...)
		}
	case []any:
		have, ok := got.([]any)
		switch {
		case !ok || (len(have) == 0) != (len(want) == 0):
			return []string{fmt.Sprintf("%s is %v", path, got)}
		case len(want) > 0:
			return lacks(path+"[0]", want[0], have[0])
		}
	default:
		if fmt.Sprintf("%T", recorded) != fmt.Sprintf("%T", got) {
			return []string{fmt.Sprintf("%s is %T", path, got)}
		}
	}
	return out
}

// replay makes the recorded calls of a version at path version, in order, and compares what comes back.
func replay(t *testing.T, supplier, buyer *connector, recorded, version, backend string) (transfer string) {
	files, err := filepath.Glob(filepath.Join("..", "management", "edc", "testdata", "recorded", recorded, "*.json"))
	if err != nil || len(files) < 10 {
		t.Fatalf("recordings %v, %v", files, err)
	}
	sides := map[string]*edcClient{"supplier": supplier.management(t), "buyer": buyer.management(t)}
	whole := map[string]string{"provider": supplier.did("supplier"), "consumer": buyer.did("buyer"),
		"http://127.0.0.1:19194/protocol/2025-1": supplier.public + "/supplier/dsp/2025-1"}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r recording
		if err := json.Unmarshal(raw, &r); err != nil {
			t.Fatal(err)
		}
		ctx := "buyer"
		if strings.HasSuffix(r.Host, ":19193") {
			ctx = "supplier"
		}
		pairs := []string{"/management/" + recorded + "/", "/" + version + "/", "/management/v3/", "/v3/", "-" + recorded + "-", "-" + version + "-"}
		for from, to := range whole {
			pairs = append(pairs, from, to)
		}
		change := strings.NewReplacer(pairs...)
		path := change.Replace(r.Path)
		body := replace(r.Request, change, whole)
		if m, ok := body.(map[string]any); ok && m["dataAddress"] != nil {
			m["dataAddress"] = map[string]any{"@type": "DataAddress", "type": "HttpData", "baseUrl": backend, "authKey": "X-Api-Key", "authCode": "backend-key"}
		}
		var got any
		name := filepath.Base(file)
		for state, files := range map[string][]string{"FINALIZED": {"06-negotiation-get.json"}, "STARTED": {"09-transfer-get.json"}} {
			if slices.Contains(files, name) {
				buyer.until(state, func() bool {
					return sides[ctx].call(http.MethodGet, ctx, path+"/state", nil, http.StatusOK).(map[string]any)["state"] == state
				})
			}
		}
		got = sides[ctx].call(r.Method, ctx, path, body, r.Status)
		if r.Response == nil {
			continue
		}
		answer := got.(map[string]any)
		if name == "04-catalog.json" { // ours may hold more, and what is negotiated is one dataset of it
			asset := replace(r.Response.(map[string]any)["dataset"].([]any)[0].(map[string]any)["@id"], change, whole)
			all := answer["dataset"].([]any)
			i := slices.IndexFunc(all, func(d any) bool { return d.(map[string]any)["@id"] == asset })
			if i < 0 {
				t.Fatalf("the catalog lacks %s: %v", asset, all)
			}
			answer["dataset"] = all[i : i+1]
			offer := func(catalog any) string {
				return catalog.(map[string]any)["dataset"].([]any)[0].(map[string]any)["hasPolicy"].([]any)[0].(map[string]any)["@id"].(string)
			}
			whole[offer(r.Response)] = offer(answer)
		}
		if missing := lacks("$", r.Response, got); len(missing) > 0 {
			t.Errorf("%s %s: the answer differs in %v: %v", version, name, missing, got)
		}
		// Ids of this run take the place of the recorded ones.
		for _, member := range []string{"@id", "contractAgreementId"} {
			before, _ := r.Response.(map[string]any)[member].(string)
			if after, _ := answer[member].(string); before != "" && whole[before] == "" && replace(before, change, whole) == before {
				whole[before] = after
			}
		}
		if name == "08-transfer.json" {
			transfer = answer["@id"].(string)
		}
	}
	return transfer
}

// edcExchange: an EDC client's recorded calls offer, negotiate and transfer, in every version; each call and answer is as documented.
func edcExchange(t *testing.T, supplier, buyer *connector, backend, value string) {
	const v3 = "/v3"
	b, s := buyer.management(t), supplier.management(t)
	for version, recorded := range map[string]string{"v3": "v3", "v4beta": "v4beta", "v4": "v4beta"} {
		t.Run(version, func(t *testing.T) {
			transfer := replay(t, supplier, buyer, recorded, version, backend)
			if version == "v3" {
				edr := b.call(http.MethodGet, "buyer", v3+"/edrs/"+transfer+"/dataaddress?auto_refresh=true", nil, http.StatusOK).(map[string]any)
				if got := fetch(t, edr["endpoint"].(string), edr["authorization"].(string)); !strings.Contains(got, value) {
					t.Errorf("fetched %s", got)
				}
				list := b.call(http.MethodPost, "buyer", v3+"/edrs/request", map[string]any{"filterExpression": map[string]any{"operandLeft": "transferProcessId", "operator": "=", "operandRight": transfer}}, http.StatusOK).([]any)
				if len(list) != 1 {
					t.Errorf("data addresses %v", list)
				}
				b.call(http.MethodDelete, "buyer", v3+"/edrs/"+transfer, nil, http.StatusNoContent)
				b.call(http.MethodGet, "buyer", v3+"/edrs/"+transfer+"/dataaddress", nil, http.StatusNotFound)
				b.call(http.MethodPost, "buyer", v3+"/transferprocesses/"+transfer+"/deprovision", nil, http.StatusConflict)
				b.call(http.MethodPost, "buyer", v3+"/transferprocesses/"+transfer+"/suspend", map[string]any{"reason": "a pause"}, http.StatusNoContent)
				buyer.until("SUSPENDED", func() bool { return b.state("buyer", v3+"/transferprocesses/"+transfer) == "SUSPENDED" })
				b.call(http.MethodPost, "buyer", v3+"/transferprocesses/"+transfer+"/resume", nil, http.StatusNoContent)
				buyer.until("STARTED", func() bool { return b.state("buyer", v3+"/transferprocesses/"+transfer) == "STARTED" })
				b.call(http.MethodPost, "buyer", v3+"/transferprocesses/"+transfer+"/terminate", map[string]any{"reason": "done"}, http.StatusNoContent)
			}
			buyer.until("TERMINATED", func() bool {
				return b.state("buyer", "/"+version+"/transferprocesses/"+transfer) == "TERMINATED"
			})
			b.call(http.MethodPost, "buyer", "/"+version+"/transferprocesses/"+transfer+"/deprovision", nil, http.StatusNoContent)
			b.call(http.MethodPost, "buyer", "/"+version+"/transferprocesses/"+transfer+"/terminate", nil, http.StatusConflict)
			b.call(http.MethodGet, "buyer", v3+"/edrs/"+transfer+"/dataaddress", nil, http.StatusNotFound)
		})
	}
	t.Run("queries", func(t *testing.T) { edcQueries(t, s, b) })
	t.Run("callbacks", func(t *testing.T) { edcCallbacks(t, supplier, buyer) })
}

func (e *edcClient) state(ctx, path string) string {
	e.t.Helper()
	return e.call(http.MethodGet, ctx, path+"/state", nil, http.StatusOK).(map[string]any)["state"].(string)
}

func fetch(t *testing.T, endpoint, token string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// edcQueries: what clients ask about processes, and what is in use stays.
func edcQueries(t *testing.T, s, b *edcClient) {
	query := func(field, operator string, right any) any {
		return map[string]any{"@type": "QuerySpec", "sortField": "createdAt", "sortOrder": "DESC",
			"filterExpression": []any{map[string]any{"operandLeft": field, "operator": operator, "operandRight": right}}}
	}
	count := func(path string, q any) int {
		t.Helper()
		return len(b.call(http.MethodPost, "buyer", path+"/request", q, http.StatusOK).([]any))
	}
	for _, v := range []string{"/v3", "/v4beta", "/v4"} {
		for name, got := range map[string]int{
			"negotiations by number of state": count(v+"/contractnegotiations", query("state", "=", 1200)),
			"negotiations by name of state":   count(v+"/contractnegotiations", query("state", "in", []any{"FINALIZED"})),
			"negotiations by role":            count(v+"/contractnegotiations", query("type", "=", "CONSUMER")),
			"negotiations about an asset":     count(v+"/contractnegotiations", query("assetId", "like", "asset-%")) + 1,
			"agreements":                      count(v+"/contractagreements", map[string]any{}),
		} {
			if got != 4 {
				t.Errorf("%s: %d %s, want 4", v, got, name)
			}
		}
		if got := count(v+"/transferprocesses", query("state", "=", 850)); got != 3 {
			t.Errorf("%s: %d terminated transfers, want 3", v, got)
		}
		list := b.call(http.MethodPost, "buyer", v+"/contractagreements/request", query("assetId", "like", "asset-%"), http.StatusOK).([]any)
		agreement := list[0].(map[string]any)["@id"].(string)
		if n := b.call(http.MethodGet, "buyer", v+"/contractagreements/"+agreement+"/negotiation", nil, http.StatusOK).(map[string]any); n["contractAgreementId"] != agreement {
			t.Errorf("negotiation %v", n)
		}
		asset := list[0].(map[string]any)["assetId"].(string)
		b.call(http.MethodGet, "buyer", v+"/contractagreements/"+agreement, nil, http.StatusOK)
		s.call(http.MethodDelete, "supplier", v+"/assets/"+asset, nil, http.StatusConflict)
		n := b.call(http.MethodPost, "buyer", v+"/contractnegotiations/request", query("contractAgreementId", "=", agreement), http.StatusOK).([]any)[0].(map[string]any)["@id"].(string)
		b.call(http.MethodDelete, "buyer", v+"/contractnegotiations/"+n, nil, http.StatusConflict)
		b.call(http.MethodPost, "buyer", v+"/contractnegotiations/"+n+"/terminate", map[string]any{"reason": "x"}, http.StatusConflict)
	}
}

// edcCallbacks: events reach the address that a client gave, in order, also when it does not take them at once.
func edcCallbacks(t *testing.T, supplier, buyer *connector) {
	b := buyer.management(t)
	var mu sync.Mutex
	var events []map[string]any
	refused := 0
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e map[string]any
		mu.Lock()
		defer mu.Unlock()
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Errorf("event %v, %v", e, err)
		}
		if refused < 2 {
			refused++
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if !slices.ContainsFunc(events, func(had map[string]any) bool { return had["id"] == e["id"] }) { // one whose answer came late comes again
			events = append(events, e)
		}
	}))
	defer hook.Close()
	address := supplier.public + "/supplier/dsp/2025-1"
	request := map[string]any{"counterPartyAddress": address, "counterPartyId": supplier.did("supplier"), "protocol": "dataspace-protocol-http:2025-1"}
	dataset := b.call(http.MethodPost, "buyer", "/v4/catalog/dataset/request", with(request, map[string]any{"@id": "pcf"}), http.StatusOK).(map[string]any)
	offer := dataset["hasPolicy"].([]any)[0].(map[string]any)["@id"]
	callbacks := func(events ...any) []any {
		return []any{map[string]any{"uri": hook.URL, "events": events, "transactional": false}}
	}
	// The offer's id is enough.
	n := b.call(http.MethodPost, "buyer", "/v3/contractnegotiations", with(request, map[string]any{"policy": map[string]any{"@type": "odrl:Offer", "@id": offer},
		"callbackAddresses": callbacks("contract.negotiation")}), http.StatusOK).(map[string]any)["@id"].(string)
	buyer.until("FINALIZED", func() bool { return b.state("buyer", "/v3/contractnegotiations/"+n) == "FINALIZED" })
	doc := b.call(http.MethodGet, "buyer", "/v3/contractnegotiations/"+n, nil, http.StatusOK).(map[string]any)
	if cb, ok := doc["callbackAddresses"].(map[string]any); !ok || cb["uri"] != hook.URL {
		t.Errorf("callback addresses %v", doc["callbackAddresses"])
	}
	tp := b.call(http.MethodPost, "buyer", "/v4/transferprocesses", with(request, map[string]any{"contractId": doc["contractAgreementId"], "transferType": "HttpData-PULL",
		"privateProperties": map[string]any{"order": "4711"}, "callbackAddresses": callbacks("transfer.process.started")}), http.StatusOK).(map[string]any)["@id"].(string)
	types := func() (out []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			out = append(out, e["type"].(string))
		}
		return out
	}
	want := []string{"ContractNegotiationRequested", "ContractNegotiationAgreed", "ContractNegotiationVerified", "ContractNegotiationFinalized", "TransferProcessStarted"}
	buyer.until("all events", func() bool { return len(types()) >= len(want) })
	got := types()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, e := range events {
		if payload := e["payload"].(map[string]any); e["type"] == "TransferProcessStarted" {
			props := payload["dataAddress"].(map[string]any)["properties"].(map[string]any)
			if payload["transferProcessId"] != tp || props["https://w3id.org/edc/v0.0.1/ns/authorization"] == nil {
				t.Errorf("payload %v", payload)
			}
		} else if payload["contractNegotiationId"] != n {
			t.Errorf("payload %v", payload)
		}
	}
	view := b.call(http.MethodPost, "buyer", "/v4/transferprocesses/request", map[string]any{"filterExpression": map[string]any{"operandLeft": "privateProperties.order", "operator": "=", "operandRight": "4711"}}, http.StatusOK).([]any)
	if len(view) != 1 || view[0].(map[string]any)["privateProperties"].(map[string]any)["order"] != "4711" {
		t.Errorf("transfers by private property: %v", view)
	}
}

func with(base, more map[string]any) map[string]any {
	out := map[string]any{}
	for _, m := range []map[string]any{base, more} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}
