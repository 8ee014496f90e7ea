// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/odrl"
)

// Type is the typ header of a signed decision: a signature that the key made for anything else is none.
const Type = "kaphera-decision+jwt"

// Bounds of a decision.
const (
	MaxValidity = 24 * time.Hour // from iat to exp
	maxComment  = 1000
	clockSkew   = time.Minute
)

// Terms are what a decision is about.
type Terms struct {
	OfferID, AssetID, Consumer string
	Policy                     *odrl.Policy
}

// Hash binds a decision to the exact offer: its id, its asset, to whom, and every rule of its policy. SHA-256 in hex.
func (t Terms) Hash() string {
	raw, _ := json.Marshal([]string{t.OfferID, t.AssetID, t.Consumer, odrl.Hash(t.Policy)}) //nolint:errchkjson // strings only: can't fail
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// About is the negotiation that a decision must name.
type About struct {
	Provider    string // DID
	Negotiation string
	Offer       string // Terms.Hash
}

// Codes of refused decisions.
const (
	CodeMalformed        = "decision-malformed"
	CodeForged           = "decision-forged"
	CodeWrongApprover    = "wrong-approver"
	CodeOtherNegotiation = "other-negotiation"
	CodeOtherOffer       = "other-offer"
	CodeOtherGate        = "other-gate"
	CodeExpired          = "decision-expired"
	CodeReplayed         = "decision-replayed"
	CodeLate             = "gate-late"
	CodeClosed           = "gate-closed"
	CodeDecided          = "already-decided"
	CodeSameOrganization = "same-organization"
)

// Codes lists them.
var Codes = []string{CodeMalformed, CodeForged, CodeWrongApprover, CodeOtherNegotiation, CodeOtherOffer, CodeOtherGate, CodeExpired, CodeReplayed, CodeLate, CodeClosed,
	CodeDecided, CodeSameOrganization}

// RefusedError says why a decision does not count.
type RefusedError struct {
	Code    string
	Message string // for people
}

func (e *RefusedError) Error() string { return e.Message }

func refused(code, format string, args ...any) error {
	return &RefusedError{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Decide adds a signed decision to the hold that it is for, and returns it. The error is a *RefusedError, and leaves the holds as they are.
func Decide(holds []Hold, about About, signed string, now time.Time) (adminapi.GateDecision, error) {
	var none adminapi.GateDecision
	d, err := parse(signed)
	if err != nil {
		return none, refused(CodeMalformed, "the decision: %s", err)
	}
	c := d.claims
	i := slices.IndexFunc(holds, func(h Hold) bool { return h.Gate.Name == c.Gate })
	if i < 0 {
		return none, refused(CodeOtherGate, "the negotiation has no gate %q", c.Gate)
	}
	h := &holds[i]
	by, err := h.author(d)
	if err != nil {
		return none, err
	}
	switch {
	case c.Provider != about.Provider || c.Negotiation != about.Negotiation:
		return none, refused(CodeOtherNegotiation, "the decision is about negotiation %s of %s, not about %s of %s", c.Negotiation, c.Provider, about.Negotiation, about.Provider)
	case c.Offer != about.Offer:
		return none, refused(CodeOtherOffer, "the decision is about another offer (%s) than the one under negotiation (%s): read it again and decide anew", c.Offer, about.Offer)
	case slices.ContainsFunc(holds, func(h Hold) bool {
		return slices.ContainsFunc(h.Decisions, func(d adminapi.GateDecision) bool { return d.ID == c.ID })
	}):
		return none, refused(CodeReplayed, "decision %s has been received before", c.ID)
	}
	if err := timely(c, now); err != nil {
		return none, err
	}
	if err := h.takes(by, c.Verdict, now); err != nil {
		return none, err
	}
	out := adminapi.GateDecision{ID: c.ID, Gate: c.Gate, Verdict: c.Verdict, By: plain(by), Comment: c.Comment, At: time.Unix(c.IssuedAt, 0).UTC(), Signed: signed}
	h.Decisions = append(h.Decisions, out)
	return out, nil
}

func timely(c adminapi.DecisionClaims, now time.Time) error {
	issued, expires := time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0)
	switch {
	case issued.After(now.Add(clockSkew)):
		return refused(CodeExpired, "the decision was signed at %s, and it is %s now: set the clock", stamp(issued), stamp(now))
	case !expires.After(now):
		return refused(CodeExpired, "the decision could be used until %s, and it is %s now: decide anew", stamp(expires), stamp(now))
	case expires.Sub(issued) > MaxValidity:
		return refused(CodeExpired, "the decision is valid for %s: at most %s", expires.Sub(issued), MaxValidity)
	}
	return nil
}

// takes says whether a gate takes a verdict of a person now.
func (h *Hold) takes(by adminapi.Approver, v adminapi.Verdict, now time.Time) error {
	switch Evaluate(h, now) {
	case adminapi.GateOpen:
	case adminapi.GateLate:
		return refused(CodeLate, "gate %q had to be decided until %s", h.Gate.Name, stamp(*h.Deadline))
	case adminapi.GateAhead:
		return refused(CodeClosed, "the negotiation has not reached gate %q", h.Gate.Name)
	default:
		return refused(CodeClosed, "gate %q has been decided already", h.Gate.Name)
	}
	switch {
	case h.decided(by.ID, v):
		return refused(CodeDecided, "%s has decided already: a person counts once", by.Name)
	case v == adminapi.Approve && h.crowded(by.Organization):
		return refused(CodeSameOrganization, "somebody of %s has approved already: gate %q needs approvals of %d organizations", by.Organization, h.Gate.Name, h.Gate.Organizations)
	}
	return nil
}

// author finds the person among those who may give such a verdict at the gate, and proves the signature with a key pinned for that person.
func (h *Hold) author(d decision) (adminapi.Approver, error) {
	c := d.claims
	var allowed []adminapi.Approver
	if c.Verdict == adminapi.Approve || c.Verdict == adminapi.Reject {
		allowed = append(allowed, h.Gate.Approvers...)
	}
	if c.Verdict == adminapi.Trigger || c.Verdict == adminapi.Reject {
		allowed = append(allowed, h.Gate.TriggeredBy...)
	}
	i := slices.IndexFunc(allowed, func(a adminapi.Approver) bool { return a.ID == c.Approver })
	if i < 0 {
		return adminapi.Approver{}, refused(CodeWrongApprover, "%q is none of those who may %s at gate %q", c.Approver, c.Verdict, h.Gate.Name)
	}
	for _, raw := range allowed[i].Keys {
		if thumb, key, err := PublicKey(raw); err == nil && thumb == d.KeyID {
			if !d.Verify(key) {
				return adminapi.Approver{}, refused(CodeForged, "the signature is not the one of %s's key %s", allowed[i].Name, d.KeyID)
			}
			return allowed[i], nil
		}
	}
	return adminapi.Approver{}, refused(CodeForged, "key %q is none of those that gate %q knows of %s: a key made after the offer is not known to it", d.KeyID, h.Gate.Name, allowed[i].Name)
}

// decision is a signed decision taken apart, with nothing verified.
type decision struct {
	JWS
	claims adminapi.DecisionClaims
}

func parse(signed string) (decision, error) {
	j, err := ParseJWS(Type, signed)
	if err != nil {
		return decision{}, err
	}
	d := decision{JWS: j}
	if err := json.Unmarshal(j.Payload, &d.claims); err != nil {
		return decision{}, errors.New("its payload is not what a decision holds")
	}
	c := d.claims
	switch {
	case c.Verdict != adminapi.Approve && c.Verdict != adminapi.Reject && c.Verdict != adminapi.Trigger:
		return decision{}, fmt.Errorf("$.decision: %q is none of %s, %s and %s", c.Verdict, adminapi.Approve, adminapi.Reject, adminapi.Trigger)
	case c.ID == "" || c.IssuedAt == 0 || c.Expires == 0:
		return decision{}, errors.New("jti, iat and exp are all needed")
	case len(c.Comment) > maxComment:
		return decision{}, fmt.Errorf("$.comment: %d bytes, at most %d", len(c.Comment), maxComment)
	}
	return d, nil
}

// Sign makes a signed decision with a private key (JWK, P-256 or Ed25519).
func Sign(key jwk.Key, c adminapi.DecisionClaims) (string, error) { return SignJWS(key, Type, c) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
