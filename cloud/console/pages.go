// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/connector/adminapi"
)

func (s *console) statusPage(w http.ResponseWriter, r *http.Request, v view) error {
	report, err := s.Service.Status(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, statusPage(v, report))
}

func (s *console) statusTable(w http.ResponseWriter, r *http.Request, v view) error {
	report, err := s.Service.Status(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, statusTable(v, report))
}

func (s *console) participantPage(w http.ResponseWriter, r *http.Request, v view) error {
	p, err := s.Service.Participant(r.Context(), r.PathValue("participant"))
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, participantPage(v, p))
}

func (s *console) negotiationsPage(w http.ResponseWriter, r *http.Request, v view) error {
	const shown = 100
	participant := r.PathValue("participant")
	list, err := s.Service.Negotiations(r.Context(), participant, "", shown, "")
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, negotiationsPage(v, participant, list.Items))
}

func (s *console) catalogPage(w http.ResponseWriter, r *http.Request, v view) error {
	participant, chosen := r.PathValue("participant"), r.FormValue("counterparty")
	partners, err := s.Service.Partners(r.Context(), participant)
	if err != nil {
		return err
	}
	var items []api.CatalogItem
	if chosen != "" {
		catalog, err := s.Service.Catalog(r.Context(), participant, chosen, "")
		if err != nil {
			return err
		}
		items = catalog.Items
	}
	return s.render(w, r, http.StatusOK, catalogPage(v, participant, partners, chosen, items))
}

func (s *console) startNegotiation(w http.ResponseWriter, r *http.Request, _ view) error {
	const most = 64 << 10
	r.Body = http.MaxBytesReader(w, r.Body, most)
	participant := r.PathValue("participant")
	n, err := s.Service.StartNegotiation(r.Context(), participant, api.NegotiationStart{Counterparty: r.FormValue("counterparty"), OfferID: r.FormValue("offer")})
	if err != nil {
		return err
	}
	http.Redirect(w, r, negotiationPath(participant, n.ID), http.StatusSeeOther) //nolint:gosec // a path of ours, its parts escaped
	return nil
}

func (s *console) negotiationPage(w http.ResponseWriter, r *http.Request, v view) error {
	participant := r.PathValue("participant")
	n, err := s.Service.Negotiation(r.Context(), participant, r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, negotiationPage(v, participant, n))
}

// negotiationEvents sends the negotiation's fragment now and after every change, then "ended", at which the page stops listening.
func (s *console) negotiationEvents(w http.ResponseWriter, r *http.Request, v view) error {
	w.Header().Set("Content-Type", "text/event-stream")
	events := api.EventWriter{W: w}
	err := s.Service.WatchNegotiation(r.Context(), r.PathValue("participant"), r.PathValue("id"), func(n adminapi.Negotiation) error {
		fragment, err := oneLine(r.Context(), v, n)
		if err != nil {
			return err
		}
		return events.Text("negotiation", fragment)
	})
	if err != nil {
		s.Log.Info("watching a negotiation ended early", "negotiation", r.PathValue("id"), "error", err)
		return nil // the page connects again
	}
	return events.Text("ended", "ended")
}

func oneLine(ctx context.Context, v view, n adminapi.Negotiation) (string, error) {
	var buf bytes.Buffer
	if err := negotiation(v, n).Render(ctx, &buf); err != nil {
		return "", err
	}
	return strings.NewReplacer("\n", " ", "\r", " ").Replace(buf.String()), nil
}

func negotiationPath(participant, id string) string {
	return "/participants/" + url.PathEscape(participant) + "/negotiations/" + url.PathEscape(id)
}

func ended(n adminapi.Negotiation) bool { return api.Ended(n) }

// stateWords says a protocol state in plain words.
func stateWords(state string) string {
	switch state {
	case "REQUESTED":
		return "Requested"
	case "OFFERED":
		return "Offered"
	case "ACCEPTED":
		return "Accepted"
	case "AGREED":
		return "Agreed"
	case "VERIFIED":
		return "Verified"
	case "FINALIZED":
		return "Concluded"
	case "TERMINATED":
		return "Ended without agreement"
	}
	return state
}

func checkState(state string) string {
	if state == "Passed" {
		return "Healthy"
	}
	return state
}

// checkWords says an onboarding check of a profile in plain words.
func checkWords(name string) string {
	switch name {
	case "DIDReachable":
		return "The DID document answers"
	case "CredentialsHeld":
		return "The credentials are held"
	case "ContactNamed":
		return "A contact is named"
	}
	return name
}

func verdict(allowed bool) string {
	if allowed {
		return "granted"
	}
	return "denied"
}

func sentence(c adminapi.Check) string {
	if c.Sentence != "" {
		return c.Sentence
	}
	return c.LeftOperand + " " + c.Operator + " " + string(c.RightOperand)
}

// partyWord is the role of the party that was looked at; where a check has none, it is just a party.
func partyWord(c adminapi.Check) string {
	if c.Subject == "" {
		return "party"
	}
	return string(c.Subject)
}

func orNothing(v view, value string) string {
	if value == "" {
		return v.t("nothing")
	}
	return value
}

func reasonOf(n adminapi.Negotiation) string {
	if n.Reason == nil {
		return n.Waiting
	}
	return n.Reason.Message
}

func titleOf(i api.CatalogItem) string {
	for _, key := range []string{"title", "dct:title", "http://purl.org/dc/terms/title", "name", "https://w3id.org/edc/v0.0.1/ns/name"} {
		if s, ok := i.Properties[key].(string); ok && s != "" {
			return s
		}
	}
	return i.AssetID
}

// lower makes a class name of a state.
func lower(s string) string { return strings.ReplaceAll(strings.ToLower(s), " ", "-") }
