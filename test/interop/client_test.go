// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

const (
	edcNamespace = "https://w3id.org/edc/v0.0.1/ns/"
	protocol     = "dataspace-protocol-http:2025-1"
)

type object = map[string]any

// connector is one of the two, seen through the EDC Management API (version 3), which both serve.
type connector struct {
	name       string
	id         string // of the participant
	address    string // DSP base
	management string
	key        string
	process    *process
}

var web = &http.Client{Timeout: patience}

func send(method, url string, header map[string]string, in any) (int, []byte, error) {
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

// try calls the Management API.
func (c *connector) try(method, path string, in object, out any) error {
	if in != nil {
		in["@context"] = object{"@vocab": edcNamespace}
	}
	status, raw, err := send(method, c.management+path, map[string]string{"X-Api-Key": c.key}, in)
	switch {
	case err != nil:
		return err
	case status/100 != 2:
		return fmt.Errorf("%s: %s %s answered %d: %s", c.name, method, path, status, raw)
	case out == nil:
		return nil
	}
	return json.Unmarshal(raw, out)
}

func (c *connector) call(t *testing.T, method, path string, in object, out any) {
	t.Helper()
	must(t, c.try(method, path, in, out))
}

// offer offers assets under a policy of one permission; id names the contract definition.
func (c *connector) offer(t *testing.T, id, backend string, permission object, assets ...string) {
	t.Helper()
	for _, a := range assets {
		c.call(t, http.MethodPost, "/assets", object{"@type": "Asset", "@id": a, "properties": object{"name": a},
			"dataAddress": object{"@type": "DataAddress", "type": "HttpData", "baseUrl": backend}}, nil)
	}
	for name, rule := range map[string]object{id: permission, id + "-access": use()} {
		c.call(t, http.MethodPost, "/policydefinitions", object{"@type": "PolicyDefinition", "@id": name,
			"policy": object{"@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Set", "permission": []any{rule}}}, nil)
	}
	c.call(t, http.MethodPost, "/contractdefinitions", object{"@type": "ContractDefinition", "@id": id, "accessPolicyId": id + "-access", "contractPolicyId": id,
		"assetsSelector": []any{object{"@type": "Criterion", "operandLeft": edcNamespace + "id", "operator": "in", "operandRight": assets}}}, nil)
}

// use is a permission to use, under constraints if there are any.
func use(constraints ...object) object {
	out := object{"action": "use"}
	if len(constraints) > 0 {
		out["constraint"] = constraints
	}
	return out
}

// dataset is an item of a catalog: an asset with its offer.
type dataset struct {
	ID    string `json:"@id"`
	Offer one    `json:"hasPolicy"`
}

// one is an object, alone or in an array of one.
type one object

func (o *one) UnmarshalJSON(raw []byte) error {
	raw = bytes.TrimSpace(raw)
	if len(raw) > 0 && raw[0] == '[' {
		var list []object
		if err := json.Unmarshal(raw, &list); err != nil || len(list) != 1 {
			return fmt.Errorf("%d objects instead of one: %w", len(list), err)
		}
		*o = list[0]
		return nil
	}
	return json.Unmarshal(raw, (*object)(o))
}

// catalog asks a provider for one page.
func (c *connector) catalog(t *testing.T, provider *connector, offset, limit int, filter ...object) []dataset {
	t.Helper()
	var out struct {
		Dataset []dataset `json:"dataset"`
	}
	c.call(t, http.MethodPost, "/catalog/request", object{"@type": "CatalogRequest", "counterPartyAddress": provider.address, "counterPartyId": provider.id, "protocol": protocol,
		"querySpec": object{"@type": "QuerySpec", "offset": offset, "limit": limit, "filterExpression": filter}}, &out)
	return out.Dataset
}

// offerOf finds an asset's offer in the provider's catalog.
func (c *connector) offerOf(t *testing.T, provider *connector, asset string) object {
	t.Helper()
	found := c.catalog(t, provider, 0, 50, object{"@type": "Criterion", "operandLeft": edcNamespace + "id", "operator": "=", "operandRight": asset})
	if len(found) != 1 || found[0].ID != asset {
		t.Fatalf("%s offers %v, want only %s", provider.name, found, asset)
	}
	return object(found[0].Offer)
}

// view is what both connectors show of a negotiation or a transfer.
type view struct {
	ID          string `json:"@id"`
	State       string `json:"state"`
	Peer        string `json:"correlationId"`
	Agreement   string `json:"contractAgreementId"`
	ErrorDetail string `json:"errorDetail"`
}

const (
	negotiations = "/contractnegotiations"
	transfers    = "/transferprocesses"
)

func (c *connector) view(t *testing.T, kind, id string) (v view) {
	t.Helper()
	c.call(t, http.MethodGet, kind+"/"+id, nil, &v)
	if strings.HasPrefix(v.State, "DEPROVISION") { // what EDC does after the end of a transfer
		v.State = "TERMINATED"
	}
	return v
}

// counterpart finds the own process that belongs to one of the counterparty.
func (c *connector) counterpart(t *testing.T, kind, peer string) (found view) {
	t.Helper()
	until(t, c.name+": the process of "+peer, func() (bool, string) {
		var all []view
		c.call(t, http.MethodPost, kind+"/request", object{"@type": "QuerySpec", "limit": 1000, "filterExpression": []any{}}, &all)
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

// request starts a negotiation about an offer.
func (c *connector) request(t *testing.T, provider *connector, asset string, offer object) string {
	t.Helper()
	policy := object{"@context": "http://www.w3.org/ns/odrl.jsonld"}
	for k, v := range offer {
		policy[k] = v
	}
	policy["assigner"], policy["target"] = provider.id, asset
	var made view
	c.call(t, http.MethodPost, negotiations, object{"@type": "ContractRequest", "counterPartyAddress": provider.address, "counterPartyId": provider.id,
		"protocol": protocol, "policy": policy}, &made)
	return made.ID
}

// reaches waits for a state of a process; another end is an error.
func (c *connector) reaches(t *testing.T, kind, id, state string) view {
	t.Helper()
	v := c.ends(t, kind, id, state)
	if v.State != state {
		t.Fatalf("%s: %s %s is %s instead of %s: %s", c.name, kind[1:], id, v.State, state, v.ErrorDetail)
	}
	return v
}

// ends waits for a state of a process, or its end.
func (c *connector) ends(t *testing.T, kind, id, state string) (v view) {
	t.Helper()
	until(t, fmt.Sprintf("%s: %s %s is %s", c.name, kind[1:], id, state), func() (bool, string) {
		v = c.view(t, kind, id)
		return v.State == state || v.State == "FINALIZED" || v.State == "TERMINATED" || v.State == "COMPLETED", v.State + " " + v.ErrorDetail
	})
	return v
}

// pair is a process as both sides have it.
type pair struct {
	kind               string
	consumer, provider *connector
	mine, theirs       string // ids at the consumer and at the provider
}

// both waits until both sides are at a state.
func (p pair) both(t *testing.T, state string) (mine, theirs view) {
	t.Helper()
	return p.consumer.reaches(t, p.kind, p.mine, state), p.provider.reaches(t, p.kind, p.theirs, state)
}

// command gives one side a command: suspend, resume or terminate.
func (p pair) command(t *testing.T, side *connector, verb string) {
	t.Helper()
	id := p.mine
	if side == p.provider {
		id = p.theirs
	}
	body := object{"@id": id, "reason": "asked for by " + side.name}
	if verb == "resume" {
		delete(body, "reason")
	} else {
		body["@type"] = map[string]string{transfers: strings.ToUpper(verb[:1]) + verb[1:] + "Transfer", negotiations: "TerminateNegotiation"}[p.kind]
	}
	side.call(t, http.MethodPost, p.kind+"/"+id+"/"+verb, body, nil)
}

// negotiate brings a negotiation about an asset to a state on both sides. EDC ends some of its negotiations itself when its own
// messages overtake each other; that is told, and tried again.
func (c *connector) negotiate(t *testing.T, provider *connector, asset, state string) pair {
	t.Helper()
	offer := c.offerOf(t, provider, asset)
	for attempt := 1; ; attempt++ {
		p := pair{kind: negotiations, consumer: c, provider: provider, mine: c.request(t, provider, asset, offer)}
		v := c.ends(t, negotiations, p.mine, state)
		p.theirs = provider.counterpart(t, negotiations, p.mine).ID
		w := provider.ends(t, negotiations, p.theirs, state)
		if v.State == state && w.State == state {
			return p
		}
		v.ErrorDetail += " " + w.ErrorDetail
		if attempt == 3 || !strings.Contains(v.ErrorDetail, "409") && !strings.Contains(v.ErrorDetail, "cannot be") {
			t.Fatalf("negotiation %s of %s is %s instead of %s: %s", p.mine, c.name, v.State, state, v.ErrorDetail)
		}
		t.Logf("EDC ended negotiation %s by itself (%s); trying again", p.mine, v.ErrorDetail)
	}
}

// agreement negotiates an asset to the end.
func (c *connector) agreement(t *testing.T, provider *connector, asset string) string {
	t.Helper()
	p := c.negotiate(t, provider, asset, "FINALIZED")
	agreed := c.view(t, negotiations, p.mine).Agreement
	var mine, theirs struct {
		ID string `json:"agreementId"`
	}
	c.call(t, http.MethodGet, negotiations+"/"+p.mine+"/agreement", nil, &mine)
	provider.call(t, http.MethodGet, negotiations+"/"+p.theirs+"/agreement", nil, &theirs)
	if agreed == "" || mine != theirs {
		t.Fatalf("%s has agreement %s, %s has %s", c.name, mine.ID, provider.name, theirs.ID)
	}
	return agreed
}

// transfer starts a transfer of an asset, negotiated for that.
func (c *connector) transfer(t *testing.T, provider *connector, asset string) pair {
	t.Helper()
	var made view
	c.call(t, http.MethodPost, transfers, object{"@type": "TransferRequest", "counterPartyAddress": provider.address, "connectorId": provider.id, "counterPartyId": provider.id,
		"protocol": protocol, "contractId": c.agreement(t, provider, asset), "transferType": "HttpData-PULL"}, &made)
	p := pair{kind: transfers, consumer: c, provider: provider, mine: made.ID, theirs: provider.counterpart(t, transfers, made.ID).ID}
	p.both(t, "STARTED")
	return p
}

// edr is where data is fetched and with which token.
type edr struct{ endpoint, token string }

// access reads the consumer's endpoint data reference.
func (p pair) access(t *testing.T) (out edr) {
	t.Helper()
	until(t, p.consumer.name+": the EDR of "+p.mine, func() (bool, string) {
		var raw object
		err := p.consumer.try(http.MethodGet, "/edrs/"+p.mine+"/dataaddress", nil, &raw)
		for k, v := range raw {
			switch strings.TrimPrefix(k, edcNamespace) {
			case "endpoint":
				out.endpoint, _ = v.(string)
			case "authorization":
				out.token, _ = v.(string)
			}
		}
		return err == nil && out.endpoint != "" && out.token != "", fmt.Sprint(err)
	})
	return out
}

// fetch reads the data with the token as it stands in the EDR, as EDC's clients do.
func (e edr) fetch(t *testing.T) (int, string) {
	t.Helper()
	status, body, err := send(http.MethodGet, e.endpoint, map[string]string{"Authorization": e.token}, nil)
	must(t, err)
	return status, string(body)
}

// served checks that the EDR opens the data.
func (e edr) served(t *testing.T, data string) {
	t.Helper()
	if status, body := e.fetch(t); status != http.StatusOK || body != data {
		t.Fatalf("fetching answers %d %q, want 200 %q", status, body, data)
	}
}

// refused checks that the EDR does not open the data any more.
func (e edr) refused(t *testing.T) {
	t.Helper()
	until(t, "the token is refused", func() (bool, string) {
		status, body := e.fetch(t)
		return status == http.StatusUnauthorized || status == http.StatusForbidden, fmt.Sprint(status, " ", body)
	})
}
