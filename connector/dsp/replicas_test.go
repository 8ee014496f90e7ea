// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/store"
)

// replica is another process of the same connector: of its name, on its database and behind its port.
func (p *process) replica() *process {
	cfg := p.cfg
	cfg.Replica = "-2"
	return &process{t: p.t, cfg: cfg, listener: p.listener, store: p.store}
}

func (p *process) alive() bool {
	select {
	case <-p.died:
		return false
	default:
		return true
	}
}

// TestReplicasShareNegotiations: two connectors of two replicas each negotiate. One replica of each is killed in the midst of it and does not come
// back; the other ones end every negotiation, with each step once.
func TestReplicasShareNegotiations(t *testing.T) {
	t.Parallel()
	provider, consumer := newProcess(t, "supplier", supplier), newProcess(t, "buyer", buyer)
	provider.cfg.Endpoints, consumer.cfg.Endpoints = map[string]string{buyer: consumer.base()}, map[string]string{supplier: provider.base()}
	provider.cfg.Lease, consumer.cfg.Lease = 10*time.Second, 10*time.Second
	offerID := (&side{t: t, ctx: "supplier", store: provider.store}).offer("pcf", attestedPolicy)
	doomed := []*process{provider.replica(), consumer.replica()}
	all := append([]*process{provider, consumer}, doomed...)
	for i, killAt := range []int64{0, 0, 9, 12} { // before a commit of the provider's, after one of the consumer's
		all[i].start(killAt)
		defer all[i].stop()
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.After(patience); !holds(); {
			select { // the databases are looked at again soon
			case <-time.After(10 * time.Millisecond):
			case <-deadline:
				for _, p := range all {
					t.Logf("%s%s:\n%s", p.cfg.Name, p.cfg.Replica, p.log.String())
				}
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	client := &http.Client{Timeout: 30 * time.Second}
	query := "?offer=" + strings.ReplaceAll(offerID, "=", "%3D")
	var ids []string
	for doomed[0].alive() || doomed[1].alive() {
		batch := len(ids)
		for range 8 {
			id := fmt.Sprint("negotiation-", len(ids))
			ids = append(ids, id)
			until(id+" begun", func() bool { // a person who gets no answer asks again with the same id
				res, err := client.Post(consumer.cfg.URL+"/start/"+id+query, "", nil)
				if err != nil {
					return false
				}
				_ = res.Body.Close()
				return res.StatusCode == http.StatusOK
			})
		}
		for _, id := range ids[batch:] {
			until(id+" final", func() bool { return finalized(t, consumer, id) && peerFinalized(t, provider, id) })
		}
	}
	for _, p := range []*process{provider, consumer} {
		negotiations, err := p.store.Negotiations(t.Context(), p.cfg.Name, store.Page{Limit: 1000})
		if err != nil || len(negotiations) != len(ids) {
			t.Errorf("%s has %d negotiations of %d, %v", p.cfg.Name, len(negotiations), len(ids), err)
		}
		agreements, err := p.store.Agreements(t.Context(), p.cfg.Name, 1000)
		if err != nil || len(agreements) != len(ids) {
			t.Errorf("%s has %d agreements of %d, %v", p.cfg.Name, len(agreements), len(ids), err)
		}
	}
	agreement := func(p *process, id string) string {
		a, err := p.store.Agreement(t.Context(), p.cfg.Name, id)
		if err != nil {
			t.Fatal(err)
		}
		return string(a.Agreement)
	}
	for _, id := range ids {
		ours, err := consumer.store.Negotiation(t.Context(), "buyer", id)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := provider.store.FindNegotiation(t.Context(), "supplier", state.Provider, buyer, id)
		if err != nil {
			t.Fatal(err)
		}
		if got := states(ours.History); got != "REQUESTED AGREED VERIFIED FINALIZED" || got != states(theirs.History) {
			t.Errorf("%s went through %s here and %s there", id, got, states(theirs.History))
		}
		if ours.CounterpartyPID != theirs.ID || theirs.CounterpartyPID != id {
			t.Errorf("%s: provider knows %q, consumer knows %q of %q", id, theirs.CounterpartyPID, ours.CounterpartyPID, theirs.ID)
		}
		if diff := cmp.Diff(agreement(provider, theirs.AgreementID), agreement(consumer, ours.AgreementID)); diff != "" {
			t.Errorf("%s: the agreements differ (-provider +consumer):\n%s", id, diff)
		}
	}
}
