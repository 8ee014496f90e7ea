// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

// pictured is a dataspace with two cells, a participant whose connector does not answer, and an agreement with a party of elsewhere.
func pictured(t *testing.T) *bundle {
	t.Helper()
	b := setup(t)
	b.answer("GET /api/v1/cells", client.CellList{Items: []client.Cell{
		{Name: "shared", Spec: client.CellSpec{Type: "shared", Hostname: "shared.example", OperatingParty: "Kaphera Cloud"}},
		{Name: "plant-7", Spec: client.CellSpec{Type: "on-premise", Hostname: "plant.example", OperatingParty: `Brandt "Guss" <GmbH>`}},
	}})
	b.answer("GET /api/v1/dataspace-profiles", client.DataspaceProfileList{Items: []client.DataspaceProfile{
		{Name: "automotive", Spec: client.DataspaceProfileSpec{Issuers: []client.Issuer{{Name: "authority", Cell: "shared", Hostname: "issuer.example"}}}},
	}})
	participant := func(name, organization, cell, did string) client.Participant {
		p := client.Participant{Name: name, Spec: client.ParticipantSpec{Organization: organization, Cell: cell, Profile: "automotive"}}
		p.Status.DID = did
		return p
	}
	b.answer("GET /api/v1/participants", client.ParticipantList{Items: []client.Participant{
		participant("oem", "rheintal-motoren", "shared", oemDID), participant("supplier", "brandt-guss", "plant-7", supplierDID), participant("third", "third", "shared", "did:web:third"),
	}})
	b.answer("GET /api/v1/status", report())
	between := client.Agreement{ID: "a1", AssetID: "pcf", UseCase: "carbon-footprint", Provider: supplierDID, Consumer: oemDID}
	again := between
	again.ID = "a2"
	asConsumer := between
	asConsumer.UseCase = ""
	b.answer("GET /api/v1/participants/oem/agreements", client.AgreementList{Items: []client.Agreement{asConsumer, again,
		{ID: "a3", AssetID: "shop&co\x1b", Provider: oemDID, Consumer: "did:web:elsewhere.example"}}})
	b.answer("GET /api/v1/participants/supplier/agreements", client.AgreementList{Items: []client.Agreement{between, again}})
	b.on("GET /api/v1/participants/third/agreements", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(client.Problem{Status: 503, Detail: "cell shared is not connected"})
	})
	return b
}

func TestTheDataspaceIsDrawn(t *testing.T) {
	b := pictured(t)
	b.golden("graph-mermaid", b.run("graph"))
	file := filepath.Join(b.home, "dataspace.svg")
	if r := b.run("graph", "--format", "svg", "--to", file); r.code != ExitOK || !strings.Contains(r.err, "agreements of third") {
		t.Fatalf("%d %s%s", r.code, r.out, r.err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b.golden("graph-svg", result{out: string(raw)})
	words := map[string]bool{}
	for d := xml.NewDecoder(strings.NewReader(string(raw))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
		if text, ok := token.(xml.CharData); ok {
			words[string(text)] = true
		}
	}
	for _, want := range []string{"oem", "supplier", "third", "authority", `cell plant-7 (on-premise), operated by Brandt "Guss" <GmbH>`, "carbon-footprint ×2", "shop&co ", "did:web:elsewhere.example"} {
		if !words[want] {
			t.Errorf("the picture does not say %q", want)
		}
	}
	var g graph
	if r := b.run("graph", "-o", "json"); r.code != ExitOK || json.Unmarshal([]byte(r.out), &g) != nil || len(g.Cells) != 2 || len(g.Agreements) != 2 || len(g.Unknown) != 1 {
		t.Errorf("%d %s%s", r.code, r.out, r.err)
	}
	if r := b.run("graph", "--format", "png"); r.code != ExitUsage {
		t.Errorf("a format that there is not: %d %s", r.code, r.err)
	}
}
