// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

// as is a client with the rights of a person who is logged in to the CLI.
func as(t *testing.T, person string) *client.API {
	t.Helper()
	must(t, "kaphera", "--context", person, "get", "use-cases") // it renews what is about to expire
	var stored struct {
		Token struct {
			Access string `json:"access_token"`
		} `json:"token"`
	}
	if err := json.Unmarshal(readFile(t, filepath.Join(os.Getenv("KAPHERA_CONFIG_DIR"), "tokens", person+".json")), &stored); err != nil {
		t.Fatalf("the log-in of %s cannot be read", person)
	}
	c, err := client.New(client.Config{API: os.Getenv("KAPHERA_API"), CAFile: caFile(), Token: func(context.Context) (string, error) { return stored.Token.Access, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A use case is revised. Nothing counts before somebody whom it names has signed exactly that content; then it governs new negotiations, and agreements keep
// what they were made under.
func TestARevisionCountsOnceItIsSignedOff(t *testing.T) {
	decider(t, "gabriel")
	decider(t, "renate")
	const name, first, second = "e2e-revision", "cx.pcf.base:1", "cx.core.qualityNotifications:1" // purposes
	api := cloud(t)
	passport, err := api.GetUseCaseWithResponse(t.Context(), "digital-product-passport")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := api.DeleteUseCaseWithResponse(context.WithoutCancel(t.Context()), name, &client.DeleteUseCaseParams{}); err != nil {
			t.Error(err)
		}
	})
	revise := func(purpose string) client.Revision {
		t.Helper()
		spec := passport.JSON200.Spec
		spec.ContractPolicy = json.RawMessage(strings.ReplaceAll(string(spec.ContractPolicy), "cx.circular.dpp:1", purpose))
		if !strings.Contains(string(spec.ContractPolicy), purpose) || len(spec.Signers) == 0 {
			t.Fatalf("the pilot's use case is another one: %s, signers %v", spec.ContractPolicy, spec.Signers)
		}
		if _, err := api.PutUseCaseWithResponse(t.Context(), name, &client.PutUseCaseParams{}, client.UseCase{Spec: spec}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a revision of "+name, func(ctx context.Context) (bool, string) {
			u, err := api.GetUseCaseWithResponse(ctx, name)
			if err != nil {
				return false, err.Error()
			}
			return u.JSON200.Status.ObservedGeneration == u.JSON200.Generation, string(u.Body)
		})
		all, err := api.ListUseCaseRevisionsWithResponse(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return all.JSON200.Items[0]
	}
	inForce := func(r client.Revision) bool {
		t.Helper()
		got, err := api.GetUseCaseRevisionWithResponse(t.Context(), name, r.Number)
		if err != nil {
			t.Fatal(err)
		}
		return got.JSON200.InForce
	}
	signOff := func(r client.Revision) {
		t.Helper()
		must(t, "kaphera", "--context", "gabriel", "usecase", "sign-off", name, "--revision", strconv.FormatInt(r.Number, 10), "--yes", "--hash", r.Hash)
		if !inForce(r) {
			t.Fatalf("revision %d is signed off and not in force", r.Number)
		}
	}
	offerID := func() (id string) {
		t.Helper()
		eventually(t, "the offer in the catalog", func(ctx context.Context) (bool, string) {
			catalog, err := api.GetCatalogWithResponse(ctx, "oem", &client.GetCatalogParams{Counterparty: "supplier"})
			if err != nil {
				return false, err.Error()
			}
			for _, item := range catalog.JSON200.Items {
				if item.AssetID == name {
					id = item.OfferID
				}
			}
			return id != "", string(catalog.Body)
		})
		return id
	}
	agree := func(r client.Revision, purpose string) (agreement string) {
		t.Helper()
		n := negotiate(t, api, "oem", "supplier", name)
		if n.State != "FINALIZED" {
			t.Fatalf("it ended %s: %s", n.State, n.Reason.Message)
		}
		a, err := api.GetAgreementWithResponse(t.Context(), "supplier", n.AgreementID)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.JSON200.UseCaseRevision; got.Number != r.Number || got.Hash != r.Hash || !strings.Contains(string(a.JSON200.Policy), purpose) {
			t.Errorf("the agreement is under %+v, not under revision %d with %s: %s", got, r.Number, purpose, a.JSON200.Policy)
		}
		return n.AgreementID
	}

	one := revise(first)
	asset := client.Asset{ID: name, Properties: map[string]any{"name": name}, DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://pcf-backend.supplier-backend.svc/livez"}}
	if _, err := api.PutAssetWithResponse(t.Context(), "supplier", name, asset); err != nil {
		t.Fatal(err)
	}
	offer := client.OfferCreate{ID: name, Asset: name, UseCase: name}
	if _, err := api.CreateOfferWithResponse(t.Context(), "supplier", offer); client.AsError(err) == nil || client.AsError(err).Code != "not-ready" || !strings.Contains(err.Error(), "governance-authority") {
		t.Errorf("an offer under what nobody has signed off: %v", err)
	}
	signOff(one)
	if _, err := api.CreateOfferWithResponse(t.Context(), "supplier", offer); err != nil {
		t.Fatal(err)
	}
	standing := offerID()

	two := revise(second)
	for _, c := range []struct {
		name, caller, signer string
		change               func(*adminapi.SignOffClaims)
		status               int64
	}{
		{"of somebody without the role", "renate", "renate", nil, http.StatusForbidden},
		{"in gabriel's name with renate's key", "gabriel", "renate", func(c *adminapi.SignOffClaims) { _, c.Signer = privateKey(t, "gabriel") }, http.StatusForbidden},
		{"of gabriel, handed in by somebody else", "renate", "gabriel", nil, http.StatusForbidden},
		{"of another hash", "gabriel", "gabriel", func(c *adminapi.SignOffClaims) { c.Hash = one.Hash }, http.StatusConflict},
		{"of another revision", "gabriel", "gabriel", func(c *adminapi.SignOffClaims) { c.Number = 1 }, http.StatusConflict},
		{"of what was not read", "gabriel", "gabriel", func(c *adminapi.SignOffClaims) { c.Read = usecase.ReadHash(one.Explanation.En) }, http.StatusConflict},
		{"of an hour ago", "gabriel", "gabriel", func(c *adminapi.SignOffClaims) { c.IssuedAt = time.Now().Add(-time.Hour).Unix() }, http.StatusConflict},
	} {
		key, subject := privateKey(t, c.signer)
		claims := adminapi.SignOffClaims{Signer: subject, UseCase: name, Number: int(two.Number), Hash: two.Hash, Read: usecase.ReadHash(two.Explanation.En), Language: "en", IssuedAt: time.Now().Unix()}
		for _, s := range two.NextSigners {
			claims.Signers = append(claims.Signers, s.Keys...)
		}
		if c.change != nil {
			c.change(&claims)
		}
		signed, err := gate.SignJWS(key, usecase.Type, claims)
		if err != nil {
			t.Fatal(err)
		}
		_, err = as(t, c.caller).SignOffUseCaseRevisionWithResponse(t.Context(), name, two.Number, client.SignedOff{Signed: signed})
		if e := client.AsError(err); e == nil || e.Status != c.status {
			t.Errorf("a sign-off %s: %v, want %d", c.name, err, c.status)
		}
	}
	if _, all, code := command(t, "kaphera", "--context", "gabriel", "usecase", "sign-off", name, "--revision", strconv.FormatInt(two.Number, 10), "--yes", "--hash", one.Hash); code == 0 || !strings.Contains(all, "another one than --hash names") {
		t.Errorf("the CLI signs another content than --hash names (exit code %d):\n%s", code, all)
	}
	if inForce(two) || !inForce(one) || offerID() != standing {
		t.Error("a revision that nobody has signed off counts")
	}
	kept := agree(one, first)

	signOff(two)
	eventually(t, "an offer under the new terms", func(context.Context) (bool, string) { return offerID() != standing, "it is the one before" })
	agree(two, second)
	if got := must(t, "kaphera", "transfer", "oem", "--agreement", kept, "--fetch"); strings.TrimSpace(got) != "ok" {
		t.Errorf("under the agreement from before comes %q", got)
	}
	if trail := must(t, "kaphera", "audit", "tail", "supplier", "-n", "1000", "--type", "usecase.revision", "-o", "json"); !strings.Contains(trail, one.Hash) || !strings.Contains(trail, two.Hash) {
		t.Errorf("the supplier's trail does not have both revisions:\n%s", trail)
	}
}

// The authority's person reads a revision in the browser and signs it off there, with a key that the browser made.
func TestSigningARevisionOffInTheBrowser(t *testing.T) {
	const name = "e2e-browser-revision"
	api := cloud(t)
	passport, err := api.GetUseCaseWithResponse(t.Context(), "digital-product-passport")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := api.DeleteUseCaseWithResponse(context.WithoutCancel(t.Context()), name, &client.DeleteUseCaseParams{}); err != nil {
			t.Error(err)
		}
	})
	revise := func(purpose string) {
		t.Helper()
		spec := passport.JSON200.Spec
		spec.ContractPolicy = json.RawMessage(strings.ReplaceAll(string(spec.ContractPolicy), "cx.circular.dpp:1", purpose))
		if _, err := api.PutUseCaseWithResponse(t.Context(), name, &client.PutUseCaseParams{}, client.UseCase{Spec: spec}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a revision of "+name, func(ctx context.Context) (bool, string) {
			u, err := api.GetUseCaseWithResponse(ctx, name)
			if err != nil {
				return false, err.Error()
			}
			return u.JSON200.Status.ObservedGeneration == u.JSON200.Generation, string(u.Body)
		})
	}
	keys := func(ctx context.Context) (names []string) {
		all, err := api.ListApprovalKeysWithResponse(ctx, &client.ListApprovalKeysParams{})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all.JSON200.Items {
			names = append(names, k.Name)
		}
		return names
	}
	before := keys(t.Context())
	t.Cleanup(func() { // a person has a few keys at most
		ctx := context.WithoutCancel(t.Context())
		for _, name := range keys(ctx) {
			if slices.Contains(before, name) {
				continue
			}
			if _, err := api.DeleteApprovalKeyWithResponse(ctx, name); err != nil {
				t.Error(err)
			}
		}
	})
	makeKey := func(b *browser) { // the page loads itself anew, with one key more
		t.Helper()
		shown := evaluate[int](b, "keys", `document.querySelectorAll("[data-signer]").length`)
		b.do("make a key", click("[data-key]"), visible(fmt.Sprintf("[data-signer]:nth-of-type(%d)", shown+1)))
	}
	submit := chromedp.CSS(".sign-off button[type=submit]:enabled") // the script switches it on
	b := newBrowser(t, "en")
	signIt := func(revision int) {
		t.Helper()
		b.do("sign off", chromedp.Click(submit), visible(fmt.Sprintf("[data-revision=%q] .is-in-force", strconv.Itoa(revision))))
	}
	revise("cx.pcf.base:1")
	b.logIn("/use-cases", "gabriel")
	b.check("use-cases")
	b.open("/use-cases/"+name, "use-case-waits")
	b.do("sign off without a key", chromedp.Click(submit))
	b.await(".sign-off [data-message]", "make one first")
	makeKey(b)
	if got := b.text(".sign-off"); !strings.Contains(got, "Who may sign the next revision Gabriel Okafor (governance-authority)") {
		t.Errorf("gabriel reads: %s", got)
	}
	signIt(1)
	revise("cx.core.qualityNotifications:1")
	german := newBrowser(t, "de")
	german.logIn("/use-cases/"+name, "renate")
	german.check("use-case-de")
	if got := german.text(`[data-revision="2"]`); !strings.Contains(got, "Wartet auf die Freigabe durch: alle mit der Rolle governance-authority") || !strings.Contains(got, "Neu: Von beiden vereinbart: Die Daten werden nur für cx.core.qualityNotifications:1 genutzt.") {
		t.Errorf("renate reads: %s", got)
	}
	if evaluate[int](german, "forms", `document.querySelectorAll(".sign-off").length`) != 0 {
		t.Error("renate, who has not the role, is shown a way to sign")
	}
	b.open("/use-cases/"+name, "use-case-changed")
	signIt(2)
	b.check("use-case-in-force")
	all, err := api.ListUseCaseRevisionsWithResponse(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all.JSON200.Items {
		if r.SignOff.Name != "Gabriel Okafor" || r.SignOff.Read != usecase.ReadHash(r.Explanation.En) || r.InForce != (r.Number == 2) {
			t.Errorf("revision %d: in force %t, signed off %+v", r.Number, r.InForce, r.SignOff)
		}
	}
	// Another browser's key is not listed by that sign-off; the page says so instead of having it refused.
	revise("cx.pcf.base:1")
	other := newBrowser(t, "en")
	other.logIn("/use-cases/"+name, "gabriel")
	makeKey(other)
	other.do("sign with it", chromedp.Click(submit))
	other.await(".sign-off [data-message]", "does not list this browser's key")
}
