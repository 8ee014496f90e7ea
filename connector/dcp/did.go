// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/jsondepth"
)

// Relationship is a verification relationship of a DID document.
type Relationship string

// Relationships and what they are for here.
const (
	Authentication       Relationship = "authentication"       // presentations
	AssertionMethod      Relationship = "assertionMethod"      // credentials
	CapabilityInvocation Relationship = "capabilityInvocation" // self-issued ID tokens
)

// Service types of a DID document.
const (
	CredentialService = "CredentialService"
	IssuerService     = "IssuerService"
	DataService       = "DataService"
)

// Document is a DID document, as much of it as DCP uses.
type Document struct {
	Context            any                  `json:"@context,omitempty"`
	ID                 string               `json:"id"`
	VerificationMethod []VerificationMethod `json:"verificationMethod"`
	Authentication     Methods              `json:"authentication,omitzero"`
	AssertionMethod    Methods              `json:"assertionMethod,omitzero"`
	CapInvocation      Methods              `json:"capabilityInvocation,omitzero"`
	Service            []DocumentService    `json:"service,omitempty"`
}

// VerificationMethod is a public key.
type VerificationMethod struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Controller   string          `json:"controller,omitempty"`
	PublicKeyJWK json.RawMessage `json:"publicKeyJwk,omitempty"`
}

// Methods are the members of a relationship: references, or whole methods.
type Methods struct {
	IDs      []string
	Embedded []VerificationMethod
}

// UnmarshalJSON reads references and embedded methods, alone or in an array; null is none.
func (m *Methods) UnmarshalJSON(raw []byte) error {
	items, err := oneOrMany(raw)
	if err != nil {
		return err
	}
	for _, item := range items {
		var id string
		if json.Unmarshal(item, &id) == nil {
			m.IDs = append(m.IDs, id)
			continue
		}
		var vm VerificationMethod
		if err := json.Unmarshal(item, &vm); err != nil {
			return fmt.Errorf("a verification relationship holds %s: neither a reference nor a method", excerpt(item))
		}
		m.IDs = append(m.IDs, vm.ID)
		m.Embedded = append(m.Embedded, vm)
	}
	return nil
}

// MarshalJSON writes references.
func (m Methods) MarshalJSON() ([]byte, error) { return json.Marshal(m.IDs) }

// IsZero lets omitzero leave an empty relationship out.
func (m Methods) IsZero() bool { return len(m.IDs) == 0 }

// DocumentService is a service entry.
type DocumentService struct {
	ID       string          `json:"id"`
	Type     ServiceTypes    `json:"type"`
	Endpoint json.RawMessage `json:"serviceEndpoint"`
}

// ServiceTypes is one type or several.
type ServiceTypes []string

// UnmarshalJSON reads a string or an array.
func (s *ServiceTypes) UnmarshalJSON(raw []byte) error {
	return unmarshalStrings(raw, (*[]string)(s))
}

// MarshalJSON writes a single type as a string.
func (s ServiceTypes) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	return json.Marshal([]string(s))
}

// ParseDocument reads a DID document and checks that it is the one of did.
func ParseDocument(raw []byte, did string) (*Document, error) {
	var doc Document
	err := jsondepth.Check(raw)
	if err == nil {
		err = json.Unmarshal(raw, &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("the DID document of %s is not valid: %w", did, err)
	}
	if doc.ID != did {
		return nil, fmt.Errorf("the DID document of %s says it is that of %q", did, doc.ID)
	}
	return &doc, nil
}

// ServiceEndpoint returns the address of the first service of a type.
func (d *Document) ServiceEndpoint(serviceType string) (string, error) {
	for _, s := range d.Service {
		if !slices.Contains(s.Type, serviceType) {
			continue
		}
		var endpoint string
		if err := json.Unmarshal(s.Endpoint, &endpoint); err != nil {
			return "", fmt.Errorf("the DID document of %s: service %s has an endpoint that is not a string", d.ID, serviceType)
		}
		u, err := url.Parse(endpoint)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
			return "", fmt.Errorf("the DID document of %s: the endpoint %q of service %s is not an http(s) address", d.ID, endpoint, serviceType)
		}
		return strings.TrimSuffix(u.String(), "/"), nil
	}
	return "", fmt.Errorf("the DID document of %s has no service of type %s", d.ID, serviceType)
}

// errNoKey is wrapped when a document does not have the key: a newer document may.
var errNoKey = errors.New("no such key")

// Key returns the public key that kid names ("did#fragment", "#fragment" or "fragment"; empty only if there is just one) and checks that
// it may be used for a relationship.
func (d *Document) Key(kid string, use Relationship, when KeyRelationships) (jwk.Key, error) {
	methods := slices.Clone(d.VerificationMethod)
	for _, rel := range []Methods{d.Authentication, d.AssertionMethod, d.CapInvocation} {
		methods = append(methods, rel.Embedded...)
	}
	if kid == "" {
		if len(methods) != 1 {
			return nil, fmt.Errorf("%w: no kid in the header, and the DID document of %s has %d keys", errNoKey, d.ID, len(methods))
		}
		kid = methods[0].ID
	}
	fragment, ok := d.fragment(kid)
	if !ok {
		return nil, fmt.Errorf("key %q does not belong to %s", kid, d.ID)
	}
	i := slices.IndexFunc(methods, func(m VerificationMethod) bool { f, ok := d.fragment(m.ID); return ok && f == fragment })
	if i < 0 {
		return nil, fmt.Errorf("%w: the DID document of %s has no key %q", errNoKey, d.ID, kid)
	}
	if err := d.allowed(fragment, use, when); err != nil {
		return nil, err
	}
	key, err := jwk.ParseKey(methods[i].PublicKeyJWK)
	if err != nil {
		return nil, fmt.Errorf("the DID document of %s: key %q (%s) has no usable publicKeyJwk", d.ID, kid, methods[i].Type)
	}
	return jwk.PublicKeyOf(key)
}

func (d *Document) allowed(fragment string, use Relationship, when KeyRelationships) error {
	rel := map[Relationship]Methods{Authentication: d.Authentication, AssertionMethod: d.AssertionMethod, CapabilityInvocation: d.CapInvocation}
	none := true
	for _, m := range rel {
		none = none && len(m.IDs) == 0
	}
	// DCP asks for a relationship of the key of a credential nowhere, so a document without any assertionMethod passes.
	if (none && when == RelationshipsWhenDeclared) || (use == AssertionMethod && len(d.AssertionMethod.IDs) == 0) {
		return nil
	}
	for _, id := range rel[use].IDs {
		if f, ok := d.fragment(id); ok && f == fragment {
			return nil
		}
	}
	return fmt.Errorf("the DID document of %s does not list key #%s in %s", d.ID, fragment, use)
}

// fragment returns the part of a key id after the DID; false when the id belongs to another DID.
func (d *Document) fragment(id string) (string, bool) {
	did, fragment, found := strings.Cut(id, "#")
	if !found {
		return id, id != "" && !strings.HasPrefix(id, "did:")
	}
	return fragment, fragment != "" && (did == "" || did == d.ID)
}

var (
	didWebHost = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	didWebPort = regexp.MustCompile(`^[0-9]{1,5}$`)
	didWebPart = regexp.MustCompile(`^[A-Za-z0-9._~!$&'()*+,;=@-]+$`)
)

// WebURL returns where the document of a did:web is: did:web:host%3A8443:a:b is https://host:8443/a/b/did.json, and without a path
// /.well-known/did.json. plainHTTP gives an http address.
func WebURL(did string, plainHTTP bool) (string, error) {
	rest, ok := strings.CutPrefix(did, "did:web:")
	if !ok || rest == "" {
		return "", fmt.Errorf("%q is not a did:web", did)
	}
	parts := strings.Split(rest, ":")
	host, port, hasPort := strings.Cut(strings.Replace(parts[0], "%3a", "%3A", 1), "%3A")
	if !didWebHost.MatchString(host) || (hasPort && !didWebPort.MatchString(port)) {
		return "", fmt.Errorf("%q: %q is not a host with an optional %%3Aport", did, parts[0])
	}
	if hasPort {
		host += ":" + port
	}
	path := "/.well-known"
	if len(parts) > 1 {
		path = ""
		for _, p := range parts[1:] {
			decoded, err := url.PathUnescape(p)
			if err != nil || !didWebPart.MatchString(decoded) || decoded == "." || decoded == ".." {
				return "", fmt.Errorf("%q: %q is not a path segment", did, p)
			}
			path += "/" + decoded
		}
	}
	scheme := "https"
	if plainHTTP {
		scheme = "http"
	}
	return (&url.URL{Scheme: scheme, Host: host, Path: path + "/did.json"}).String(), nil
}

// oneOrMany splits an array into its items; another value is the only item, null is none.
func oneOrMany(raw []byte) ([]json.RawMessage, error) {
	trimmed := strings.TrimSpace(string(raw))
	if trimmed == "" || trimmed == "null" {
		return nil, nil
	}
	if trimmed[0] != '[' {
		return []json.RawMessage{json.RawMessage(trimmed)}, nil
	}
	var items []json.RawMessage
	return items, json.Unmarshal(raw, &items)
}

func unmarshalStrings(raw []byte, into *[]string) error {
	items, err := oneOrMany(raw)
	if err != nil {
		return err
	}
	*into = nil
	for _, item := range items {
		var s string
		if err := json.Unmarshal(item, &s); err != nil {
			return err
		}
		*into = append(*into, s)
	}
	return nil
}

// Base returns the base of everything public of a participant context: what its DID document's address has before /{context}/did.json. A participant that
// was moved here keeps the host name that it was born with, which is another than that of publicURL; the scheme is the same. It is publicURL where
// the DID is no did:web of the context, whose document no wallet serves (CheckPublished).
func Base(did, publicURL, participantContext string) string {
	document, err := WebURL(did, strings.HasPrefix(publicURL, "http://"))
	if base, ok := strings.CutSuffix(document, "/"+participantContext+"/did.json"); err == nil && ok {
		return base
	}
	return publicURL
}

// CheckPublished says whether a DID's document is where this connector would serve it: below publicURL, under the context's name.
func CheckPublished(did, publicURL, participantContext string) error {
	base, err := url.Parse(publicURL)
	if err != nil {
		return fmt.Errorf("public address %q: %w", publicURL, err)
	}
	got, err := WebURL(did, base.Scheme == "http")
	if err != nil {
		return err
	}
	if want := strings.TrimSuffix(publicURL, "/") + "/" + participantContext + "/did.json"; got != want {
		return fmt.Errorf("the document of %s would be looked for at %s, but this connector serves it at %s", did, got, want)
	}
	return nil
}
