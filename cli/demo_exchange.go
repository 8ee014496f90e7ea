// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/examples/pcf"
)

const (
	demoDocument = "gearbox-housing-gh-4711"
	demoAsset    = "pcf-" + demoDocument
	demoSecret   = "pcf-backend-key" //nolint:gosec // an alias
)

// exchange: the footprint is seeded, offered, found, negotiated, transferred, fetched and compared.
func (d *demo) exchange(ctx context.Context) error {
	supplier, err := d.participant(ctx, d.supplier)
	if err != nil {
		return err
	}
	if err := d.learnNames(ctx, d.c, d.supplier); err != nil {
		return err
	}
	if err := d.next(ctx, "%s puts a carbon footprint into its own backend", d.supplier); err != nil {
		return err
	}
	seeded, err := d.seed(ctx, supplier)
	if err != nil {
		return err
	}
	d.tell("%s: %s kg CO2e per %s, a value made just now. Nobody outside the cluster reaches the backend; within it, the data plane has the only key to read.", seeded.Product, seeded.Footprint, seeded.Unit)

	if err := d.next(ctx, "%s offers it under the use case %s", d.supplier, d.useCase); err != nil {
		return err
	}
	if err := d.putAsset(ctx, d.supplier); err != nil {
		return err
	}
	authority, err := d.as(ctx, d.authority)
	if err != nil {
		return err
	}
	d.tell("The use case has a step that the governance authority triggers by hand. %s has registered a key for that; the offer pins it.", d.authority)
	offer, err := createOffer(ctx, d.c, d.supplier, client.OfferCreate{Asset: demoAsset, UseCase: d.useCase})
	if err != nil {
		return err
	}
	d.tell("Offer %s: %s", offer.ID, offer.State)
	if len(offer.Trace.Checks) > 0 {
		d.tell("Before offering, the connector checked what the contract demands of its own side:")
		d.printTrace(d.out, offer.Trace)
	}

	if err := d.next(ctx, "%s finds it in the catalog and negotiates", d.consumer); err != nil {
		return err
	}
	n, err := d.negotiateHeld(ctx, negotiateOptions{participant: d.consumer, with: d.supplier, useCase: d.useCase, asset: demoAsset, timeout: d.patience}, func(held client.Negotiation) error {
		if err := d.next(ctx, "It waits for the governance authority, and %s lets it pass", d.authority); err != nil {
			return err
		}
		return d.decide(ctx, authority, "trigger", held, "attestation seen")
	})
	if err != nil {
		return err
	}
	d.tell("Agreement %s", n.AgreementID)

	if err := d.next(ctx, "%s fetches the footprint through the supplier's data plane", d.consumer); err != nil {
		return err
	}
	if err := d.fetch(ctx, n.AgreementID, seeded); err != nil {
		return err
	}
	return d.directAccess(ctx)
}

func (d *demo) participant(ctx context.Context, name string) (client.Participant, error) {
	r, err := d.c.GetParticipantWithResponse(ctx, name)
	if client.IsNotFound(err) {
		return client.Participant{}, fail(ExitNotFound, "apply the pilot workspace (make demo does), or name another with --supplier and --consumer", "the demo needs a participant %q", name)
	}
	if err != nil {
		return client.Participant{}, err
	}
	return *r.JSON200, nil
}

func (d *demo) seed(ctx context.Context, supplier client.Participant) (pcf.Summary, error) {
	org, err := d.c.GetOrganizationWithResponse(ctx, supplier.Spec.Organization)
	if err != nil {
		return pcf.Summary{}, err
	}
	doc, err := pcf.GearboxHousing(pcf.Supplier{Name: org.JSON200.Spec.DisplayName, BPN: supplier.Spec.Identity.BusinessPartnerNumber}, nil, d.now())
	if err != nil {
		return pcf.Summary{}, fmt.Errorf("footprint: %w", err)
	}
	if err := d.b.put(ctx, demoDocument, doc); err != nil {
		return pcf.Summary{}, err
	}
	return pcf.Read(doc)
}

// putAsset gives a participant's connector the carbon footprint as an asset.
func (d *demo) putAsset(ctx context.Context, participant string) error {
	return d.putDocumentAsset(ctx, participant, demoAsset, "Carbon footprint of gearbox housing GH-4711", demoDocument)
}

// putDocumentAsset gives a participant's connector the key to read the backend, and an asset that lies there.
func (d *demo) putDocumentAsset(ctx context.Context, participant, id, name, document string) error {
	u, err := d.c.GetUseCaseWithResponse(ctx, d.useCase)
	if err != nil {
		return err
	}
	if _, err := d.c.PutSecretWithResponse(ctx, participant, demoSecret, client.Secret{Value: d.b.readerKey}); err != nil {
		return err
	}
	_, err = d.c.PutAssetWithResponse(ctx, participant, id, client.Asset{
		ID:          id,
		Properties:  map[string]any{"name": name, "dct:type": u.JSON200.Spec.AssetType, "contenttype": "application/json"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": d.b.inCluster(document), "authKey": backendKeyHeader, "secretName": demoSecret},
	})
	return err
}

func (d *demo) fetch(ctx context.Context, agreement string, seeded pcf.Summary) error {
	t, err := d.transfer(ctx, d.c, transferOptions{participant: d.consumer, agreement: agreement, timeout: d.patience})
	if err != nil {
		return err
	}
	body, _, err := d.c.Data(ctx, d.consumer, t.ID, "")
	if err != nil {
		return err
	}
	got, err := pcf.Read(body)
	if err != nil {
		return fail(ExitFailed, "look at the data plane's log of "+d.supplier, "what arrived is no carbon footprint: %s", err)
	}
	lines := [][2]string{
		{"Product", got.Product}, {"Company", got.Company}, {"Footprint", got.Footprint + " kg CO2e per " + got.Unit},
		{"Primary data", shorter(got.PrimaryShare) + " %"}, {"Assessment", got.AssessmentID}, {"Agreement", agreement}, {"Transfer", t.ID},
	}
	for _, l := range lines {
		fprintf(d.out, "   %-14s %s\n", l[0], strings.TrimSpace(l[1]))
	}
	if got.Footprint != seeded.Footprint || got.AssessmentID != seeded.AssessmentID {
		return fail(ExitFailed, "look at the data address of asset "+demoAsset, "the value that arrived, %s of assessment %s, is not the one put in, %s of %s",
			got.Footprint, got.AssessmentID, seeded.Footprint, seeded.AssessmentID)
	}
	d.tell("%s It is the value that was made in scene 1.", d.style(d.out).good("Match."))
	return nil
}

// shorter leaves out the zeros that end a decimal fraction.
func shorter(number string) string {
	if !strings.Contains(number, ".") {
		return number
	}
	return strings.TrimRight(strings.TrimRight(number, "0"), ".")
}

// directAccess shows that the backend refuses everybody but the data plane.
func (d *demo) directAccess(ctx context.Context) error {
	status, err := d.b.getWithoutKey(ctx, demoDocument)
	if err != nil {
		return err
	}
	if status != http.StatusUnauthorized && status != http.StatusForbidden {
		return fail(ExitFailed, "the backend must refuse who has no key", "asking the backend directly was answered %d", status)
	}
	d.tell("Asking the backend directly, past the contract: refused (%d %s).", status, http.StatusText(status))
	return nil
}

// refusedByPolicy returns the trace of a policy's refusal, or the error itself when it was something else.
func refusedByPolicy(err error) (*client.Error, error) {
	if e := client.AsError(err); e != nil && e.Code == "policy-denied" {
		return e, nil
	}
	if err == nil {
		return nil, errors.New("it was not refused")
	}
	return nil, err
}
