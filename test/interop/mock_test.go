// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/test/interop/rig"
)

const data = `{"pcf":"4.2 kgCO2e"}`

// backend is where both connectors' assets are.
func backend(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, data)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestMockIdentity(t *testing.T) {
	source := backend(t)
	ours, edc := rig.MockKaphera(t, "kaphera"), rig.MockEDC(t, "edc", 10)
	assets := []string{"pcf", rig.Held + "pcf"}
	for i := range 58 { // more than a page
		assets = append(assets, fmt.Sprintf("part-%02d", i))
	}
	for _, c := range []*rig.Connector{ours, edc} {
		c.Offer(t, "open", source, rig.Use(), assets...)
	}
	for _, direction := range [][2]*rig.Connector{{ours, edc}, {edc, ours}} {
		t.Run(direction[0].Name+" consumes", func(t *testing.T) { exchange(t, direction[0], direction[1], assets) })
	}
	t.Logf("memory after that: Kaphera %d MB, EDC %d MB (-Xmx256m)", ours.Process.RSS(t), edc.Process.RSS(t))
}

// exchange is everything that a consumer and a provider do with each other.
func exchange(t *testing.T, consumer, provider *rig.Connector, assets []string) {
	check(t, "catalog in pages", func(t *testing.T) {
		seen := map[string]bool{}
		for offset, n := range map[int]int{0: 50, 50: len(assets) - 50} {
			page := consumer.Catalog(t, provider, offset, 50)
			if len(page) != n {
				t.Errorf("the page from %d has %d data sets, want %d", offset, len(page), n)
			}
			for _, d := range page {
				seen[d.ID] = true
			}
		}
		if len(seen) != len(assets) {
			t.Errorf("%d different data sets, want %d", len(seen), len(assets))
		}
	})
	check(t, "negotiation", func(t *testing.T) { consumer.Agreement(t, provider, "pcf") })
	check(t, "transfer", func(t *testing.T) { consumer.Transfer(t, provider, "pcf").Access(t).Served(t, data) })
	for i, by := range []*rig.Connector{consumer, provider} {
		role := []string{"consumer", "provider"}[i]
		check(t, "transfer suspended and resumed by the "+role, func(t *testing.T) {
			p := consumer.Transfer(t, provider, "pcf")
			before := p.Access(t)
			before.Served(t, data)
			p.Command(t, by, "suspend")
			p.Both(t, "SUSPENDED")
			before.Refused(t)
			p.Command(t, by, "resume")
			p.Both(t, "STARTED")
			before.Refused(t)
			rig.Until(t, "the new token opens the data", func() (bool, string) {
				after := p.Access(t)
				status, body := after.Fetch(t)
				return after.Token != before.Token && status == http.StatusOK && body == data, fmt.Sprint(status, " ", body)
			})
		})
		check(t, "transfer terminated by the "+role, func(t *testing.T) {
			p := consumer.Transfer(t, provider, "pcf")
			before := p.Access(t)
			p.Command(t, by, "terminate")
			p.Both(t, "TERMINATED")
			before.Refused(t)
			ended(t, p, by)
		})
		check(t, "transfer completed by the "+role, func(t *testing.T) {
			p := consumer.Transfer(t, provider, "pcf")
			before := p.Access(t)
			before.Served(t, data)
			p.Complete(t, by)
			p.Both(t, "COMPLETED")
			if by != provider || by.Name == "Kaphera" { // EDC tells its data plane nothing, since that is who completes
				before.Refused(t)
			}
		})
		check(t, "negotiation terminated by the "+role, func(t *testing.T) {
			waiting := "REQUESTED" // our side is the one that waits
			if consumer.Name == "Kaphera" {
				waiting = "AGREED"
			}
			p := consumer.Negotiate(t, provider, rig.Held+"pcf", waiting)
			p.Command(t, by, "terminate")
			p.Both(t, "TERMINATED")
			ended(t, p, by)
		})
	}
	check(t, "unknown offer", func(t *testing.T) {
		offer := consumer.OfferOf(t, provider, "pcf")
		offer["@id"] = strings.Replace(offer["@id"].(string), ":", "x:", 1)
		refused(t, consumer, provider, offer)
	})
	check(t, "changed offer", func(t *testing.T) {
		offer := consumer.OfferOf(t, provider, "pcf")
		offer["permission"] = []any{rig.Use(rig.Object{"leftOperand": "https://example.org/never", "operator": "eq", "rightOperand": "x"})}
		refused(t, consumer, provider, offer)
	})
}

// ended looks at who ended a process, and why, as Kaphera has it; EDC does not keep the reason of a termination that it receives.
func ended(t *testing.T, p rig.Pair, by *rig.Connector) {
	t.Helper()
	r, who := p.Reason(t), map[string]string{"Kaphera": "own", "EDC": "counterparty"}[by.Name]
	if r.By != who || !strings.Contains(r.Message, "asked for by "+by.Name) {
		t.Errorf("the reason is %+v, want one of %s", r, by.Name)
	}
}

// refused requests an offer that the provider did not make.
func refused(t *testing.T, consumer, provider *rig.Connector, offer rig.Object) {
	t.Helper()
	id := consumer.Request(t, provider, "pcf", offer)
	if v := consumer.Reaches(t, rig.Negotiations, id, "TERMINATED"); v.ErrorDetail == "" {
		t.Error("no reason is given")
	} else {
		t.Log(v.ErrorDetail)
	}
}
