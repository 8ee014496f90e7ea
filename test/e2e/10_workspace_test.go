// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
)

// tofu returns the OpenTofu or Terraform that is on the PATH.
func tofu(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"tofu", "terraform"} {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	t.Fatal("neither tofu nor terraform is on the PATH")
	return ""
}

// workspace are the arguments of vpn, from where the workspace is applied, that run the program in it.
func workspace(t *testing.T, args ...string) []string {
	t.Helper()
	d := os.Getenv("KAPHERA_WORKSPACE")
	if d == "" {
		t.Fatal("KAPHERA_WORKSPACE is not in the cluster's env file")
	}
	return append([]string{tofu(t), "-chdir=" + d}, args...)
}

func TestSecondPlanIsEmpty(t *testing.T) {
	_, all, code := command(t, "vpn", workspace(t, "plan", "-detailed-exitcode", "-input=false", "-no-color")...)
	if code != 0 {
		t.Errorf("the second plan is not empty (exit code %d):\n%s", code, all)
	}
}

func TestWhatIsChangedOutsideShowsInThePlan(t *testing.T) {
	api := cloud(t)
	for _, c := range []struct {
		what   string
		change func(*testing.T)
		want   string
	}{
		{"organization", func(t *testing.T) {
			o, err := api.GetOrganizationWithResponse(t.Context(), "rheintal-motoren")
			if err != nil {
				t.Fatal(err)
			}
			o.JSON200.Spec.ContactEmail = "changed-outside@rheintal-motoren.example"
			o.JSON200.Revision = ""
			if _, err := api.PutOrganizationWithResponse(t.Context(), "rheintal-motoren", &client.PutOrganizationParams{Force: true}, *o.JSON200); err != nil {
				t.Fatal(err)
			}
		}, "contact_email"},
		{"participant", func(t *testing.T) {
			p, err := api.GetParticipantWithResponse(t.Context(), "supplier")
			if err != nil {
				t.Fatal(err)
			}
			p.JSON200.Spec.OperatingParty = "Somebody else"
			p.JSON200.Revision = ""
			if _, err := api.PutParticipantWithResponse(t.Context(), "supplier", &client.PutParticipantParams{Force: true}, *p.JSON200); err != nil {
				t.Fatal(err)
			}
		}, "operating_party"},
		{"use case", func(t *testing.T) {
			u, err := api.GetUseCaseWithResponse(t.Context(), "carbon-footprint")
			if err != nil {
				t.Fatal(err)
			}
			u.JSON200.Spec.Title = "Another title"
			u.JSON200.Revision = ""
			if _, err := api.PutUseCaseWithResponse(t.Context(), "carbon-footprint", &client.PutUseCaseParams{Force: true}, *u.JSON200); err != nil {
				t.Fatal(err)
			}
		}, "title"},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.change(t)
			_, all, code := command(t, "vpn", workspace(t, "plan", "-detailed-exitcode", "-input=false", "-no-color")...)
			if code != 2 || !regexp.MustCompile(`[~+-] `+c.want).MatchString(all) {
				t.Errorf("the change of %s does not show (exit code %d):\n%s", c.want, code, all)
			}
		})
	}
	must(t, "vpn", workspace(t, "apply", "-auto-approve", "-input=false", "-no-color")...)
	TestSecondPlanIsEmpty(t)
}

func TestMistakesShowAtPlanTime(t *testing.T) {
	_, all, code := command(t, "vpn", workspace(t, "plan", "-input=false", "-no-color", "-var", "attestation_completed_at=yesterday")...)
	if code == 0 || !strings.Contains(all, "attestation_completed_at must be a date like") {
		t.Errorf("a malformed date was not refused (exit code %d):\n%s", code, all)
	}
}

// Every DID of a cell contains its host name, so neither the API nor a plan changes it.
func TestACellStaysWhatItIs(t *testing.T) {
	api := cloud(t)
	for _, c := range []struct {
		override, want string
		change         func(*client.CellSpec)
	}{
		{`hostname = "elsewhere.` + domain() + `"`, "hostname cannot change: every DID of the cell contains it", func(s *client.CellSpec) { s.Hostname = "elsewhere." + domain() }},
		{`type = "on-premise"`, `"shared"`, func(s *client.CellSpec) { s.Type = "on-premise" }},
	} {
		cell, err := api.GetCellWithResponse(t.Context(), "shared")
		if err != nil {
			t.Fatal(err)
		}
		c.change(&cell.JSON200.Spec)
		cell.JSON200.Revision = ""
		if _, err := api.PutCellWithResponse(t.Context(), "shared", &client.PutCellParams{Force: true}, *cell.JSON200); err == nil || client.AsError(err).Status != 422 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s through the API: %v", c.override, err)
		}
		override := filepath.Join(os.Getenv("KAPHERA_WORKSPACE"), "e2e_override.tf")
		if err := os.WriteFile(override, []byte("resource \"kaphera_cell\" \"shared\" {\n  "+c.override+"\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, all, code := command(t, "vpn", workspace(t, "plan", "-input=false", "-no-color")...)
		if err := os.Remove(override); err != nil {
			t.Fatal(err)
		}
		if code == 0 || !strings.Contains(strings.Join(strings.Fields(strings.ReplaceAll(all, "│", "")), " "), c.want) {
			t.Errorf("%s in a plan (exit code %d):\n%s", c.override, code, all)
		}
	}
}
