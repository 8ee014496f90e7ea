// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/usecase"
)

const passportPolicy = `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"purpose","operator":"eq","rightOperand":"passport"}]}]}`

// passports is a use case whose revisions are made, signed off and negotiated under.
type passports struct {
	*stage
	t         *testing.T
	useCase   client.UseCase
	revisions []client.Revision
	// faults
	unsigned bool // offers change before a revision is signed off
	deaf     bool // agreements are under the first revision for ever
}

func newPassports(t *testing.T) *passports {
	t.Helper()
	p := &passports{stage: newStage(t), t: t, useCase: client.UseCase{Name: revisedUseCase, Spec: client.UseCaseSpec{AssetType: "urn:passport", ContractPolicy: json.RawMessage(passportPolicy)}}}
	p.make()
	p.sign(1)
	const path = "/api/v1/use-cases/" + revisedUseCase
	p.on("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		p.reply(w, http.StatusOK, p.useCase)
		p.useCase.Status.ObservedGeneration = p.useCase.Generation // the operator takes a while
	})
	p.on("PUT "+path, func(w http.ResponseWriter, r *http.Request) {
		var in client.UseCase
		p.decode(r, &in)
		if string(in.Spec.ContractPolicy) != string(p.useCase.Spec.ContractPolicy) {
			p.useCase.Spec = in.Spec
			p.useCase.Generation++
			p.make()
		}
		p.reply(w, http.StatusOK, p.useCase)
	})
	p.on("GET "+path+"/revisions", func(w http.ResponseWriter, _ *http.Request) {
		newest := slices.Clone(p.revisions)
		slices.Reverse(newest)
		p.reply(w, http.StatusOK, client.RevisionList{Items: newest})
	})
	p.on("GET /api/v1/participants/oem/catalog", func(w http.ResponseWriter, _ *http.Request) {
		p.reply(w, http.StatusOK, client.CatalogItemList{Items: []client.CatalogItem{{OfferID: fmt.Sprintf("under-%d", p.governing()), AssetID: passportAsset, Formats: []string{}, Sentences: []string{}}}})
	})
	p.on("POST /api/v1/participants/oem/negotiations", func(w http.ResponseWriter, r *http.Request) {
		var start client.NegotiationStart
		p.decode(r, &start)
		n := negotiation("REQUESTED", "AGREED", "VERIFIED", "FINALIZED")
		n.ID, n.AgreementID = start.OfferID, "agreement-"+start.OfferID
		p.on("GET /api/v1/participants/oem/negotiations/"+n.ID+"/events", events(n))
		revision := p.revisions[p.governing()-1]
		if p.deaf {
			revision = p.revisions[0]
		}
		p.answer("GET /api/v1/participants/supplier/agreements/"+n.AgreementID, client.Agreement{ID: n.AgreementID, UseCaseRevision: client.RevisionRef{Number: revision.Number, Hash: revision.Hash}})
		p.reply(w, http.StatusCreated, n)
	})
	return p
}

// make makes a revision of what the use case demands.
func (p *passports) make() {
	p.t.Helper()
	number := len(p.revisions) + 1
	previous := ""
	if number > 1 {
		previous = p.revisions[number-2].Hash
	}
	text, hash, err := usecase.Write(usecase.Content{UseCase: revisedUseCase, Number: number, Previous: previous, Profile: "automotive", AssetType: "urn:passport", ContractPolicy: p.useCase.Spec.ContractPolicy,
		Signers: []usecase.Person{{Role: "governance-authority"}}})
	if err != nil {
		p.t.Fatal(err)
	}
	r := client.Revision{UseCase: revisedUseCase, Number: int64(number), Hash: hash, Content: text, MadeAt: noon, Explanation: client.Explanation{En: []string{}, De: []string{}}}
	p.revisions = append(p.revisions, r)
	p.useCase.Status.Revision = client.RevisionStatus{Number: r.Number, Hash: hash}
	path := fmt.Sprintf("/api/v1/use-cases/%s/revisions/%d", revisedUseCase, number)
	p.answer("GET "+path, r)
	p.on("POST "+path+"/sign-off", func(w http.ResponseWriter, _ *http.Request) {
		p.sign(number)
		p.reply(w, http.StatusOK, r)
	})
}

func (p *passports) sign(number int) {
	for i := range p.revisions {
		p.revisions[i].InForce = i == number-1
	}
	p.useCase.Status.InForce = client.RevisionStatus{Number: int64(number), Hash: p.revisions[number-1].Hash, SignedBy: "Gabriel Okafor", SignedAt: noon}
}

// governing is the revision that offers are under.
func (p *passports) governing() int {
	if p.unsigned {
		return len(p.revisions)
	}
	return int(p.useCase.Status.InForce.Number)
}

func TestTheDemoShowsThatARevisionCountsOnceItIsSignedOff(t *testing.T) {
	p := newPassports(t)
	for round := range 2 { // it can be run again
		r := p.show("revision")
		if r.code != ExitOK {
			t.Fatalf("round %d: exit %d\n%s%s", round, r.code, r.out, r.err)
		}
		first := 2*round + 1
		for _, words := range []string{
			fmt.Sprintf("Revision %d, signed off by Gabriel Okafor", first), "$ kaphera --context gabriel usecase diff " + revisedUseCase, "+ Agreed by both: ", fmt.Sprintf("is under revision %d.", first),
			fmt.Sprintf("usecase sign-off %s --revision %d --hash", revisedUseCase, first+1), fmt.Sprintf("is under revision %d.", first+1), "Kept. Under agreement agreement-under-", fmt.Sprintf("put back; that is revision %d", first+2),
		} {
			if !strings.Contains(r.out, words) {
				t.Errorf("round %d lacks %q:\n%s", round, words, r.out)
			}
		}
		if got := string(p.useCase.Spec.ContractPolicy); got != passportPolicy || p.governing() != first+2 {
			t.Errorf("it leaves revision %d: %s", p.governing(), got)
		}
	}
}

func TestTheDemoClaimsNothingOfARevisionThatItDidNotSee(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(p *passports)
		words string
	}{
		"it governs without a signature": {func(p *passports) { p.unsigned = true }, "is under revision 2, not under revision 1"},
		"it does not govern when signed": {func(p *passports) { p.deaf = true }, "is under revision 1, not under revision 2"},
		"other data arrives": {func(p *passports) {
			p.on("GET /api/v1/participants/oem/transfers/t1/data", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
		}, "is not the passport that was put in"},
		"a revision waits already": {func(p *passports) { p.useCase.Status.InForce = client.RevisionStatus{} }, "has no signed revision in force"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPassports(t)
			c.fault(p)
			if r := p.show("revision"); r.code != ExitFailed || !strings.Contains(r.err, c.words) {
				t.Errorf("exit %d, want %q:\n%s%s", r.code, c.words, r.out, r.err)
			}
			if got := string(p.useCase.Spec.ContractPolicy); got != passportPolicy {
				t.Errorf("it leaves %s", got)
			}
		})
	}
}
