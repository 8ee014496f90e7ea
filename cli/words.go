// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/kaphera/kaphera/client"
)

// stateWords says what a state of a negotiation or a transfer means.
func stateWords(state string) string {
	switch state {
	case "REQUESTED":
		return "the consumer asked for it"
	case "OFFERED":
		return "the provider made an offer"
	case "ACCEPTED":
		return "the consumer accepted the offer"
	case "AGREED":
		return "the provider agreed"
	case "VERIFIED":
		return "the consumer verified the agreement"
	case "FINALIZED":
		return "the contract is concluded"
	case "TERMINATED":
		return "ended"
	case "STARTED":
		return "the provider opened access"
	case "COMPLETED":
		return "all has been transferred"
	case "SUSPENDED":
		return "paused"
	}
	return ""
}

// printEvent prints one step of a negotiation or a transfer.
func (a *app) printEvent(e client.Event) {
	s := a.style(a.out)
	line := fmt.Sprintf("%s  %s", s.faint(e.At.In(a.zone).Format("15:04:05.000 MST")), s.state(e.State))
	if words := first(e.Detail, stateWords(e.State)); words != "" {
		line += strings.Repeat(" ", max(1, 12-len(e.State))) + words
	}
	fprintln(a.out, line)
}

// printTrace prints one evaluation in plain language: each constraint, the credential it was read from, the value seen; where it was not
// satisfied, why, and what to do.
func (a *app) printTrace(w io.Writer, t client.Trace) {
	s := a.style(w)
	head := "checked"
	if t.Phase != "" {
		head += " (" + t.Phase + ")"
	}
	if t.By != "" {
		head += " by " + a.party(t.By)
	}
	fprintln(w, s.faint("    "+head))
	for _, c := range t.Checks {
		mark := s.good("yes")
		if !c.Satisfied {
			mark = s.bad("no ")
		}
		fprintf(w, "    %s %s\n", mark, first(c.Sentence, constraintOf(c)))
		note := func(label, text string) {
			if text != "" {
				fprintf(w, "          %s %s\n", s.faint(label), text)
			}
		}
		if c.Satisfied {
			if credential := first(c.CredentialType, c.Credential); credential != "" {
				note("credential:", credential+a.partyOf(c))
			}
			if c.Value != c.Credential {
				note("seen:", c.Value)
			}
			continue
		}
		note("constraint:", constraintOf(c))
		note("credential:", c.CredentialType)
		note("value seen:", first(c.Value, "none")+a.partyOf(c))
		note("why:", c.Reason)
		note("what to do:", c.Remedy)
	}
}

func (a *app) partyOf(c client.Check) string {
	if c.Party == "" {
		return ""
	}
	return " of " + strings.TrimSpace(c.Subject+" "+a.party(c.Party))
}

func constraintOf(c client.Check) string {
	if c.Operator == "" {
		return c.LeftOperand
	}
	return c.LeftOperand + " " + c.Operator + " " + strings.Trim(string(c.RightOperand), `"`)
}
