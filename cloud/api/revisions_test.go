// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

func signedUseCase(policy string) string {
	return strings.TrimSuffix(useCaseSpec(policy), "}") + `,"signers":[{"role":"governance-authority"}]}`
}

// signer registers a key of somebody and returns what signs with it.
func (b *bundle) signer(who map[string]any) jwk.Key {
	b.Helper()
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	key, err := jwk.Import(raw)
	if err != nil {
		b.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		b.Fatal(err)
	}
	text, err := json.Marshal(public)
	if err != nil {
		b.Fatal(err)
	}
	b.want(http.StatusCreated, b.call(who, "POST", "/approval-keys", KeyRegistration{text}))
	return key
}

// claims are a sign-off of a revision as somebody reads it.
func signOffClaims(r Revision, subject string) adminapi.SignOffClaims {
	c := adminapi.SignOffClaims{Signer: subject, UseCase: r.UseCase, Number: r.Number, Hash: usecase.Hash(r.Content), Read: usecase.ReadHash(r.Explanation.DE), Language: "de", IssuedAt: time.Now().Unix()}
	for _, n := range r.NextSigners {
		c.Signers = append(c.Signers, n.Keys...)
	}
	return c
}

func TestARevisionIsSignedOffByWhomTheUseCaseNames(t *testing.T) {
	b := setup(t)
	b.pilot()
	const path = "/use-cases/signed"
	b.want(http.StatusCreated, b.call(authority, "PUT", path, wrap(signedUseCase(contractPolicy))))
	b.operate("signed")
	a := b.call(brandt, "POST", "/participants/supplier/offers", `{"asset":"pcf","useCase":"signed"}`)
	if a.status != http.StatusConflict || a.problem.Code != CodeNotReady || !strings.Contains(a.problem.Detail, "revision 1 waits for the sign-off of everybody with the role governance-authority") {
		t.Errorf("an offer without a signed revision: %d %s", a.status, a.body)
	}
	key, other := b.signer(authority), b.signer(cloudtest.Claims("greta", "", "governance-authority"))
	stranger := b.signer(brandt)
	read := func(number string) Revision {
		t.Helper()
		return decodeTo[Revision](t, b.want(http.StatusOK, b.call(viewer, "GET", path+"/revisions/"+number, nil)))
	}
	first := read("1")
	if first.MadeBy != "gerd" && first.MadeBy == "" || first.InForce || first.WaitsFor == "" || len(first.NextSigners) != 2 || !slices.ContainsFunc(first.Explanation.EN, func(s string) bool { return strings.Contains(s, "younger than 12 months") }) {
		t.Errorf("as people read it: %+v", first)
	}
	for who, yours := range map[string]bool{"authority": true, "brandt": false} {
		got := decodeTo[Revision](t, b.want(http.StatusOK, b.call(map[string]map[string]any{"authority": authority, "brandt": brandt}[who], "GET", path+"/revisions/1", nil)))
		if got.Yours != yours || got.WaitsForDE != "alle mit der Rolle governance-authority" {
			t.Errorf("%s reads that it waits for %q, and for the reader: %t", who, got.WaitsForDE, got.Yours)
		}
	}
	now := time.Now()
	for name, c := range map[string]struct {
		who    map[string]any
		key    jwk.Key
		typ    string
		change func(*adminapi.SignOffClaims)
		status int
	}{
		"by somebody without the role":     {brandt, stranger, usecase.Type, func(c *adminapi.SignOffClaims) { c.Signer = "sub-berta" }, http.StatusForbidden},
		"by the platform's operator":       {operator, key, usecase.Type, nil, http.StatusForbidden},
		"with a key that is another's":     {authority, other, usecase.Type, nil, http.StatusForbidden},
		"in another's name":                {authority, key, usecase.Type, func(c *adminapi.SignOffClaims) { c.Signer = "sub-greta" }, http.StatusForbidden},
		"signed as a decision":             {authority, key, gate.Type, nil, http.StatusUnprocessableEntity},
		"of another content":               {authority, key, usecase.Type, func(c *adminapi.SignOffClaims) { c.Hash = "00" }, http.StatusConflict},
		"of another revision":              {authority, key, usecase.Type, func(c *adminapi.SignOffClaims) { c.Number = 2 }, http.StatusConflict},
		"of another explanation":           {authority, key, usecase.Type, func(c *adminapi.SignOffClaims) { c.Read = usecase.ReadHash(first.Explanation.EN) }, http.StatusConflict},
		"signed an hour ago":               {authority, key, usecase.Type, func(c *adminapi.SignOffClaims) { c.IssuedAt = now.Add(-time.Hour).Unix() }, http.StatusConflict},
		"that lists nobody for the next":   {authority, key, usecase.Type, func(c *adminapi.SignOffClaims) { c.Signers = nil }, http.StatusConflict},
		"that lists a key that nobody has": {authority, key, usecase.Type, func(c *adminapi.SignOffClaims) { c.Signers = []string{"x"} }, http.StatusConflict},
	} {
		signedClaims := signOffClaims(first, "sub-gerd")
		if c.change != nil {
			c.change(&signedClaims)
		}
		jws, err := gate.SignJWS(c.key, c.typ, signedClaims)
		if err != nil {
			t.Fatal(err)
		}
		if a := b.call(c.who, "POST", path+"/revisions/1/sign-off", SignedOff{jws}); a.status != c.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	sign := func(r Revision, who map[string]any, key jwk.Key, subject string) answer {
		t.Helper()
		jws, err := gate.SignJWS(key, usecase.Type, signOffClaims(r, subject))
		if err != nil {
			t.Fatal(err)
		}
		a := b.call(who, "POST", path+"/revisions/"+string(rune('0'+r.Number))+"/sign-off", SignedOff{jws})
		b.operate("signed")
		return a
	}
	done := decodeTo[Revision](t, b.want(http.StatusOK, sign(first, authority, key, "sub-gerd")))
	if !done.InForce || done.SignOff == nil || done.SignOff.Subject != "sub-gerd" || done.SignOff.Language != "de" || len(done.SignOff.Signers) != 2 || done.SignOff.Read != usecase.ReadHash(first.Explanation.DE) || done.WaitsFor != "" {
		t.Errorf("signed off: %+v", done.SignOff)
	}
	if a := sign(first, authority, key, "sub-gerd"); a.status != http.StatusConflict {
		t.Errorf("signed off twice: %d %s", a.status, a.body)
	}

	b.want(http.StatusOK, b.call(authority, "PUT", path, wrap(signedUseCase(strings.Replace(contractPolicy, "P12M", "P6M", 1)))))
	b.operate("signed")
	var sent adminapi.Offer
	b.connector.On("PUT brandt/offers/pcf--signed", func(r *http.Request) (int, any) {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		return http.StatusOK, sent
	})
	offer := func(want string) {
		t.Helper()
		b.want(http.StatusCreated, b.call(brandt, "POST", "/participants/supplier/offers", `{"asset":"pcf","useCase":"signed"}`))
		if !strings.Contains(string(sent.ContractPolicy), want) {
			t.Errorf("offered under %s, want %s", sent.ContractPolicy, want)
		}
	}
	offer("P12M")
	if u := decodeTo[UseCase](t, b.want(http.StatusOK, b.call(viewer, "GET", path, nil))); u.Status.Revision.Number != 2 || u.Status.InForce.Number != 1 {
		t.Errorf("the use case says %+v, %+v", u.Status.Revision, u.Status.InForce)
	}
	b.want(http.StatusOK, sign(read("2"), cloudtest.Claims("greta", "", "governance-authority"), other, "sub-greta"))
	offer("P6M")
	all := decodeTo[List[Revision]](t, b.want(http.StatusOK, b.call(viewer, "GET", path+"/revisions", nil)))
	if len(all.Items) != 2 || all.Items[0].Number != 2 || !all.Items[0].InForce || all.Items[1].InForce || all.Items[1].SignOff == nil {
		t.Errorf("the revisions: %+v", all.Items)
	}
}

func TestTheRevisionInForceReachesEveryParticipant(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.want(http.StatusCreated, b.call(authority, "PUT", "/use-cases/signed", wrap(signedUseCase(contractPolicy))))
	b.operate("signed")
	key := b.signer(authority)
	got := make(chan adminapi.UseCaseRevision, 4)
	for name, status := range map[string]int{"brandt": http.StatusOK, "rheintal": http.StatusConflict} {
		b.connector.On("PUT "+name+"/use-cases/signed", func(r *http.Request) (int, any) {
			var u adminapi.UseCaseRevision
			if err := json.NewDecoder(r.Body).Decode(&u); err != nil {
				t.Error(err)
			}
			got <- u
			return status, u
		})
		// Nobody signed the other use case off, and only the supplier knows it.
		b.connector.Answer("GET "+name+"/use-cases", http.StatusOK, map[string][]adminapi.UseCaseRevision{"brandt": {{UseCase: "carbon-footprint"}}, "rheintal": {}}[name])
	}
	f := follower{Service: b.service, done: map[[2]string]string{}, said: map[[2]string]string{}}
	round := func() {
		t.Helper()
		if err := f.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if len(got) != 0 || len(f.done) != 1 {
		t.Fatalf("delivered before the sign-off: %v, %v", len(got), f.done)
	}
	r := decodeTo[Revision](t, b.want(http.StatusOK, b.call(viewer, "GET", "/use-cases/signed/revisions/1", nil)))
	jws, err := gate.SignJWS(key, usecase.Type, signOffClaims(r, "sub-gerd"))
	if err != nil {
		t.Fatal(err)
	}
	b.want(http.StatusOK, b.call(authority, "POST", "/use-cases/signed/revisions/1/sign-off", SignedOff{jws}))
	round()
	if len(got) != 2 || len(f.done) != 2 || len(f.said) != 1 {
		t.Fatalf("%d deliveries; taken: %v; refused: %v", len(got), f.done, f.said)
	}
	for range 2 { // as a connector judges it
		if _, _, err := usecase.Accept(nil, <-got); err != nil {
			t.Error(err)
		}
	}
	b.connector.Answer("PUT rheintal/use-cases/signed", http.StatusOK, adminapi.UseCaseRevision{})
	before := len(b.connector.Requests())
	round()
	round()
	if f.done[[2]string{"oem", "signed"}] == "" || len(got) != 0 {
		t.Errorf("taken by all: %v, and %d once more", f.done, len(got))
	}
	if asked := b.connector.Requests()[before:]; len(asked) != 3 { // what was refused, and twice whether the other use case is known
		t.Errorf("asked %v", asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.service.FollowRevisions(ctx) // ends
}
