// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// What both connectors are told.
const (
	EDCNamespace = "https://w3id.org/edc/v0.0.1/ns/"
	Protocol     = "dataspace-protocol-http:2025-1"
)

// Object is a JSON object.
type Object = map[string]any

// Connector is one of the two, seen through the EDC Management API (version 3), which both serve.
type Connector struct {
	Name    string // "Kaphera" or "EDC"
	ID      string // of the participant
	Address string // DSP base
	Process *Process

	management string
	key        string
	// own calls what is beside the Management API: Kaphera's participant API, EDC's control API.
	own func(t *testing.T, method, path string, in, out any)
}

var web = &http.Client{Timeout: Patience}

// Send makes an HTTP request with a JSON body, if any, and returns the answer.
func Send(method, url string, header map[string]string, in any) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return 0, nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := web.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	return res.StatusCode, raw, err
}

// Try calls the Management API.
func (c *Connector) Try(method, path string, in Object, out any) error {
	if in != nil {
		in["@context"] = Object{"@vocab": EDCNamespace}
	}
	status, raw, err := Send(method, c.management+path, map[string]string{"X-Api-Key": c.key}, in)
	switch {
	case err != nil:
		return err
	case status/100 != 2:
		return fmt.Errorf("%s: %s %s answered %d: %s", c.Name, method, path, status, raw)
	case out == nil:
		return nil
	}
	return json.Unmarshal(raw, out)
}

// Call uses the Management API; an answer other than 2xx fails the test.
func (c *Connector) Call(t *testing.T, method, path string, in Object, out any) {
	t.Helper()
	Must(t, c.Try(method, path, in, out))
}

// Offer offers assets at a backend under a policy of one permission; id names the contract definition.
func (c *Connector) Offer(t *testing.T, id, backend string, permission Object, assets ...string) {
	t.Helper()
	for _, a := range assets {
		c.Asset(t, a, backend)
	}
	c.Define(t, id, permission, Object{"@type": "Criterion", "operandLeft": EDCNamespace + "id", "operator": "in", "operandRight": assets})
}

// Asset makes an asset at a backend.
func (c *Connector) Asset(t *testing.T, id, backend string) {
	t.Helper()
	c.Call(t, http.MethodPost, "/assets", Object{"@type": "Asset", "@id": id, "properties": Object{"name": id},
		"dataAddress": Object{"@type": "DataAddress", "type": "HttpData", "baseUrl": backend}}, nil)
}

// Define makes a contract definition about the assets that are selected, all if nothing is said.
func (c *Connector) Define(t *testing.T, id string, permission Object, selector ...Object) {
	t.Helper()
	for name, rule := range map[string]Object{id: permission, id + "-access": Use()} {
		c.Call(t, http.MethodPost, "/policydefinitions", Object{"@type": "PolicyDefinition", "@id": name,
			"policy": Object{"@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Set", "permission": []any{rule}}}, nil)
	}
	c.Call(t, http.MethodPost, "/contractdefinitions", Object{"@type": "ContractDefinition", "@id": id, "accessPolicyId": id + "-access", "contractPolicyId": id,
		"assetsSelector": append([]Object{}, selector...)}, nil)
}

// Use is a permission to use, under constraints if there are any.
func Use(constraints ...Object) Object {
	out := Object{"action": "use"}
	if len(constraints) > 0 {
		out["constraint"] = constraints
	}
	return out
}

// Dataset is an item of a catalog: an asset with its offer.
type Dataset struct {
	ID    string `json:"@id"`
	Offer one    `json:"hasPolicy"`
}

// one is an object, alone or in an array of one.
type one Object

func (o *one) UnmarshalJSON(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	if len(raw) > 0 && raw[0] == '[' {
		var list []Object
		if err := json.Unmarshal(raw, &list); err != nil || len(list) != 1 {
			return fmt.Errorf("%d objects instead of one: %w", len(list), err)
		}
		*o = list[0]
		return nil
	}
	return json.Unmarshal(raw, (*Object)(o))
}

// Catalog asks a provider for one page.
func (c *Connector) Catalog(t *testing.T, provider *Connector, offset, limit int, filter ...Object) []Dataset {
	t.Helper()
	var out struct {
		Dataset []Dataset `json:"dataset"`
	}
	c.Call(t, http.MethodPost, "/catalog/request", Object{"@type": "CatalogRequest", "counterPartyAddress": provider.Address, "counterPartyId": provider.ID, "protocol": Protocol,
		"querySpec": Object{"@type": "QuerySpec", "offset": offset, "limit": limit, "filterExpression": filter}}, &out)
	return out.Dataset
}

// OfferOf finds an asset's offer in the provider's catalog.
func (c *Connector) OfferOf(t *testing.T, provider *Connector, asset string) Object {
	t.Helper()
	found := c.Catalog(t, provider, 0, 50, Object{"@type": "Criterion", "operandLeft": EDCNamespace + "id", "operator": "=", "operandRight": asset})
	if len(found) != 1 || found[0].ID != asset {
		t.Fatalf("%s offers %v, want only %s", provider.Name, found, asset)
	}
	return Object(found[0].Offer)
}

// View is what both connectors show of a negotiation or a transfer.
type View struct {
	ID          string `json:"@id"`
	State       string `json:"state"`
	Peer        string `json:"correlationId"`
	Agreement   string `json:"contractAgreementId"`
	ErrorDetail string `json:"errorDetail"`
}

// The two kinds of process.
const (
	Negotiations = "/contractnegotiations"
	Transfers    = "/transferprocesses"
)

const deprovisioned = "DEPROVISIONED"

// View reads a process by its own id.
func (c *Connector) View(t *testing.T, kind, id string) (v View) {
	t.Helper()
	c.Call(t, http.MethodGet, kind+"/"+id, nil, &v)
	if strings.HasPrefix(v.State, "DEPROVISION") { // what EDC as provider does after the end of a transfer, which it shows no more
		v.State = deprovisioned
	}
	return v
}

// Counterpart finds the own process that belongs to one of the counterparty.
func (c *Connector) Counterpart(t *testing.T, kind, peer string) (found View) {
	t.Helper()
	Until(t, c.Name+": the process of "+peer, func() (bool, string) {
		var all []View
		c.Call(t, http.MethodPost, kind+"/request", Object{"@type": "QuerySpec", "limit": 1000, "filterExpression": []any{}}, &all)
		for _, v := range all {
			if v.Peer == peer {
				found = v
				return true, ""
			}
		}
		return false, fmt.Sprintf("none of %d", len(all))
	})
	return found
}

// Request starts a negotiation about an offer.
func (c *Connector) Request(t *testing.T, provider *Connector, asset string, offer Object) string {
	t.Helper()
	policy := Object{"@context": "http://www.w3.org/ns/odrl.jsonld"}
	for k, v := range offer {
		policy[k] = v
	}
	policy["assigner"], policy["target"] = provider.ID, asset
	var made View
	c.Call(t, http.MethodPost, Negotiations, Object{"@type": "ContractRequest", "counterPartyAddress": provider.Address, "counterPartyId": provider.ID,
		"protocol": Protocol, "policy": policy}, &made)
	return made.ID
}

// Reaches waits for a state of a process; another end is an error.
func (c *Connector) Reaches(t *testing.T, kind, id, state string) View {
	t.Helper()
	v := c.Ends(t, kind, id, state)
	if v.State != state {
		t.Fatalf("%s: %s %s is %s instead of %s: %s", c.Name, kind[1:], id, v.State, state, v.ErrorDetail)
	}
	return v
}

// Ends waits for a state of a process, or its end.
func (c *Connector) Ends(t *testing.T, kind, id, state string) (v View) {
	t.Helper()
	Until(t, fmt.Sprintf("%s: %s %s is %s", c.Name, kind[1:], id, state), func() (bool, string) {
		v = c.View(t, kind, id)
		if v.State == deprovisioned && (state == "COMPLETED" || state == "TERMINATED") {
			v.State = state
		}
		return v.State == state || v.State == "FINALIZED" || v.State == "TERMINATED" || v.State == "COMPLETED" || v.State == deprovisioned, v.State + " " + v.ErrorDetail
	})
	return v
}

// Pair is a process as both sides have it.
type Pair struct {
	Kind               string // Negotiations or Transfers
	Consumer, Provider *Connector
	Mine, Theirs       string // ids at the consumer and at the provider
}

// Both waits until both sides are at a state.
func (p Pair) Both(t *testing.T, state string) {
	t.Helper()
	p.Consumer.Reaches(t, p.Kind, p.Mine, state)
	p.Provider.Reaches(t, p.Kind, p.Theirs, state)
}

// At is the id of the process at one side.
func (p Pair) At(side *Connector) string {
	if side == p.Provider {
		return p.Theirs
	}
	return p.Mine
}

// Command gives one side a command: suspend, resume or terminate.
func (p Pair) Command(t *testing.T, side *Connector, verb string) {
	t.Helper()
	id := p.At(side)
	body := Object{"@id": id, "reason": "asked for by " + side.Name}
	if verb == "resume" {
		delete(body, "reason")
	} else {
		body["@type"] = map[string]string{Transfers: strings.ToUpper(verb[:1]) + verb[1:] + "Transfer", Negotiations: "TerminateNegotiation"}[p.Kind]
	}
	after := map[string]string{"suspend": "SUSPENDED", "resume": "STARTED", "terminate": "TERMINATED"}[verb]
	var refusal error
	// EDC refuses a command about what it is working on; and one whose answer was an error may have been followed.
	Until(t, side.Name+": "+verb+" "+p.Kind[1:]+" "+id, func() (bool, string) {
		if refusal != nil && side.View(t, p.Kind, id).State == after {
			return true, ""
		}
		refusal = side.Try(http.MethodPost, p.Kind+"/"+id+"/"+verb, body, nil)
		return refusal == nil, fmt.Sprint(refusal)
	})
}

// Complete makes one side complete a transfer, for which the Management API has no verb: in EDC its data plane does that.
func (p Pair) Complete(t *testing.T, side *Connector) {
	t.Helper()
	path := "/transfers/"
	if side.Name == "EDC" {
		path = "/transferprocess/"
	}
	side.own(t, http.MethodPost, path+p.At(side)+"/complete", nil, nil)
}

// Reason is why a process of Kaphera's ended, and who ended it ("own" or "counterparty"), as its participant API says.
func (p Pair) Reason(t *testing.T) adminapi.Reason {
	t.Helper()
	side, path := p.Consumer, "/negotiations/"
	if side.Name == "EDC" {
		side = p.Provider
	}
	if p.Kind == Transfers {
		path = "/transfers/"
	}
	var v struct{ Reason adminapi.Reason }
	side.own(t, http.MethodGet, path+p.At(side), nil, &v)
	return v.Reason
}

// Overtaken says whether a negotiation's error is the other side's refusal of what came too late: EDC's are a 409 and "cannot be", ours is illegal-state.
func Overtaken(detail string) bool {
	return slices.ContainsFunc([]string{"409", "cannot be", `"illegal-state"`}, func(s string) bool { return strings.Contains(detail, s) })
}

// Negotiate brings a negotiation about an asset to a state on both sides. EDC ends some of its negotiations itself when its own
// messages overtake each other; that is told, and tried again.
func (c *Connector) Negotiate(t *testing.T, provider *Connector, asset, state string) Pair {
	t.Helper()
	offer := c.OfferOf(t, provider, asset)
	for attempt := 1; ; attempt++ {
		p := Pair{Kind: Negotiations, Consumer: c, Provider: provider, Mine: c.Request(t, provider, asset, offer)}
		v := c.Ends(t, Negotiations, p.Mine, state)
		p.Theirs = provider.Counterpart(t, Negotiations, p.Mine).ID
		w := provider.Ends(t, Negotiations, p.Theirs, state)
		if v.State == state && w.State == state {
			return p
		}
		v.ErrorDetail += " " + w.ErrorDetail
		if attempt == 5 || !Overtaken(v.ErrorDetail) {
			t.Fatalf("negotiation %s of %s is %s, at %s %s, instead of %s: %s", p.Mine, c.Name, v.State, provider.Name, w.State, state, v.ErrorDetail)
		}
		t.Logf("EDC ended negotiation %s by itself (%s); trying again", p.Mine, v.ErrorDetail)
	}
}

// Agreement negotiates an asset to the end. EDC as provider sometimes overwrites its own state and agrees a second time, under another id, after its
// first agreement was sent; that is told, and tried again.
func (c *Connector) Agreement(t *testing.T, provider *Connector, asset string) string {
	t.Helper()
	for attempt := 1; ; attempt++ {
		p := c.Negotiate(t, provider, asset, "FINALIZED")
		agreed := c.View(t, Negotiations, p.Mine).Agreement
		var mine, theirs struct {
			ID string `json:"agreementId"`
		}
		c.Call(t, http.MethodGet, Negotiations+"/"+p.Mine+"/agreement", nil, &mine)
		provider.Call(t, http.MethodGet, Negotiations+"/"+p.Theirs+"/agreement", nil, &theirs)
		if agreed != "" && mine == theirs {
			return agreed
		}
		if agreed == "" || attempt == 5 || provider.Name != "EDC" {
			t.Fatalf("%s has agreement %s, %s has %s", c.Name, mine.ID, provider.Name, theirs.ID)
		}
		t.Logf("EDC made agreement %s after %s by itself; trying again", theirs.ID, mine.ID)
	}
}

// Transfer starts a transfer of an asset, negotiated for that.
func (c *Connector) Transfer(t *testing.T, provider *Connector, asset string) Pair {
	t.Helper()
	var made View
	c.Call(t, http.MethodPost, Transfers, Object{"@type": "TransferRequest", "counterPartyAddress": provider.Address, "connectorId": provider.ID, "counterPartyId": provider.ID,
		"protocol": Protocol, "contractId": c.Agreement(t, provider, asset), "transferType": "HttpData-PULL"}, &made)
	p := Pair{Kind: Transfers, Consumer: c, Provider: provider, Mine: made.ID, Theirs: provider.Counterpart(t, Transfers, made.ID).ID}
	p.Both(t, "STARTED")
	return p
}

// EDR is where data is fetched and with which token.
type EDR struct{ Endpoint, Token string }

// Access reads the consumer's endpoint data reference.
func (p Pair) Access(t *testing.T) (out EDR) {
	t.Helper()
	Until(t, p.Consumer.Name+": the EDR of "+p.Mine, func() (bool, string) {
		var raw Object
		err := p.Consumer.Try(http.MethodGet, "/edrs/"+p.Mine+"/dataaddress", nil, &raw)
		for k, v := range raw {
			switch strings.TrimPrefix(k, EDCNamespace) {
			case "endpoint":
				out.Endpoint, _ = v.(string)
			case "authorization":
				out.Token, _ = v.(string)
			}
		}
		return err == nil && out.Endpoint != "" && out.Token != "", fmt.Sprint(err)
	})
	return out
}

// Fetch reads the data with the token as it stands in the EDR, as EDC's clients do.
func (e EDR) Fetch(t *testing.T) (int, string) {
	t.Helper()
	status, body, err := Send(http.MethodGet, e.Endpoint, map[string]string{"Authorization": e.Token}, nil)
	Must(t, err)
	return status, string(body)
}

// Served checks that the EDR opens the data.
func (e EDR) Served(t *testing.T, data string) {
	t.Helper()
	if status, body := e.Fetch(t); status != http.StatusOK || body != data {
		t.Fatalf("fetching answers %d %q, want 200 %q", status, body, data)
	}
}

// Refused checks that the EDR does not open the data any more.
func (e EDR) Refused(t *testing.T) {
	t.Helper()
	Until(t, "the token is refused", func() (bool, string) {
		status, body := e.Fetch(t)
		return status == http.StatusUnauthorized || status == http.StatusForbidden, fmt.Sprint(status, " ", body)
	})
}
