// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/client"
)

func (b *bundle) catalog(items ...client.CatalogItem) {
	b.answer("GET /api/v1/participants/oem/catalog", client.CatalogItemList{Items: items})
}

var anOffer = client.CatalogItem{OfferID: "o1", AssetID: "pcf", Properties: map[string]any{"name": "Carbon footprint"}, Sentences: []string{"The provider's attestation is younger than 12 months."}, UseCase: "carbon-footprint"}

func TestNegotiatingPrintsEachStepAndWhatItRestsOn(t *testing.T) {
	b := setup(t)
	b.catalog(anOffer)
	b.answer("POST /api/v1/participants/oem/negotiations", negotiation("REQUESTED"))
	agreed := negotiation("REQUESTED", "AGREED")
	agreed.Traces = []client.Trace{trace("2026-06-01T00:00:00Z", true)}
	final := negotiation("REQUESTED", "AGREED", "VERIFIED", "FINALIZED")
	final.Traces = agreed.Traces
	b.on("GET /api/v1/participants/oem/negotiations/n1/events", events(negotiation("REQUESTED"), agreed, final))
	b.golden("negotiate", b.run("negotiate", "oem", "--with", "supplier", "--use-case", "carbon-footprint"))
	if got := b.called("POST /api/v1/participants/oem/negotiations"); len(got) != 1 || !strings.Contains(got[0], `"id":"id-1"`) || !strings.Contains(got[0], `"offerId":"o1"`) {
		t.Errorf("asked %v", got)
	}
	b.tty = true
	b.golden("negotiate-tty", b.run("negotiate", "oem", "--with", "supplier", "--use-case", "carbon-footprint"))
	b.tty = false
	if r := b.run("negotiate", "oem", "--with", "supplier", "--offer", "o1", "-o", "json"); r.code != ExitOK || !strings.HasPrefix(r.out, "{") || !strings.Contains(r.out, `"agreementId": "agreement-1"`) {
		t.Errorf("as JSON: %d %s", r.code, r.out)
	}
}

func TestARefusalNamesConstraintValueAndRemedy(t *testing.T) {
	b := setup(t)
	b.catalog(anOffer)
	b.answer("POST /api/v1/participants/oem/negotiations", negotiation("REQUESTED"))
	refused := negotiation("REQUESTED", "AGREED", "TERMINATED")
	refused.Traces = []client.Trace{trace("2025-09-01T00:00:00Z", false)}
	refused.Reason = client.Reason{Code: "policy-denied", By: "own", Message: "the attestation is 13 months old"}
	b.on("GET /api/v1/participants/oem/negotiations/n1/events", events(refused))
	b.golden("negotiate-refused", b.run("negotiate", "oem", "--with", "supplier", "--use-case", "carbon-footprint"))
}

func TestNegotiationsThatGoOtherwise(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(b *bundle)
		args    []string
		code    int
		words   string
	}{
		"nothing is offered":  {func(b *bundle) { b.catalog() }, nil, ExitNotFound, "supplier shows oem no offer under use case carbon-footprint"},
		"too much is offered": {func(b *bundle) { b.catalog(anOffer, client.CatalogItem{OfferID: "o2", AssetID: "other"}) }, nil, ExitUsage, "o2 (asset other)"},
		"the partner ends it": {func(b *bundle) {
			n := negotiation("REQUESTED", "TERMINATED")
			n.Reason = client.Reason{Code: "counterparty-terminated", By: "counterparty", Message: "not with you"}
			b.on("GET /api/v1/participants/oem/negotiations/n1/events", events(n))
		}, nil, ExitFailed, "the counterparty said no: not with you"},
		"it takes too long": {func(b *bundle) {
			b.on("GET /api/v1/participants/oem/negotiations/n1/events", func(w http.ResponseWriter, r *http.Request) {
				events(negotiation("REQUESTED"))(w, r)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
		}, []string{"--timeout", "1s"}, ExitFailed, "still under way after 1s, in state REQUESTED"},
		"the partner is away meanwhile": {func(b *bundle) {
			n := negotiation("REQUESTED")
			n.Waiting, n.Retry = supplierDID+" to be reachable: it answered 503", client.Retry{Attempts: 3, Error: "it answered 503", Next: noon.Add(time.Minute)}
			b.answer("POST /api/v1/participants/oem/negotiations", n) // known before the first event comes, however late that is
			b.on("GET /api/v1/participants/oem/negotiations/n1/events", func(w http.ResponseWriter, r *http.Request) {
				events(n)(w, r)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			})
		}, []string{"--timeout", "1s"}, ExitFailed, "it waits for supplier to be reachable: it answered 503 (3 attempts so far; the next at 14:01:00 CEST)"},
		"the stream breaks": {func(b *bundle) {
			b.on("GET /api/v1/participants/oem/negotiations/n1/events", events(negotiation("REQUESTED")))
		}, nil, ExitUnreachable,
			"the stream ended while the negotiation was in state REQUESTED"},
		"the partner does not answer": {func(b *bundle) {
			b.on("GET /api/v1/participants/oem/catalog", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, http.StatusBadGateway, "counterparty-unreachable", supplierDID+" does not answer")
			})
		}, nil, ExitUnreachable, "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.catalog(anOffer)
			b.answer("POST /api/v1/participants/oem/negotiations", negotiation("REQUESTED"))
			c.arrange(b)
			r := b.run(append([]string{"negotiate", "oem", "--with", "supplier", "--use-case", "carbon-footprint"}, c.args...)...)
			if r.code != c.code || !strings.Contains(r.err, c.words) || !strings.Contains(r.err, "next:") {
				t.Errorf("exit %d, want %d: %s", r.code, c.code, r.err)
			}
		})
	}
}

func TestTransfers(t *testing.T) {
	b := setup(t)
	started := client.Transfer{ID: "t1", State: "STARTED", AgreementID: "agreement-1", History: []client.Event{{At: noon, State: "REQUESTED"}, {At: noon, State: "STARTED"}}}
	b.answer("POST /api/v1/participants/oem/transfers", client.Transfer{ID: "t1", State: "REQUESTED", History: started.History[:1]})
	b.answer("GET /api/v1/participants/oem/transfers/t1", started)
	b.on("GET /api/v1/participants/oem/transfers/t1/data", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"path":"` + r.URL.Query().Get("path") + `"}`))
	})
	b.golden("transfer", b.run("transfer", "oem", "--agreement", "agreement-1"))
	if r := b.run("transfer", "oem", "--agreement", "agreement-1", "--fetch"); r.out != `{"path":""}`+"\n" {
		t.Errorf("fetched %d %s%s", r.code, r.out, r.err)
	}
	file := t.TempDir() + "/data.json"
	if r := b.run("transfer", "oem", "--agreement", "agreement-1", "--fetch", "/items?a=b", "--to", file); r.code != ExitOK || !strings.Contains(r.out, "21 bytes written") {
		t.Errorf("to a file: %d %s%s", r.code, r.out, r.err)
	}
	if r := b.run("transfer", "oem", "/items", "--agreement", "agreement-1"); r.code != ExitUsage {
		t.Errorf("a path without --fetch: %d %s", r.code, r.err)
	}
	b.answer("GET /api/v1/participants/oem/transfers/t1", client.Transfer{ID: "t1", State: "TERMINATED", History: []client.Event{}, Reason: client.Reason{Code: "policy-denied", Message: "the agreement has ended"}})
	if r := b.run("transfer", "oem", "--agreement", "agreement-1", "--fetch"); r.code != ExitRefused || !strings.Contains(r.err, "the agreement has ended") {
		t.Errorf("refused: %d %s", r.code, r.err)
	}
	b.answer("GET /api/v1/participants/oem/transfers/t1", client.Transfer{ID: "t1", State: "REQUESTED", History: []client.Event{}})
	if r := b.run("transfer", "oem", "--agreement", "agreement-1", "--timeout", "20ms"); r.code != ExitFailed || !strings.Contains(r.err, "has not opened access after 20ms") {
		t.Errorf("too slow: %d %s", r.code, r.err)
	}
}
