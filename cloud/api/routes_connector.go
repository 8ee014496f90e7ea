// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaphera/kaphera/cloud/authz"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// OfParticipant is the path of what belongs to a participant. (huma reads embedded parameters of exported types only.)
type OfParticipant struct {
	Participant string `path:"participant" maxLength:"63"`
}

// WithID is the path of one of a participant's objects.
type WithID struct {
	Participant string `path:"participant" maxLength:"63"`
	ID          string `path:"id" maxLength:"300"`
}

type withBody[B any] struct {
	OfParticipant
	Body B
}

type withIDAndBody[B any] struct {
	WithID
	Body B
}

const ofP = "/participants/{participant}"

// registerConnector adds the participants' view of their connectors.
func registerConnector(api huma.API, s *Service) {
	registerOffering(api, s)
	registerNegotiations(api, s)
	registerTransfers(api, s)
	registerAudit(api, s)
}

// reads adds the list and the single read of a connector's noun.
func reads[T any](api huma.API, s *Service, listOp, getOp, path, what string) {
	huma.Register(api, operation(listOp, http.MethodGet, ofP+path, "List a participant's "+what+"s"),
		func(ctx context.Context, in *OfParticipant) (*output[List[T]], error) {
			l, err := list[T](ctx, s, in.Participant, path)
			return &output[List[T]]{l}, err
		})
	huma.Register(api, operation(getOp, http.MethodGet, ofP+path+"/{id}", "Read "+article(what)),
		func(ctx context.Context, in *WithID) (*output[T], error) {
			v, err := ask[T](ctx, s, in.Participant, http.MethodGet, path+"/"+url.PathEscape(in.ID), nil)
			return &output[T]{v}, err
		})
}

// removes adds the removal of a connector's noun.
func removes(api huma.API, s *Service, op, path, summary string) {
	huma.Register(api, operation(op, http.MethodDelete, ofP+path+"/{id}", summary), func(ctx context.Context, in *WithID) (*none, error) {
		_, err := s.call(ctx, in.Participant, http.MethodDelete, path+"/"+url.PathEscape(in.ID), nil)
		return nil, err
	})
}

func registerOffering(api huma.API, s *Service) {
	reads[adminapi.Asset](api, s, authz.OpListAssets, authz.OpGetAsset, "/assets", "asset")
	huma.Register(api, operation(authz.OpPutAsset, http.MethodPut, ofP+"/assets/{id}", "Create or replace an asset"),
		func(ctx context.Context, in *withIDAndBody[adminapi.Asset]) (*output[adminapi.Asset], error) {
			in.Body.ID = in.ID
			if _, err := s.call(ctx, in.Participant, http.MethodPut, "/assets/"+url.PathEscape(in.ID), in.Body); err != nil {
				return nil, err
			}
			return &output[adminapi.Asset]{in.Body}, nil
		})
	removes(api, s, authz.OpDeleteAsset, "/assets", "Remove an asset")
	huma.Register(api, operation(authz.OpPutSecret, http.MethodPut, ofP+"/secrets/{id}", "Put a secret into the participant's Vault path; it can't be read back"),
		func(ctx context.Context, in *withIDAndBody[adminapi.Secret]) (*none, error) {
			_, err := s.call(ctx, in.Participant, http.MethodPut, "/secrets/"+url.PathEscape(in.ID), in.Body)
			return nil, err
		})

	reads[adminapi.Offer](api, s, authz.OpListOffers, authz.OpGetOffer, "/offers", "offer")
	create := operation(authz.OpCreateOffer, http.MethodPost, ofP+"/offers", "Offer an asset under a use case's policies; refused with the trace when the own obligations are not met")
	create.DefaultStatus = http.StatusCreated
	huma.Register(api, create, func(ctx context.Context, in *withBody[OfferCreate]) (*output[adminapi.Offer], error) {
		o, err := s.CreateOffer(ctx, in.Participant, in.Body)
		return &output[adminapi.Offer]{o}, err
	})
	removes(api, s, authz.OpDeleteOffer, "/offers", "Withdraw an offer; agreements that came from it stay")

	send := operation(authz.OpSendOffer, http.MethodPost, ofP+"/offers/{id}/negotiations", "Make an offer to one consumer, which decides on it; refused with the trace when the own obligations are not met")
	send.DefaultStatus = http.StatusCreated
	huma.Register(api, send, func(ctx context.Context, in *withIDAndBody[OfferSend]) (*output[adminapi.Negotiation], error) {
		n, err := s.SendOffer(ctx, in.Participant, in.ID, in.Body)
		return &output[adminapi.Negotiation]{n}, err
	})

	huma.Register(api, operation(authz.OpListPartners, http.MethodGet, ofP+"/partners", "List the participants of the dataspace, this one included"),
		func(ctx context.Context, in *OfParticipant) (*output[List[Partner]], error) {
			all, err := s.Partners(ctx, in.Participant)
			return &output[List[Partner]]{List[Partner]{Items: all}}, err
		})
	type catalogInput struct {
		OfParticipant
		Counterparty string `query:"counterparty" required:"true" minLength:"1" doc:"Name of a participant, or a DID"`
		UseCase      string `query:"useCase" doc:"Only offers under this use case's policy"`
		Profile      string `query:"profile" doc:"The participant's dataspace profile to ask in; default that of the use case, else the first that both take part in"`
	}
	huma.Register(api, operation(authz.OpGetCatalog, http.MethodGet, ofP+"/catalog", "Ask a counterparty for its offers, now"),
		func(ctx context.Context, in *catalogInput) (*output[List[CatalogItem]], error) {
			l, err := s.Catalog(ctx, in.Participant, in.Counterparty, in.UseCase, in.Profile)
			return &output[List[CatalogItem]]{l}, err
		})
}

func registerNegotiations(api huma.API, s *Service) {
	const path = ofP + "/negotiations"
	type negotiationsInput struct {
		OfParticipant
		State  string `query:"state" doc:"DSP state, e.g. FINALIZED"`
		Limit  int    `query:"limit" minimum:"0" maximum:"200" doc:"0 takes 50"`
		Before string `query:"before" doc:"'next' of the page before"`
	}
	huma.Register(api, operation(authz.OpListNegotiations, http.MethodGet, path, "List a participant's negotiations, newest first"),
		func(ctx context.Context, in *negotiationsInput) (*output[List[adminapi.Negotiation]], error) {
			l, err := s.Negotiations(ctx, in.Participant, in.State, orDefault(in.Limit, 50), in.Before)
			return &output[List[adminapi.Negotiation]]{l}, err
		})
	huma.Register(api, operation(authz.OpGetNegotiation, http.MethodGet, path+"/{id}", "Read a negotiation with its history and policy traces"),
		func(ctx context.Context, in *WithID) (*output[adminapi.Negotiation], error) {
			n, err := s.Negotiation(ctx, in.Participant, in.ID)
			return &output[adminapi.Negotiation]{n}, err
		})
	start := operation(authz.OpStartNegotiation, http.MethodPost, path, "Start a negotiation for an offer of the counterparty's catalog")
	start.DefaultStatus = http.StatusCreated
	huma.Register(api, start, func(ctx context.Context, in *withBody[NegotiationStart]) (*output[adminapi.Negotiation], error) {
		n, err := s.StartNegotiation(ctx, in.Participant, in.Body)
		return &output[adminapi.Negotiation]{n}, err
	})
	huma.Register(api, operation(authz.OpCounterNegotiation, http.MethodPost, path+"/{id}/counter", "Answer an offer, or a request that is held, with other terms; the counterparty decides"),
		func(ctx context.Context, in *withIDAndBody[adminapi.CounterOffer]) (*output[adminapi.Negotiation], error) {
			n, err := s.CounterNegotiation(ctx, in.Participant, in.ID, in.Body)
			return &output[adminapi.Negotiation]{n}, err
		})
	huma.Register(api, operation(authz.OpAcceptNegotiation, http.MethodPost, path+"/{id}/accept", "Accept the counterparty's terms: a provider's offer, or what a consumer requests instead of an offer"),
		func(ctx context.Context, in *withIDAndBody[*adminapi.Acceptance]) (*output[adminapi.Negotiation], error) {
			if in.Body == nil {
				in.Body = &adminapi.Acceptance{}
			}
			n, err := s.AcceptNegotiation(ctx, in.Participant, in.ID, *in.Body)
			return &output[adminapi.Negotiation]{n}, err
		})
	huma.Register(api, operation(authz.OpTerminateNegotiation, http.MethodPost, path+"/{id}/terminate", "End a negotiation with a reason"),
		func(ctx context.Context, in *withIDAndBody[TerminationReason]) (*none, error) {
			return nil, s.TerminateNegotiation(ctx, in.Participant, in.ID, in.Body)
		})
	watch := operation(authz.OpWatchNegotiation, http.MethodGet, path+"/{id}/events",
		"Follow a negotiation: an event 'negotiation' with the whole negotiation now and after every change, until it has ended")
	watch.Responses = map[string]*huma.Response{"200": {Description: "Server-sent events", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}, "default": problemResponse(api)}
	huma.Register(api, watch, func(ctx context.Context, in *WithID) (*huma.StreamResponse, error) {
		if _, err := s.Negotiation(ctx, in.Participant, in.ID); err != nil { // told by status, while it still can be
			return nil, err
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // hc carries the request's
			hc.SetHeader("Content-Type", "text/event-stream")
			hc.SetHeader("Cache-Control", "no-store")
			events := &EventWriter{W: hc.BodyWriter()}
			if err := s.WatchNegotiation(hc.Context(), in.Participant, in.ID, func(n adminapi.Negotiation) error { return events.JSON("negotiation", n) }); err != nil {
				_ = events.JSON("problem", asProblem(err))
			}
		}}, nil
	})

	reads[adminapi.Agreement](api, s, authz.OpListAgreements, authz.OpGetAgreement, "/agreements", "agreement")
	type documentOutput struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	document := operation(authz.OpGetDocument, http.MethodGet, ofP+"/agreements/{id}/document", "Read an agreement byte for byte as it was sent or received (ODRL Agreement)")
	document.Responses = map[string]*huma.Response{"200": {Description: "The ODRL Agreement", Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}, "default": problemResponse(api)}
	huma.Register(api, document, func(ctx context.Context, in *WithID) (*documentOutput, error) {
		a, err := ask[adminapi.Agreement](ctx, s, in.Participant, http.MethodGet, "/agreements/"+url.PathEscape(in.ID), nil)
		if err != nil {
			return nil, err
		}
		resp, err := s.call(ctx, in.Participant, http.MethodGet, "/negotiations/"+url.PathEscape(a.NegotiationID)+"/agreement", nil)
		return &documentOutput{resp.ContentType, resp.Body}, err
	})
}

func registerTransfers(api huma.API, s *Service) {
	reads[adminapi.Transfer](api, s, authz.OpListTransfers, authz.OpGetTransfer, "/transfers", "transfer")
	start := operation(authz.OpStartTransfer, http.MethodPost, ofP+"/transfers", "Start a transfer under an agreement")
	start.DefaultStatus = http.StatusCreated
	huma.Register(api, start, func(ctx context.Context, in *withBody[TransferStart]) (*output[adminapi.Transfer], error) {
		t, err := s.StartTransfer(ctx, in.Participant, in.Body)
		return &output[adminapi.Transfer]{t}, err
	})
	huma.Register(api, operation(authz.OpTerminateTransfer, http.MethodPost, ofP+"/transfers/{id}/terminate", "End a transfer, and access to the data, with a reason"),
		func(ctx context.Context, in *withIDAndBody[TerminationReason]) (*none, error) {
			_, err := s.call(ctx, in.Participant, http.MethodPost, "/transfers/"+url.PathEscape(in.ID)+"/terminate", in.Body)
			return nil, err
		})
	huma.Register(api, operation(authz.OpSuspendTransfer, http.MethodPost, ofP+"/transfers/{id}/suspend", "Suspend a transfer: no access to the data until it is resumed"),
		func(ctx context.Context, in *withIDAndBody[SuspensionReason]) (*output[adminapi.Transfer], error) {
			t, err := ask[adminapi.Transfer](ctx, s, in.Participant, http.MethodPost, "/transfers/"+url.PathEscape(in.ID)+"/suspend", in.Body)
			return &output[adminapi.Transfer]{t}, err
		})
	huma.Register(api, operation(authz.OpResumeTransfer, http.MethodPost, ofP+"/transfers/{id}/resume", "Resume a suspended transfer"),
		func(ctx context.Context, in *WithID) (*output[adminapi.Transfer], error) {
			t, err := ask[adminapi.Transfer](ctx, s, in.Participant, http.MethodPost, "/transfers/"+url.PathEscape(in.ID)+"/resume", nil)
			return &output[adminapi.Transfer]{t}, err
		})
	type dataInput struct {
		WithID
		Path string `query:"path" doc:"Path and query below the asset, e.g. /items?year=2026" maxLength:"2000"`
	}
	type dataOutput struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	data := operation(authz.OpGetTransferData, http.MethodGet, ofP+"/transfers/{id}/data", "Fetch the data through the provider's data plane")
	data.Responses = map[string]*huma.Response{"200": {Description: "The data, as the provider serves it", Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}, "default": problemResponse(api)}
	huma.Register(api, data, func(ctx context.Context, in *dataInput) (*dataOutput, error) {
		if in.Path != "" && in.Path[0] != '/' && in.Path[0] != '?' {
			in.Path = "/" + in.Path
		}
		resp, err := s.TransferData(ctx, in.Participant, in.ID, in.Path)
		return &dataOutput{resp.ContentType, resp.Body}, err
	})
}

func registerAudit(api huma.API, s *Service) {
	type auditInput struct {
		OfParticipant
		After int64 `query:"after" minimum:"0" doc:"Number of the record before the first"`
		Last  int64 `query:"last" minimum:"0" doc:"So many of the last records; 0 takes all after 'after'"`
		Limit int64 `query:"limit" minimum:"0" maximum:"1000" doc:"0 takes 1000; fewer come when they would be too long"`
	}
	type auditOutput struct {
		ContentType string `header:"Content-Type"`
		Body        []byte
	}
	read := operation(authz.OpGetAudit, http.MethodGet, ofP+"/audit", "Read a part of the audit trail as lines of an export, the head last; bodies that may not leave the cell are withheld")
	read.Responses = map[string]*huma.Response{"200": {Description: "JSON Lines: records in order, then the head of the chain", Content: map[string]*huma.MediaType{
		audit.MediaType: {Schema: &huma.Schema{Type: huma.TypeString}},
	}}, "default": problemResponse(api)}
	huma.Register(api, read, func(ctx context.Context, in *auditInput) (*auditOutput, error) {
		resp, err := s.Audit(ctx, in.Participant, in.After, in.Last, cmp.Or(in.Limit, 1000))
		return &auditOutput{resp.ContentType, resp.Body}, err
	})
	huma.Register(api, operation(authz.OpGetAuditHeads, http.MethodGet, ofP+"/audit/heads", "List the heads of the audit chains that the cell reported, the oldest first; they are kept in the cloud"),
		func(ctx context.Context, in *OfParticipant) (*output[List[audit.Head]], error) {
			l, err := s.AuditHeads(ctx, in.Participant)
			return &output[List[audit.Head]]{l}, err
		})
}

// EventWriter writes server-sent events.
type EventWriter struct {
	W interface{ Write([]byte) (int, error) }
}

// JSON writes one event with v as its data, and flushes.
func (e *EventWriter) JSON(event string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("event %s: %w", event, err)
	}
	return e.Text(event, string(raw))
}

// Text writes one event, and flushes. data must be one line.
func (e *EventWriter) Text(event, data string) error {
	if _, err := fmt.Fprintf(e.W, "event: %s\ndata: %s\n\n", event, data); err != nil {
		return fmt.Errorf("event %s: %w", event, err)
	}
	if f, ok := e.W.(http.Flusher); ok {
		f.Flush()
	}
	return nil
}
