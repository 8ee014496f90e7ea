// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/profile"
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

// mockKaphera is our connector with the mock identity and one participant.
func mockKaphera(t *testing.T, name string) *connector {
	t.Helper()
	k := startKaphera(t, name, "control-plane,data-plane", config.Config{}, mockIdentity+"=1")
	k.call(t, http.MethodPut, "/admin/v1/profiles/open", profile.Profile{Name: "open", Protocol: protocol}, nil)
	k.call(t, http.MethodPut, "/admin/v1/participants/"+name, adminapi.Participant{DID: k.did(name), Profile: "open", Active: true}, nil)
	return k.as(name)
}

func mockEDC(t *testing.T, name string, wait int) *connector {
	t.Helper()
	// The bare name would not do: "edc" is a term of EDC's own JSON-LD context, so it cannot read it as an id.
	return startEDC(t, name, "mock", []string{"Loopback", "DataEndpoint"}, "did:web:"+name+".example", wait, nil)
}

func TestMockIdentity(t *testing.T) {
	source := backend(t)
	ours, edc := mockKaphera(t, "kaphera"), mockEDC(t, "edc", 10)
	assets := []string{"pcf", held + "pcf"}
	for i := range 58 { // more than a page
		assets = append(assets, fmt.Sprintf("part-%02d", i))
	}
	for _, c := range []*connector{ours, edc} {
		c.offer(t, "open", source, use(), assets...)
	}
	for _, direction := range [][2]*connector{{ours, edc}, {edc, ours}} {
		t.Run(direction[0].name+" consumes", func(t *testing.T) { exchange(t, direction[0], direction[1], assets) })
	}
	t.Logf("memory after that: Kaphera %d MB, EDC %d MB (-Xmx256m)", ours.process.rss(t), edc.process.rss(t))
}

// exchange is everything that a consumer and a provider do with each other.
func exchange(t *testing.T, consumer, provider *connector, assets []string) {
	check(t, "catalog in pages", func(t *testing.T) {
		seen := map[string]bool{}
		for offset, n := range map[int]int{0: 50, 50: len(assets) - 50} {
			page := consumer.catalog(t, provider, offset, 50)
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
	check(t, "negotiation", func(t *testing.T) { consumer.agreement(t, provider, "pcf") })
	check(t, "transfer", func(t *testing.T) { consumer.transfer(t, provider, "pcf").access(t).served(t, data) })
	for i, by := range []*connector{consumer, provider} {
		role := []string{"consumer", "provider"}[i]
		check(t, "transfer suspended and resumed by the "+role, func(t *testing.T) {
			p := consumer.transfer(t, provider, "pcf")
			before := p.access(t)
			before.served(t, data)
			p.command(t, by, "suspend")
			p.both(t, "SUSPENDED")
			before.refused(t)
			p.command(t, by, "resume")
			p.both(t, "STARTED")
			before.refused(t)
			until(t, "the new token opens the data", func() (bool, string) {
				after := p.access(t)
				status, body := after.fetch(t)
				return after.token != before.token && status == http.StatusOK && body == data, fmt.Sprint(status, " ", body)
			})
		})
		check(t, "transfer terminated by the "+role, func(t *testing.T) {
			p := consumer.transfer(t, provider, "pcf")
			before := p.access(t)
			p.command(t, by, "terminate")
			p.both(t, "TERMINATED")
			before.refused(t)
		})
		check(t, "negotiation terminated by the "+role, func(t *testing.T) {
			waiting := "REQUESTED" // our side is the one that waits
			if consumer.name == "Kaphera" {
				waiting = "AGREED"
			}
			p := consumer.negotiate(t, provider, held+"pcf", waiting)
			p.command(t, by, "terminate")
			mine, theirs := p.both(t, "TERMINATED")
			told := mine.ErrorDetail
			if consumer.name == "EDC" { // which does not keep the reason of a termination that it receives
				told = theirs.ErrorDetail
			}
			if !strings.Contains(told, "asked for by "+by.name) {
				t.Errorf("the reason is %q", told)
			}
		})
	}
	check(t, "unknown offer", func(t *testing.T) {
		offer := consumer.offerOf(t, provider, "pcf")
		offer["@id"] = strings.Replace(offer["@id"].(string), ":", "x:", 1)
		refused(t, consumer, provider, offer)
	})
	check(t, "changed offer", func(t *testing.T) {
		offer := consumer.offerOf(t, provider, "pcf")
		offer["permission"] = []any{use(object{"leftOperand": "https://example.org/never", "operator": "eq", "rightOperand": "x"})}
		refused(t, consumer, provider, offer)
	})
}

// refused requests an offer that the provider did not make.
func refused(t *testing.T, consumer, provider *connector, offer object) {
	t.Helper()
	id := consumer.request(t, provider, "pcf", offer)
	if v := consumer.reaches(t, negotiations, id, "TERMINATED"); v.ErrorDetail == "" {
		t.Error("no reason is given")
	} else {
		t.Log(v.ErrorDetail)
	}
}
