// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/store"
)

const (
	maxAnswer  = 1 << 20  // bytes of a process answer
	maxCatalog = 32 << 20 // bytes of a catalog
)

// refusedError is a counterparty's answer that is neither 2xx nor one that a repeat would change by itself.
type refusedError struct {
	status  int
	code    string
	reasons []string
}

func (e *refusedError) Error() string {
	text := fmt.Sprintf("the counterparty answered %d", e.status)
	if len(e.reasons) > 0 {
		text += ": " + strings.Join(e.reasons, "; ")
	}
	return text
}

// exchange sends one request to a counterparty and returns the body of its 2xx answer. Errors that are not a *refusedError are worth a retry.
func (e *Engine) exchange(ctx context.Context, method, address, authorization string, message any, limit int64) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, e.opt.RequestTimeout)
	defer cancel()
	var body io.Reader
	if message != nil {
		raw, err := json.Marshal(message)
		if err != nil {
			return nil, nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, nil, &refusedError{reasons: []string{fmt.Sprintf("its address %q can't be called: %v", address, err)}}
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	req.Header.Set("Accept", "application/json")
	if message != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := e.opt.HTTP.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("read the answer of %s: %w", address, err)
	case res.StatusCode/100 == 2 && int64(len(answer)) > limit:
		return nil, nil, &refusedError{status: res.StatusCode, reasons: []string{fmt.Sprintf("its answer is longer than %d bytes", limit)}}
	case res.StatusCode/100 == 2:
		return answer, res.Header, nil
	case res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout:
		return nil, nil, fmt.Errorf("%s answered %s%s", address, res.Status, said(answer))
	}
	refused := &refusedError{status: res.StatusCode}
	if m, err := wire.Parse(answer, wire.CatalogError, wire.NegotiationError, wire.TransferError); err == nil {
		refused.code, refused.reasons = m.Code, m.Reason
	}
	return nil, nil, refused
}

// said quotes the reason in an error body.
func said(answer []byte) string {
	m, err := wire.Parse(answer, wire.CatalogError, wire.NegotiationError, wire.TransferError)
	if err != nil || len(m.Reason) == 0 {
		return ""
	}
	return ": " + strings.Join(m.Reason, "; ")
}

// join makes an address below a counterparty's DSP base, with or without slash at its end.
func join(base string, parts ...string) string {
	out := strings.TrimSuffix(base, "/")
	for _, p := range parts {
		out += "/" + p
	}
	return out
}

func pathID(id string) string { return url.PathEscape(id) }

// authorization makes the header for a message from p, with which the receiver may query scopes.
func (e *Engine) authorization(ctx context.Context, p *store.Participant, audience string, scopes []string) (string, error) {
	token, err := e.opt.Identity.Token(ctx, p.Local(), audience, scopes)
	if err != nil {
		return "", fmt.Errorf("identity token for %s: %w", audience, err)
	}
	return token, nil
}

// versionEndpoint ends the address of a version endpoint (DSP 2025-1 §5.1).
const versionEndpoint = "/.well-known/dspace-version"

// address returns where to reach a counterparty in p's profile: as given, or the DataService of its DID document. Either may name the version
// endpoint; the base is what that lists.
func (e *Engine) address(ctx context.Context, p *store.Participant, counterparty, address string) (string, error) {
	if address != "" {
		if err := e.callable(address); err != nil {
			return "", refuse(http.StatusUnprocessableEntity, "invalid", "address %s", err)
		}
	} else {
		var err error
		if address, err = e.opt.Identity.Endpoint(ctx, counterparty, "DataService"); err != nil {
			return "", refuse(http.StatusBadGateway, "counterparty-unreachable", "no connector address is known for %s: %s", counterparty, err)
		}
		if err := e.callable(address); err != nil {
			return "", refuse(http.StatusBadGateway, "counterparty-refused", "the connector address of %s: %s", counterparty, err)
		}
	}
	if strings.HasSuffix(address, versionEndpoint) {
		return e.discover(ctx, p, counterparty, address)
	}
	return address, nil
}

// callable says why an address is none that a message with a token may be sent to.
func (e *Engine) callable(address string) error {
	if u, err := url.Parse(address); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("%q is not an http(s) address", address)
	}
	return e.confidential(address)
}

// confidential refuses plain HTTP, in which everybody on the way reads the token.
func (e *Engine) confidential(address string) error {
	if u, err := url.Parse(address); err == nil && u.Scheme == "http" && !e.opt.AllowPlainHTTP {
		return fmt.Errorf("%q is plain http, to which no token is sent: give the https address", address)
	}
	return nil
}

// serviceID names the data service of a participant in a dataspace profile.
func serviceID(did, profile string) string { return did + "#" + url.PathEscape(profile) }

// discover reads a version endpoint and returns the base of the version spoken here.
func (e *Engine) discover(ctx context.Context, p *store.Participant, counterparty, address string) (string, error) {
	raw, _, err := e.exchange(ctx, http.MethodGet, address, "", nil, maxAnswer)
	if err != nil {
		return "", unreachable(counterparty, err)
	}
	return versionBase(raw, p, counterparty, address)
}

// versionBase finds the base of the version spoken here in a version document (DSP 2025-1 §5.1): of the data service that is named after p's profile,
// as serviceID does it. Connectors that name theirs otherwise are met at the first one, in the default profile only.
func versionBase(raw []byte, p *store.Participant, counterparty, address string) (string, error) {
	type version struct {
		Version   string `json:"version"`
		Path      string `json:"path"`
		ServiceID string `json:"serviceId"`
	}
	var versions struct {
		ProtocolVersions []version `json:"protocolVersions"`
	}
	if err := json.Unmarshal(raw, &versions); err != nil {
		return "", refuse(http.StatusBadGateway, "counterparty-unreachable", "the version endpoint %s is not understood: %s", address, err)
	}
	all := slices.DeleteFunc(versions.ProtocolVersions, func(v version) bool { return v.Version != wire.Version })
	if len(all) == 0 {
		return "", refuse(http.StatusBadGateway, "counterparty-unreachable", "%s does not speak DSP %s", counterparty, wire.Version)
	}
	i := slices.IndexFunc(all, func(v version) bool { return v.ServiceID == serviceID(counterparty, p.ProfileName) })
	switch {
	case i < 0 && !p.Default():
		return "", refuse(http.StatusBadGateway, "counterparty-unreachable", "%s lists no address for dataspace profile %q: give the address", counterparty, p.ProfileName)
	case i < 0:
		i = 0
	}
	base := join(strings.TrimSuffix(address, versionEndpoint), strings.Trim(all[i].Path, "/"))
	if u, err := url.Parse(base); err != nil || strings.ContainsAny(base, "?#") || strings.Contains(u.Path+"/", "/../") {
		return "", refuse(http.StatusBadGateway, "counterparty-refused", "the version endpoint %s of %s names %q, which is no path beneath its own", address, counterparty, all[i].Path)
	}
	return base, nil
}

// unreachable turns a failed call made on behalf of a person into words.
func unreachable(counterparty string, err error) error {
	var r *refusedError
	if errors.As(err, &r) {
		return refuse(http.StatusBadGateway, "counterparty-refused", "%s: %s", counterparty, r)
	}
	return refuse(http.StatusBadGateway, "counterparty-unreachable", "%s could not be reached: %s", counterparty, err)
}
