// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/identity"
)

// witnesses waits until a participant has on record what came of asking for n heads.
func (s *side) witnesses(n int) (out []audit.Witness) {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		h, err := s.store.AuditHead(s.t.Context(), s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		records, err := s.store.AuditRecords(s.t.Context(), h, 0, 1000)
		if err != nil {
			s.t.Fatal(err)
		}
		out = nil
		for _, r := range records {
			if r.Type != audit.CounterpartyHead {
				continue
			}
			var w audit.Witness
			if err := json.Unmarshal(r.Body, &w); err != nil {
				s.t.Fatal(err)
			}
			if want := map[bool]string{true: w.Counterparty, false: audit.Self}[w.Head != nil]; r.Actor != want {
				s.t.Errorf("recorded by %s", r.Actor)
			}
			out = append(out, w)
		}
		if len(out) >= n {
			return out
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			s.t.Fatalf("%s: %d of %d heads on record", s.ctx, len(out), n)
		}
	}
}

// TestPartiesOfAnAgreementKeepEachOthersHead: the head covers the record of the agreement.
func TestPartiesOfAnAgreementKeepEachOthersHead(t *testing.T) {
	_, provider, consumer := world(t)
	n := consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
	for s, peer := range map[*side]*side{provider: consumer, consumer: provider} {
		w := s.witnesses(1)[0]
		if w.Agreement != n.AgreementID || w.Counterparty != peer.did || w.Head == nil || w.Signed == "" || w.Reason != "" {
			t.Fatalf("%s: %+v", s.ctx, w)
		}
		h, err := peer.store.AuditHead(t.Context(), peer.ctx)
		if err != nil {
			t.Fatal(err)
		}
		records, err := peer.store.AuditRecords(t.Context(), h, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if r := records[w.Head.Seq-1]; r.Hash != w.Head.Hash || !r.At.Equal(w.Head.At) || r.Chain != w.Head.Chain {
			t.Errorf("the head %+v is not that of record %+v", w.Head, r)
		}
		for _, r := range records[w.Head.Seq:] {
			if r.Type == audit.Agreement {
				t.Errorf("the head that %s has does not cover the agreement", s.ctx)
			}
		}
	}
}

// TestAHeadIsForTheOtherPartyOnly: whoever is none gets what a connector answers that has no such address.
func TestAHeadIsForTheOtherPartyOnly(t *testing.T) {
	who, provider, consumer := world(t)
	n := consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
	who.give("did:web:third.example", "MembershipCredential", map[string]any{})
	for name, tc := range map[string]struct {
		as, agreement string
		status        int
	}{
		"the other party":     {buyer, n.AgreementID, http.StatusOK},
		"a third":             {"did:web:third.example", n.AgreementID, http.StatusNotFound},
		"the party itself":    {supplier, n.AgreementID, http.StatusNotFound},
		"no such agreement":   {buyer, "none", http.StatusNotFound},
		"without credentials": {"", n.AgreementID, http.StatusUnauthorized},
	} {
		header := ""
		if tc.as != "" {
			header = provider.as(tc.as)
		}
		status, body := provider.send(http.MethodGet, "/kaphera/audit-heads/"+tc.agreement, header, "")
		if _, told := body["head"]; status != tc.status || told != (status == http.StatusOK) {
			t.Errorf("%s: %d %v", name, status, body)
		}
	}
}

// TestHeadsThatDoNotCome: a counterparty without the extension, one that answers something else, and one that is not there, hold up no negotiation, and are on record
// with the reason once.
func TestHeadsThatDoNotCome(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter)
		asked  int64
		why    string
	}{
		"not offered":    {func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, 1, "does not tell heads"},
		"something else": {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"@type":"Catalog"}`)) }, 1, "is no head"},
		"another's":      {func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"head":"{\"by\":\"did:web:x\"}"}`)) }, 7, "asked 7 times: the head of its audit chain"},
		"broken":         {func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, 7, "asked 7 times"},
		"an old one":     {nil, 1, "the head that it told is older than the agreement: record 1 of chain c1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, provider, consumer := world(t, func(o *dsp.Options) { o.MinBackoff = time.Microsecond })
			var asked atomic.Int64
			provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/kaphera/") {
					return true
				}
				asked.Add(1)
				if tc.answer == nil {
					_, _ = w.Write(toldAt(t, r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:], time.Now().Add(-time.Hour)))
					return false
				}
				tc.answer(w)
				return false
			})
			n := consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
			w := consumer.witnesses(1)[0]
			if w.Agreement != n.AgreementID || w.Head != nil || w.Signed != "" || !strings.Contains(w.Reason, tc.why) || asked.Load() != tc.asked {
				t.Errorf("asked %d times, %+v", asked.Load(), w)
			}
			provider.witnesses(1)
		})
	}
}

// toldAt is the supplier's answer to the buyer with a head whose last record is of a time.
func toldAt(t *testing.T, agreement string, at time.Time) []byte {
	head, err := json.Marshal(audit.Head{Chain: "c1", Ctx: "supplier", Seq: 1, At: at, Hash: strings.Repeat("0", 64), Open: true})
	if err != nil {
		t.Error(err)
	}
	signed, err := newPeople().SignHead(t.Context(), identity.Local{DID: supplier}, buyer, adminapi.HeadStatement{Agreement: agreement, Head: head})
	if err != nil {
		t.Error(err)
	}
	answer, err := json.Marshal(map[string]string{"head": signed})
	if err != nil {
		t.Error(err)
	}
	return answer
}

// TestAHeadWithinTheSkewOfClocksIsTaken: the counterparty's clock may be behind.
func TestAHeadWithinTheSkewOfClocksIsTaken(t *testing.T) {
	_, provider, consumer := world(t)
	provider.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		_, agreement, ask := strings.Cut(r.URL.Path, "/kaphera/audit-heads/")
		if ask {
			_, _ = w.Write(toldAt(t, agreement, time.Now().Add(-30*time.Second)))
		}
		return !ask
	})
	consumer.wait(consumer.negotiate(provider.offer("pcf", openPolicy)).ID, "FINALIZED", at(state.Finalized))
	if w := consumer.witnesses(1)[0]; w.Head == nil || w.Head.Chain != "c1" {
		t.Errorf("%+v", w)
	}
}
