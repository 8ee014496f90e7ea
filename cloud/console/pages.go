// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/cloud/status"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/odrl"
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

// named gives a view the names of the dataspace's participants.
func (s *console) named(r *http.Request, v view) (view, error) {
	all, err := s.Service.Partners(r.Context(), r.PathValue("participant"))
	v.partners = all
	return v, err
}

func (s *console) negotiationsPage(w http.ResponseWriter, r *http.Request, v view) error {
	const shown = 100
	participant := r.PathValue("participant")
	v, err := s.named(r, v)
	if err != nil {
		return err
	}
	list, err := s.Service.Negotiations(r.Context(), participant, "", shown, "")
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, negotiationsPage(v, participant, list.Items))
}

func (s *console) catalogPage(w http.ResponseWriter, r *http.Request, v view) error {
	participant, chosen := r.PathValue("participant"), r.FormValue("counterparty")
	v, err := s.named(r, v)
	if err != nil {
		return err
	}
	var items []api.CatalogItem
	if chosen != "" {
		catalog, err := s.Service.Catalog(r.Context(), participant, chosen, "", "")
		if err != nil {
			return err
		}
		items = catalog.Items
	}
	return s.render(w, r, http.StatusOK, catalogPage(v, participant, chosen, items))
}

func (s *console) startNegotiation(w http.ResponseWriter, r *http.Request, _ view) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxSent)
	participant := r.PathValue("participant")
	n, err := s.Service.StartNegotiation(r.Context(), participant, api.NegotiationStart{Counterparty: r.FormValue("counterparty"), OfferID: r.FormValue("offer"), Profile: r.FormValue("profile")})
	if err != nil {
		return err
	}
	http.Redirect(w, r, negotiationPath(participant, n.ID), http.StatusSeeOther) //nolint:gosec // a path of ours, its parts escaped
	return nil
}

func (s *console) acceptTerms(w http.ResponseWriter, r *http.Request, _ view) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxSent)
	_, err := s.Service.AcceptNegotiation(r.Context(), r.PathValue("participant"), r.PathValue("id"), adminapi.Acceptance{TermsHash: r.FormValue("terms")})
	return back(w, r, err)
}

func (s *console) counterTerms(w http.ResponseWriter, r *http.Request, v view) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxSent)
	terms := json.RawMessage(r.FormValue("policy"))
	if !json.Valid(terms) {
		return &api.Problem{Status: http.StatusUnprocessableEntity, Code: api.CodeInvalid, Detail: v.t("The terms are no JSON."), Next: v.t("Go back and correct them.")}
	}
	_, err := s.Service.CounterNegotiation(r.Context(), r.PathValue("participant"), r.PathValue("id"), adminapi.CounterOffer{Policy: terms})
	return back(w, r, err)
}

func (s *console) endNegotiation(w http.ResponseWriter, r *http.Request, _ view) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxSent)
	return back(w, r, s.Service.TerminateNegotiation(r.Context(), r.PathValue("participant"), r.PathValue("id"), api.TerminationReason{Reason: r.FormValue("reason")}))
}

// back shows the negotiation that a form was about.
func back(w http.ResponseWriter, r *http.Request, err error) error {
	if err == nil {
		http.Redirect(w, r, negotiationPath(r.PathValue("participant"), r.PathValue("id")), http.StatusSeeOther) //nolint:gosec // a path of ours, its parts escaped
	}
	return err
}

func (s *console) negotiationPage(w http.ResponseWriter, r *http.Request, v view) error {
	participant := r.PathValue("participant")
	v, err := s.named(r, v)
	if err != nil {
		return err
	}
	n, err := s.Service.Negotiation(r.Context(), participant, r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, negotiationPage(v, participant, n))
}

// negotiationEvents sends the negotiation's fragment now and after every change, then "ended", at which the page stops listening.
func (s *console) negotiationEvents(w http.ResponseWriter, r *http.Request, v view) error {
	v, err := s.named(r, v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	events := api.EventWriter{W: w}
	err = s.Service.WatchNegotiation(r.Context(), r.PathValue("participant"), r.PathValue("id"), func(n adminapi.Negotiation) error {
		fragment, err := oneLine(r.Context(), v, r.PathValue("participant"), n)
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

// oneLine renders the fragment. What line breaks mean, in a policy, stays.
func oneLine(ctx context.Context, v view, participant string, n adminapi.Negotiation) (string, error) {
	var buf bytes.Buffer
	if err := negotiation(v, participant, n).Render(ctx, &buf); err != nil {
		return "", err
	}
	return strings.NewReplacer("\n", "&#10;", "\r", " ").Replace(buf.String()), nil
}

func negotiationPath(participant, id string) string {
	return "/participants/" + url.PathEscape(participant) + "/negotiations/" + url.PathEscape(id)
}

func ended(n adminapi.Negotiation) bool { return api.Ended(n) }

// since is when a negotiation got into its state.
func since(n adminapi.Negotiation) *time.Time {
	if len(n.History) == 0 {
		return nil
	}
	return &n.History[len(n.History)-1].At
}

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

// runsIn is the cell in which a participant runs, which in a move is another than spec.cell.
func runsIn(p api.Participant) string { return cmp.Or(p.Status.Cell, p.Spec.Cell) }

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

// credentialState says a credential's state in plain words.
func credentialState(state string) string {
	switch adminapi.CredentialState(state) {
	case adminapi.CredentialWrongIssuer:
		return "Wrong issuer"
	case adminapi.CredentialNeverDelivered:
		return "Never delivered"
	case adminapi.CredentialRenewalStuck:
		return "Renewal stuck"
	default:
		return state
	}
}

func verdict(allowed bool) string {
	if allowed {
		return "granted"
	}
	return "denied"
}

// words are what a check says in the page's language.
func words(v view, c adminapi.Check) adminapi.CheckWords {
	w := adminapi.CheckWords{Sentence: c.Sentence, Reason: c.Reason, Remedy: c.Remedy}
	if v.lang == "de" && c.DE != nil {
		w = *c.DE
	}
	if w.Sentence == "" {
		w.Sentence = c.LeftOperand + " " + c.Operator + " " + string(c.RightOperand)
	}
	return w
}

// telling is a reason in the page's language. Technical is the English message where the words stand for it.
type telling struct{ words, technical string }

// tell says a reason that has a code; English comes as it is.
func tell(v view, code, english string) telling {
	if v.lang != "de" || english == "" {
		return telling{words: english}
	}
	if de, ok := german[code]; ok && de != english {
		return telling{de, english}
	}
	return telling{words: english}
}

// tellHealth says a part of the status.
func tellHealth(v view, h status.Health) telling {
	if v.lang != "de" || h.DE == "" {
		return telling{words: h.Reason}
	}
	return telling{h.DE, h.Reason}
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

func reasonOf(v view, n adminapi.Negotiation) telling {
	switch {
	case n.Reason != nil && n.Reason.By == "own":
		for _, t := range n.Traces {
			if de := odrl.Reason(t, "de"); n.Reason.Code == api.CodePolicyDenied && v.lang == "de" && de != "" {
				return telling{de, n.Reason.Message}
			}
		}
		return tell(v, "reason:"+n.Reason.Code, n.Reason.Message)
	case n.Reason != nil:
		return telling{words: v.lang.f("In the words of %s", v.party(n.Counterparty)) + ": " + n.Reason.Message}
	case len(openGates(n)) > 0:
		return telling{words: gateWords(v, openGates(n)[0])}
	case n.Decides:
		return telling{words: v.t("Waits for your decision")}
	case n.Waiting != "":
		return telling{words: v.lang.f("Waits for %s", v.party(n.Counterparty))}
	}
	return telling{}
}

func titleOf(i api.CatalogItem) string {
	for _, key := range []string{"title", "dct:title", "http://purl.org/dc/terms/title", "name", "https://w3id.org/edc/v0.0.1/ns/name"} {
		if s, ok := i.Properties[key].(string); ok && s != "" {
			return s
		}
	}
	return i.AssetID
}

// sentences are what a contract demands, in the page's language.
func sentences(v view, english, german []string) []string {
	if v.lang == "de" && len(german) > 0 {
		return german
	}
	return english
}

// indented makes a policy readable.
func indented(policy json.RawMessage) string {
	var buf bytes.Buffer
	if json.Indent(&buf, policy, "", "  ") != nil {
		return string(policy)
	}
	return buf.String()
}

// lower makes a class name of a state.
func lower(s string) string { return strings.ReplaceAll(strings.ToLower(s), " ", "-") }
