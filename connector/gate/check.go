// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/odrl"
)

// Bounds of the gates of one offer.
const (
	maxGates  = 8
	maxPeople = 32 // of each list
)

// MaxKeys is how many keys a person may have.
const MaxKeys = 8

var name = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Check refuses gates that this runtime could not hold, or that nobody could pass, as an *odrl.Error with the JSON path from the list ("$[0].deadline").
// The policy of an attestation is the caller's to check, which knows the vocabulary.
func Check(gates []adminapi.Gate) error {
	if len(gates) > maxGates {
		return invalid("$", "%d gates: at most %d", len(gates), maxGates)
	}
	names, c := map[string]bool{}, people{byID: map[string]adminapi.Approver{}, byKey: map[string]string{}}
	for i, g := range gates {
		path := fmt.Sprintf("$[%d]", i)
		switch {
		case !name.MatchString(g.Name):
			return invalid(path+".name", "%q: 1 to 63 lower-case letters, digits and hyphens", g.Name)
		case names[g.Name]:
			return invalid(path+".name", "%q names another gate too", g.Name)
		case g.Before != state.Agreed && g.Before != state.Finalized:
			return invalid(path+".before", "%q must be %s or %s", g.Before, state.Agreed, state.Finalized)
		}
		names[g.Name] = true
		if err := CheckDeadline(g.Deadline); err != nil {
			return invalid(path+".deadline", "%s", err)
		}
		if err := errors.Join(c.check(path+".approvers", g.Approvers), c.check(path+".triggeredBy", g.TriggeredBy), checkType(path, g)); err != nil {
			return first(err)
		}
	}
	return nil
}

// first takes the first of joined errors.
func first(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()[0]
	}
	return err
}

func checkType(path string, g adminapi.Gate) error {
	switch g.Type {
	case adminapi.GateApproval, adminapi.GateWebhook:
		from := map[string]bool{}
		for _, a := range g.Approvers {
			from[a.Organization] = true
		}
		switch {
		case g.Required < 1 || g.Required > len(g.Approvers):
			return invalid(path+".required", "is %d, the gate has %d approvers", g.Required, len(g.Approvers))
		case g.Organizations < 0 || g.Organizations > min(g.Required, len(from)):
			return invalid(path+".organizations", "is %d, with %d required approvals and approvers from %d organizations", g.Organizations, g.Required, len(from))
		case g.Policy != nil:
			return invalid(path+".policy", "only an attestation has one")
		case (g.Type == adminapi.GateWebhook) != (g.URL != ""):
			return invalid(path+".url", "a webhook has one, and only a webhook")
		}
		return nil
	case adminapi.GateAttestation:
		switch {
		case len(g.Approvers) > 0 || g.Required != 0 || g.Organizations != 0:
			return invalid(path+".approvers", "an attestation has none; triggeredBy names who lets it pass by hand")
		case g.URL != "":
			return invalid(path+".url", "only a webhook has one")
		case g.Policy == nil:
			return invalid(path+".policy", "missing: the ODRL Set that must be satisfied")
		}
		return nil
	}
	return invalid(path+".type", "%q is not a gate that this runtime can hold: it holds %s, %s and %s", g.Type, adminapi.GateApproval, adminapi.GateAttestation, adminapi.GateWebhook)
}

// people are the approvers seen so far: one id is one person with the same keys, and a key is one person's.
type people struct {
	byID  map[string]adminapi.Approver
	byKey map[string]string // thumbprint to id
}

func (p people) check(path string, list []adminapi.Approver) error {
	if len(list) > maxPeople {
		return invalid(path, "%d people: at most %d", len(list), maxPeople)
	}
	seen := map[string]bool{}
	for i, a := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case a.ID == "" || a.Name == "" || a.Organization == "":
			return invalid(at, "id, name and organization are all needed")
		case seen[a.ID]:
			return invalid(at+".id", "%q is in the list already", a.ID)
		case len(a.Keys) == 0 || len(a.Keys) > MaxKeys:
			return invalid(at+".keys", "%s has %d keys: 1 to %d", a.Name, len(a.Keys), MaxKeys)
		}
		seen[a.ID] = true
		if known, ok := p.byID[a.ID]; ok && known.Organization != a.Organization {
			return invalid(at+".organization", "%q is of %q elsewhere among the gates", a.ID, known.Organization)
		}
		p.byID[a.ID] = a
		for j, raw := range a.Keys {
			thumb, _, err := PublicKey(raw)
			if err != nil {
				return invalid(fmt.Sprintf("%s.keys[%d]", at, j), "%s", err)
			}
			if owner, ok := p.byKey[thumb]; ok && owner != a.ID {
				return invalid(fmt.Sprintf("%s.keys[%d]", at, j), "it is %q's key too: a key is one person's", owner)
			}
			p.byKey[thumb] = a.ID
		}
	}
	return nil
}

// PublicKey reads a public key (JWK) with which decisions can be verified: its RFC 7638 thumbprint (SHA-256, base64url) and the key.
func PublicKey(raw json.RawMessage) (thumbprint string, key crypto.PublicKey, err error) {
	k, err := jwk.ParseKey(raw)
	if err != nil {
		return "", nil, errors.New("it is not a JWK")
	}
	if private, err := jwk.IsPrivateKey(k); err != nil || private {
		return "", nil, errors.New("it is not a public key")
	}
	if err := jwk.Export(k, &key); err != nil {
		return "", nil, errors.New("it is not a usable key")
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize != 256 {
			return "", nil, errors.New("its curve is not P-256")
		}
	case ed25519.PublicKey:
	default:
		return "", nil, fmt.Errorf("a key of type %s cannot sign decisions: use P-256 or Ed25519", k.KeyType())
	}
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", nil, errors.New("it has no thumbprint")
	}
	return base64.RawURLEncoding.EncodeToString(sum), key, nil
}

// Canonical writes a public key that PublicKey takes with the members that make it (RFC 7638) and nothing else.
func Canonical(raw json.RawMessage) (json.RawMessage, error) {
	_, key, err := PublicKey(raw)
	if err != nil {
		return nil, err
	}
	plain, err := jwk.Import(key)
	if err != nil {
		return nil, errors.New("it is not a usable key")
	}
	return json.Marshal(plain)
}

// CheckDeadline refuses a duration that no gate can hold for.
func CheckDeadline(s string) error {
	d, err := odrl.ParseDuration(s)
	if err != nil {
		return err
	}
	if now := time.Now(); !d.After(now).After(now) || d.After(now).After(now.AddDate(1, 0, 0)) {
		return fmt.Errorf("%q must be longer than nothing and at most a year", s)
	}
	return nil
}

// deadline is when a gate that begins to hold now ends the negotiation. A duration that cannot be read is over at once.
func deadline(g adminapi.Gate, now time.Time) time.Time {
	d, err := odrl.ParseDuration(g.Deadline)
	if err != nil {
		return now
	}
	return d.After(now)
}

func invalid(path, format string, args ...any) error {
	return &odrl.Error{Path: path, Message: fmt.Sprintf(format, args...)}
}
