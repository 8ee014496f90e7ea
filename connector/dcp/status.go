// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/jsondepth"
)

// Status purposes.
const (
	PurposeRevocation = "revocation"
	PurposeSuspension = "suspension"
)

const (
	maxStatusBody   = 4 << 20  // of the answer
	maxStatusBits   = 16 << 20 // bytes of a list after decompression: 128 million credentials
	maxStatusCached = 64 << 20 // bytes of all lists that are believed for a while
)

// statusList is a fetched list.
type statusList struct {
	issuer   string
	purposes []string
	bits     []byte
	from     time.Time
	until    time.Time
	fetched  time.Time
}

// checkStatus returns a refusal code and reason when a credential is revoked or suspended, or when that cannot be found out.
func (v *Verifier) checkStatus(ctx context.Context, c *Credential) (code, reason string) {
	for _, entry := range c.Status {
		if entry.Type != "BitstringStatusListEntry" && entry.Type != "StatusList2021Entry" {
			return codeStatusUnavailable, fmt.Sprintf("its status is of type %q, which cannot be checked here", entry.Type)
		}
		if entry.Purpose != PurposeRevocation && entry.Purpose != PurposeSuspension {
			return codeStatusUnavailable, fmt.Sprintf("its status has the purpose %q, which cannot be checked here", entry.Purpose)
		}
		if entry.Size != "" && entry.Size != "1" {
			return codeStatusUnavailable, fmt.Sprintf("its status takes %s bits, which cannot be checked here", entry.Size)
		}
		set, err := v.statusBit(ctx, c.Issuer, entry)
		switch {
		case err != nil && unreachable(err):
			return identity.CodeUnreachable, fmt.Sprintf("its status could not be checked now at %s: %v", entry.List, err)
		case err != nil:
			return codeStatusUnavailable, fmt.Sprintf("its status could not be checked at %s: %v", entry.List, err)
		case set && entry.Purpose == PurposeSuspension:
			return codeSuspended, fmt.Sprintf("%s suspended it (entry %s of %s)", c.Issuer, entry.Index, entry.List)
		case set:
			return codeRevoked, fmt.Sprintf("%s revoked it (entry %s of %s)", c.Issuer, entry.Index, entry.List)
		}
	}
	return "", ""
}

func (v *Verifier) statusBit(ctx context.Context, issuer string, entry StatusEntry) (bool, error) {
	index, err := strconv.ParseUint(string(entry.Index), 10, 32)
	if err != nil {
		return false, fmt.Errorf("the index %q is not a number", entry.Index)
	}
	list, err := v.statusList(ctx, entry.List)
	if err != nil {
		return false, err
	}
	now := v.now()
	switch {
	case list.issuer != issuer:
		return false, fmt.Errorf("the list is of %q, the credential of %q", list.issuer, issuer)
	case list.from.After(now.Add(v.settings.ClockSkew)):
		return false, fmt.Errorf("the list is valid from %s only", stamp(list.from))
	case !list.until.IsZero() && !list.until.Add(v.settings.ClockSkew).After(now):
		return false, fmt.Errorf("the list was valid until %s", stamp(list.until))
	case !list.has(entry.Purpose):
		return false, fmt.Errorf("the list is for %s, the entry for %s", strings.Join(list.purposes, ", "), entry.Purpose)
	case index >= uint64(len(list.bits))*8:
		return false, fmt.Errorf("the index %d is beyond the list's %d entries", index, len(list.bits)*8)
	}
	return list.bits[index/8]>>(7-index%8)&1 == 1, nil // bit 0 is the most significant one
}

func (l *statusList) has(purpose string) bool {
	for _, p := range l.purposes {
		if p == purpose {
			return true
		}
	}
	return false
}

func (v *Verifier) statusList(ctx context.Context, url string) (*statusList, error) {
	v.mu.Lock()
	hit := v.lists[url]
	v.mu.Unlock()
	if hit != nil && v.now().Sub(hit.fetched) < v.settings.StatusCache {
		return hit, nil
	}
	raw, err := Get(ctx, v.http, url, "application/vc+jwt, application/jwt;q=0.9, application/json;q=0.5, */*;q=0.1", "", maxStatusBody)
	if err != nil {
		return nil, err
	}
	list, t, err := parseStatusList(raw)
	if err != nil {
		return nil, err
	}
	if t != nil {
		if err := v.verifyToken(ctx, *t, list.issuer, AssertionMethod); err != nil {
			return nil, err
		}
	}
	list.fetched = v.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.lists[url]; old != nil {
		v.listBytes -= len(old.bits)
	}
	if v.listBytes += len(list.bits); v.listBytes > maxStatusCached {
		clear(v.lists)
		v.listBytes = len(list.bits)
	}
	v.lists[url] = list
	return list, nil
}

// parseStatusList reads a status list credential: a JWT of either data model, or a bare JSON credential, which the address in the signed
// credential vouches for. The token is nil when it is unsigned.
func parseStatusList(raw []byte) (*statusList, *token, error) {
	text := strings.TrimSpace(string(raw))
	if !strings.HasPrefix(text, "{") {
		return parseSignedStatusList(strings.Trim(text, `"`))
	}
	if err := jsondepth.Check(raw); err != nil {
		return nil, nil, fmt.Errorf("the status list: %w", err)
	}
	var envelope struct {
		Type stringList `json:"type"`
	}
	if json.Unmarshal(raw, &envelope) == nil && len(envelope.Type) == 1 && envelope.Type[0] == "EnvelopedVerifiableCredential" {
		jwt, err := unwrap(raw, "vc")
		if err != nil {
			return nil, nil, fmt.Errorf("the status list: %w", err)
		}
		return parseSignedStatusList(jwt)
	}
	c := &Credential{}
	var vc vcBody
	if err := json.Unmarshal(raw, &vc); err != nil {
		return nil, nil, fmt.Errorf("the status list: %w", err)
	}
	if err := c.fill(vc, "", "", time.Time{}, time.Time{}); err != nil {
		return nil, nil, fmt.Errorf("the status list: %w", err)
	}
	list, err := newStatusList(c)
	return list, nil, err
}

func parseSignedStatusList(jwt string) (*statusList, *token, error) {
	c, err := ParseCredential(jwt)
	if err != nil {
		return nil, nil, fmt.Errorf("the status list: %w", err)
	}
	list, err := newStatusList(c)
	return list, &c.token, err
}

func newStatusList(c *Credential) (*statusList, error) {
	encoded, _ := c.Subjects[0]["encodedList"].(string)
	bits, err := DecodeStatusList(encoded)
	if err != nil {
		return nil, fmt.Errorf("the status list: %w", err)
	}
	list := &statusList{issuer: c.Issuer, bits: bits, from: c.ValidFrom, until: c.ValidUntil}
	switch p := c.Subjects[0]["statusPurpose"].(type) {
	case string:
		list.purposes = []string{p}
	case []any:
		for _, item := range p {
			if s, ok := item.(string); ok {
				list.purposes = append(list.purposes, s)
			}
		}
	}
	return list, nil
}

// DecodeStatusList decodes an encodedList: multibase "u" or nothing, base64url or base64 with or without padding, gzip.
func DecodeStatusList(encoded string) ([]byte, error) {
	encoded = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimPrefix(encoded, "u")), "=")
	if encoded == "" {
		return nil, errors.New("encodedList is missing")
	}
	packed, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("encodedList is not base64url")
	}
	zr, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, errors.New("encodedList is not gzip")
	}
	bits, err := io.ReadAll(io.LimitReader(zr, maxStatusBits+1))
	if err != nil {
		return nil, errors.New("encodedList is damaged")
	}
	if len(bits) > maxStatusBits {
		return nil, fmt.Errorf("encodedList is longer than %d bytes", maxStatusBits)
	}
	return bits, nil
}

// EncodeStatusList is the inverse: gzip, in base64 for a StatusList2021, and in base64url with multibase prefix for a BitstringStatusList.
// Readers such as Eclipse EDC take nothing else.
func EncodeStatusList(profile string, bits []byte) (string, error) {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	if _, err := zw.Write(bits); err != nil {
		return "", fmt.Errorf("compress a status list: %w", err)
	}
	if err := zw.Close(); err != nil {
		return "", fmt.Errorf("compress a status list: %w", err)
	}
	if profile == ProfileVC20 {
		return "u" + base64.RawURLEncoding.EncodeToString(buf.Bytes()), nil
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}

// Refusal codes, as identity.Refusal lists them, and one more for what cannot be read at all.
const (
	codeExpired           = "expired"
	codeNotYetValid       = "not-yet-valid"
	codeRevoked           = "revoked"
	codeSuspended         = "suspended"
	codeWrongIssuer       = "wrong-issuer"
	codeBadSignature      = "bad-signature"
	codeHolderMismatch    = "holder-mismatch"
	codeSchema            = "schema"
	codeStatusUnavailable = identity.CodeStatusUnavailable
	codeMalformed         = "malformed"
)

func refuse(c *Credential, code, format string, args ...any) *identity.Refusal {
	r := &identity.Refusal{Code: code, Reason: fmt.Sprintf(format, args...)}
	if c != nil {
		r.ID, r.Type, r.Issuer = c.ID, strings.Join(c.Types, ", "), c.Issuer
	}
	return r
}
