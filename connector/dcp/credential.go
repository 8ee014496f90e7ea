// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Profiles of DCP 1.0.1, "DCP Profile Definitions".
const (
	ProfileVC11 = "vc11-sl2021/jwt" // VC data model 1.1 in a JWT's vc claim, StatusList2021
	ProfileVC20 = "vc20-bssl/jwt"   // VC data model 2.0 as a JWT's payload, BitstringStatusList
)

// NormalizeFormat maps the spellings of a credential's format to a profile; false when it is neither.
func NormalizeFormat(format string) (string, bool) {
	switch strings.ToLower(strings.TrimSpace(format)) {
	case ProfileVC11, "vc1_0_jwt", "vc1_1_jwt", "vc10-sl2021/jwt", "jwt_vc":
		return ProfileVC11, true
	case ProfileVC20, "vc2_0_jose", "vc2_0_jwt", "vc+jwt":
		return ProfileVC20, true
	}
	return "", false
}

// Credential is a credential taken apart. Nothing in it has been verified.
type Credential struct {
	Raw        string // compact JWS, as it was signed
	Profile    string
	ID         string
	Types      []string // without VerifiableCredential
	Issuer     string
	Subjects   []map[string]any
	ValidFrom  time.Time // zero when not given
	ValidUntil time.Time // zero when it does not expire
	Status     []StatusEntry
	Schemas    []SchemaRef

	token token
	whole map[string]any
}

// StatusEntry points into a status list.
type StatusEntry struct {
	Type    string `json:"type"`
	Purpose string `json:"statusPurpose"`
	Index   Index  `json:"statusListIndex"`
	List    string `json:"statusListCredential"`
	Size    Index  `json:"statusSize"`
}

// SchemaRef names a JSON Schema.
type SchemaRef struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// Index is a number that the specification writes as a string and others as a number.
type Index string

// UnmarshalJSON reads both.
func (i *Index) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		*i = Index(s)
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(raw, &n); err != nil {
		return fmt.Errorf("%s is not an index", excerpt(raw))
	}
	*i = Index(n.String())
	return nil
}

// vcBody holds the members of both data models.
type vcBody struct {
	ID             string          `json:"id"`
	Type           stringList      `json:"type"`
	Issuer         issuerRef       `json:"issuer"`
	Subject        json.RawMessage `json:"credentialSubject"`
	IssuanceDate   *dateTime       `json:"issuanceDate"`
	ExpirationDate *dateTime       `json:"expirationDate"`
	ValidFrom      *dateTime       `json:"validFrom"`
	ValidUntil     *dateTime       `json:"validUntil"`
	Status         json.RawMessage `json:"credentialStatus"`
	Schema         json.RawMessage `json:"credentialSchema"`
}

type stringList []string

func (s *stringList) UnmarshalJSON(raw []byte) error { return unmarshalStrings(raw, (*[]string)(s)) }

// issuerRef is a DID or an object with an id.
type issuerRef string

func (i *issuerRef) UnmarshalJSON(raw []byte) error {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		*i = issuerRef(s)
		return nil
	}
	var o struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return errors.New("issuer is neither a DID nor an object with an id")
	}
	*i = issuerRef(o.ID)
	return nil
}

// dateTime is an xsd:dateTime; one without a zone is taken as UTC.
type dateTime struct{ time.Time }

func (d *dateTime) UnmarshalJSON(raw []byte) error {
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("%s is not a date", excerpt(raw))
	}
	if s == nil || *s == "" {
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, *s); err == nil {
			d.Time = t.UTC()
			return nil
		}
	}
	return fmt.Errorf("%q is not a date and time such as 2026-01-31T12:00:00Z", *s)
}

// ParseCredential takes a credential apart: a compact JWS of either data model. Nothing is verified.
func ParseCredential(raw string) (*Credential, error) {
	t, err := parseToken(raw)
	if err != nil {
		return nil, fmt.Errorf("the credential: %w", err)
	}
	var claims struct {
		Issuer    string          `json:"iss"`
		ID        string          `json:"jti"`
		NotBefore numericDate     `json:"nbf"`
		Expires   numericDate     `json:"exp"`
		VC        json.RawMessage `json:"vc"`
	}
	if err := json.Unmarshal(t.payload, &claims); err != nil {
		return nil, fmt.Errorf("the credential's claims: %w", err)
	}
	c := &Credential{Raw: raw, Profile: ProfileVC11, token: t}
	body := []byte(claims.VC)
	if body == nil {
		c.Profile, body = ProfileVC20, t.payload
	}
	var vc vcBody
	if err := json.Unmarshal(body, &vc); err != nil {
		return nil, fmt.Errorf("the credential's content: %w", err)
	}
	if err := json.Unmarshal(body, &c.whole); err != nil || c.whole == nil {
		return nil, errors.New("the credential's content is not an object")
	}
	return c, c.fill(vc, claims.ID, claims.Issuer, claims.NotBefore.Time, claims.Expires.Time)
}

func (c *Credential) fill(vc vcBody, jti, iss string, nbf, exp time.Time) error {
	c.ID, c.Issuer = vc.ID, string(vc.Issuer)
	if c.ID == "" {
		c.ID = jti
	}
	if c.Issuer == "" {
		c.Issuer = iss
	}
	if c.Issuer == "" || (iss != "" && iss != c.Issuer) {
		return fmt.Errorf("the credential's issuer is %q and its iss claim %q", c.Issuer, iss)
	}
	for _, t := range vc.Type {
		if t != "VerifiableCredential" {
			c.Types = append(c.Types, t)
		}
	}
	if len(c.Types) == 0 {
		return errors.New("the credential has no type of its own")
	}
	subjects, err := oneOrMany(vc.Subject)
	if err != nil || len(subjects) == 0 {
		return errors.New("the credential has no credentialSubject")
	}
	for _, s := range subjects {
		var m map[string]any
		if err := json.Unmarshal(s, &m); err != nil || m == nil {
			return errors.New("the credential's credentialSubject is not an object")
		}
		c.Subjects = append(c.Subjects, m)
	}
	// Every date given must hold: the latest start and the earliest end count.
	c.ValidFrom, c.ValidUntil = nbf, exp
	for _, from := range []*dateTime{vc.IssuanceDate, vc.ValidFrom} {
		if from != nil && from.After(c.ValidFrom) {
			c.ValidFrom = from.Time
		}
	}
	for _, until := range []*dateTime{vc.ExpirationDate, vc.ValidUntil} {
		if until != nil && !until.IsZero() && (c.ValidUntil.IsZero() || until.Before(c.ValidUntil)) {
			c.ValidUntil = until.Time
		}
	}
	if c.Status, err = decodeMany[StatusEntry](vc.Status); err != nil {
		return fmt.Errorf("the credential's credentialStatus: %w", err)
	}
	if c.Schemas, err = decodeMany[SchemaRef](vc.Schema); err != nil {
		return fmt.Errorf("the credential's credentialSchema: %w", err)
	}
	return nil
}

func decodeMany[T any](raw json.RawMessage) ([]T, error) {
	items, err := oneOrMany(raw)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// unwrap returns the compact JWS of a credential or presentation in a list: a string, or an enveloped object (VCDM 2.0 §4.13).
func unwrap(item json.RawMessage, mediaType string) (string, error) {
	var s string
	if json.Unmarshal(item, &s) == nil {
		return s, nil
	}
	var o struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(item, &o); err != nil {
		return "", errors.New("it is neither a string nor an object")
	}
	rest, ok := strings.CutPrefix(o.ID, "data:application/")
	kind, data, comma := strings.Cut(rest, ",")
	if !ok || !comma || !strings.HasPrefix(kind, mediaType) {
		return "", fmt.Errorf("it is an object that does not envelop data:application/%s; embedded proofs are not supported", mediaType)
	}
	if strings.HasSuffix(kind, ";base64") {
		decoded, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return "", errors.New("its data: URL is not base64")
		}
		data = string(decoded)
	}
	return data, nil
}
