// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"strings"
	"testing"

	"github.com/kaphera/kaphera/connector/dsp/state"
)

// TestScriptsAreLegal: every command of the scripts is one that the product's state machine allows in that state.
func TestScriptsAreLegal(t *testing.T) {
	for role, table := range map[state.Role]map[string][]step{state.Provider: providerScript, state.Consumer: consumerScript} {
		for id, steps := range table {
			machine := state.Negotiation
			if strings.HasPrefix(id, "ATP") {
				machine = state.Transfer
			}
			for _, s := range steps {
				at := state.State{Role: role, Wire: s.on, Step: s.on, PeerKnown: true, SuspendedBy: role}
				if _, _, err := machine.Apply(at, state.Event{On: s.do}); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		}
	}
}

func TestEveryTestHasItsData(t *testing.T) {
	p, err := properties("http://127.0.0.1:1/cut", "http://127.0.0.1:3", 2)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"CN_01_02_DATASETID": "ACN0102", "CN_C_03_06_DATASETID": "ACNC0306", "TP_01_05_AGREEMENTID": "ATP0105",
		"TP_C_02_05_AGREEMENTID": "ATPC0205", "TP_C_02_05_FORMAT": "HttpData-PULL", "dataspacetck.dsp.connector.transfer.initiate.url": "http://127.0.0.1:3/transfer"} {
		if p[k] != want {
			t.Errorf("%s is %q, want %q", k, p[k], want)
		}
	}
	if len(datasets()) != 17 {
		t.Errorf("data sets %v", datasets())
	}
}
