// SPDX-License-Identifier: Apache-2.0

package management

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/store"
)

// passed are the headers that a provider's answer keeps on its way to the caller.
var passed = []string{"Content-Type", "Content-Length", "Content-Disposition", "Content-Language", "Last-Modified", "Etag", "Digest", "Repr-Digest"}

// fetched is the body of a consumer's audit record. The provider's record of the same access has the same digest.
type fetched struct {
	Transfer string `json:"transfer"`
	Path     string `json:"path"` // of the request
	Status   int    `json:"status"`
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"` // of what came
	Whole    bool   `json:"whole"`
}

const recordTimeout = 10 * time.Second

// data fetches through the provider's data plane with the token of the transfer, and answers what it answers.
func (s *server) data(w http.ResponseWriter, r *http.Request) {
	p, err := s.participant(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	address, err := s.Store.DataAddress(r.Context(), p.Ctx, r.PathValue("id"))
	if errors.Is(err, store.ErrNotFound) {
		err = s.notStarted(r, p)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	req, err := dataRequest(r, address)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	res, err := s.Fetch.Do(req) // #nosec G704 -- the client checks every address, see dcp.NewHTTPClient
	if err != nil {
		s.fail(w, r, &dsp.RefusalError{Status: http.StatusBadGateway, Code: "counterparty-unreachable", Message: "the provider's data plane could not be reached: " + err.Error()})
		return
	}
	defer func() { _ = res.Body.Close() }()
	for _, h := range passed {
		if v := res.Header.Get(h); v != "" {
			w.Header().Set(h, v)
		}
	}
	w.WriteHeader(res.StatusCode)
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), res.Body)
	came := fetched{Transfer: r.PathValue("id"), Path: below(r), Status: res.StatusCode, Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil)), Whole: err == nil}
	record, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), recordTimeout)
	defer cancel()
	if err := s.Store.Record(record, p.Ctx, audit.Entry{Type: audit.DataFetched, Body: came}); err != nil {
		s.Log.ErrorContext(record, "what was fetched could not be recorded", "participant", p.Ctx, "transfer", came.Transfer, "error", err)
	}
	if err != nil {
		s.Log.InfoContext(r.Context(), "data ended early", "participant", p.Ctx, "transfer", r.PathValue("id"), "error", err)
		panic(http.ErrAbortHandler) // the status is out already: the caller must see that the body is not whole
	}
}

// notStarted says why there is no address.
func (s *server) notStarted(r *http.Request, p *store.Participant) error {
	t, err := s.Store.Transfer(r.Context(), p.Ctx, r.PathValue("id"))
	if err != nil {
		return describe(err, "transfer", r.PathValue("id"))
	}
	return &dsp.RefusalError{Status: http.StatusConflict, Code: "conflict", Message: "transfer " + t.ID + " is " + t.State + ": data can be fetched while it is STARTED"}
}

// dataRequest asks for the path and query of r below the address. EDC's data planes want the bare token, the standard's a bearer token; an
// address whose endpoint is a property is EDC's (connector/dsp keeps it there).
func dataRequest(r *http.Request, address *dps.DataAddress) (*http.Request, error) {
	u, err := url.Parse(address.Endpoint)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Hostname() == "" {
		return nil, &dsp.RefusalError{Status: http.StatusBadGateway, Code: "counterparty-refused", Message: "the provider's data address " + address.Endpoint + " is not an http(s) address"}
	}
	if path := r.PathValue("path"); path != "" {
		segments := strings.Split(path, "/")
		for i, s := range segments {
			if s == "." || s == ".." {
				return nil, invalid("the path %q must not have . or .. segments", path)
			}
			segments[i] = url.PathEscape(s)
		}
		u = u.JoinPath(segments...)
	}
	if r.URL.RawQuery != "" {
		u.RawQuery = r.URL.RawQuery
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, u.String(), nil) // #nosec G704 -- as above
	if err != nil {
		return nil, err
	}
	token := address.Properties["authorization"]
	if _, edc := address.Properties["endpoint"]; !edc && !strings.HasPrefix(token, "Bearer ") {
		token = "Bearer " + token
	}
	req.Header.Set("Authorization", token)
	if accept := r.Header.Get("Accept"); accept != "" {
		req.Header.Set("Accept", accept)
	}
	return req, nil
}
