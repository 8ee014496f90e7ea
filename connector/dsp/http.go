// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/store"
)

// handleTimeout bounds one request, the verification of the sender's credentials included.
const handleTimeout = 45 * time.Second

// answer is what a protocol handler answers: a status with a body, or an error.
type answer struct {
	status int
	body   any
	header http.Header
}

// protocolHandler handles one message to a participant.
type protocolHandler func(ctx context.Context, p *store.Participant, r *http.Request) (answer, error)

// Handler serves /{ctx}/.well-known/dspace-version and, for each dataspace profile of a participant, its DSP base (Base), for the provider and
// the consumer side.
func (e *Engine) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{ctx}/.well-known/dspace-version", e.versions)
	for route, h := range map[string]struct {
		errorType string
		handle    protocolHandler
	}{
		"POST catalog/request":                           {wire.CatalogError, e.catalogRequest},
		"GET catalog/datasets/{id}":                      {wire.CatalogError, e.datasetRequest},
		"POST negotiations/request":                      {wire.NegotiationError, e.contractRequest},
		"POST negotiations/offers":                       {wire.NegotiationError, e.contractOffer},
		"POST negotiations/{pid}/request":                {wire.NegotiationError, e.counterRequest},
		"POST negotiations/{pid}/offers":                 {wire.NegotiationError, e.counterOffer},
		"POST negotiations/{pid}/agreement":              {wire.NegotiationError, e.agreement},
		"POST negotiations/{pid}/agreement/verification": {wire.NegotiationError, e.negotiationMessageOf(wire.ContractVerification)},
		"POST negotiations/{pid}/events":                 {wire.NegotiationError, e.negotiationMessageOf(wire.NegotiationEvent)},
		"POST negotiations/{pid}/termination":            {wire.NegotiationError, e.negotiationMessageOf(wire.NegotiationTermination)},
		"GET negotiations/{pid}":                         {wire.NegotiationError, e.negotiations.get},
		"POST transfers/request":                         {wire.TransferError, e.transferRequest},
		"POST transfers/{pid}/start":                     {wire.TransferError, e.transferMessageOf(wire.TransferStart)},
		"POST transfers/{pid}/suspension":                {wire.TransferError, e.transferMessageOf(wire.TransferSuspension)},
		"POST transfers/{pid}/completion":                {wire.TransferError, e.transferMessageOf(wire.TransferCompletion)},
		"POST transfers/{pid}/termination":               {wire.TransferError, e.transferMessageOf(wire.TransferTermination)},
		"GET transfers/{pid}":                            {wire.TransferError, e.transfers.get},
		"GET " + headPath + "/{pid}":                     {wire.NegotiationError, e.auditHead},
	} {
		method, path, _ := strings.Cut(route, " ")
		handle := e.serve(path, h.errorType, h.handle)
		for _, base := range []string{"/{ctx}/dsp/2025-1/", "/{ctx}/dsp/{profile}/2025-1/"} {
			mux.HandleFunc(method+" "+base+path, handle)
			mux.HandleFunc(method+" "+base+path+"/{$}", handle)
		}
	}
	return mux
}

// versions is the version endpoint: unauthenticated and without JSON-LD context (DSP 2025-1 §5.1). Each dataspace profile is a data service of its
// own, the default one first; the fragment of its serviceId is the name of the profile.
func (e *Engine) versions(w http.ResponseWriter, r *http.Request) {
	p, err := e.opt.Store.Participant(r.Context(), r.PathValue("ctx"))
	if err != nil {
		status := http.StatusNotFound
		if !errors.Is(err, store.ErrNotFound) {
			e.opt.Log.Error("version request failed", "error", err)
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, adminapi.Error{Code: "not-found", Message: "there is no participant here"})
		return
	}
	var versions []any
	for _, f := range p.Profiles {
		in, _ := p.In(f.Name)
		versions = append(versions, map[string]any{
			"version": wire.Version, "path": basePath(in), "binding": "HTTPS", "serviceId": serviceID(p.DID, f.Name), "identifierType": "did:web",
			"auth": map[string]any{"protocol": "DCP", "version": "1.0", "profile": []string{"vc11-sl2021/jwt", "vc20-bssl/jwt"}},
		})
	}
	writeJSON(w, http.StatusOK, map[string]any{"protocolVersions": versions})
}

// serve does what all routes share: the time, the participant, the typed error body. Size, depth and pace of a message are bounded by package limits.
func (e *Engine) serve(route, errorType string, handle protocolHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), handleTimeout)
		defer cancel()
		out, err := e.handle(ctx, r, handle)
		if err != nil {
			out = e.errorAnswer(ctx, r, errorType, err)
		}
		for k, values := range out.header {
			w.Header()[k] = values
		}
		e.metrics.in.WithLabelValues(route, strconv.Itoa(out.status)).Inc()
		writeJSON(w, out.status, out.body)
	}
}

func (e *Engine) handle(ctx context.Context, r *http.Request, handle protocolHandler) (answer, error) {
	if strings.ContainsRune(r.URL.Path, 0) { // nothing with it is in the database, which would fail on it
		return answer{}, refuse(http.StatusNotFound, "not-found", "not found")
	}
	r, leave, err := e.opt.Requests.Request(r, r.PathValue("ctx"))
	if err != nil {
		return answer{}, err
	}
	defer leave()
	p, err := e.lookupParticipant(ctx, r.PathValue("ctx"), r.PathValue("profile"))
	if err != nil {
		return answer{}, err
	}
	return handle(ctx, p, r)
}

// errorAnswer maps an error to the protocol's error body. What is not a refusal is ours to fix: it is logged and its text stays here.
func (e *Engine) errorAnswer(ctx context.Context, r *http.Request, errorType string, err error) answer {
	var refusal *RefusalError
	var invalid *wire.Error
	var busy *limits.BusyError
	switch {
	case errors.As(err, &refusal):
	case errors.As(err, &busy):
		refusal = refuse(http.StatusServiceUnavailable, "busy", "%s", busy)
	case errors.As(err, &invalid):
		refusal = refuse(http.StatusBadRequest, "invalid", "%s", invalid)
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		refusal = refuse(http.StatusServiceUnavailable, "timeout", "the message could not be handled in time; send it again")
	default:
		e.opt.Log.ErrorContext(ctx, "a protocol request failed", "path", r.URL.Path, "error", err)
		refusal = refuse(http.StatusInternalServerError, "internal", "the connector failed to handle the message; send it again")
	}
	out := answer{status: refusal.Status, body: wire.ErrorBody(errorType, r.PathValue("pid"), r.PathValue("pid"), refusal.Code, refusal.Message)}
	if refusal.Status == http.StatusServiceUnavailable || refusal.Status == http.StatusTooManyRequests {
		out.header = http.Header{"Retry-After": {"5"}}
	}
	return out
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // the caller may be gone
}

// read reads and parses the message of a request.
func read(r *http.Request, types ...string) (*wire.Message, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if mt, _, err := mime.ParseMediaType(ct); err != nil || (mt != "application/json" && mt != "application/ld+json") {
			return nil, refuse(http.StatusUnsupportedMediaType, "invalid", "content type %q: send application/json", ct)
		}
	}
	raw, err := io.ReadAll(r.Body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusRequestEntityTooLarge, "invalid", "the message is longer than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "invalid", "the message could not be read: %s", err)
	}
	return wire.Parse(raw, types...)
}

var errUnknown = refuse(http.StatusNotFound, "not-found", "not found")
