// SPDX-License-Identifier: Apache-2.0

package runtimeclient

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// PutProfile gives the control plane a dataspace profile.
func (c *Client) PutProfile(ctx context.Context, p adminapi.Profile) error {
	return c.call(ctx, http.MethodPut, "/admin/v1/profiles/"+url.PathEscape(p.Name), p, nil)
}

// PutParticipant configures a participant context on the control plane.
func (c *Client) PutParticipant(ctx context.Context, id string, p adminapi.Participant) error {
	return c.call(ctx, http.MethodPut, participant(id), p, nil)
}

// DeleteParticipant removes a participant context from the role it is called on; one that is not there is no error.
func (c *Client) DeleteParticipant(ctx context.Context, id string) error {
	if err := c.call(ctx, http.MethodDelete, participant(id), nil, nil); !notFound(err) {
		return err
	}
	return nil
}

// PutWalletParticipant makes the participant's key when absent and publishes its DID document.
func (c *Client) PutWalletParticipant(ctx context.Context, id string, p adminapi.WalletParticipant) (adminapi.WalletParticipantStatus, error) {
	var out adminapi.WalletParticipantStatus
	return out, c.call(ctx, http.MethodPut, participant(id), p, &out)
}

// Credentials lists what the wallet holds or has asked for.
func (c *Client) Credentials(ctx context.Context, id string) ([]adminapi.HeldCredential, error) {
	var out []adminapi.HeldCredential
	return out, c.call(ctx, http.MethodGet, participant(id)+"/credentials", nil, &out)
}

// RequestCredential makes the wallet ask an issuer by DCP.
func (c *Client) RequestCredential(ctx context.Context, id string, r adminapi.CredentialRequest) error {
	return c.call(ctx, http.MethodPost, participant(id)+"/credential-requests", r, nil)
}

// Summary counts the negotiations and transfers of a participant context.
func (c *Client) Summary(ctx context.Context, id string) (adminapi.Summary, error) {
	var out adminapi.Summary
	return out, c.call(ctx, http.MethodGet, "/api/"+url.PathEscape(id)+"/v1/summary", nil, &out)
}

// PutIssuer makes the issuer's key when absent and publishes its DID document.
func (c *Client) PutIssuer(ctx context.Context, id string, cfg adminapi.IssuerConfig) (adminapi.IssuerStatus, error) {
	var out adminapi.IssuerStatus
	err := c.call(ctx, http.MethodPut, issuer(id), cfg, &out)
	return out, err
}

// PutHolder says what a holder may receive.
func (c *Client) PutHolder(ctx context.Context, id string, h adminapi.Holder) error {
	return c.call(ctx, http.MethodPut, holder(id, h.DID), h, nil)
}

// Holders lists who may receive something.
func (c *Client) Holders(ctx context.Context, id string) ([]adminapi.Holder, error) {
	var out []adminapi.Holder
	return out, c.call(ctx, http.MethodGet, issuer(id)+"/holders", nil, &out)
}

// DeleteHolder takes a holder's entitlements away; one that is not there is no error.
func (c *Client) DeleteHolder(ctx context.Context, id, did string) error {
	if err := c.call(ctx, http.MethodDelete, holder(id, did), nil, nil); !notFound(err) {
		return err
	}
	return nil
}

func participant(id string) string { return "/admin/v1/participants/" + url.PathEscape(id) }

func issuer(id string) string { return "/admin/v1/issuers/" + url.PathEscape(id) }

func holder(id, did string) string {
	return issuer(id) + "/holders/" + base64.RawURLEncoding.EncodeToString([]byte(did))
}
