// SPDX-License-Identifier: Apache-2.0

// Package usecase says what a revision of a use case is, what it means in plain words, and which sign-off brings it into force. It is pure: whoever
// signs (cli, console), keeps (cloudoperator, cloud) or uses revisions (connector/management) decides by it.
package usecase

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
)

// Content is all that a use case demands. Title and description are left out: they demand nothing. So are trust anchors, which are the profile's.
type Content struct {
	UseCase        string          `json:"useCase"`
	Number         int             `json:"revision"`
	Previous       string          `json:"previous,omitempty"` // hash of the revision before it
	Profile        string          `json:"profile"`
	AssetType      string          `json:"assetType"`
	AccessPolicy   json.RawMessage `json:"accessPolicy,omitempty"`
	ContractPolicy json.RawMessage `json:"contractPolicy"`
	Gates          []Gate          `json:"gates,omitempty"`
	// Signers sign the next revision off; none: it takes effect at once.
	Signers []Person `json:"signers,omitempty"`
	// Operands and Duties are those of the profile that the policies use.
	Operands []profile.Operand `json:"operands,omitempty"`
	Duties   []profile.Duty    `json:"duties,omitempty"`
}

// Gate is a gate as the use case has it, with people by name or role.
type Gate struct {
	Name          string          `json:"name"`
	Type          string          `json:"type"` // Approval, Attestation, Webhook
	Before        string          `json:"before"`
	Deadline      string          `json:"deadline"`
	Approvers     []Person        `json:"approvers,omitempty"`
	Required      int             `json:"required,omitempty"`
	Organizations int             `json:"organizations,omitempty"`
	Policy        json.RawMessage `json:"policy,omitempty"`
	Webhook       *Webhook        `json:"webhook,omitempty"`
	TriggeredBy   []Person        `json:"triggeredBy,omitempty"`
}

// Webhook is the system of a gate that one decides.
type Webhook struct {
	URL          string          `json:"url"`
	System       string          `json:"system"`
	Organization string          `json:"organization"`
	PublicKey    json.RawMessage `json:"publicKey"`
}

// Person names somebody by user name, or everybody with a role.
type Person struct {
	Person       string `json:"person,omitempty"`
	Role         string `json:"role,omitempty"`
	Organization string `json:"organization,omitempty"`
}

// Write makes the text of a revision and its hash (SHA-256, hex). The same content has the same text: members in order, no space.
func Write(c Content) (text, hash string, err error) {
	for _, p := range c.policies() {
		if *p, err = canonical(*p); err != nil {
			return "", "", err
		}
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return "", "", fmt.Errorf("content of use case %s: %w", c.UseCase, err)
	}
	return string(raw), Hash(string(raw)), nil
}

// policies are the places of everything in the content that is kept as it was written.
func (c *Content) policies() []*json.RawMessage {
	out := []*json.RawMessage{&c.AccessPolicy, &c.ContractPolicy}
	c.Gates = slices.Clone(c.Gates)
	for i := range c.Gates {
		g := &c.Gates[i]
		out = append(out, &g.Policy)
		if g.Webhook != nil {
			w := *g.Webhook
			g.Webhook = &w
			out = append(out, &w.PublicKey)
		}
	}
	return out
}

func canonical(raw json.RawMessage) (json.RawMessage, error) {
	if raw == nil {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("a policy is not JSON: %w", err)
	}
	return json.Marshal(v)
}

// Hash is a revision's: SHA-256 of its text, hex.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Read takes the text of a revision apart. What it has that this program does not know is an error: it could not be honoured.
func Read(text string) (c Content, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("it is not the content of a revision that is known here: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("something follows the content of the revision")
	}
	if c.UseCase == "" || c.Number < 1 || c.ContractPolicy == nil {
		return c, errors.New("useCase, revision and contractPolicy are all needed")
	}
	return c, nil
}

// Same tells whether two revisions demand the same.
func Same(a, b Content) bool {
	a.Number, a.Previous, b.Number, b.Previous = 0, "", 0, ""
	left, _, err := Write(a)
	right, _, other := Write(b)
	return err == nil && other == nil && left == right
}

// Make is the content of a use case's policies, gates and signers under a profile's vocabulary, of which it keeps what the policies use.
func Make(c Content, p profile.Profile) (Content, error) {
	ev, err := odrl.NewEvaluator(p)
	if err != nil {
		return c, err
	}
	policies, err := c.parsed()
	if err != nil {
		return c, err
	}
	c.Profile = p.Name
	c.Operands, c.Duties = ev.Vocabulary(policies...)
	return c, nil
}

// Changed names the operands and duties of the content that a profile gives another meaning, or does not have, or that the content lacks.
func (c *Content) Changed(ev *odrl.Evaluator) ([]string, error) {
	policies, err := c.parsed()
	if err != nil {
		return nil, err
	}
	operands, duties := ev.Vocabulary(policies...)
	return append(differ(c.Operands, operands, func(o profile.Operand) string { return o.Name }),
		differ(c.Duties, duties, func(d profile.Duty) string { return d.Name })...), nil
}

// differ names what is not the same in both.
func differ[T any](a, b []T, name func(T) string) (out []string) {
	has := func(all []T, one T) bool {
		return slices.ContainsFunc(all, func(other T) bool {
			left, err := json.Marshal(one)
			right, unlike := json.Marshal(other)
			return err == nil && unlike == nil && bytes.Equal(left, right)
		})
	}
	for _, pair := range [][2][]T{{a, b}, {b, a}} {
		for _, one := range pair[0] {
			if !has(pair[1], one) && !slices.Contains(out, name(one)) {
				out = append(out, name(one))
			}
		}
	}
	return out
}

// parsed are the access policy, if any, the contract policy, and those of gates.
func (c *Content) parsed() (out []*odrl.Policy, err error) {
	all := []json.RawMessage{c.AccessPolicy, c.ContractPolicy}
	for _, g := range c.Gates {
		all = append(all, g.Policy)
	}
	for _, raw := range all {
		if raw == nil {
			continue
		}
		p, err := odrl.Parse(raw)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// CheckOffer tells why policies and gates of an offer are not those of the revision. Who the people of a gate are is not the revision's to say.
func (c *Content) CheckOffer(access, contract json.RawMessage, gates []adminapi.Gate) error {
	switch {
	case !sameJSON(c.ContractPolicy, contract):
		return errors.New("the contract policy is not the revision's")
	case !sameJSON(c.AccessPolicy, access):
		return errors.New("the access policy is not the revision's")
	case len(gates) != len(c.Gates):
		return fmt.Errorf("it has %d gates, the revision %d", len(gates), len(c.Gates))
	}
	for i, g := range gates {
		if !c.Gates[i].is(g) {
			return fmt.Errorf("gate %q is not the revision's gate %q", g.Name, c.Gates[i].Name)
		}
	}
	return nil
}

func sameJSON(a, b json.RawMessage) bool {
	left, err := canonical(a)
	right, other := canonical(b)
	return err == nil && other == nil && bytes.Equal(left, right)
}

func (g *Gate) is(o adminapi.Gate) bool {
	required, url := g.Required, ""
	if g.Webhook != nil {
		required, url = 1, g.Webhook.URL
		if len(o.Approvers) != 1 || o.Approvers[0].ID != g.Webhook.System || o.Approvers[0].Organization != g.Webhook.Organization ||
			len(o.Approvers[0].Keys) != 1 || !sameJSON(o.Approvers[0].Keys[0], g.Webhook.PublicKey) {
			return false
		}
	}
	return o.Name == g.Name && string(o.Type) == strings.ToLower(g.Type) && o.Before == g.Before && o.Deadline == g.Deadline && o.Required == required &&
		o.Organizations == g.Organizations && o.URL == url && sameJSON(g.Policy, o.Policy) && (len(g.TriggeredBy) > 0) == (len(o.TriggeredBy) > 0)
}

// Type is the typ header of a sign-off, which no decision at a gate has.
const Type = "kaphera-revision+jwt"

// Codes of refused revisions.
const (
	CodeMalformed = "revision-malformed"
	CodeChanged   = "revision-changed"
	CodeUnsigned  = "revision-unsigned"
	CodeForged    = "sign-off-forged"
	CodeOlder     = "revision-older"
)

func refused(code, format string, args ...any) error {
	return &gate.RefusedError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// SignOff is a sign-off taken apart, with nothing verified.
type SignOff struct {
	gate.JWS
	Claims adminapi.SignOffClaims
}

// ParseSignOff takes one apart.
func ParseSignOff(signed string) (s SignOff, err error) {
	if s.JWS, err = gate.ParseJWS(Type, signed); err != nil {
		return s, err
	}
	if err := json.Unmarshal(s.Payload, &s.Claims); err != nil {
		return s, errors.New("its payload is not what a sign-off holds")
	}
	if c := s.Claims; c.Signer == "" || c.IssuedAt == 0 || c.Read == "" || c.Language == "" {
		return s, errors.New("iss, read, language and iat are all needed")
	}
	return s, nil
}

// By is the one of people whose key made the signature; a key alone is not enough, the sign-off names the person too.
func (s *SignOff) By(people []adminapi.Approver) (adminapi.Approver, bool) {
	for _, p := range people {
		for _, raw := range p.Keys {
			if thumb, key, err := gate.PublicKey(raw); p.ID == s.Claims.Signer && err == nil && thumb == s.KeyID && s.Verify(key) {
				return p, true
			}
		}
	}
	return adminapi.Approver{}, false
}

// Check tells why a revision is not what its hash and its sign-off are about. It proves no signature.
func Check(r adminapi.UseCaseRevision) (Content, error) {
	c, err := Read(r.Content)
	switch {
	case err != nil:
		return c, refused(CodeMalformed, "revision %d of use case %s: %s", r.Number, r.UseCase, err)
	case Hash(r.Content) != r.Hash:
		return c, refused(CodeChanged, "revision %d of use case %s was changed after it was made: its hash is %s, not %s", r.Number, r.UseCase, Hash(r.Content), r.Hash)
	case c.UseCase != r.UseCase || c.Number != r.Number:
		return c, refused(CodeChanged, "the content is of revision %d of use case %s, not of revision %d of %s", c.Number, c.UseCase, r.Number, r.UseCase)
	case r.SignOff == "":
		return c, nil
	}
	s, err := ParseSignOff(r.SignOff)
	if err != nil {
		return c, refused(CodeMalformed, "the sign-off of revision %d of use case %s: %s", r.Number, r.UseCase, err)
	}
	if s.Claims.UseCase != r.UseCase || s.Claims.Number != r.Number || s.Claims.Hash != r.Hash {
		return c, refused(CodeForged, "the sign-off is of revision %d of use case %s with hash %s, not of revision %d of %s with %s",
			s.Claims.Number, s.Claims.UseCase, s.Claims.Hash, r.Number, r.UseCase, r.Hash)
	}
	return c, nil
}

// clockSkew is how far a signer's clock may be ahead.
const clockSkew = time.Minute

// Timely refuses a sign-off whose time is yet to come: until then nobody else's could follow it.
func Timely(r adminapi.UseCaseRevision, now time.Time) error {
	if r.SignOff == "" {
		return nil
	}
	s, err := ParseSignOff(r.SignOff)
	if err != nil {
		return refused(CodeMalformed, "the sign-off of revision %d of use case %s: %s", r.Number, r.UseCase, err)
	}
	if at := time.Unix(s.Claims.IssuedAt, 0).UTC(); at.After(now.Add(clockSkew)) {
		return refused(CodeForged, "the sign-off of revision %d of use case %s is of %s, which is yet to come: set the signer's clock right and sign again", r.Number, r.UseCase, at.Format(time.RFC3339))
	}
	return nil
}

// SignersOf are those who sign a revision off: whom the one in force names, else whom it names itself; none: it takes effect at once.
func SignersOf(inForce, next Content) []Person {
	if len(inForce.Signers) > 0 {
		return inForce.Signers
	}
	return next.Signers
}

// Accept decides whether a revision takes the place of the one in force (nil: none). Who may sign it is what the one in force says; the first
// revision that names signers is believed. It returns the revision to keep, with the keys that may sign the next one. Errors are *gate.RefusedError.
func Accept(inForce *adminapi.UseCaseRevision, r adminapi.UseCaseRevision) (adminapi.UseCaseRevision, Content, error) {
	c, err := Check(r)
	if err != nil {
		return r, c, err
	}
	var before Content
	if inForce != nil {
		if before, err = Read(inForce.Content); err != nil {
			return r, c, refused(CodeMalformed, "the revision in force of use case %s: %s", r.UseCase, err)
		}
	}
	if len(SignersOf(before, c)) == 0 {
		r.Signers, r.SignOff = nil, ""
		return r, c, nil
	}
	trusted := r.Signers
	if len(before.Signers) > 0 {
		trusted = inForce.Signers
	}
	if r.SignOff == "" {
		return r, c, refused(CodeUnsigned, "revision %d of use case %s is not signed off", r.Number, r.UseCase)
	}
	s, err := ParseSignOff(r.SignOff)
	if err != nil {
		return r, c, refused(CodeMalformed, "the sign-off: %s", err)
	}
	if _, ok := s.By(trusted); !ok {
		return r, c, refused(CodeForged, "the sign-off of revision %d of use case %s by %q with key %q is of nobody who may sign it: these may: %s", r.Number, r.UseCase, s.Claims.Signer, s.KeyID, names(trusted))
	}
	if inForce != nil && inForce.SignOff != "" {
		last, err := ParseSignOff(inForce.SignOff)
		if err != nil || s.Claims.IssuedAt < last.Claims.IssuedAt || s.Claims.IssuedAt == last.Claims.IssuedAt && r.Number < inForce.Number {
			return r, c, refused(CodeOlder, "revision %d of use case %s was signed off before revision %d, which is in force: sign it off anew", r.Number, r.UseCase, inForce.Number)
		}
	}
	r.Signers, err = listed(r.Signers, s.Claims.Signers)
	if err == nil && len(c.Signers) > 0 && len(r.Signers) == 0 {
		err = refused(CodeMalformed, "the sign-off lists no key that may sign the next revision")
	}
	return r, c, err
}

// listed are the people with those of their keys that have one of the thumbprints.
func listed(people []adminapi.Approver, thumbprints []string) (out []adminapi.Approver, err error) {
	found := map[string]bool{}
	for _, p := range people {
		keys := p.Keys
		p.Keys = nil
		for _, raw := range keys {
			if thumb, _, err := gate.PublicKey(raw); err == nil && slices.Contains(thumbprints, thumb) {
				p.Keys, found[thumb] = append(p.Keys, raw), true
			}
		}
		if p.Keys != nil {
			out = append(out, p)
		}
	}
	for _, t := range thumbprints {
		if !found[t] {
			return nil, refused(CodeMalformed, "the sign-off lists key %q, which nobody of those named has", t)
		}
	}
	return out, nil
}

func names(people []adminapi.Approver) string {
	out := make([]string, len(people))
	for i, p := range people {
		out[i] = p.Name
	}
	if len(out) == 0 {
		return "nobody"
	}
	return strings.Join(out, ", ")
}

// InForce is the index of the revision in force among all of a use case in order, and -1 when there is none; an error says which one was tampered with, and
// then none is in force. It takes sign-offs as genuine whose signer is among the revision's own Signers: who was entitled is judged when they are taken.
func InForce(all []adminapi.UseCaseRevision) (int, error) {
	at, previous := -1, ""
	var before Content // the one in force
	for i, r := range all {
		c, err := Check(r)
		switch {
		case err != nil:
			return -1, err
		case c.Number != i+1 || c.Previous != previous:
			return -1, refused(CodeChanged, "revision %d of use case %s does not follow on the one before it", c.Number, c.UseCase)
		}
		previous = r.Hash
		if r.SignOff != "" {
			s, err := ParseSignOff(r.SignOff)
			if _, ok := s.By(r.Signers); err != nil || !ok {
				return -1, refused(CodeForged, "the sign-off of revision %d of use case %s is not of a key that it was taken with", r.Number, r.UseCase)
			}
		} else if len(SignersOf(before, c)) > 0 {
			continue
		}
		at, before = i, c
	}
	return at, nil
}
