// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/connector/dsp/wire"
)

var everyType = []string{wire.CatalogRequest, wire.ContractRequest, wire.ContractOffer, wire.ContractAgreement, wire.ContractVerification,
	wire.NegotiationEvent, wire.NegotiationTermination, wire.TransferRequest, wire.TransferStart, wire.TransferSuspension, wire.TransferCompletion,
	wire.TransferTermination, wire.ContractNegotiation, wire.TransferProcess, wire.CatalogError, wire.NegotiationError, wire.TransferError}

func addRecordings(f *testing.F) {
	files, err := filepath.Glob("testdata/edc/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
}

// FuzzMessage: whatever is taken for a message is one that can be stored and sent on, and reads the same again; every refusal says where.
func FuzzMessage(f *testing.F) {
	addRecordings(f)
	f.Add([]byte(`{` + ctx + `,"@type":"ContractOfferMessage","providerPid":"p","callbackAddress":"http://x","offer":{"@id":"o","@type":"Offer","target":"a","permission":{"action":"use"}}}`))
	f.Add([]byte(`{` + ctx + `,"@type":"TransferStartMessage","providerPid":"p","consumerPid":"c","dataAddress":{"endpointType":"t","endpointProperties":[{"name":"a","value":"b"}]}}`))
	f.Add([]byte(`{` + ctx + `,"@type":"CatalogRequestMessage","filter":[{"offset":1},7]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := wire.Parse(raw, everyType...)
		if err != nil {
			var we *wire.Error
			if !errors.As(err, &we) || !strings.HasPrefix(we.Path, "$") || we.Message == "" {
				t.Fatalf("error without a path: %v", err)
			}
			return
		}
		if strings.ContainsRune(m.ID+m.ProviderPID+m.ConsumerPID+m.CallbackAddress+m.AgreementID, 0) {
			t.Fatal("an id with a NUL, which no database takes")
		}
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := wire.Parse(out, m.Type)
		if err != nil {
			t.Fatalf("not read again: %v: %s", err, out)
		}
		m.Filter, again.Filter, m.Policy, again.Policy, m.Offer, again.Offer, m.Agreement, again.Agreement = nil, nil, nil, nil, nil, nil, nil, nil
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("reads otherwise again: %s", diff)
		}
	})
}

// FuzzCatalog: an offer that is found is the one that was asked for, and gets its target.
func FuzzCatalog(f *testing.F) {
	addRecordings(f)
	f.Add([]byte(`{"@type":"Catalog","dataset":{"@id":"a","hasPolicy":{"@id":"o","@type":"Offer","permission":{"action":"use"}},"distribution":{"format":{"@id":"x"}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, datasets, err := wire.ParseCatalog(raw)
		if err != nil {
			return
		}
		for _, d := range datasets {
			if d.ID == "" {
				t.Fatal("a dataset without an id")
			}
			for _, o := range d.Offers {
				var named struct {
					ID string `json:"@id"`
				}
				if json.Unmarshal(o, &named) != nil || named.ID == "" {
					continue
				}
				found, policy, of, err := wire.FindOffer(datasets, named.ID)
				if err != nil || found == nil {
					continue
				}
				with, err := wire.WithTarget(found, of.ID, "did:web:p")
				if policy.ID != named.ID || err != nil || !json.Valid(with) {
					t.Fatalf("%q: %+v, %v, %s", named.ID, policy, err, with)
				}
			}
		}
	})
}

func FuzzOfferID(f *testing.F) {
	f.Add("ZGVm:YXNzZXQ=:aGFzaA==")
	f.Add("CD123:ACN0101:456")
	f.Fuzz(func(t *testing.T, id string) {
		definition, asset, err := wire.SplitOfferID(id)
		if err != nil && definition+asset != "" {
			t.Errorf("%q gives %q and %q in spite of %v", id, definition, asset, err)
		}
	})
}
