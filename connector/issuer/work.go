// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
)

const (
	atOnce     = 8 // deliveries
	maxBackoff = 30 * time.Minute
)

// deliveries are those under way. A holder that hangs has one of them, and the others wait for nobody.
type deliveries struct {
	sync.WaitGroup
	count atomic.Int32
}

// work begins what is due, as far as there is room.
func (i *Issuer) work(ctx context.Context, underWay *deliveries) error {
	if room := atOnce - int(underWay.count.Load()); room > 0 {
		due, err := i.store.lease(ctx, i.now(), room)
		if err != nil {
			return err
		}
		for _, r := range due {
			underWay.count.Add(1)
			underWay.Go(func() {
				if err := i.deliver(ctx, r); err != nil && ctx.Err() == nil {
					i.log.ErrorContext(ctx, "delivery", "issuer", r.Ctx, "request", r.ID, "error", err)
				}
				underWay.count.Add(-1)
				dcp.Wake(i.wake) // for what there was no room for
			})
		}
	}
	return i.ring.Prune(ctx)
}

func (i *Issuer) deliver(ctx context.Context, r request) error {
	failure := ""
	if err := i.send(ctx, r); err != nil {
		failure = err.Error()
		i.log.WarnContext(ctx, "delivery failed; trying again", "issuer", r.Ctx, "holder", r.Holder, "request", r.ID, "attempt", r.Attempts, "error", err)
	}
	next := i.now().Add(min(i.backoff<<min(max(r.Attempts-1, 0), 16), maxBackoff))
	// Also when ctx has ended meanwhile, so that the lease does not have to run out.
	store, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	return i.store.settle(store, r, failure, next, i.now())
}

// send posts the outcome of a request to the holder's credential service.
func (i *Issuer) send(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second) // less than the lease
	defer cancel()
	row, err := i.store.issuer(ctx, r.Ctx)
	if err != nil {
		return err
	}
	m := dcp.CredentialMessage{Head: dcp.NewHead(dcp.TypeCredentialMessage), IssuerPID: r.ID, HolderPID: r.HolderPID, Status: r.State, RejectionReason: r.Reason}
	issued, err := i.store.issuedFor(ctx, r.Ctx, r.ID)
	if err != nil {
		return err
	}
	for _, c := range issued {
		m.Credentials = append(m.Credentials, dcp.CredentialContainer{CredentialType: c.Type, Payload: c.Raw, Format: i.format(c.Profile)})
	}
	return i.post(ctx, row, r.Holder, "/credentials", r.AccessToken, m)
}

func (i *Issuer) format(profile string) string {
	if i.v.Settings().DeliveryFormat != dcp.FormatLegacy {
		return profile
	}
	if profile == dcp.ProfileVC20 {
		return "VC2_0_JOSE"
	}
	return "VC1_0_JWT"
}

// post sends a message to a holder's credential service; accessToken is the holder's own, if it gave one.
func (i *Issuer) post(ctx context.Context, row issuerRow, holder, path, accessToken string, message any) error {
	doc, err := i.v.Resolve(ctx, holder)
	if err != nil {
		return err
	}
	endpoint, err := doc.ServiceEndpoint(dcp.CredentialService)
	if err != nil {
		return err
	}
	key, err := i.ring.Signer(ctx, row.ctx, row.did)
	if err != nil {
		return err
	}
	token, _, err := dcp.NewIDToken(key, row.did, holder, accessToken, i.now())
	if err != nil {
		return err
	}
	_, _, err = dcp.PostJSON(ctx, i.v.HTTP(), endpoint+path, "Bearer "+token, message, dcp.MaxMessage)
	return err
}

// postOffer tells a holder at once what it may ask for.
func (i *Issuer) postOffer(r *http.Request) (any, error) {
	var body adminapi.OfferCredentials
	if err := dcp.ReadJSON(r, &body); err != nil {
		return nil, err
	}
	row, err := i.byPath(r)
	if err != nil {
		return nil, err
	}
	profile, ok := dcp.NormalizeFormat(cmp.Or(body.Profile, dcp.ProfileVC11))
	if !ok {
		return nil, unprocessable("profile %q: use %s or %s", body.Profile, dcp.ProfileVC11, dcp.ProfileVC20)
	}
	offer := dcp.CredentialOffer{Head: dcp.NewHead(dcp.TypeCredentialOffer), Issuer: row.did}
	for id, o := range row.objects() {
		if o.profile == profile && slices.Contains(body.Types, o.Type) {
			offer.Credentials = append(offer.Credentials, dcp.CredentialObject{
				ID: id, Type: dcp.TypeCredentialObject, CredentialType: o.Type, Profile: o.profile, BindingMethods: []string{"did:web"}, OfferReason: "reissue",
			})
		}
	}
	if len(offer.Credentials) != len(body.Types) || len(body.Types) == 0 {
		return nil, unprocessable("types %q: each must be one that %s issues", strings.Join(body.Types, ", "), row.did)
	}
	if err := i.post(r.Context(), row, body.Holder, "/offers", "", offer); err != nil {
		var se *dcp.StatusError
		if errors.As(err, &se) {
			return nil, dcp.Failuref(http.StatusBadGateway, "counterparty-refused", "%s did not take the offer: %v", body.Holder, err)
		}
		return nil, fmt.Errorf("offer to %s: %w", body.Holder, err)
	}
	return nil, nil
}
