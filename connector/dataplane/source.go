// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/kaphera/kaphera/connector/netguard"
)

// source is an asset's address in EDC's terms (type HttpData), read.
type source struct {
	base    *url.URL
	query   url.Values // of the address itself
	headers map[string]string

	proxyPath, proxyQuery, proxyMethod, proxyBody bool

	secret  string // Vault alias
	authKey string // header that carries the secret
}

const edcNamespace = "https://w3id.org/edc/v0.0.1/ns/"

func plainNames(addr map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range addr {
		out[strings.TrimPrefix(strings.TrimPrefix(k, edcNamespace), "edc:")] = v
	}
	return out
}

// CheckBackend says why a data plane would not connect to the backend of an asset's address, as far as that can be told beforehand.
func CheckBackend(ctx context.Context, backends netguard.Guard, addr map[string]string) error {
	base, err := url.Parse(plainNames(addr)["baseUrl"])
	if err != nil || base.Hostname() == "" {
		return nil //nolint:nilerr // no backend to connect to; what is wrong with the address is said when a flow starts
	}
	if err := backends.Check(ctx, base); err != nil {
		return fmt.Errorf("baseUrl %q: no data is read from there: %w", base.Redacted(), err)
	}
	return nil
}

// Check says what is wrong with an asset's data address, which must not hold a secret in clear. Whether the backend answers is not looked at.
func Check(address map[string]string) error {
	_, err := parseSource(address)
	return err
}

// parseSource reads a data address. Members that would change what is fetched and that are not supported are refused by name; so are
// secrets in clear.
func parseSource(addr map[string]string) (source, error) {
	a := plainNames(addr)
	if t := a["type"]; t != "HttpData" {
		return source{}, fmt.Errorf("data address type %q is not served here: use HttpData", t)
	}
	base, err := url.Parse(a["baseUrl"])
	switch {
	case err != nil:
		return source{}, errors.New("data address baseUrl is not a URL") // the error would quote it, credentials included
	case base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return source{}, fmt.Errorf("data address baseUrl %q: must begin with http:// or https:// and name a host", base.Redacted())
	case base.User != nil:
		return source{}, errors.New("data address baseUrl contains a user name or password: put it in the vault and name it with secretName and authKey")
	case base.Fragment != "":
		return source{}, errors.New("data address baseUrl has a fragment (#...): leave it out")
	}
	s := source{base: base, query: base.Query(), headers: map[string]string{}, secret: a["secretName"], authKey: a["authKey"]}
	for _, k := range slices.Sorted(maps.Keys(a)) {
		name, isHeader := strings.CutPrefix(k, "header:")
		switch {
		case k == "authCode":
			return source{}, errors.New("data address has authCode, a secret in clear: put it in the vault and name it with secretName")
		case k == "body", k == "method" && !strings.EqualFold(a[k], http.MethodGet), strings.HasPrefix(k, "oauth2:"):
			return source{}, fmt.Errorf("data address member %q is not supported", k)
		case isHeader && (!httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(a[k])):
			return source{}, fmt.Errorf("data address member %q is not a valid header", k)
		case isHeader:
			s.headers[name] = a[k]
		}
	}
	for k, dst := range map[string]*bool{"proxyPath": &s.proxyPath, "proxyQueryParams": &s.proxyQuery, "proxyMethod": &s.proxyMethod, "proxyBody": &s.proxyBody} {
		switch a[k] {
		case "true":
			*dst = true
		case "", "false":
		default:
			return source{}, fmt.Errorf("data address %s %q: write \"true\" or \"false\"", k, a[k])
		}
	}
	if s.secret != "" && s.authKey == "" {
		s.authKey = "Authorization"
	}
	if s.authKey != "" && (s.secret == "" || !httpguts.ValidHeaderFieldName(s.authKey)) {
		return source{}, fmt.Errorf("data address authKey %q: must be a header name, and secretName must name the secret to send in it", s.authKey)
	}
	if p := a["path"]; p != "" {
		if err := s.appendPath(p); err != nil {
			return source{}, fmt.Errorf("data address path: %w", err)
		}
	}
	if q := a["queryParams"]; q != "" {
		extra, err := url.ParseQuery(q)
		if err != nil {
			return source{}, errors.New("data address queryParams is not a query string")
		}
		for k, v := range extra {
			s.query[k] = append(s.query[k], v...)
		}
	}
	s.base.RawQuery = ""
	return s, nil
}

// appendPath adds an escaped path beneath the base. What could lead out of the base, also after a further decoding, is refused.
func (s *source) appendPath(escaped string) error {
	rest := strings.Trim(escaped, "/")
	if rest == "" {
		return nil
	}
	for seg := range strings.SplitSeq(rest, "/") {
		for decoded, again := seg, true; again; {
			if decoded == "." || decoded == ".." || strings.ContainsAny(decoded, "/\\\x00\r\n") {
				return fmt.Errorf("the path %q leads out of the asset", escaped)
			}
			next, err := url.PathUnescape(decoded)
			if err != nil {
				break // a literal percent sign
			}
			again, decoded = next != decoded, next
		}
	}
	decoded, err := url.PathUnescape(rest)
	if err != nil {
		return fmt.Errorf("the path %q is not properly escaped", escaped)
	}
	if strings.HasSuffix(escaped, "/") {
		rest, decoded = rest+"/", decoded+"/"
	}
	base, rawBase := strings.TrimSuffix(s.base.Path, "/"), strings.TrimSuffix(s.base.EscapedPath(), "/")
	s.base.Path, s.base.RawPath = base+"/"+decoded, rawBase+"/"+rest
	return nil
}
