// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"

	"github.com/kaphera/kaphera/client"
)

func (a *app) assetNoun() noun {
	cells := func(v client.Asset) []string { return []string{v.ID, title(v.Properties), v.DataAddress["type"]} }
	return noun{
		name: "assets", aliases: []string{"asset"}, columns: []string{"ID", "TITLE", "SOURCE"}, ofParty: true,
		list: func(ctx context.Context, c *client.API, p string) ([]item, error) {
			r, err := c.ListAssetsWithResponse(ctx, p)
			if err != nil {
				return nil, err
			}
			return items(r.JSON200.Items, cells), nil
		},
		get: func(ctx context.Context, c *client.API, p, id string) (item, error) {
			r, err := c.GetAssetWithResponse(ctx, p, id)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}

func title(properties map[string]any) string {
	for _, key := range []string{"title", "dct:title", "http://purl.org/dc/terms/title", "name"} {
		if s, ok := properties[key].(string); ok && s != "" {
			return s
		}
	}
	return "-"
}

func (a *app) offerNoun() noun {
	cells := func(v client.Offer) []string {
		return []string{v.ID, strings.Join(v.Assets, ","), orDash(v.UseCase), orDash(v.State)}
	}
	return noun{
		name: "offers", aliases: []string{"offer"}, columns: []string{"ID", "ASSETS", "USE CASE", "STATE"}, ofParty: true, named: true,
		list: func(ctx context.Context, c *client.API, p string) ([]item, error) {
			r, err := c.ListOffersWithResponse(ctx, p)
			if err != nil {
				return nil, err
			}
			return items(r.JSON200.Items, cells), nil
		},
		get: func(ctx context.Context, c *client.API, p, id string) (item, error) {
			r, err := c.GetOfferWithResponse(ctx, p, id)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
		describe: func(a *app, v any) {
			if o, ok := v.(client.Offer); ok && len(o.Trace.Checks) > 0 {
				a.printTrace(a.out, o.Trace)
			}
		},
	}
}

func (a *app) negotiationNoun() noun {
	cells := func(v client.Negotiation) []string {
		return []string{v.ID, v.State, v.Role, v.AssetID, a.party(v.Counterparty), orDash(v.AgreementID), a.when(v.CreatedAt)}
	}
	return noun{
		name: "negotiations", aliases: []string{"negotiation"}, columns: []string{"ID", "STATE", "ROLE", "ASSET", "COUNTERPARTY", "AGREEMENT", "BEGAN"}, ofParty: true, named: true,
		list: func(ctx context.Context, c *client.API, p string) ([]item, error) {
			all, err := pages(func(before string) ([]client.Negotiation, string, error) {
				r, err := c.ListNegotiationsWithResponse(ctx, p, &client.ListNegotiationsParams{Before: before, Limit: pageSize})
				if err != nil {
					return nil, "", err
				}
				return r.JSON200.Items, r.JSON200.Next, nil
			})
			return items(all, cells), err
		},
		get: func(ctx context.Context, c *client.API, p, id string) (item, error) {
			r, err := c.GetNegotiationWithResponse(ctx, p, id)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
		describe: func(a *app, v any) {
			n, ok := v.(client.Negotiation)
			if !ok {
				return
			}
			if n.Waiting != "" {
				fprintf(a.out, "\nIt waits for %s\n", a.waiting(n))
			}
			if len(n.Terms.Sentences) > 0 || n.Decides {
				fprintf(a.out, "\nTerms (%s):\n", n.Terms.Hash)
			}
			for _, s := range n.Terms.Sentences {
				fprintf(a.out, "  - %s\n", s)
			}
			a.printGates(n.Gates)
			fprintln(a.out, "\nSteps:")
			for _, e := range n.History {
				a.printEvent(e)
			}
			if n.Reason.Message != "" {
				by := a.party(n.Counterparty)
				if n.Reason.By == "own" {
					by = "the own connector"
				}
				fprintf(a.out, "\nWhy it ended (%s, by %s): %s\n", n.Reason.Code, by, n.Reason.Message)
			}
			if len(n.Traces) > 0 {
				fprintln(a.out, "\nWhat was checked:")
			}
			for _, t := range n.Traces {
				a.printTrace(a.out, t)
			}
		},
	}
}

func (a *app) agreementNoun() noun {
	cells := func(v client.Agreement) []string {
		return []string{v.ID, v.AssetID, a.party(v.Provider), a.party(v.Consumer), a.when(v.SignedAt)}
	}
	return noun{
		name: "agreements", aliases: []string{"agreement"}, columns: []string{"ID", "ASSET", "PROVIDER", "CONSUMER", "SIGNED"}, ofParty: true, named: true,
		list: func(ctx context.Context, c *client.API, p string) ([]item, error) {
			r, err := c.ListAgreementsWithResponse(ctx, p)
			if err != nil {
				return nil, err
			}
			return items(r.JSON200.Items, cells), nil
		},
		get: func(ctx context.Context, c *client.API, p, id string) (item, error) {
			r, err := c.GetAgreementWithResponse(ctx, p, id)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}

func (a *app) transferNoun() noun {
	cells := func(v client.Transfer) []string {
		return []string{v.ID, v.State, v.Role, v.AssetID, a.party(v.Counterparty), v.AgreementID, a.when(v.CreatedAt)}
	}
	return noun{
		name: "transfers", aliases: []string{"transfer"}, columns: []string{"ID", "STATE", "ROLE", "ASSET", "COUNTERPARTY", "AGREEMENT", "BEGAN"}, ofParty: true, named: true,
		list: func(ctx context.Context, c *client.API, p string) ([]item, error) {
			r, err := c.ListTransfersWithResponse(ctx, p)
			if err != nil {
				return nil, err
			}
			return items(r.JSON200.Items, cells), nil
		},
		get: func(ctx context.Context, c *client.API, p, id string) (item, error) {
			r, err := c.GetTransferWithResponse(ctx, p, id)
			if err != nil {
				return item{}, err
			}
			return one(r.JSON200, nil, cells)
		},
	}
}
