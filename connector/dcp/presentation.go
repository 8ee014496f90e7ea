// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// PresentationLifetime is how long a presentation is valid.
const PresentationLifetime = time.Minute

// NewPresentations wraps credentials (compact JWS) of did for audience, one presentation for each profile among them, since a presentation
// must be homogeneous.
func NewPresentations(key SigningKey, did, audienceDID string, credentials []Credential, now time.Time) ([]json.RawMessage, error) {
	byProfile := map[string][]Credential{}
	for _, c := range credentials {
		byProfile[c.Profile] = append(byProfile[c.Profile], c)
	}
	out := []json.RawMessage{}
	for _, profile := range []string{ProfileVC11, ProfileVC20} {
		list := byProfile[profile]
		if len(list) == 0 {
			continue
		}
		claims, typ := presentationClaims(profile, did, audienceDID, list, now)
		raw, err := key.Sign(claims, typ)
		if err != nil {
			return nil, fmt.Errorf("make a presentation of %s: %w", did, err)
		}
		quoted, err := json.Marshal(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, quoted)
	}
	return out, nil
}

func presentationClaims(profile, did, audienceDID string, list []Credential, now time.Time) (map[string]any, string) {
	claims := map[string]any{
		"iss": did, "sub": did, "aud": audienceDID, "jti": uuid.NewString(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(PresentationLifetime).Unix(),
	}
	if profile == ProfileVC11 {
		jwts := make([]string, len(list))
		for i, c := range list {
			jwts[i] = c.Raw
		}
		claims["vp"] = map[string]any{
			"@context": []string{contextVC11}, "type": []string{"VerifiablePresentation"}, "holder": did, "verifiableCredential": jwts,
		}
		return claims, typJWT
	}
	enveloped := make([]map[string]any, len(list))
	for i, c := range list {
		enveloped[i] = map[string]any{
			"@context": []string{contextVC20}, "id": "data:application/vc+jwt," + c.Raw, "type": "EnvelopedVerifiableCredential",
		}
	}
	claims["@context"] = []string{contextVC20}
	claims["type"] = []string{"VerifiablePresentation"}
	claims["holder"] = did
	claims["verifiableCredential"] = enveloped
	return claims, typVP
}

const (
	contextVC11   = "https://www.w3.org/2018/credentials/v1"
	contextVC20   = "https://www.w3.org/ns/credentials/v2"
	contextSL2021 = "https://w3id.org/vc/status-list/2021/v1"
)
