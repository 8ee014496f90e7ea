// SPDX-License-Identifier: FSL-1.1-ALv2

package authz

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/table.txt anew")

// matrix asks Authorize about every operation and role, and writes down what it said.
func matrix(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s", "")
	for _, r := range Roles {
		fmt.Fprintf(&b, " %-21s", r)
	}
	for _, op := range slices.Sorted(maps.Keys(table)) {
		fmt.Fprintf(&b, "\n%-24s", op)
		for _, r := range Roles {
			scope := None
			ctx, err := Authorize(t.Context(), Principal{Subject: "s", Roles: []Role{r}, Organization: "acme"}, op)
			if a := From(ctx); err == nil {
				scope = a.Scope
			} else if a.Covers("acme") {
				t.Errorf("%s: %s was denied and reaches its organization all the same", op, r)
			}
			fmt.Fprintf(&b, " %-21s", scope)
		}
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestTheWholeTable(t *testing.T) {
	got := matrix(t)
	const file = "testdata/table.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("rights have changed; read the difference, and run with -update if it is meant:\n%s", diff)
	}
}

func TestScopeDecidesWhichOrganizationsAreReached(t *testing.T) {
	for op, r := range table {
		for _, role := range Roles {
			ctx, err := Authorize(t.Context(), Principal{Subject: "s", Roles: []Role{role}, Organization: "acme"}, op)
			if (err == nil) != (r[role] != None) {
				t.Errorf("%s as %s: %v, but the table says %s", op, role, err, r[role])
			}
			a := From(ctx)
			for org, want := range map[string]bool{"acme": r[role] != None, "other": r[role] == All, "": r[role] == All} {
				if a.Covers(org) != want {
					t.Errorf("%s as %s on objects of %q: %t, want %t", op, role, org, !want, want)
				}
			}
		}
	}
}

func TestDeniedByDefault(t *testing.T) {
	for name, c := range map[string]struct {
		principal Principal
		operation string
	}{
		"an operation without a row":                    {Principal{Roles: Roles, Organization: "acme"}, "delete-everything"},
		"nobody in particular":                          {Principal{}, OpStatus},
		"a role that is not ours":                       {Principal{Roles: []Role{"admin"}, Organization: "acme"}, OpStatus},
		"a role of an organization without one":         {Principal{Roles: []Role{OrganizationAdmin, Viewer}}, OpListParticipants},
		"an authority that wants data":                  {Principal{Roles: []Role{GovernanceAuthority}}, OpGetTransferData},
		"an authority that wants to know where it lies": {Principal{Roles: []Role{GovernanceAuthority}}, OpListAssets},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, err := Authorize(t.Context(), c.principal, c.operation)
			var denied *DeniedError
			if !errors.As(err, &denied) {
				t.Fatalf("got %v, want a denial", err)
			}
			if From(ctx).Scope != None {
				t.Error("the context carries a grant")
			}
		})
	}
}

func TestTheWidestRoleCounts(t *testing.T) {
	ctx, err := Authorize(t.Context(), Principal{Roles: []Role{Viewer, PlatformOperator}, Organization: "acme"}, OpListParticipants)
	if err != nil || !From(ctx).Covers("other") {
		t.Errorf("an operator who is also a viewer reaches %v, %v", From(ctx).Scope, err)
	}
}

func TestADenialNamesTheRolesThatWouldDo(t *testing.T) {
	_, err := Authorize(t.Context(), Principal{Name: "Vera", Roles: []Role{Viewer}, Organization: "acme"}, OpPutCell)
	if want := "Vera may not call put-cell: it needs the role platform-operator"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
