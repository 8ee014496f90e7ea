// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kaphera/kaphera/client"
)

func TestCellRotateCredentials(t *testing.T) {
	const requested = "2026-10-01T12:00:00.5Z"
	b := setup(t)
	b.on("POST /api/v1/cells/shared/rotate-credentials", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(client.CellRotationRequest{Requested: requested})
	})
	var asked atomic.Int32
	var stuck atomic.Bool
	done := requested
	b.on("GET /api/v1/cells/shared", func(w http.ResponseWriter, _ *http.Request) {
		c := client.Cell{Name: "shared", Status: client.CellStatus{RotatedFor: "2026-09-01T00:00:00Z"}}
		switch n := asked.Add(1); {
		case n > 2 && !stuck.Load():
			c.Status.RotatedFor = done
		case n > 1:
			c.Status.Conditions = []client.Condition{{Type: "CredentialsRotated", Status: "False", Message: "the agent still has the former ones"}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(c)
	})
	r := b.run("cell", "rotate-credentials", "shared")
	if r.code != 0 || !strings.Contains(r.out, "open nothing any more") || !strings.Contains(r.err, "the agent still has the former ones") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	var report RotationReport
	asked.Store(0)
	done = "2026-10-01T12:00:00.51Z" // of a later one, which replaced the same once more
	if r = b.run("cell", "rotate-credentials", "shared", "--revoke-now", "-o", "json"); r.code != 0 || json.Unmarshal([]byte(r.out), &report) != nil || report != (RotationReport{Cell: "shared", Requested: requested, Done: true}) {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if calls := b.called("POST /api/v1/cells"); len(calls) != 2 || strings.Contains(calls[0], "true") || !strings.Contains(calls[1], `"revokeNow":true`) {
		t.Errorf("asked for %v", calls)
	}
	if r = b.run("cell", "rotate-credentials", "shared", "--timeout", "0"); r.code != 0 || !strings.Contains(r.out, "kaphera describe cell shared") {
		t.Errorf("without waiting: exit %d\n%s%s", r.code, r.out, r.err)
	}
	stuck.Store(true)
	asked.Store(1)
	if r = b.run("cell", "rotate-credentials", "shared", "--timeout", "200ms"); r.code != ExitFailed || !strings.Contains(r.err, "the agent still has the former ones") {
		t.Errorf("not in time: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r = b.run("cell", "rotate-credentials", "elsewhere"); r.code != ExitNotFound {
		t.Errorf("no such cell: exit %d\n%s", r.code, r.err)
	}
}
