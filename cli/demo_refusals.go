// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kaphera/kaphera/client"
)

const (
	disposable    = "demo-late-supplier"
	disposableBPN = "BPNL0000000LATE1"
	attestation   = "DataQualityAttestationCredential"
	// lateMonths is how old the disposable supplier's attestation is; the use case allows less than twelve.
	lateMonths = 13
)

// refusals: a supplier whose attestation is too old can't offer; one that offers all the same is refused by the consumer.
func (d *demo) refusals(ctx context.Context) (err error) {
	supplier, err := d.participant(ctx, d.supplier)
	if err != nil {
		return err
	}
	if err := d.next(ctx, "A second supplier joins; its data-quality attestation is %d months old", lateMonths); err != nil {
		return err
	}
	if err := d.dispose(ctx); err != nil { // of an interrupted run
		return err
	}
	defer func() {
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.patience)
		defer cancel()
		err = errors.Join(err, d.dispose(cleaning))
	}()
	if err := d.join(ctx, supplier, ""); err != nil {
		return err
	}
	if err := d.putAsset(ctx, disposable); err != nil {
		return err
	}
	offer := client.OfferCreate{Asset: demoAsset, UseCase: d.useCase}
	_, err = createOffer(ctx, d.c, disposable, offer)
	refused, err := refusedByPolicy(err)
	if err != nil {
		return fmt.Errorf("a supplier with an attestation of %d months must not be able to offer: %w", lateMonths, err)
	}
	d.tell("%s Its own connector does not offer what it may not offer:", d.style(d.out).bad("Refused."))
	d.printTrace(d.out, refused.Trace)

	if err := d.next(ctx, "It switches its own check off, as some connectors have none, and offers all the same"); err != nil {
		return err
	}
	if err := d.join(ctx, supplier, "Off"); err != nil {
		return err
	}
	created, err := d.offerWhenUnchecked(ctx, offer)
	if err != nil {
		return err
	}
	d.tell("Offer %s is in its catalog. %s negotiates:", created.ID, d.consumer)
	_, err = d.negotiate(ctx, d.c, negotiateOptions{participant: d.consumer, with: disposable, useCase: d.useCase, asset: demoAsset, timeout: d.patience})
	if exitCode(err) != ExitRefused {
		if err == nil {
			err = errors.New("it was concluded")
		}
		return fmt.Errorf("the consumer must refuse a contract that rests on an attestation of %d months: %w", lateMonths, err)
	}
	d.tell("%s %s", d.style(d.out).bad("Refused:"), err)
	d.tell("No contract, no data. Both sides keep the reason, and the console shows it.")
	return nil
}

// join creates or changes the disposable supplier, and waits until it takes part.
func (d *demo) join(ctx context.Context, like client.Participant, selfCheck string) error {
	if _, err := d.c.PutOrganizationWithResponse(ctx, disposable, &client.PutOrganizationParams{}, client.Organization{Spec: client.OrganizationSpec{
		DisplayName: "Spätguss GmbH (demo)", ContactEmail: "dataspace@spaetguss.example",
	}}); err != nil {
		return err
	}
	credentials, err := lateCredentials(like, d.now())
	if err != nil {
		return err
	}
	put, err := d.c.PutParticipantWithResponse(ctx, disposable, &client.PutParticipantParams{}, client.Participant{Spec: client.ParticipantSpec{
		Organization: disposable, Cell: like.Spec.Cell, Profile: like.Spec.Profile, Credentials: credentials, SelfCheck: selfCheck,
		Identity: client.Identity{Context: disposable, BusinessPartnerNumber: disposableBPN},
	}})
	if err != nil {
		return err
	}
	if put.JSON201 != nil {
		d.tell("%s is set up: identity, keys, credentials from the dataspace's issuers…", disposable)
	}
	return d.takesPart(ctx, d.c, d.patience, disposable)
}

// lateCredentials are those of the other supplier, with its own number and an attestation that is too old.
func lateCredentials(like client.Participant, now time.Time) ([]client.HolderCredential, error) {
	return credentialsLike(like, disposableBPN, func(kind string, claims map[string]any) {
		if kind == attestation {
			claims["completedAt"] = now.UTC().AddDate(0, -lateMonths, 0).Format(time.RFC3339)
		}
	})
}

// credentialsLike are those of a participant with another business partner number, and changed.
func credentialsLike(like client.Participant, number string, change func(kind string, claims map[string]any)) ([]client.HolderCredential, error) {
	out := make([]client.HolderCredential, 0, len(like.Spec.Credentials))
	for _, c := range like.Spec.Credentials {
		claims := map[string]any{}
		if len(c.Claims) > 0 {
			if err := json.Unmarshal(c.Claims, &claims); err != nil {
				return nil, fmt.Errorf("claims of %s: %w", c.Type, err)
			}
		}
		if _, ok := claims["holderIdentifier"]; ok {
			claims["holderIdentifier"] = number
		}
		change(c.Type, claims)
		raw, err := json.Marshal(claims)
		if err != nil {
			return nil, fmt.Errorf("claims of %s: %w", c.Type, err)
		}
		out = append(out, client.HolderCredential{Type: c.Type, Claims: raw})
	}
	return out, nil
}

// offerWhenUnchecked repeats the offer until the cell has applied that the check is off.
func (d *demo) offerWhenUnchecked(ctx context.Context, o client.OfferCreate) (offer client.Offer, err error) {
	err = d.until(ctx, "an offer without the own check", func(ctx context.Context) (bool, string, error) {
		var err error
		offer, err = createOffer(ctx, d.c, disposable, o)
		if refused, other := refusedByPolicy(err); err != nil && other == nil {
			return false, refused.Detail, nil
		}
		return err == nil, "", err
	})
	return offer, err
}

// dispose removes the disposable supplier and its organization, and waits until they are gone.
func (d *demo) dispose(ctx context.Context) error {
	if err := d.removeParticipant(ctx, d.c, d.patience, disposable); err != nil {
		return err
	}
	return removeOrganization(ctx, d.c, disposable)
}
