// SPDX-License-Identifier: Apache-2.0

package state_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/kaphera/kaphera/connector/dsp/state"
)

var update = flag.Bool("update", false, "write the tables into docs/state-machines.md")

// legal is what DSP 2025-1 draws: from each protocol state the ones that may follow. It is written apart from the tables on purpose.
var legal = map[string]map[string][]string{
	"negotiation": {
		"":          {"REQUESTED", "OFFERED"},
		"REQUESTED": {"OFFERED", "AGREED", "TERMINATED"},
		"OFFERED":   {"REQUESTED", "ACCEPTED", "TERMINATED"},
		"ACCEPTED":  {"AGREED", "TERMINATED"},
		"AGREED":    {"VERIFIED", "TERMINATED"},
		"VERIFIED":  {"FINALIZED", "TERMINATED"},
	},
	"transfer": {
		"":          {"REQUESTED"},
		"REQUESTED": {"STARTED", "TERMINATED"},
		"STARTED":   {"COMPLETED", "SUSPENDED", "TERMINATED"},
		"SUSPENDED": {"STARTED", "TERMINATED"},
	},
}

// sending lists the protocol states that may show while an own message is under way; settled steps show themselves.
var sending = map[string]map[string][]string{
	"negotiation": {
		"REQUESTING": {"REQUESTED", "OFFERED"}, "OFFERING": {"OFFERED", "REQUESTED"}, "ACCEPTING": {"OFFERED"}, "AGREEING": {"REQUESTED", "ACCEPTED"},
		"VERIFYING": {"AGREED"}, "FINALIZING": {"VERIFIED"}, "TERMINATING": {"REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED"},
	},
	"transfer": {
		"REQUESTING": {"REQUESTED"}, "STARTING": {"REQUESTED"}, "SUSPENDING": {"STARTED"}, "RESUMING": {"SUSPENDED"}, "RESUMED": {"STARTED"},
		"COMPLETING": {"STARTED"}, "TERMINATING": {"REQUESTED", "STARTED", "SUSPENDED"},
	},
}

var machines = []*state.Machine{state.Negotiation, state.Transfer}

func triggers(m *state.Machine) []state.Trigger {
	all := []state.Trigger{state.CommandHold, state.CommandRelease}
	for _, t := range m.Table {
		all = append(all, t.On)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func checkShape(t *rapid.T, m *state.Machine, s state.State) {
	if s.Step == "" {
		return
	}
	allowed, isSending := sending[m.Name][s.Step]
	if !isSending {
		allowed = []string{s.Step}
	}
	if !slices.Contains(allowed, s.Wire) {
		t.Fatalf("%s shows %s at step %s", s.Role, s.Wire, s.Step)
	}
}

func TestNoEventSequenceReachesAnIllegalState(t *testing.T) {
	for _, m := range machines {
		t.Run(m.Name, rapid.MakeCheck(func(t *rapid.T) {
			s := state.State{Role: rapid.SampledFrom([]state.Role{state.Consumer, state.Provider}).Draw(t, "role")}
			for i, on := range rapid.SliceOfN(rapid.SampledFrom(triggers(m)), 1, 60).Draw(t, "events") {
				before, event := s, state.Event{On: on}
				if strings.HasPrefix(string(on), "received") {
					event.MessageID = fmt.Sprint("message ", i)
				}
				after, effects, err := m.Apply(s, event)
				if err != nil {
					if len(effects) != 0 || !cmp.Equal(before, after) {
						t.Fatalf("a refused %q changed something: %+v, %v", on, after, effects)
					}
					continue
				}
				if m.Final(before.Step) && after.Step != before.Step {
					t.Fatalf("%q led out of %s", on, before.Step)
				}
				shown := before.Wire
				for _, e := range effects {
					if e.Kind != state.EffectEnter {
						continue
					}
					if !slices.Contains(legal[m.Name][shown], e.Value) {
						t.Fatalf("%q led from %q to %q, which the protocol does not draw", on, shown, e.Value)
					}
					shown = e.Value
				}
				if shown != after.Wire {
					t.Fatalf("effects enter %q, the state shows %q", shown, after.Wire)
				}
				checkShape(t, m, after)
				if event.MessageID != "" {
					again, effects, err := m.Apply(after, event)
					if err != nil || len(effects) != 0 || !cmp.Equal(after, again) {
						t.Fatalf("repeating %q at %s: %+v, %v, %v", on, after.Step, again, effects, err)
					}
				}
				s = after
			}
		}))
	}
}

// TestBothSidesEndAlike lets two sides act at random over a network that loses, repeats and delays messages and answers, and then lets
// everything that is under way arrive: both sides show the same state, and never did one hold an end that the other does not.
func TestBothSidesEndAlike(t *testing.T) {
	for _, m := range machines {
		t.Run(m.Name, rapid.MakeCheck(func(t *rapid.T) {
			p := newPair(m)
			start := state.CommandRequest
			if m == state.Negotiation && rapid.Bool().Draw(t, "provider offers first") {
				start = state.CommandOffer
				_ = p.apply(state.Provider, state.Event{On: start})
			} else {
				_ = p.apply(state.Consumer, state.Event{On: start})
			}
			steps := rapid.IntRange(0, 40).Draw(t, "steps")
			for range steps {
				role := rapid.SampledFrom([]state.Role{state.Consumer, state.Provider}).Draw(t, "role")
				switch rapid.SampledFrom([]string{"command", "lose", "lose answer", "deliver", "repeat"}).Draw(t, "what") {
				case "command":
					on := rapid.SampledFrom(triggers(m)).Draw(t, "command")
					if strings.HasPrefix(string(on), "command") && p.side[role].Step != "" {
						_ = p.apply(role, state.Event{On: on}) // not every command is possible
					}
				case "lose": // the message is sent again later
				case "lose answer":
					p.deliver(role)
				case "deliver":
					p.exchange(role)
				case "repeat":
					p.deliver(role)
					p.exchange(role)
				}
			}
			for range 20 {
				p.exchange(state.Consumer)
				p.exchange(state.Provider)
			}
			c, v := p.side[state.Consumer], p.side[state.Provider]
			if m.Sends(c) != "" || m.Sends(v) != "" {
				t.Fatalf("messages are still under way: consumer %+v, provider %+v", c, v)
			}
			// A counterparty that was never reached knows nothing.
			if c.Wire != v.Wire && c.Step != "" && v.Step != "" {
				t.Fatalf("consumer ends at %s, provider at %s", c.Step, v.Step)
			}
		}))
	}
}

// pair is two sides and what each has under way.
type pair struct {
	m    *state.Machine
	side map[state.Role]state.State
	sent map[state.Role]int // number of the message under way, its id
}

func newPair(m *state.Machine) *pair {
	return &pair{m: m, sent: map[state.Role]int{}, side: map[state.Role]state.State{
		state.Consumer: {Role: state.Consumer}, state.Provider: {Role: state.Provider},
	}}
}

func (p *pair) apply(role state.Role, e state.Event) error {
	after, effects, err := p.m.Apply(p.side[role], e)
	p.side[role] = after
	for _, effect := range effects {
		if effect.Kind == state.EffectSend {
			p.sent[role]++
		}
	}
	return err
}

// arrives maps the step at which a message is under way to what it is for the receiver, and the state that it leads to.
func (p *pair) arrives(role state.Role) (state.Trigger, string) {
	s := p.side[role]
	switch s.Step {
	case state.Requesting:
		if p.m == state.Negotiation && p.side[role.Other()].Step != "" {
			return state.ReceivedCounterRequest, state.Requested
		}
		return state.ReceivedRequest, state.Requested
	case state.Offering:
		return state.ReceivedOffer, state.Offered
	case state.Accepting:
		return state.ReceivedAccepted, state.Accepted
	case state.Agreeing:
		return state.ReceivedAgreement, state.Agreed
	case state.Verifying:
		return state.ReceivedVerification, state.Verified
	case state.Finalizing:
		return state.ReceivedFinalized, state.Finalized
	case state.Starting, state.Resuming, state.Resumed:
		return state.ReceivedStart, state.Started
	case state.Suspending:
		return state.ReceivedSuspension, state.Suspended
	case state.Completing:
		return state.ReceivedCompletion, state.Completed
	}
	return state.ReceivedTermination, state.Terminated
}

// deliver brings the message under way to the other side and reports whether that took it.
func (p *pair) deliver(role state.Role) bool {
	s := p.side[role]
	if p.m.Sends(s) == "" || (s.Step == state.Terminating && p.side[role.Other()].Step == "") {
		return false
	}
	on, leadsTo := p.arrives(role)
	if on == state.ReceivedRequest && p.side[role.Other()].Step != "" {
		return true // recognised by the consumer's process id
	}
	err := p.apply(role.Other(), state.Event{On: on, MessageID: fmt.Sprint(role, p.sent[role])})
	return err == nil || p.side[role.Other()].Wire == leadsTo
}

func (p *pair) exchange(role state.Role) {
	if p.m.Sends(p.side[role]) == "" {
		return
	}
	id := p.sent[role]
	on := state.GaveUp
	if p.deliver(role) {
		on = state.Acknowledged
	}
	if p.sent[role] == id && p.m.Sends(p.side[role]) != "" { // else the answer is about a message that is no longer under way
		_ = p.apply(role, state.Event{On: on})
	}
}

func TestHeldDecisions(t *testing.T) {
	s := state.State{Role: state.Provider}
	for _, step := range []struct {
		on   state.Trigger
		ok   bool
		want string
	}{
		{state.CommandHold, false, ""},
		{state.ReceivedRequest, true, state.Requested},
		{state.CommandHold, true, state.Requested},
		{state.CommandAgree, false, state.Requested},
		{state.CommandRelease, true, state.Requested},
		{state.CommandRelease, false, state.Requested},
		{state.CommandHold, true, state.Requested},
		{state.CommandOffer, true, state.Offering},
		{state.Acknowledged, true, state.Offered},
		{state.ReceivedAccepted, true, state.Accepted},
		{state.CommandHold, true, state.Accepted},
		{state.CommandTerminate, true, state.Terminating},
	} {
		after, _, err := state.Negotiation.Apply(s, state.Event{On: step.on})
		if (err == nil) != step.ok || after.Step != step.want {
			t.Fatalf("%q at %q: step %q, %v", step.on, s.Step, after.Step, err)
		}
		s = after
	}
}

func TestConsumerCannotResumeTheProvidersSuspension(t *testing.T) {
	s := state.State{Role: state.Provider}
	for _, on := range []state.Trigger{state.ReceivedRequest, state.CommandStart, state.Acknowledged, state.CommandSuspend, state.Acknowledged} {
		var err error
		if s, _, err = state.Transfer.Apply(s, state.Event{On: on}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := state.Transfer.Apply(s, state.Event{On: state.ReceivedStart}); err == nil || !strings.Contains(err.Error(), "only the provider") {
		t.Fatalf("the consumer resumed it: %v", err)
	}
}

func TestDocumentedTablesEqualTheCode(t *testing.T) {
	const path = "../../../docs/state-machines.md"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	for _, m := range machines {
		begin, end := fmt.Sprintf("<!-- table of %s -->\n", m.Name), fmt.Sprintf("<!-- end of %s -->", m.Name)
		_, rest, ok1 := strings.Cut(doc, begin)
		table, _, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("%s has no table between %q and %q", path, begin, end)
		}
		if *update {
			doc = strings.Replace(doc, begin+table+end, begin+m.Markdown()+end, 1)
			continue
		}
		if diff := cmp.Diff(m.Markdown(), table); diff != "" {
			t.Errorf("%s differs from the code for %s; run `go test ./connector/dsp/state -update`\n%s", path, m.Name, diff)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
