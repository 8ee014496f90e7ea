// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp"
)

// A connector that is reached over https takes no address to which a token would go in clear: not from a message, a person or a DID document.
func TestPlainHTTPAddressesAreRefused(t *testing.T) {
	who := newPeople()
	s := newSide(t, who, "supplier", supplier, func(o *dsp.Options) { o.Decider, o.AllowPlainHTTP = idle{}, false })
	offerID := s.offer("pcf", openPolicy)
	request := s.requestBody(offerID, "c-1")
	transfer := func(callback string) string {
		return `{` + head + `,"@type":"TransferRequestMessage","consumerPid":"t","agreementId":"none","format":"HttpData-PULL","callbackAddress":"` + callback + `"}`
	}
	start := func(endpoint string) string {
		return `{` + head + `,"@type":"TransferStartMessage","consumerPid":"t","providerPid":"p","dataAddress":{"@type":"DataAddress",` + endpoint + `}}`
	}
	for name, tc := range map[string]struct {
		path, body string
		member     string // that is named; empty: the address is no reason to refuse
	}{
		"callback of a negotiation":    {"/negotiations/request", request, "$.callbackAddress"},
		"callback of a transfer":       {"/transfers/request", transfer("http://buyer.example/dsp"), "$.callbackAddress"},
		"callback, other spelling":     {"/transfers/request", transfer("HTTP://buyer.example/dsp"), "$.callbackAddress"},
		"data address":                 {"/transfers/t/start", start(`"endpointType":"x","endpoint":"http://buyer.example/data"`), "$.dataAddress.endpoint"},
		"data address in EDC's form":   {"/transfers/t/start", start(`"endpointType":"x","endpointProperties":[{"@type":"EndpointProperty","name":"https://w3id.org/edc/v0.0.1/ns/endpoint","value":"http://buyer.example/data"}]`), "$.dataAddress.endpoint"},
		"callback over https":          {"/transfers/request", transfer("https://buyer.example/dsp"), ""},
		"data address over https":      {"/transfers/t/start", start(`"endpointType":"x","endpoint":"https://buyer.example/data"`), ""},
		"data address without an http": {"/transfers/t/start", start(`"endpointType":"x","endpoint":"kafka.buyer.example:9092"`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := s.send(http.MethodPost, tc.path, s.as(buyer), tc.body)
			said := fmt.Sprint(body["reason"])
			if tc.member != "" && (status != http.StatusBadRequest || !strings.Contains(said, tc.member) || !strings.Contains(said, "https")) {
				t.Errorf("answers %d %v, want 400 naming %s", status, body, tc.member)
			}
			if tc.member == "" && status != http.StatusNotFound {
				t.Errorf("answers %d %v, want 404: there is no such process", status, body)
			}
		})
	}
	who.Lock()
	who.endpoints[buyer] = "http://buyer.example/dsp"
	who.Unlock()
	for name, given := range map[string]string{"from a person": "http://buyer.example/dsp", "from the DID document": ""} {
		_, err := s.engine.Negotiate(t.Context(), s.ctx, adminapi.NegotiationRequest{Counterparty: buyer, Address: given, OfferID: "x"})
		if err == nil || !strings.Contains(err.Error(), "plain http") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
