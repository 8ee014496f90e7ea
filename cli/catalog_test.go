// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

func TestTheCatalogOfAPartner(t *testing.T) {
	b := setup(t)
	const call = "GET /api/v1/participants/oem/catalog"
	items := []client.CatalogItem{{OfferID: "o1", AssetID: "pcf", UseCase: "carbon-footprint", Properties: map[string]any{"title": "Footprint"}, Sentences: []string{"younger than 12 months"}, Formats: []string{}}}
	b.on(call, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("counterparty") != "supplier" {
			t.Errorf("asked for %s", r.URL.RawQuery)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(client.CatalogItemList{Items: items})
	})
	if r := b.run("catalog", "oem", "--of", "supplier"); r.code != ExitOK || !strings.Contains(r.out, "Footprint (asset pcf)") || !strings.Contains(r.out, "younger than 12 months") || !strings.Contains(r.out, "offer o1") {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	items = []client.CatalogItem{}
	if r := b.run("catalog", "oem", "--of", "supplier"); r.code != ExitOK || !strings.Contains(r.out, "no offer") {
		t.Errorf("an empty one: %d %s%s", r.code, r.out, r.err)
	}
	if r := b.run("catalog", "oem"); r.code != ExitUsage {
		t.Errorf("of nobody: %d", r.code)
	}
}

func TestAnAgreementIsPrintedAsItIs(t *testing.T) {
	b := setup(t)
	const document = "{ \"@type\" : \"Agreement\",\n\t\"a\": \"<&>\" }"
	b.on("GET /api/v1/participants/oem/agreements/a1/document", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(document))
	})
	for _, output := range []string{"table", "json"} {
		if r := b.run("agreement", "oem", "a1", "-o", output); r.code != ExitOK || r.out != document {
			t.Errorf("%s: %d %q %s", output, r.code, r.out, r.err)
		}
	}
}

func TestTransfersArePaused(t *testing.T) {
	b := setup(t)
	for verb, args := range map[string][]string{"suspend": {"--reason", "repair"}, "resume": nil} {
		call := "POST /api/v1/participants/oem/transfers/t1/" + verb
		b.on(call, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(client.Transfer{ID: "t1", State: "STARTED"})
		})
		r := b.run(append([]string{verb, "transfer", "t1", "-p", "oem"}, args...)...)
		if got := b.called(call); r.code != ExitOK || len(got) != 1 || verb == "suspend" && !strings.Contains(got[0], `"repair"`) {
			t.Errorf("%s: %d %s%s %v", verb, r.code, r.out, r.err, got)
		}
		b.on(call, func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusConflict, "conflict", "it is COMPLETED")
		})
		if r := b.run(verb, "transfer", "t1", "-p", "oem"); r.code != ExitFailed || !strings.Contains(r.err, "COMPLETED") {
			t.Errorf("%s after the end: %d %s", verb, r.code, r.err)
		}
	}
}
