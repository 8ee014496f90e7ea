// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

const tier1File = "kind: Cell\nname: tier1\nrevision: 1-a\nspec:\n  type: dedicated\n  organization: brandt-guss\n  hostname: tier1.example\n  operatingParty: Kaphera\n  quota: {cpu: '1', memory: 4Gi}\n"

func TestApplyWritesWhatTheFileSays(t *testing.T) {
	b := setup(t)
	b.on("PUT /api/v1/cells/tier1", func(w http.ResponseWriter, r *http.Request) {
		var got client.Cell
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil || got.Revision != "1-a" || got.Spec.Organization != "brandt-guss" || got.Spec.Quota.Memory != "4Gi" {
			t.Errorf("%v: sent %+v", err, got)
		}
		got.Warnings = []string{"spec.organization: look at this"}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(got)
	})
	if r := b.run("apply", "-f", written(t, tier1File)); r.code != ExitOK || r.out != "cell tier1 created\n" || r.err != "warning: spec.organization: look at this\n" {
		t.Errorf("%+v", r)
	}
	b.input = tier1File
	if r := b.run("apply", "-f", "-", "--dry-run", "--force"); r.code != ExitOK || r.out != "cell tier1 would be created\n" {
		t.Errorf("%+v", r)
	}
	if calls := b.called("PUT"); len(calls) != 2 || !strings.Contains(calls[1], "dryRun=true") || !strings.Contains(calls[1], "force=true") || !strings.Contains(calls[0], "dryRun=false") {
		t.Errorf("called %q", calls)
	}
}

func TestApplyRefusesBeforeItWrites(t *testing.T) {
	b := setup(t)
	good := written(t, tier1File)
	for name, c := range map[string]struct{ file, says string }{
		"no kind":              {strings.Replace(tier1File, "kind: Cell\n", "", 1), "kind, name and spec are needed"},
		"no spec":              {"kind: cell\nname: tier1\n", "kind, name and spec are needed"},
		"another kind":         {strings.Replace(tier1File, "Cell", "gadget", 1), "not a kind of thing"},
		"a kind that is found": {strings.Replace(tier1File, "Cell", "negotiation", 1), "negotiations cannot be written here"},
		"no YAML":              {"kind: [", "yaml"},
	} {
		if r := b.run("apply", "-f", good, "-f", written(t, c.file)); r.code != ExitUsage || !strings.Contains(r.err, c.says) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if calls := b.called("PUT"); len(calls) > 0 {
		t.Errorf("called %q", calls)
	}
	b.on("PUT /api/v1/cells/tier1", func(w http.ResponseWriter, _ *http.Request) {
		problem(w, client.Problem{
			Status: http.StatusUnprocessableEntity, Code: "invalid", Detail: `cell "tier1" is not valid`, Next: "correct the fields listed",
			Errors: []client.FieldError{{Location: "spec.hostname", Message: "is taken"}},
		})
	})
	if r := b.run("apply", "-f", good); r.code != ExitFailed || !strings.Contains(r.err, "spec.hostname: is taken") {
		t.Errorf("%+v", r)
	}
}

func TestDeleteRemovesWhatApplyMakes(t *testing.T) {
	b := setup(t)
	b.answer("DELETE /api/v1/cells/tier1", nil)
	if r := b.run("delete", "cell", "tier1", "--force"); r.code != ExitOK || !strings.Contains(r.out, "cell tier1 is being removed") {
		t.Errorf("%+v", r)
	}
	if calls := b.called("DELETE"); len(calls) != 1 || !strings.Contains(calls[0], "force=true") {
		t.Errorf("called %q", calls)
	}
	if r := b.run("delete", "cell", "other"); r.code != ExitNotFound {
		t.Errorf("%+v", r)
	}
	if r := b.run("delete", "platform", "kaphera"); r.code != ExitUsage {
		t.Errorf("%+v", r)
	}
}
