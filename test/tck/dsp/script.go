// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"time"

	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/store"
)

// step says what the connector does in one test: in state on, entered for the nth time (0: any time), do.
type step struct {
	on  string
	nth int
	do  state.Trigger
}

// Behaviour of the connector as provider, by the data set (negotiations) or agreement (transfers) that a test uses; what is not listed is
// left to the kit. Every entry is a command that a person could give in the product at that moment; the state machine still refuses
// what is illegal.
var providerScript = map[string][]step{
	"ACN0101": {{on: state.Requested, do: state.CommandOffer}},
	"ACN0102": {{state.Requested, 1, state.CommandOffer}, {state.Requested, 2, state.CommandTerminate}},
	"ACN0103": {{on: state.Requested, do: state.CommandOffer}, {on: state.Accepted, do: state.CommandAgree}, {on: state.Verified, do: state.CommandFinalize}},
	"ACN0104": {{on: state.Requested, do: state.CommandAgree}, {on: state.Verified, do: state.CommandFinalize}},
	"ACN0201": {{on: state.Requested, do: state.CommandTerminate}},
	"ACN0202": {},
	"ACN0203": {{on: state.Requested, do: state.CommandAgree}},
	"ACN0204": {{on: state.Requested, do: state.CommandOffer}},
	"ACN0205": {{on: state.Requested, do: state.CommandOffer}, {on: state.Offered, do: state.CommandTerminate}},
	"ACN0206": {{on: state.Requested, do: state.CommandOffer}, {on: state.Accepted, do: state.CommandTerminate}},
	"ACN0207": {{on: state.Requested, do: state.CommandAgree}, {on: state.Verified, do: state.CommandTerminate}},
	"ACN0301": {{on: state.Requested, do: state.CommandAgree}, {on: state.Verified, do: state.CommandFinalize}},
	"ACN0302": {{on: state.Requested, do: state.CommandOffer}},
	"ACN0303": {{on: state.Requested, do: state.CommandOffer}},
	"ACN0304": {{state.Requested, 1, state.CommandOffer}},

	"ATP0101": {{on: state.Requested, do: state.CommandStart}, {on: state.Started, do: state.CommandTerminate}},
	"ATP0102": {{on: state.Requested, do: state.CommandStart}, {on: state.Started, do: state.CommandComplete}},
	"ATP0103": {{on: state.Requested, do: state.CommandStart}, {on: state.Started, do: state.CommandSuspend}, {on: state.Suspended, do: state.CommandTerminate}},
	"ATP0104": {{on: state.Requested, do: state.CommandStart}, {state.Started, 1, state.CommandSuspend}, {on: state.Suspended, do: state.CommandResume}, {state.Started, 2, state.CommandComplete}},
	"ATP0105": {{on: state.Requested, do: state.CommandTerminate}},
	"ATP0201": {{on: state.Requested, do: state.CommandStart}},
	"ATP0202": {{on: state.Requested, do: state.CommandStart}},
	"ATP0203": {{on: state.Requested, do: state.CommandStart}},
	"ATP0204": {{on: state.Requested, do: state.CommandStart}},
	"ATP0205": {},
	"ATP0301": {},
	"ATP0302": {},
	"ATP0303": {{on: state.Requested, do: state.CommandStart}},
	"ATP0304": {{on: state.Requested, do: state.CommandStart}},
	"ATP0305": {{on: state.Requested, do: state.CommandStart}},
	"ATP0306": {{on: state.Requested, do: state.CommandStart}},
}

// Behaviour as consumer, after the request that a trigger starts.
var consumerScript = map[string][]step{
	"ACNC0101": {{on: state.Offered, do: state.CommandAccept}, {on: state.Agreed, do: state.CommandVerify}},
	"ACNC0102": {{on: state.Offered, do: state.CommandCounterRequest}},
	"ACNC0103": {{on: state.Offered, do: state.CommandTerminate}},
	"ACNC0104": {{on: state.Agreed, do: state.CommandVerify}},
	"ACNC0201": {},
	"ACNC0202": {{on: state.Requested, do: state.CommandTerminate}},
	"ACNC0203": {{on: state.Agreed, do: state.CommandTerminate}},
	"ACNC0204": {},
	"ACNC0205": {{on: state.Offered, do: state.CommandAccept}},
	"ACNC0206": {{on: state.Agreed, do: state.CommandVerify}},
	"ACNC0301": {},
	"ACNC0302": {},
	"ACNC0303": {},
	"ACNC0304": {{on: state.Offered, do: state.CommandAccept}},
	"ACNC0305": {{on: state.Offered, do: state.CommandAccept}},
	"ACNC0306": {{on: state.Offered, do: state.CommandAccept}},

	"ATPC0101": {}, "ATPC0102": {}, "ATPC0103": {}, "ATPC0104": {}, "ATPC0105": {},
	"ATPC0201": {{on: state.Started, do: state.CommandTerminate}},
	"ATPC0202": {{on: state.Started, do: state.CommandComplete}},
	"ATPC0203": {{on: state.Started, do: state.CommandSuspend}, {on: state.Suspended, do: state.CommandTerminate}},
	"ATPC0204": {{state.Started, 1, state.CommandSuspend}, {on: state.Suspended, do: state.CommandResume}, {state.Started, 2, state.CommandComplete}},
	"ATPC0205": {{on: state.Requested, do: state.CommandTerminate}},
	"ATPC0301": {}, "ATPC0302": {}, "ATPC0303": {}, "ATPC0304": {}, "ATPC0305": {}, "ATPC0306": {},
}

// pause before a scripted message: the kit listens for it only about 100 ms after it saw the state before.
const pause = 250 * time.Millisecond

// script is a dsp.Decider that follows the tables.
type script struct{ now func() time.Time }

// Negotiation implements dsp.Decider.
func (s script) Negotiation(n *store.Negotiation) dsp.Decision {
	return s.decide(&n.Process, n.AssetID)
}

// Transfer implements dsp.Decider.
func (s script) Transfer(t *store.Transfer) dsp.Decision { return s.decide(&t.Process, t.AgreementID) }

func (s script) decide(p *store.Process, key string) dsp.Decision {
	table := consumerScript
	if p.Role == state.Provider {
		table = providerScript
	}
	visits, entered := 0, time.Time{}
	for _, e := range p.History {
		if e.State == p.State {
			visits++
		}
		entered = e.At
	}
	for _, st := range table[key] {
		if st.on != p.Step || st.nth != 0 && st.nth != visits {
			continue
		}
		if rest := pause - s.now().Sub(entered); rest > 0 {
			return dsp.Decision{After: rest, Waiting: "the pause of the script"}
		}
		if p.Denial != nil && st.do != state.CommandTerminate { // as the product would
			return dsp.Decision{Do: state.CommandTerminate, Reason: p.Denial}
		}
		return dsp.Decision{Do: st.do}
	}
	return dsp.Decision{Waiting: "the test kit"}
}
