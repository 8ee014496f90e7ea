// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

// tryOutPlatform answers for two cells, of which one is an organization's, and for a participant on each; data is what each fetches of the other.
func tryOutPlatform(b *bundle, data map[string]string) {
	cells := []client.Cell{{Name: "tier1", Spec: client.CellSpec{Type: "dedicated", Organization: "lindner"}}, {Name: "shared", Spec: client.CellSpec{Type: "shared"}}}
	b.answer("GET /api/v1/cells", client.CellList{Items: cells})
	for _, c := range cells {
		b.answer("GET /api/v1/cells/"+c.Name, c)
	}
	b.answer("GET /api/v1/dataspace-profiles/automotive", client.DataspaceProfile{Name: "automotive", Spec: client.DataspaceProfileSpec{
		RequiredCredentials: []string{"MembershipCredential"},
		Issuers:             []client.Issuer{{Name: "a", CredentialTypes: []client.CredentialType{{Type: "MembershipCredential", RequiredClaims: []string{"holderIdentifier", "memberOf"}}, {Type: "Other", RequiredClaims: []string{"x"}}}}},
	}})
	const name = "counterpart-id-1"
	b.answer("PUT /api/v1/use-cases/"+name, client.UseCase{Name: name})
	b.answer("DELETE /api/v1/use-cases/"+name, nil)
	b.disposable(name+"-here", name+"-there")
	end := negotiation("REQUESTED", "AGREED", "FINALIZED")
	for at, other := range map[string]string{"here": "there", "there": "here"} {
		of := "/api/v1/participants/" + name + "-" + at
		b.answer("PUT "+of+"/assets/did-document", client.Asset{ID: "did-document"})
		b.answer("POST "+of+"/offers", client.Offer{ID: "offer-of-" + at, State: "Offered"})
		b.answer("GET "+of+"/catalog", client.CatalogItemList{Items: []client.CatalogItem{{OfferID: "offer-of-" + other, AssetID: "did-document", UseCase: name}}})
		b.answer("POST "+of+"/negotiations", negotiation("REQUESTED"))
		b.on("GET "+of+"/negotiations/n1/events", events(negotiation("REQUESTED"), end))
		b.answer("POST "+of+"/transfers", client.Transfer{ID: "t1", State: "STARTED"})
		b.answer("GET "+of+"/transfers/t1/data", map[string]string{"id": data[at]})
	}
}

func TestCellCounterpart(t *testing.T) {
	whole := map[string]string{"here": "did:web:counterpart-id-1-there", "there": "did:web:counterpart-id-1-here"}
	for name, c := range map[string]struct {
		spoil  func(b *bundle)
		failed []string // steps, as consumer's cell and name
		code   int
		says   string
	}{
		"all is well": {func(*bundle) {}, nil, ExitOK, "in both directions"},
		"another's data": {func(b *bundle) {
			b.answer("GET /api/v1/participants/counterpart-id-1-here/transfers/t1/data", map[string]string{"id": "did:web:elsewhere"})
		}, []string{"tier1 data"}, ExitFailed, "is not the DID document of did:web:counterpart-id-1-there"},
		"no negotiation": {func(b *bundle) {
			b.on("POST /api/v1/participants/counterpart-id-1-there/negotiations", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, http.StatusServiceUnavailable, "counterparty-unreachable", "connection refused")
			})
		}, []string{"shared negotiation"}, ExitFailed, "connection refused"},
		"no participant": {func(b *bundle) {
			b.on("PUT /api/v1/participants/counterpart-id-1-there", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, http.StatusConflict, "quota", "the cell is full")
			})
		}, []string{" setup"}, ExitFailed, "the cell is full"},
		"something stays": {func(b *bundle) {
			b.on("DELETE /api/v1/use-cases/counterpart-id-1", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, http.StatusConflict, "in-use", "it is in use")
			})
		}, []string{" removal"}, ExitFailed, "it is in use"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			tryOutPlatform(b, whole)
			c.spoil(b)
			r := b.run("cell", "counterpart", "tier1", "--profile", "automotive")
			if r.code != c.code || !strings.Contains(r.out, c.says) {
				t.Fatalf("exit %d\n%s%s", r.code, r.out, r.err)
			}
			b = setup(t)
			tryOutPlatform(b, whole)
			c.spoil(b)
			r = b.run("cell", "counterpart", "tier1", "--profile", "automotive", "-o", "json")
			var report CounterpartReport
			if err := json.Unmarshal([]byte(r.out), &report); err != nil || r.code != c.code {
				t.Fatalf("exit %d, %v\n%s%s", r.code, err, r.out, r.err)
			}
			var failed []string
			for _, s := range report.Steps {
				if s.Result == "failed" {
					failed = append(failed, s.Consumer+" "+s.Name)
				}
			}
			if !slices.Equal(failed, c.failed) || report.Passed != (failed == nil) || len(report.Steps) != 10 {
				t.Errorf("failed %v of %+v", failed, report)
			}
			for _, gone := range []string{"participants/counterpart-id-1-here", "participants/counterpart-id-1-there", "organizations/counterpart-id-1-there", "use-cases/counterpart-id-1"} {
				if len(b.called("DELETE /api/v1/"+gone)) == 0 {
					t.Errorf("%s stays", gone)
				}
			}
			// On an organization's cell nobody else may be.
			if put := b.called("PUT /api/v1/participants/counterpart-id-1-here "); len(put) != 1 || !strings.Contains(put[0], `"organization":"lindner"`) || !strings.Contains(put[0], `"memberOf":"try-out of a cell"`) {
				t.Errorf("made with %v", put)
			}
			if calls := append(b.called("PUT /api/v1/organizations/lindner"), b.called("DELETE /api/v1/organizations/lindner")...); len(calls) > 0 {
				t.Errorf("the cell's organization was touched: %v", calls)
			}
		})
	}
}

func TestCellCounterpartNeedsCells(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"no such cell":         {[]string{"elsewhere", "--profile", "automotive"}, ExitNotFound},
		"no such cell for it":  {[]string{"tier1", "--profile", "automotive", "--on", "elsewhere"}, ExitNotFound},
		"no such profile":      {[]string{"tier1", "--profile", "other"}, ExitNotFound},
		"no profile":           {[]string{"tier1"}, ExitUsage},
		"no cell":              {[]string{"--profile", "automotive"}, ExitUsage},
		"only dedicated cells": {[]string{"tier1", "--profile", "automotive"}, ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			tryOutPlatform(b, nil)
			if name == "only dedicated cells" {
				b.answer("GET /api/v1/cells", client.CellList{Items: []client.Cell{{Name: "tier1", Spec: client.CellSpec{Type: "dedicated"}}}})
			}
			if r := b.run(append([]string{"cell", "counterpart"}, c.args...)...); r.code != c.code || len(b.called("PUT ")) > 0 {
				t.Errorf("exit %d, want %d; made %v\n%s", r.code, c.code, b.called("PUT "), r.err)
			}
		})
	}
}
