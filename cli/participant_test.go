// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// participantIn is how the API shows a participant that is to be in one cell and runs in another.
func participantIn(spec, runs, moving, reason, message string, generation int) string {
	move := ""
	if moving == "True" {
		move = fmt.Sprintf(`"move":{"from":"shared","to":"tier1","phase":%q,"since":"2026-10-01T12:00:00Z"},`, message)
	}
	return fmt.Sprintf(`{"name":"supplier","revision":"r-1","generation":2,"managedBy":"cli","spec":{"organization":"brandt-guss","cell":%q,"profile":"automotive","ofANewerVersion":{"kept":true},
		"identity":{"context":"brandt","businessPartnerNumber":"BPNL0000000CAST1"}},"status":{"did":"did:web:shared.example:brandt","cell":%q,%s
		"conditions":[{"type":"Moving","status":%q,"reason":%q,"message":%q,"observedGeneration":%d,"lastTransitionTime":"2026-10-01T12:00:00Z"}]}}`,
		spec, runs, move, moving, reason, message, generation)
}

func write(w http.ResponseWriter, body string) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(body))
}

func TestAParticipantIsMovedAndFollowed(t *testing.T) {
	b := setup(t)
	var put atomic.Bool
	var looks atomic.Int32
	later := []string{
		participantIn("tier1", "shared", "True", "Moving", "Stopping", 2), participantIn("tier1", "shared", "True", "Moving", "Transferring", 2), "",
		participantIn("tier1", "tier1", "True", "Moving", "Activating", 2), participantIn("tier1", "tier1", "False", "Ready", "it has been moved to cell tier1", 2),
	}
	b.on("GET /api/v1/participants/supplier", func(w http.ResponseWriter, _ *http.Request) {
		if !put.Load() {
			write(w, participantIn("shared", "shared", "False", "Ready", "it runs in the cell that it names", 2))
			return
		}
		n := min(int(looks.Add(1)), len(later)) - 1
		if later[n] == "" { // its API is away for a moment
			refuse(w, http.StatusServiceUnavailable, "not-ready", "not now")
			return
		}
		write(w, later[n])
	})
	b.on("PUT /api/v1/participants/supplier", func(w http.ResponseWriter, _ *http.Request) {
		put.Store(true)
		write(w, participantIn("tier1", "shared", "False", "Ready", "it runs in the cell that it names", 1))
	})
	r := b.run("participant", "move", "supplier", "--to", "tier1", "--wait")
	if r.code != ExitOK || !strings.HasSuffix(r.out, "Stopping\nTransferring\nActivating\nit has been moved to cell tier1\nParticipant supplier runs in cell tier1, as did:web:shared.example:brandt.\n") {
		t.Errorf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	written := b.called("PUT /api/v1/participants/supplier")
	if len(written) != 1 || !strings.Contains(written[0], `"cell":"tier1"`) || !strings.Contains(written[0], `"ofANewerVersion":{"kept":true}`) || !strings.Contains(written[0], `"revision":"r-1"`) {
		t.Errorf("written: %s", written)
	}
	for _, args := range [][]string{{"-o", "json"}, nil} {
		r = b.run(append([]string{"participant", "move", "supplier", "--to", "tier1"}, args...)...)
		if r.code != ExitOK || (args == nil) != strings.Contains(r.out, "Participant supplier runs in cell tier1") || (args != nil) != strings.Contains(r.out, `"cell": "tier1"`) {
			t.Errorf("once more %s: exit code %d\n%s%s", args, r.code, r.out, r.err)
		}
	}
	if written := b.called("PUT /api/v1/participants/supplier"); len(written) != 1 {
		t.Errorf("written again: %s", written)
	}
}

func TestAMoveThatDoesNotComeAboutIsExplained(t *testing.T) {
	for what, tc := range map[string]struct {
		shown string
		args  []string
		says  string
	}{
		"refused":     {participantIn("tier1", "shared", "False", "Taken", "the context is taken there", 2), []string{"--wait"}, "is not moved: the context is taken there"},
		"out of time": {participantIn("tier1", "shared", "False", "Waiting", "waits until cell tier1 is ready", 2), []string{"--wait", "--timeout", "1ms"}, "has not arrived in cell tier1 after 1ms: waits until cell tier1 is ready"},
		"elsewhere":   {participantIn("third", "shared", "True", "Moving", "Stopping", 2), []string{"--wait"}, "somebody has placed participant supplier in cell third"},
	} {
		b := setup(t)
		first := true
		b.on("GET /api/v1/participants/supplier", func(w http.ResponseWriter, _ *http.Request) {
			if what == "elsewhere" && first {
				first = false
				write(w, participantIn("tier1", "shared", "True", "Moving", "Stopping", 2))
				return
			}
			write(w, tc.shown)
		})
		r := b.run(append([]string{"participant", "move", "supplier", "--to", "tier1"}, tc.args...)...)
		if r.code != ExitFailed || !strings.Contains(r.err, tc.says) || !strings.Contains(r.err, "next:") {
			t.Errorf("%s: exit code %d\n%s%s", what, r.code, r.out, r.err)
		}
	}
	b := setup(t)
	b.on("GET /api/v1/participants/supplier", func(w http.ResponseWriter, _ *http.Request) {
		write(w, participantIn("shared", "shared", "False", "Ready", "", 2))
	})
	b.on("PUT /api/v1/participants/supplier", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusUnprocessableEntity, "invalid", "spec.cell: an on-premise cell")
	})
	if r := b.run("participant", "move", "supplier", "--to", "company"); r.code != ExitFailed || !strings.Contains(r.err, "an on-premise cell") {
		t.Errorf("to a cell that cannot have it: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if r := b.run("participant", "move", "nobody", "--to", "tier1"); r.code != ExitNotFound {
		t.Errorf("a participant that is not there: exit code %d\n%s%s", r.code, r.out, r.err)
	}
	if r := b.run("participant", "move", "supplier"); r.code != ExitUsage || !strings.Contains(r.err, "to") {
		t.Errorf("without a cell: exit code %d\n%s", r.code, r.err)
	}
}
