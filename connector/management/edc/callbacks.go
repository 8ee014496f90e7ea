// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/store"
)

// How events are delivered: in order for each address, each until it is taken or has been tried too often.
const (
	callbackPause    = time.Second // between looks for events
	callbackBatch    = 20
	callbackTimeout  = 15 * time.Second
	callbackAttempts = 12
	callbackBackoff  = 5 * time.Minute // at most; about a quarter of an hour in all
)

// Run delivers events to the addresses that clients gave along with negotiations and transfers, until ctx ends.
func (a *API) Run(ctx context.Context) error {
	for {
		due, err := a.Store.LeaseCallbacks(ctx, callbackBatch)
		if err != nil && ctx.Err() == nil {
			a.Log.WarnContext(ctx, "callbacks could not be read", "error", err)
		}
		for _, cb := range due {
			a.tell(ctx, cb)
		}
		if len(due) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(callbackPause):
		}
	}
}

// tell delivers the next event to an address, and records that it did or when it tries again.
func (a *API) tell(ctx context.Context, cb *store.DueCallback) {
	var pause time.Duration
	switch err := a.deliver(ctx, cb); {
	case err == nil:
		cb.Told, cb.Attempts = cb.Told+1, 0
	case ctx.Err() != nil:
		return // the lease ends by itself
	case cb.Attempts+1 >= callbackAttempts:
		a.Log.WarnContext(ctx, "an event is not delivered: it was tried too often", "participant", cb.Ctx, "process", cb.ProcessID, "callback", cb.Position, "error", err)
		cb.Told, cb.Attempts = cb.Told+1, 0
	default:
		pause = min(time.Second<<cb.Attempts, callbackBackoff)
		cb.Attempts++
		a.Log.InfoContext(ctx, "an event will be delivered again", "participant", cb.Ctx, "process", cb.ProcessID, "callback", cb.Position, "in", pause, "error", err)
	}
	if err := a.Store.TellCallback(ctx, cb, pause); err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
		a.Log.WarnContext(ctx, "a callback could not be recorded", "participant", cb.Ctx, "process", cb.ProcessID, "error", err)
	}
}

// wanted reports whether an address asked for an event: by its name, or by that of what it belongs to.
func wanted(events []string, name string) bool {
	return slices.ContainsFunc(events, func(e string) bool { return e == name || strings.HasPrefix(name, e+".") })
}

// deliver sends the event that an address does not know yet. Errors do not name the address, which may hold a secret.
func (a *API) deliver(ctx context.Context, cb *store.DueCallback) error {
	happened := cb.History[cb.Told]
	what := map[bool]string{false: "contract.negotiation", true: "transfer.process"}[cb.Transfer]
	if !wanted(cb.Events, what+"."+strings.ToLower(happened.State)) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callbackTimeout)
	defer cancel()
	event, err := a.event(ctx, cb, happened)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cb.URI, bytes.NewReader(event))
	if err != nil {
		return errors.New("the address is not one that can be called")
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := a.HTTP.Do(req) // #nosec G704 -- the client checks every address, see dcp.NewHTTPClient
	if err != nil {
		var cause interface{ Unwrap() error }
		if errors.As(err, &cause) { // a *url.Error quotes the address
			err = cause.Unwrap()
		}
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the address answered %d", res.StatusCode)
	}
	return nil
}

// event writes what happened as EDC does. Its id is the same each time that it is sent.
func (a *API) event(ctx context.Context, cb *store.DueCallback, happened adminapi.Event) ([]byte, error) {
	name := happened.State[:1] + strings.ToLower(happened.State[1:])
	self := []any{map[string]any{"uri": cb.URI, "events": cb.Events, "transactional": false, "authKey": nil, "authCodeId": nil}}
	var payload map[string]any
	if cb.Transfer {
		t, err := a.Store.Transfer(ctx, cb.Ctx, cb.ProcessID)
		if err != nil {
			return nil, err
		}
		name = "TransferProcess" + name
		payload = map[string]any{"transferProcessId": t.ID, "assetId": t.AssetID, "contractId": t.AgreementID, "type": strings.ToUpper(string(t.Role))}
		if happened.State == state.Started && t.Role == state.Consumer {
			address, err := a.Store.DataAddress(ctx, cb.Ctx, t.ID)
			switch {
			case err == nil:
				props := map[string]any{}
				for k, v := range addressDoc(address) {
					if !strings.Contains(k, ":") {
						k = namespace + strings.TrimPrefix(k, "@")
					}
					props[k] = v
				}
				payload["dataAddress"] = map[string]any{"properties": props}
			case !errors.Is(err, store.ErrNotFound): // else it has stopped again
				return nil, err
			}
		}
	} else {
		n, err := a.Store.Negotiation(ctx, cb.Ctx, cb.ProcessID)
		if err != nil {
			return nil, err
		}
		name = "ContractNegotiation" + name
		payload = map[string]any{"contractNegotiationId": n.ID, "counterPartyId": n.Counterparty, "counterPartyAddress": n.Address,
			"contractOffers": []any{n.Offer}, "lastContractOffer": n.Offer}
		if n.AgreementID != "" {
			payload["contractAgreementId"] = n.AgreementID
		}
	}
	payload["protocol"], payload["callbackAddresses"] = wire.Protocol, self
	if happened.Detail != "" {
		payload["reason"] = happened.Detail
	}
	id := uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "%s/%s/%d", cb.Ctx, cb.ProcessID, cb.Told))
	return json.Marshal(map[string]any{"id": id.String(), "at": happened.At.UnixMilli(), "type": name, "payload": payload})
}
