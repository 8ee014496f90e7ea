// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"encoding/json"
	"net/http"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/connector/adminapi"
)

func (s *console) approvalsPage(w http.ResponseWriter, r *http.Request, v view) error {
	all, err := s.Service.Approvals(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, approvalsPage(v, all))
}

// registerKey registers the public half of the key that the browser made.
func (s *console) registerKey(w http.ResponseWriter, r *http.Request, _ view) error {
	in, err := readJSON[api.KeyRegistration](w, r)
	if err != nil {
		return err
	}
	if _, err := s.Service.RegisterKey(r.Context(), in.PublicKey); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// decide passes on what the browser signed.
func (s *console) decide(w http.ResponseWriter, r *http.Request, _ view) error {
	in, err := readJSON[adminapi.SignedDecision](w, r)
	if err != nil {
		return err
	}
	if err := s.Service.Decide(r.Context(), r.PathValue("participant"), r.PathValue("id"), in); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

const maxSent = 64 << 10 // bytes of what a page's script sends

func readJSON[T any](w http.ResponseWriter, r *http.Request) (out T, err error) {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSent)).Decode(&out); err != nil {
		return out, &api.Problem{Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest, Code: api.CodeInvalid, Detail: "the body is not understood"}
	}
	return out, nil
}

// gateWords say what a gate waits for, or how it ended, in the page's language.
func gateWords(v view, g adminapi.GateState) string {
	if v.lang == "de" {
		return g.DE
	}
	return g.Words
}

func verdictWords(v view, c adminapi.PolicyVerdict) string {
	if v.lang == "de" && c.DE != "" {
		return c.DE
	}
	return c.Sentence
}

// openGates are those that hold a negotiation now.
func openGates(n adminapi.Negotiation) (out []adminapi.GateState) {
	for _, g := range n.Gates {
		if g.State == adminapi.GateOpen {
			out = append(out, g)
		}
	}
	return out
}

func gateOutcome(o adminapi.GateOutcome) string {
	return map[adminapi.GateOutcome]string{adminapi.GateAhead: "Ahead", adminapi.GateOpen: "Open", adminapi.GatePassed: "Passed", adminapi.GateRejected: "Rejected", adminapi.GateLate: "Late"}[o]
}

func decisionWord(d adminapi.Verdict) string {
	return map[adminapi.Verdict]string{adminapi.Approve: "approves", adminapi.Reject: "rejects", adminapi.Trigger: "lets it pass"}[d]
}
