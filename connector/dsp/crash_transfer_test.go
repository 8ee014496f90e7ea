// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/store"
)

// The protocol states of the transfers here, and what they carry.
const (
	firstStart  = "REQUESTED STARTED"
	suspended   = firstStart + " SUSPENDED"
	secondStart = suspended + " STARTED"
	completed   = secondStart + " COMPLETED"
	footprint   = `{"value":"4.2 kg"}`
)

// parties are a provider with its data plane and a consumer, in three processes, that have an agreement.
type parties struct {
	t                             *testing.T
	provider, consumer, dataPlane *process
	agreement                     string
	client                        *http.Client
}

// TestTransferKilledAtEveryCommitBoundary runs transfers (start, suspension, resumption, completion) between connectors in processes of their
// own, each time killing one of them at the next boundary of its commits and starting it again. Whatever the consumer holds as the address of
// a started transfer must open the data, and nothing else may; at the end the databases say the same.
func TestTransferKilledAtEveryCommitBoundary(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, footprint) }))
	t.Cleanup(backend.Close)
	// Fewer than there mostly are (30, 24 and 10): a message that overtakes the answer to the one before may save a commit.
	for name, atLeast := range map[string]int{"provider": 16, "consumer": 12, "data plane": 8} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newParties(t, backend.URL)
			victim := map[string]*process{"provider": p.provider, "consumer": p.consumer, "data plane": p.dataPlane}[name]
			for boundary := 1; ; boundary++ {
				victim.stop()
				victim.start(int64(boundary))
				if died := p.transfer(fmt.Sprint("transfer-", boundary)); t.Failed() {
					return
				} else if !died {
					if boundary <= atLeast {
						t.Errorf("the %s has only %d boundaries in a transfer", name, boundary-1)
					}
					return
				}
			}
		})
	}
}

func newParties(t *testing.T, backend string) *parties {
	p := &parties{t: t, provider: newProcess(t, "supplier", supplier), consumer: newProcess(t, "buyer", buyer), client: &http.Client{Timeout: 30 * time.Second}}
	p.dataPlane = &process{t: t, cfg: p.provider.cfg}
	p.dataPlane.listen()
	p.dataPlane.cfg.DataPlane, p.provider.cfg.DataPlane, p.consumer.cfg.DataPlane = p.dataPlane.cfg.URL, p.dataPlane.cfg.URL, p.dataPlane.cfg.URL
	p.provider.cfg.Endpoints = map[string]string{buyer: p.consumer.base()}
	p.consumer.cfg.Endpoints = map[string]string{supplier: p.provider.base()}
	offerID := (&side{t: t, ctx: "supplier", store: p.provider.store}).offer("pcf", openPolicy)
	if err := p.provider.store.PutAsset(t.Context(), store.Asset{Ctx: "supplier", ID: "asset-pcf", DataAddress: map[string]string{"type": "HttpData", "baseUrl": backend}}); err != nil {
		t.Fatal(err)
	}
	for _, one := range []*process{p.provider, p.consumer, p.dataPlane} {
		one.start(0)
		t.Cleanup(func() { one.stop() })
	}
	const id = "negotiation"
	p.until(func() bool {
		n, err := p.consumer.store.Negotiation(t.Context(), "buyer", id)
		if err != nil {
			p.ask(p.consumer, "/start/"+id+"?offer="+url.QueryEscape(offerID))
			return false
		}
		p.agreement = n.AgreementID
		return n.Step == state.Finalized && peerFinalized(t, p.provider, id)
	})
	return p
}

// until looks at the databases again and again until done, and starts whoever died again.
func (p *parties) until(done func() bool) (died bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		select {
		case <-p.provider.died:
		case <-p.consumer.died:
		case <-p.dataPlane.died:
		case <-time.After(10 * time.Millisecond):
		}
		for _, one := range []*process{p.provider, p.consumer, p.dataPlane} {
			died = one.reviveIfDead() || died
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not in time; provider:\n%s\nconsumer:\n%s\ndata plane:\n%s", p.provider.log.String(), p.consumer.log.String(), p.dataPlane.log.String())
		}
	}
	return died
}

// ask makes a person's request; one that gets no answer is made again when the database shows that nothing came of it.
func (p *parties) ask(who *process, path string) {
	if res, err := p.client.Post(who.cfg.URL+path, "", nil); err == nil {
		_ = res.Body.Close()
	}
}

// transfer runs one transfer to its end and reports whether somebody died.
func (p *parties) transfer(id string) (died bool) {
	p.t.Helper()
	var first, second dps.DataAddress // of the two starts
	died = p.until(func() bool {
		c, err := p.consumer.store.Transfer(p.t.Context(), "buyer", id)
		if err != nil {
			p.ask(p.consumer, "/transfer/"+id+"?agreement="+p.agreement)
			return false
		}
		s, err := p.provider.store.FindTransfer(p.t.Context(), "supplier", state.Provider, buyer, id)
		if err != nil {
			return false
		}
		if c.Step == state.Terminated || s.Step == state.Terminated {
			p.t.Fatalf("terminated: %+v, %+v\n%s", c.Reason, s.Reason, p.provider.log.String())
		}
		switch both := c.Step == s.Step && s.Flow == ""; {
		case states(c.History) == firstStart && c.Step == state.Started:
			if address, err := p.consumer.store.DataAddress(p.t.Context(), "buyer", id); err == nil && p.opens(address, true) {
				first = *address
				p.ask(p.consumer, "/transfer/"+id+"/suspend")
			}
		case both && c.Step == state.Suspended:
			if p.opens(&first, false) {
				p.ask(p.consumer, "/transfer/"+id+"/resume")
			}
		case both && states(c.History) == secondStart && c.Step == state.Started:
			address, err := p.consumer.store.DataAddress(p.t.Context(), "buyer", id)
			if err == nil && p.opens(&first, false) && p.opens(address, true) {
				second = *address
				p.ask(p.provider, "/transfer/"+s.ID+"/complete")
			}
		}
		return c.Step == state.Completed && s.Step == state.Completed && s.Flow == "" && p.opens(&second, false)
	})
	p.compare(id)
	return died
}

// opens checks that an address opens the data, or does not; false means that the data plane gave no answer. A token that was replaced and one
// whose flow is at rest are refused with different words, and which of the two a former token is depends on who died.
func (p *parties) opens(a *dps.DataAddress, want bool) (answered bool) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, a.Endpoint, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+a.Properties["authorization"])
	res, err := p.client.Do(req)
	if err != nil {
		return false
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= http.StatusInternalServerError { // what it asks is being killed
		return false
	}
	open, refused := res.StatusCode == http.StatusOK && string(raw) == footprint, res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden
	if open != want || open == refused {
		p.t.Fatalf("the data plane answered %d %s; open: want %v", res.StatusCode, raw, want)
	}
	return true
}

// compare checks that both databases tell the same of a transfer, that it is there once, and that no address is left.
func (p *parties) compare(id string) {
	p.t.Helper()
	type view struct {
		State, Asset, Agreement, Format, History string
		Transfers                                int
	}
	look := func(one *process, mine func(*store.Transfer) bool) (view, *store.Transfer) {
		all, err := one.store.Transfers(p.t.Context(), one.cfg.Name, store.Page{Limit: 1000})
		if err != nil {
			p.t.Fatal(err)
		}
		var out view
		var found *store.Transfer
		for _, t := range all {
			if mine(t) {
				out, found = view{t.State, t.AssetID, t.AgreementID, t.Format, states(t.History), out.Transfers + 1}, t
			}
		}
		if _, err := one.store.DataAddress(p.t.Context(), one.cfg.Name, found.ID); !errors.Is(err, store.ErrNotFound) {
			p.t.Errorf("%s still has the address of transfer %s: %v", one.cfg.Name, found.ID, err)
		}
		return out, found
	}
	theirs, s := look(p.provider, func(t *store.Transfer) bool { return t.CounterpartyPID == id })
	ours, c := look(p.consumer, func(t *store.Transfer) bool { return t.ID == id })
	if diff := cmp.Diff(theirs, ours); diff != "" {
		p.t.Errorf("the databases differ (-provider +consumer):\n%s", diff)
	}
	if ours.Transfers != 1 || ours.History != completed || c.CounterpartyPID != s.ID {
		p.t.Errorf("something was lost or doubled: %+v; the consumer knows %q of %q", ours, c.CounterpartyPID, s.ID)
	}
}
