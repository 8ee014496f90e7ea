// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"fmt"
	"time"
)

// NewCredential is a credential to be signed.
type NewCredential struct {
	Profile    string
	ID         string // URI
	Type       string
	Issuer     string // DID
	Holder     string // DID; becomes credentialSubject.id
	Claims     map[string]any
	ValidFrom  time.Time
	ValidUntil time.Time
	// StatusLists are the addresses of the lists by purpose; Index is the place in each.
	StatusLists map[string]string
	Index       int
}

// Issue signs a credential.
func Issue(key SigningKey, n NewCredential) (string, error) {
	subject := map[string]any{}
	for k, v := range n.Claims {
		subject[k] = v
	}
	subject["id"] = n.Holder
	body := map[string]any{"id": n.ID, "type": []string{"VerifiableCredential", n.Type}, "issuer": n.Issuer, "credentialSubject": subject}
	statusType := "StatusList2021Entry"
	if n.Profile == ProfileVC20 {
		statusType = "BitstringStatusListEntry"
	}
	var entries []map[string]any
	for _, purpose := range []string{PurposeRevocation, PurposeSuspension} {
		if list := n.StatusLists[purpose]; list != "" {
			entries = append(entries, map[string]any{
				"id": fmt.Sprintf("%s#%d", list, n.Index), "type": statusType, "statusPurpose": purpose,
				"statusListIndex": fmt.Sprint(n.Index), "statusListCredential": list,
			})
		}
	}
	switch len(entries) {
	case 0:
	case 1:
		body["credentialStatus"] = entries[0]
	default:
		body["credentialStatus"] = entries
	}
	return sign(key, n.Profile, body, n.Issuer, n.Holder, n.ID, n.ValidFrom, n.ValidUntil)
}

// StatusList is a status list credential to be served.
type StatusList struct {
	Profile string
	URL     string // its own address
	Issuer  string
	Purpose string
	Bits    []byte
	From    time.Time
	Until   time.Time
}

// Body is the credential as bare JSON, for clients that read only that.
func (l StatusList) Body() (map[string]any, error) {
	encoded, err := EncodeStatusList(l.Profile, l.Bits)
	if err != nil {
		return nil, err
	}
	listType, context := "StatusList2021", []string{contextVC11, contextSL2021}
	if l.Profile == ProfileVC20 {
		listType, context = "BitstringStatusList", []string{contextVC20}
	}
	body := map[string]any{
		"@context": context, "id": l.URL, "type": []string{"VerifiableCredential", listType + "Credential"}, "issuer": l.Issuer,
		"credentialSubject": map[string]any{"id": l.URL + "#list", "type": listType, "statusPurpose": l.Purpose, "encodedList": encoded},
	}
	setDates(body, l.Profile, l.From, l.Until)
	return body, nil
}

// Sign makes the credential as a JWT.
func (l StatusList) Sign(key SigningKey) (string, error) {
	body, err := l.Body()
	if err != nil {
		return "", err
	}
	return sign(key, l.Profile, body, l.Issuer, l.URL+"#list", l.URL, l.From, l.Until)
}

func setDates(body map[string]any, profile string, from, until time.Time) {
	start, end := "issuanceDate", "expirationDate"
	if profile == ProfileVC20 {
		start, end = "validFrom", "validUntil"
	}
	body[start], body[end] = stamp(from), stamp(until)
}

func sign(key SigningKey, profile string, body map[string]any, issuer, subject, id string, from, until time.Time) (string, error) {
	setDates(body, profile, from, until)
	claims := map[string]any{"iss": issuer, "sub": subject, "jti": id, "nbf": from.Unix(), "iat": from.Unix(), "exp": until.Unix()}
	switch profile {
	case ProfileVC11:
		if _, ok := body["@context"]; !ok {
			body["@context"] = []string{contextVC11, contextSL2021}
		}
		claims["vc"] = body
		return key.Sign(claims, typJWT)
	case ProfileVC20:
		if _, ok := body["@context"]; !ok {
			body["@context"] = []string{contextVC20}
		}
		for k, v := range claims {
			body[k] = v
		}
		return key.Sign(body, typVC)
	}
	return "", fmt.Errorf("credential %s: profile %q is not one of %s and %s", id, profile, ProfileVC11, ProfileVC20)
}
