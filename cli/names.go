// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/kaphera/kaphera/client"
)

// learnNames asks for the names of a participant's partners, so that people read names and not DIDs.
func (a *app) learnNames(ctx context.Context, c *client.API, participant string) error {
	if a.output != "table" {
		return nil
	}
	r, err := c.ListPartnersWithResponse(ctx, participant)
	if err != nil {
		return err
	}
	a.names = make(map[string]string, len(r.JSON200.Items))
	for _, p := range r.JSON200.Items {
		a.names[p.DID] = p.Name
	}
	return nil
}

// party is a participant's name; the DID when it is of elsewhere, or when DIDs were asked for.
func (a *app) party(did string) string {
	if a.output == "wide" {
		return did
	}
	return first(a.names[did], did)
}
