// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"context"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/store"
)

// pull is the one transfer type that the data plane serves and the control plane asks for.
const pull = dps.FormatHTTPPull

func (a *API) transfers() []route {
	const path, area, kind, typ = "/transferprocesses", "transfers", "transfer process", "TransferProcess"
	command := func(verb, body string, on state.Trigger) route {
		return route{method: http.MethodPost, path: path + "/{id}/" + verb, area: area, write: true, summary: verb + " a transfer", body: body, optional: true,
			do: func(c *call) (any, error) {
				var reason *adminapi.Reason
				var err error
				switch on {
				case state.CommandTerminate:
					reason, err = c.reason()
				case state.CommandSuspend:
					var why string
					if why, err = c.text("reason"); why != "" {
						reason = &adminapi.Reason{Code: "suspended", Message: why, By: "own"}
					}
				default: // needs none
				}
				if err == nil {
					_, err = a.Engine.CommandTransfer(c.Context(), c.participant.Ctx, c.id, on, reason)
				}
				return nil, err
			}}
	}
	return []route{
		{method: http.MethodPost, path: path, area: area, write: true, summary: "Request the data of an agreement", body: "TransferRequest", answer: "IdResponse", do: a.transfer},
		item(path+"/{id}", area, kind, typ, "Read a transfer", a.Store.Transfer, one(a.transferDocs)),
		item(path+"/{id}/state", area, kind, "TransferState", "Read the state of a transfer", a.Store.Transfer, func(_ *call, t *store.Transfer) (map[string]any, error) {
			return map[string]any{"@type": "TransferState", "state": t.Step}, nil
		}),
		command("suspend", "SuspendTransfer", state.CommandSuspend),
		command("resume", "", state.CommandResume),
		command("terminate", "TerminateTransfer", state.CommandTerminate),
		{method: http.MethodPost, path: path + "/{id}/deprovision", area: area, write: true, summary: "Release what an ended transfer used", do: a.deprovision},
		list(path, area, kind, typ, func(ctx context.Context, participant string, q store.Query) ([]*store.Transfer, error) {
			return a.Store.QueryTransfers(ctx, participant, byState(q, transferCodes))
		}, a.transferDocs),
	}
}

var transferCodes = map[float64]string{400: state.Requesting, 500: state.Requested, 550: state.Starting, 600: state.Started, 650: state.Suspending,
	700: state.Suspended, 720: state.Resuming, 725: state.Resumed, 750: state.Completing, 800: state.Completed, 825: state.Terminating, 850: state.Terminated}

func (a *API) transfer(c *call) (any, error) {
	_, address, err := c.counterparty()
	if err != nil {
		return nil, err
	}
	agreement, err := c.required("contractId")
	if err != nil {
		return nil, err
	}
	format, err := c.required("transferType")
	if err != nil {
		return nil, err
	}
	if format != pull {
		return nil, invalidValue("$.transferType", format, "not supported: only %q", pull)
	}
	if _, ok := c.body["dataplaneMetadata"]; ok {
		return nil, invalid("$.dataplaneMetadata", "not supported")
	}
	destination, err := object(c.body, "dataDestination")
	if err != nil {
		return nil, err
	}
	if kind, err := text(destination, "$.dataDestination", "type"); err != nil || (kind != "" && kind != "HttpProxy") {
		return nil, invalidValue("$.dataDestination.type", kind, "a transfer of type %s has no destination: leave it out, or write HttpProxy", pull)
	}
	id := uuid.NewString()
	t, err := started(a, c, id, func(ctx context.Context) (*store.Transfer, error) {
		return a.Engine.RequestTransfer(ctx, c.participant.Ctx, adminapi.TransferRequest{ID: id, AgreementID: agreement, Format: format}, address)
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"@type": "IdResponse", "@id": t.ID, "createdAt": t.CreatedAt.UnixMilli()}, nil
}

// deprovision has nothing to do: the end of a transfer has already ended its flow and its token.
func (a *API) deprovision(c *call) (any, error) {
	t, err := a.Store.Transfer(c.Context(), c.participant.Ctx, c.id)
	if err != nil {
		return nil, describe(err, "transfer process", c.id)
	}
	if !state.Transfer.Final(t.Step) {
		return nil, &apiError{Status: http.StatusConflict, Type: typeConflict, Message: fmt.Sprintf("transfer process %q is %s: only one that has ended can be deprovisioned", t.ID, t.Step)}
	}
	return nil, nil
}

func (a *API) transferDocs(c *call, all []*store.Transfer) ([]map[string]any, error) {
	return processDocs(a, c, all, func(t *store.Transfer) *store.Process { return &t.Process }, func(t *store.Transfer, out map[string]any) {
		out["@type"], out["contractId"], out["transferType"] = "TransferProcess", t.AgreementID, t.Format
	})
}

// references are the data addresses that a consumer got, with the tokens that open them.
func (a *API) references() []route {
	const path, area, kind = "/edrs", "edrs", "data address of transfer"
	all := []route{
		{method: http.MethodGet, path: path + "/{id}/dataaddress", area: area, summary: "Read the data address of a started transfer, with its token", answer: "DataAddress", do: a.reference},
		{method: http.MethodDelete, path: path + "/{id}", area: area, write: true, summary: "Forget the data address of a transfer", do: func(c *call) (any, error) {
			if _, err := a.consumed(c); err != nil {
				return nil, err
			}
			return nil, describe(a.Store.DeleteReference(c.Context(), c.participant.Ctx, c.id), kind, c.id)
		}},
		list(path, area, kind, "EndpointDataReferenceEntry", a.Store.QueryReferences, func(_ *call, all []*store.Reference) ([]map[string]any, error) {
			return each(all, func(o *store.Reference) (map[string]any, error) {
				return map[string]any{"@type": "EndpointDataReferenceEntry", "@id": o.ID, "transferProcessId": o.ID, "agreementId": o.AgreementID, "assetId": o.AssetID,
					"providerId": o.Provider, "contractNegotiationId": o.NegotiationID, "createdAt": o.CreatedAt.UnixMilli()}, nil
			})
		}),
	}
	for i := range all {
		all[i].only = V3
	}
	return all
}

// consumed reads the data address of a transfer whose consumer the participant is.
func (a *API) consumed(c *call) (*dps.DataAddress, error) {
	t, err := a.Store.Transfer(c.Context(), c.participant.Ctx, c.id)
	if err == nil && t.Role != state.Consumer {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, describe(err, "data address of transfer", c.id)
	}
	address, err := a.Store.DataAddress(c.Context(), c.participant.Ctx, c.id)
	return address, describe(err, "data address of transfer", c.id)
}

func (a *API) reference(c *call) (any, error) {
	address, err := a.consumed(c)
	if err != nil {
		return nil, err
	}
	if c.URL.Query().Get("auto_refresh") == "true" && address.Properties[tractusxTokens+"refreshEndpoint"] != "" {
		return nil, invalidValue("$query.auto_refresh", "true", "this provider's tokens are refreshed with tx-auth:refreshToken, which this connector does not do: ask without auto_refresh")
	}
	return addressDoc(address), nil
}

func addressDoc(address *dps.DataAddress) map[string]any {
	out := map[string]any{"@type": "DataAddress", "type": address.EndpointType, "endpointType": address.EndpointType, "endpoint": address.Endpoint}
	for k, v := range address.Properties {
		out[k] = v
	}
	return out
}
