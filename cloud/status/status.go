// SPDX-License-Identifier: FSL-1.1-ALv2

// Package status assembles the status table of the Cloud API, the CLI and the console from what cells report: connector,
// credential and contract health of every participant, with reasons in words. It is pure; whoever calls it reads the objects.
package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// State of one part of a participant's health.
type State string

// States, from good to bad; Unknown when the cell has not reported.
const (
	Healthy State = "Healthy"
	Pending State = "Pending" // on its way, nobody has to act
	Warning State = "Warning" // works, somebody should act
	Failed  State = "Failed"  // doesn't work, somebody must act
	Unknown State = "Unknown"
)

// SilentAfter is how long a cell may stay silent before what it reported counts as unknown.
const SilentAfter = 2 * time.Minute

// Report is the status of everything that the caller may see.
type Report struct {
	Participants []Participant `json:"participants"`
}

// Participant is one row.
type Participant struct {
	Participant    string      `json:"participant"`
	Organization   string      `json:"organization"`
	DID            string      `json:"did,omitempty"`
	Cell           string      `json:"cell"`
	CellType       string      `json:"cellType,omitempty"`
	OperatingParty string      `json:"operatingParty,omitempty"`
	Connector      Health      `json:"connector"`
	Credentials    Credentials `json:"credentials"`
	Contracts      Contracts   `json:"contracts"`
	LastHeard      *time.Time  `json:"lastHeard,omitempty"`
}

// Health is a state with its reason in words.
type Health struct {
	State  State  `json:"state" enum:"Healthy,Pending,Warning,Failed,Unknown"`
	Reason string `json:"reason,omitempty"`
	DE     string `json:"de,omitempty" doc:"The reason in German, without what only the cell's own messages say"`
}

// Credentials is the health of what a participant holds.
type Credentials struct {
	Health
	Items []edc.CredentialStatus `json:"items"`
}

// Contracts counts a participant's negotiations. A refusal is no illness while others succeed; its reason is told all the same.
type Contracts struct {
	Health
	Active  int32 `json:"active"`
	Failed  int32 `json:"failed"`
	Waiting int32 `json:"waiting"`
}

// Assemble makes the table, ordered by participant.
func Assemble(participants []cloudv1.Participant, cells []cloudv1.Cell, now time.Time) Report {
	byName := make(map[string]*cloudv1.Cell, len(cells))
	for i := range cells {
		byName[cells[i].Name] = &cells[i]
	}
	r := Report{Participants: make([]Participant, 0, len(participants))}
	for i := range participants {
		r.Participants = append(r.Participants, row(&participants[i], byName[participants[i].RunsIn()], now))
	}
	slices.SortFunc(r.Participants, func(a, b Participant) int { return strings.Compare(a.Participant, b.Participant) })
	return r
}

func row(p *cloudv1.Participant, cell *cloudv1.Cell, now time.Time) Participant {
	out := Participant{
		Participant: p.Name, Organization: p.Spec.Organization, DID: p.Status.DID, Cell: p.RunsIn(), OperatingParty: p.Spec.OperatingParty,
		Credentials: Credentials{Items: p.Status.Credentials},
	}
	if out.Credentials.Items == nil {
		out.Credentials.Items = []edc.CredentialStatus{}
	}
	if c := p.Status.Contracts; c != nil {
		out.Contracts = Contracts{Active: c.Active, Failed: c.Failed, Waiting: c.Waiting}
	}
	if cell != nil {
		out.CellType, out.LastHeard = cell.Spec.Type, timeOf(cell.Status.LastHeard)
		if out.OperatingParty == "" {
			out.OperatingParty = cell.Spec.OperatingParty
		}
	}
	if h, silent := unheard(p, cell, now); silent {
		out.Connector, out.Credentials.Health, out.Contracts.Health = h, h, h
		return out
	}
	out.Connector = connector(p)
	if m := p.Status.Move; m != nil {
		out.Connector = Health{Pending, fmt.Sprintf("it moves from cell %s to %s", m.From, m.To), fmt.Sprintf("Zieht von der Zelle %s in die Zelle %s um", m.From, m.To)}
		if c := meta.FindStatusCondition(p.Status.Conditions, cloudv1.ConditionMoving); c != nil {
			out.Connector.Reason += ": " + c.Message
		}
	}
	if a := meta.FindStatusCondition(cell.Status.Conditions, cloudv1.ConditionAuditIntact); a != nil && a.Status == metav1.ConditionFalse && out.Connector.State == Healthy {
		out.Connector = Health{Warning, "audit trails of cell " + cell.Name + ": " + a.Message, "Prüfprotokolle der Zelle " + cell.Name + " gehen nicht lückenlos weiter"}
	}
	out.Credentials.Health = credentials(p.Status.Credentials)
	out.Contracts.Health = contracts(p.Status.Contracts)
	return out
}

// unheard says why nothing current is known of the participant; false when its cell reports.
func unheard(p *cloudv1.Participant, cell *cloudv1.Cell, now time.Time) (Health, bool) {
	switch {
	case cell == nil:
		return Health{Unknown, fmt.Sprintf("cell %q does not exist: create it, or move the participant to one that does", p.RunsIn()),
			fmt.Sprintf("Die Zelle „%s“ gibt es nicht: sie anlegen oder den Teilnehmer in eine andere verlegen", p.RunsIn())}, true
	case cell.Status.LastHeard == nil:
		return Health{Unknown, fmt.Sprintf("cell %s has not connected yet", cell.Name), fmt.Sprintf("Die Zelle %s hat sich noch nie gemeldet", cell.Name)}, true
	case now.Sub(cell.Status.LastHeard.Time) > SilentAfter:
		at := cell.Status.LastHeard.UTC().Format(time.RFC3339)
		return Health{Unknown, fmt.Sprintf("cell %s was last heard %s: look at its agent and its way out to the platform", cell.Name, at),
			fmt.Sprintf("Die Zelle %s hat sich zuletzt am %s gemeldet: ihren Agenten und seinen Weg zur Plattform prüfen", cell.Name, at)}, true
	}
	return Health{}, false
}

func connector(p *cloudv1.Participant) Health {
	active := meta.FindStatusCondition(p.Status.Conditions, cloudv1.ConditionActive)
	if active != nil && active.Status == metav1.ConditionTrue {
		if ready := meta.FindStatusCondition(p.Status.Conditions, cloudv1.ConditionReady); ready != nil && ready.Status == metav1.ConditionFalse {
			return Health{Warning, ready.Message, "Aktiv, aber nicht alles ist bereit"}
		}
		return Health{State: Healthy}
	}
	var failed, open, failedChecks, openChecks []string
	for _, c := range p.Status.Checks {
		switch c.State {
		case "Failed":
			failed = append(failed, nonEmpty(c.Reason, "onboarding check "+c.Name+" failed"))
			failedChecks = append(failedChecks, c.Name)
		case "Pending":
			open = append(open, nonEmpty(c.Reason, "onboarding check "+c.Name+" is under way"))
			openChecks = append(openChecks, c.Name)
		}
	}
	switch {
	case len(failed) > 0:
		return Health{Failed, "not active: " + strings.Join(failed, "; "), "Nicht aktiv; nicht bestandene Aufnahmeprüfungen: " + strings.Join(failedChecks, ", ")}
	case len(open) > 0:
		return Health{Pending, "not active yet: " + strings.Join(open, "; "), "Noch nicht aktiv; laufende Aufnahmeprüfungen: " + strings.Join(openChecks, ", ")}
	case active != nil && active.Message != "":
		return Health{Pending, active.Message, settingUpDE}
	}
	return Health{Pending, "the connector is being set up", settingUpDE}
}

const settingUpDE = "Der Konnektor wird eingerichtet"

// What each credential state means for a participant's health. States that are not listed are failures.
var credentialStates = map[string]struct {
	state     State
	words, de string
}{
	"Valid":     {Healthy, "", ""},
	"Requested": {Pending, "was requested and has not arrived yet", "ist beantragt und noch nicht da"},
	"Expiring":  {Warning, "expires soon", "läuft bald ab"},
	"Expired":   {Failed, "has expired", "ist abgelaufen"}, "Revoked": {Failed, "was revoked by its issuer", "wurde vom Aussteller widerrufen"},
	"Suspended":      {Failed, "is suspended by its issuer", "ist vom Aussteller ausgesetzt"},
	"WrongIssuer":    {Failed, "comes from an issuer that the profile does not trust for it", "stammt von einem Aussteller, dem das Profil dafür nicht vertraut"},
	"NeverDelivered": {Failed, "was granted but never delivered", "wurde bewilligt, aber nie geliefert"},
	"Rejected":       {Failed, "was refused by its issuer", "wurde vom Aussteller abgelehnt"},
	"RenewalStuck":   {Failed, "is stuck in renewal", "hängt in der Erneuerung"},
}

var severity = []State{Healthy, Pending, Warning, Failed}

func credentials(items []edc.CredentialStatus) Health {
	if len(items) == 0 {
		return Health{Pending, "no credential has been requested yet", "Noch ist kein Nachweis beantragt"}
	}
	h := Health{State: Healthy}
	var reasons, inGerman []string
	for _, c := range items {
		known, ok := credentialStates[c.State]
		if !ok {
			known.state, known.words, known.de = Failed, "is in state "+c.State, "ist im Zustand "+c.State
		}
		if known.state == Healthy {
			continue
		}
		if slices.Index(severity, known.state) > slices.Index(severity, h.State) {
			h.State = known.state
		}
		when := ""
		if c.ExpiresAt != nil && (c.State == "Expiring" || c.State == "Expired") {
			when = " (" + c.ExpiresAt.UTC().Format(time.DateOnly) + ")"
		}
		detail := ""
		if c.Detail != "" {
			detail = ": " + c.Detail
		}
		if c.Remedy != "" {
			detail += ". " + strings.TrimSuffix(c.Remedy, ".")
		}
		reasons = append(reasons, c.Type+" "+known.words+when+detail)
		inGerman = append(inGerman, c.Type+" "+known.de+when)
	}
	h.Reason, h.DE = strings.Join(reasons, "; "), strings.Join(inGerman, "; ")
	return h
}

func contracts(c *edc.ContractStatus) Health {
	switch {
	case c == nil:
		return Health{Pending, "no counts reported yet", "Noch sind keine Zahlen gemeldet"}
	case c.Failed > 0 && c.Active == 0:
		return Health{Warning, lastFailure(c), failedDE(c)}
	case c.Waiting > 0:
		return Health{Pending, fmt.Sprintf("%d under way", c.Waiting), fmt.Sprintf("%d laufend", c.Waiting)}
	case c.Failed > 0:
		return Health{Healthy, "the last that failed: " + lastFailure(c), failedDE(c)}
	}
	return Health{State: Healthy}
}

func lastFailure(c *edc.ContractStatus) string {
	return nonEmpty(c.LastFailure, fmt.Sprintf("%d negotiations ended without an agreement", c.Failed))
}

func failedDE(c *edc.ContractStatus) string {
	if c.Failed == 1 {
		return "Eine Verhandlung endete ohne Vereinbarung"
	}
	return fmt.Sprintf("%d Verhandlungen endeten ohne Vereinbarung", c.Failed)
}

func timeOf(t *metav1.Time) *time.Time {
	if t == nil {
		return nil
	}
	return &t.Time
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
