// SPDX-License-Identifier: Apache-2.0

package management

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
)

// FuzzDataRequest: the token of a transfer goes nowhere but beneath the address that the provider gave for it.
func FuzzDataRequest(f *testing.F) {
	for _, endpoint := range []string{"https://p.example/oem/data/flow", "https://p.example/public?x=1", "http://p.example", "ftp://p.example/", "https://u:p@p.example/a/../b"} {
		for _, below := range []string{"", "pcf.json", "../../other", "a%2F..%2Fb", "//evil.example/", `..\x`} {
			f.Add(endpoint, below, "limit=1")
		}
	}
	f.Fuzz(func(t *testing.T, endpoint, below, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetPathValue("path", below)
		r.URL.RawQuery = query
		req, err := dataRequest(r, &dps.DataAddress{Endpoint: endpoint, Properties: map[string]string{"authorization": "token"}})
		if err != nil {
			return
		}
		given, err := url.Parse(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		under := strings.TrimSuffix(path.Clean("/"+given.Path), "/")
		if req.URL.Hostname() != given.Hostname() || req.URL.Port() != given.Port() || req.URL.Scheme != given.Scheme || req.Header.Get("Authorization") != "Bearer token" {
			t.Fatalf("%q below %q asks %s", below, endpoint, req.URL)
		}
		if asked := path.Clean("/" + req.URL.Path); asked != under && !strings.HasPrefix(asked, under+"/") && below != "" {
			t.Fatalf("%q below %q asks for %s", below, endpoint, req.URL)
		}
	})
}

// FuzzBody: a body is refused as the caller's mistake, or reads the same when it is written again.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`{"id":"a","properties":{"title":"x"},"dataAddress":{"type":"HttpData","baseUrl":"https://b.example"}}`))
	f.Add([]byte(`{"assets":["a"],"useCase":"pcf","contractPolicy":{"permission":[{"action":"use"}]},"gates":[{"name":"release","type":"approval","before":"AGREED","deadline":"P1D","required":1}]}`))
	f.Add([]byte(`{"counterparty":"did:web:p","offerId":"o","assetId":"a"}`))
	f.Add([]byte(`{"agreementId":"a","format":"HttpData-PULL"}`))
	f.Add([]byte(`{"decision":"a.b.c"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		same[adminapi.Asset](t, body)
		same[adminapi.Offer](t, body)
		same[adminapi.Secret](t, body)
		same[adminapi.SignedDecision](t, body)
		same[adminapi.Participant](t, body)
		same[adminapi.Profile](t, body)
		same[adminapi.NegotiationRequest](t, body)
		same[adminapi.OfferRequest](t, body)
		same[adminapi.CounterOffer](t, body)
		same[adminapi.TransferRequest](t, body)
		same[adminapi.UseCaseRevision](t, body)
		same[dps.AccessRequest](t, body)
	})
}

func same[T any](t *testing.T, body []byte) {
	t.Helper()
	read := func(raw []byte) (T, error) {
		return decode[T](httptest.NewRequest(http.MethodPut, "/", strings.NewReader(string(raw))))
	}
	v, err := read(body)
	if err != nil {
		if refusal := new(dsp.RefusalError); !errors.As(err, &refusal) || refusal.Status/100 != 4 {
			t.Fatalf("not a refusal: %v", err)
		}
		return
	}
	first, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	again, err := read(first)
	if err != nil {
		t.Fatalf("%s is not read again: %v", first, err)
	}
	if second, err := json.Marshal(again); err != nil || string(first) != string(second) {
		t.Fatalf("%s reads as %s, %v", first, second, err)
	}
}
