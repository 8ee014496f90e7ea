// SPDX-License-Identifier: Apache-2.0

// Package adminapi holds the wire types of a connector's internal plain JSON API: what the EDC operator uses to configure
// participants, wallets and issuers (/admin/v1), what roles use among each other (/internal/v1), and the per-participant
// view that agents and portals use (/api/{ctx}/v1). Times are RFC 3339 in UTC. It holds no behaviour.
package adminapi

import (
	"encoding/json"
	"time"

	"github.com/kaphera/kaphera/connector/profile"
)

// Error is the body of every non-2xx answer.
type Error struct {
	Code    string `json:"code"`    // stable, e.g. "not-found", "invalid", "conflict", "counterparty-unreachable", "policy-denied"
	Message string `json:"message"` // for people: what, which value, what to do
	Path    string `json:"path,omitempty"`
	Trace   *Trace `json:"trace,omitempty"`
}

// ActorHeader names, on calls with the internal token, for whom the call is made: "user:<subject>" or "client:<name>". A cell's agent sets it on
// everything that comes from the cloud. It is what audit records name as their actor.
const ActorHeader = "Kaphera-Actor"

// --- control plane: /admin/v1 ---
//
// GET /admin/v1/audit/heads answers the heads of all audit chains as an array of connector/audit.Head.

// Participant is PUT /admin/v1/participants/{ctx} on the control plane (DELETE removes it; GET reads it).
type Participant struct {
	DID     string `json:"did"`
	BPN     string `json:"businessPartnerNumber,omitempty"`
	Profile string `json:"profile"` // the default one; must have been PUT to /admin/v1/profiles/{name}
	// FurtherProfiles that it takes part in besides. DSP is at {ctx}/dsp/2025-1 for the default profile, and at {ctx}/dsp/{profile}/2025-1 for
	// each of these; nothing of one is seen or used through the address of another.
	FurtherProfiles []string `json:"furtherProfiles,omitempty"`
	// Active false answers every protocol message with 503 and starts nothing; the data stays.
	Active bool `json:"active"`
	// SelfCheck off makes the provider offer without evaluating its own obligations, as connectors do that evaluate only the counterparty.
	SelfCheck SelfCheck `json:"selfCheck,omitempty"`
}

// SelfCheck says whether a provider evaluates constraints on itself before it offers and agrees.
type SelfCheck string

// SelfCheck values; empty means Enforce.
const (
	SelfCheckEnforce SelfCheck = "Enforce"
	SelfCheckOff     SelfCheck = "Off"
)

// Profile is PUT /admin/v1/profiles/{name} on the control plane. Refused (422) with the JSON path when it is not valid.
type Profile = profile.Profile

// --- wallet: /admin/v1 ---

// WalletParticipant is PUT /admin/v1/participants/{ctx} on the wallet: makes the key in the Vault when absent and publishes the DID document.
type WalletParticipant struct {
	DID string `json:"did"`
	// PublicURL is the base under which its DID document is, where it is another than the connector's: https://born.example.
	PublicURL      string                  `json:"publicURL,omitempty"`
	TrustedIssuers []profile.TrustedIssuer `json:"trustedIssuers"`
	Key            Key                     `json:"key,omitzero"`
}

// Key is a wish about the key that signs for a DID. An active key that is older than Generation or for another algorithm is replaced; the
// replaced one stays published until nothing that it signed is valid any more. A key rotated otherwise may be newer than the wish.
type Key struct {
	Algorithm  string `json:"algorithm,omitempty"`  // ES256 or EdDSA (Ed25519); empty = as it is, ES256 for the first
	Generation int    `json:"generation,omitempty"` // the number in the key's id, "key-2"; 0 = as it is
}

// WalletParticipantStatus is its answer, and GET's.
type WalletParticipantStatus struct {
	DID   string `json:"did"`
	KeyID string `json:"keyId"` // did#kid of the active key
}

// CredentialRequest is POST /admin/v1/participants/{ctx}/credential-requests: asks an issuer by DCP. Idempotent by (issuer, type) while one is
// under way or a valid credential is held.
type CredentialRequest struct {
	Issuer string `json:"issuer"` // DID
	Type   string `json:"type"`
	// Profile to ask for, "vc11-sl2021/jwt" or "vc20-bssl/jwt"; empty = what the issuer has, the first of them before the second.
	Profile string `json:"profile,omitempty"`
}

// HeldCredential is one item of GET /admin/v1/participants/{ctx}/credentials: an object for every credential held or requested.
type HeldCredential struct {
	ID        string          `json:"id,omitempty"`
	Type      string          `json:"type"`
	Issuer    string          `json:"issuer"`
	Profile   string          `json:"profile,omitempty"`
	State     CredentialState `json:"state"`
	IssuedAt  *time.Time      `json:"issuedAt,omitempty"`
	ExpiresAt *time.Time      `json:"expiresAt,omitempty"`
	Claims    json.RawMessage `json:"claims,omitempty"` // credentialSubject
	Detail    string          `json:"detail,omitempty"` // why it is not valid, for people
	Remedy    string          `json:"remedy,omitempty"` // what to do, for people; empty when nothing is to be done
}

// CredentialState tells apart what monitoring needs.
type CredentialState string

// Credential states.
const (
	CredentialRequested      CredentialState = "Requested"
	CredentialValid          CredentialState = "Valid"
	CredentialExpiring       CredentialState = "Expiring"
	CredentialExpired        CredentialState = "Expired"
	CredentialRevoked        CredentialState = "Revoked"
	CredentialSuspended      CredentialState = "Suspended"
	CredentialWrongIssuer    CredentialState = "WrongIssuer"
	CredentialNeverDelivered CredentialState = "NeverDelivered"
	CredentialRejected       CredentialState = "Rejected"
	CredentialRenewalStuck   CredentialState = "RenewalStuck"
)

// Remedies are the sentences that HeldCredential.Remedy has, by state; states without one need nothing done.
var Remedies = map[CredentialState]string{ //nolint:gosec // sentences, no secrets
	CredentialExpiring:       "Nothing: the wallet is renewing it by itself.",
	CredentialRenewalStuck:   "Clear up the reason with the issuer before the credential expires; the wallet goes on asking by itself.",
	CredentialExpired:        "Clear up with the issuer why no new one came; the wallet goes on asking by itself and takes it as soon as it comes.",
	CredentialRevoked:        "Ask the issuer why. The wallet asks for no new one by itself and takes one that the issuer offers.",
	CredentialSuspended:      "Ask the issuer what it waits for; the credential counts again as soon as it is resumed.",
	CredentialWrongIssuer:    "Request it from an issuer that the dataspace profile trusts for it, or have this one added to the profile.",
	CredentialNeverDelivered: "See whether the issuer answers and can reach this wallet; it goes on being asked.",
	CredentialRejected:       "Have the issuer register what it says is missing; then request it again.",
}

// TokenRequest is POST /internal/v1/{ctx}/token on the wallet (internal token): a self-issued ID token.
// Exactly one of Scopes (the receiver may query these), AccessToken (echoed as `token` when querying) and Head may be set; with Head the answer is
// no ID token but that statement, signed.
type TokenRequest struct {
	Audience    string         `json:"audience"`
	Scopes      []string       `json:"scopes,omitempty"`
	AccessToken string         `json:"accessToken,omitempty"`
	Head        *HeadStatement `json:"head,omitempty"`
}

// HeadStatement is what a participant says of its audit chain to the other party of an agreement.
type HeadStatement struct {
	Agreement string          `json:"agreement"`
	Head      json.RawMessage `json:"head"` // connector/audit.Head
}

// TokenResponse answers it.
type TokenResponse struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// --- issuer: /admin/v1 ---

// IssuerConfig is PUT /admin/v1/issuers/{ctx}: makes the key when absent, publishes the DID document.
type IssuerConfig struct {
	DID   string           `json:"did"`
	Types []CredentialType `json:"types"`
	Key   Key              `json:"key,omitzero"`
}

// IssuerStatus is its answer, and GET's.
type IssuerStatus struct {
	DID   string `json:"did"`
	KeyID string `json:"keyId"` // did#kid of the active key
}

// OfferCredentials is POST /admin/v1/issuers/{ctx}/offers: offers credentials to a holder, who then asks for them.
type OfferCredentials struct {
	Holder  string   `json:"holder"` // DID
	Types   []string `json:"types"`
	Profile string   `json:"profile,omitempty"` // default "vc11-sl2021/jwt"
}

// CredentialType is what an issuer can issue.
type CredentialType struct {
	Type     string `json:"type"`
	Validity string `json:"validity"` // ISO 8601 duration, e.g. "P365D"
	// RequiredClaims must be present in a holder's claims, else the request is rejected by name.
	RequiredClaims []string `json:"requiredClaims,omitempty"`
}

// Holder is PUT /admin/v1/issuers/{ctx}/holders/{did, base64url without padding}: who may receive what, with which claims.
// GET /admin/v1/issuers/{ctx}/holders lists all as an array of this; DELETE .../holders/{did} takes the entitlements away (204, 404 when not there).
type Holder struct {
	DID         string             `json:"did"`
	Credentials []HolderCredential `json:"credentials"`
}

// HolderCredential is one entitlement. Claims become credentialSubject members (id is added).
type HolderCredential struct {
	Type   string          `json:"type"`
	Claims json.RawMessage `json:"claims"`
}

// Issued is an item of GET /admin/v1/issuers/{ctx}/credentials?holder=; POST .../credentials/{id}/{revoke,suspend,resume} answer it too.
type Issued struct {
	ID        string    `json:"id"`
	Holder    string    `json:"holder"`
	Type      string    `json:"type"`
	State     string    `json:"state"` // Issued, Revoked, Suspended, Expired
	IssuedAt  time.Time `json:"issuedAt"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// --- participant view: /api/{ctx}/v1 on the control plane ---

// Asset is PUT/GET/DELETE /assets/{id}; GET /assets lists. DataAddress is EDC's HttpData: type, baseUrl, proxyPath, proxyQueryParams, authKey, secretName (Vault alias).
type Asset struct {
	ID          string            `json:"id"`
	Properties  map[string]any    `json:"properties"`
	DataAddress map[string]string `json:"dataAddress"`
}

// Secret is PUT /secrets/{alias}: written to the participant's Vault path, never read back.
type Secret struct {
	Value string `json:"value"`
}

// Offer is PUT/GET/DELETE /offers/{id}; GET /offers lists. It is an EDC contract definition with its two policies inline.
// PUT evaluates the contract policy's provider constraints against the own credentials and refuses (403 policy-denied, with trace) what the catalog would hide.
type Offer struct {
	ID             string          `json:"id"`
	Assets         []string        `json:"assets"`
	UseCase        string          `json:"useCase,omitempty"`
	Revision       *RevisionRef    `json:"revision,omitempty"`     // of the use case, that the policies are of (read only)
	Profiles       []string        `json:"profiles,omitempty"`     // of the participant's, in which it is offered; absent = the default one
	AccessPolicy   json.RawMessage `json:"accessPolicy,omitempty"` // ODRL Set; absent = everybody who satisfies the profile
	ContractPolicy json.RawMessage `json:"contractPolicy"`         // ODRL Set
	Gates          []Gate          `json:"gates,omitempty"`        // what a negotiation about it waits for
	State          string          `json:"state,omitempty"`        // Offered, Withheld (read only)
	Trace          *Trace          `json:"trace,omitempty"`        // why (read only)
}

// UseCaseRevision is PUT /use-cases/{name}: what a use case demands from now on. The participant's offers under the use case are changed to it in the
// same transaction; agreements and negotiations that exist keep what they have. GET /use-cases lists those in force, without gates. Refused with a
// code of connector/usecase; the one in force again is no error.
type UseCaseRevision struct {
	UseCase string `json:"useCase"`
	Number  int    `json:"number"`
	Hash    string `json:"hash"`              // SHA-256 of Content, hex
	Content string `json:"content"`           // JSON of connector/usecase.Content, to the byte
	SignOff string `json:"signOff,omitempty"` // JWS of SignOffClaims; empty where the use case names no signers
	// Signers are the people who may sign the next one, with the keys that the sign-off lists.
	Signers []Approver `json:"signers,omitempty"`
	// Gates are those of the content with the people and keys that they mean now.
	Gates []Gate `json:"gates,omitempty"`
}

// RevisionRef names a revision of a use case.
type RevisionRef struct {
	Number int    `json:"number"`
	Hash   string `json:"hash"`
}

// SignOffClaims are what a person of the authority signs to bring a revision into force (JWS, compact, ES256 or EdDSA; typ kaphera-revision+jwt, kid the
// key's RFC 7638 thumbprint).
type SignOffClaims struct {
	Signer   string   `json:"iss"`
	UseCase  string   `json:"useCase"`
	Number   int      `json:"revision"`
	Hash     string   `json:"hash"`     // of the content
	Read     string   `json:"read"`     // SHA-256 (hex) of the explanation that was shown, its sentences joined by line feeds
	Language string   `json:"language"` // of it: en, de
	Signers  []string `json:"signers"`  // thumbprints of the keys that may sign the next revision
	IssuedAt int64    `json:"iat"`      // seconds
}

// Gate holds a negotiation at its provider until it has passed; a runtime that can't hold it refuses the offer (422). connector/gate says what
// each member means.
type Gate struct {
	Name     string   `json:"name"` // unique among the gates of an offer
	Type     GateType `json:"type"`
	Before   string   `json:"before"`   // AGREED or FINALIZED: the state that it keeps the negotiation from
	Deadline string   `json:"deadline"` // ISO 8601 duration from when it begins to hold; then the negotiation is terminated
	// Approvers, of an approval: Required of them must approve, from at least Organizations organizations; the first that rejects ends it.
	Approvers     []Approver `json:"approvers,omitempty"`
	Required      int        `json:"required,omitempty"`
	Organizations int        `json:"organizations,omitempty"`
	// URL, of a webhook, is asked with a POST of the Approval and a self-issued ID token, again and again, until it answers {"decision": JWS} with one
	// of an approver, which is the system there; 202, or no decision, means later. https only.
	URL string `json:"url,omitempty"`
	// Policy, of an attestation, is the ODRL Set that must be satisfied; until it is, the negotiation waits.
	Policy json.RawMessage `json:"policy,omitempty"`
	// TriggeredBy are those one of whom must let it pass by hand besides; empty: it passes by itself.
	TriggeredBy []Approver `json:"triggeredBy,omitempty"`
}

// GateType is what a gate waits for.
type GateType string

// Gate types.
const (
	GateApproval    GateType = "approval"    // people
	GateAttestation GateType = "attestation" // a credential that is there and fresh
	GateWebhook     GateType = "webhook"     // a system outside, with a key of its own
)

// Approver is a person whose signed decision counts.
type Approver struct {
	ID           string `json:"id"` // of the person, the same in all gates
	Name         string `json:"name"`
	Organization string `json:"organization"`
	Role         string `json:"role,omitempty"`
	// Keys are the person's public keys (JWK, P-256 or Ed25519); left out where a gate is shown.
	Keys []json.RawMessage `json:"keys,omitempty"`
}

// DecisionClaims are what an approver signs (JWS, compact, ES256 or EdDSA; typ kaphera-decision+jwt, kid the key's RFC 7638 thumbprint).
type DecisionClaims struct {
	Approver    string  `json:"iss"`
	Provider    string  `json:"aud"` // DID
	Negotiation string  `json:"negotiation"`
	Offer       string  `json:"offer"` // hash of what is decided about, as the approval shows it
	Gate        string  `json:"gate"`
	Verdict     Verdict `json:"decision"`
	Comment     string  `json:"comment,omitempty"`
	IssuedAt    int64   `json:"iat"` // seconds
	Expires     int64   `json:"exp"`
	ID          string  `json:"jti"`
}

// Verdict is what a person decided.
type Verdict string

// Verdicts.
const (
	Approve Verdict = "approve"
	Reject  Verdict = "reject"
	Trigger Verdict = "trigger" // lets a gate pass that is triggered by hand
)

// SignedDecision is the body of POST /negotiations/{id}/decisions, which answers the negotiation. Refused with a code of connector/gate.
type SignedDecision struct {
	Decision string `json:"decision"` // JWS of DecisionClaims
}

// GateState is a gate in a negotiation.
type GateState struct {
	Name     string         `json:"name"`
	Type     GateType       `json:"type"`
	Before   string         `json:"before"`
	State    GateOutcome    `json:"state"`
	Since    *time.Time     `json:"since,omitempty"`    // when it began to hold
	Deadline *time.Time     `json:"deadline,omitempty"` // when it ends the negotiation
	ByHand   bool           `json:"byHand,omitempty"`   // somebody must still let it pass by hand
	WaitsFor []Approver     `json:"waitsFor,omitempty"` // whose decision it still takes, without keys
	Words    string         `json:"words"`              // what it waits for, or how it ended
	DE       string         `json:"de"`                 // in German
	Decided  []GateDecision `json:"decided,omitempty"`
}

// GateOutcome is how a gate stands.
type GateOutcome string

// Gate outcomes.
const (
	GateAhead    GateOutcome = "ahead" // not reached yet
	GateOpen     GateOutcome = "open"
	GatePassed   GateOutcome = "passed"
	GateRejected GateOutcome = "rejected"
	GateLate     GateOutcome = "late"
)

// GateDecision is a verified decision of a person.
type GateDecision struct {
	ID      string    `json:"id"` // jti
	Gate    string    `json:"gate"`
	Verdict Verdict   `json:"decision"`
	By      Approver  `json:"by"` // without keys
	Comment string    `json:"comment,omitempty"`
	At      time.Time `json:"at"`             // when it was signed
	Void    bool      `json:"void,omitempty"` // the offer has changed since, so it counts no more
	Signed  string    `json:"signed"`         // the JWS, for whoever verifies it again
}

// Approval is an item of GET /approvals: a gate that holds a negotiation now and waits for people, with what they decide about. Neither
// credentials nor values read from them are in it.
type Approval struct {
	Provider     string          `json:"provider"` // DID
	Negotiation  string          `json:"negotiation"`
	Counterparty string          `json:"counterparty"` // DID
	AssetID      string          `json:"assetId"`
	OfferID      string          `json:"offerId"`
	UseCase      string          `json:"useCase,omitempty"`
	Policy       json.RawMessage `json:"policy"` // the offer, verbatim
	OfferHash    string          `json:"offerHash"`
	Unreadable   string          `json:"unreadable,omitempty"` // why the offer cannot be shown: policy is null, offerHash empty, and nobody can decide
	Verdicts     []PolicyVerdict `json:"verdicts"`
	Gate         GateState       `json:"gate"`
}

// PolicyVerdict is one constraint as an approver sees it.
type PolicyVerdict struct {
	Sentence  string `json:"sentence"`
	DE        string `json:"de,omitempty"`
	Satisfied bool   `json:"satisfied"`
}

// CatalogEntry is an item of GET /catalog?counterparty=<DID>[&address=<DSP base>][&profile=<own profile>]: asked from the counterparty now.
type CatalogEntry struct {
	OfferID    string          `json:"offerId"`
	Profile    string          `json:"profile"` // the own one, in which it was asked for
	AssetID    string          `json:"assetId"`
	Properties map[string]any  `json:"properties"`
	Policy     json.RawMessage `json:"policy"` // the offer as received, verbatim
	Sentences  []string        `json:"sentences"`
	DE         []string        `json:"de,omitempty"` // the sentences in German
	Formats    []string        `json:"formats"`
}

// NegotiationRequest is POST /negotiations. The offer is looked up in the counterparty's catalog by id, and copied exactly.
// ID is an idempotency key: the same id again answers the existing negotiation.
type NegotiationRequest struct {
	ID           string `json:"id,omitempty"`
	Counterparty string `json:"counterparty"`      // DID
	Address      string `json:"address,omitempty"` // DSP base; default from the DID document (DataService)
	Profile      string `json:"profile,omitempty"` // of the participant's, in which to negotiate; default the default one
	OfferID      string `json:"offerId"`
	// Purpose of use, which the offer must be for; empty: those of the offer, whichever they are.
	Purpose string `json:"purpose,omitempty"`
}

// OfferRequest is POST /offers/{id}/negotiations, which answers the Negotiation: one of the own offers is made to a consumer. Refused with the trace when the
// own obligations are not met (403). ID is an idempotency key: the same id again answers the existing negotiation.
type OfferRequest struct {
	ID           string `json:"id,omitempty"`
	Counterparty string `json:"counterparty"`      // DID
	Address      string `json:"address,omitempty"` // DSP base; default from the DID document (DataService)
	Profile      string `json:"profile,omitempty"` // one in which the offer is made; default its first one
	Asset        string `json:"asset,omitempty"`   // default the only one of the offer
	// Policy (ODRL Set): terms for this consumer, in place of the offer's; its gates hold all the same.
	Policy json.RawMessage `json:"policy,omitempty"`
}

// Negotiation is GET /negotiations/{id}; GET /negotiations lists (newest first; without terms and traces; ?state=&limit=&before=); POST /negotiations/{id}/terminate {reason},
// /accept (terms of the counterparty's: a provider's offer, or what a consumer requests instead of an offer), /counter (CounterOffer) and /release (a
// held decision). GET /negotiations/{id}?wait=<revision> answers when the revision is another
// one, or after 20 s; GET /negotiations/{id}/events streams server-sent events "negotiation" until the end.
type Negotiation struct {
	ID              string `json:"id"`
	Profile         string `json:"profile"`
	Role            string `json:"role"`  // consumer, provider
	State           string `json:"state"` // DSP state: REQUESTED, OFFERED, ACCEPTED, AGREED, VERIFIED, FINALIZED, TERMINATED
	Step            string `json:"step"`  // EDC state with -ING steps
	Counterparty    string `json:"counterparty"`
	CounterpartyPID string `json:"counterpartyPid,omitempty"`
	AssetID         string `json:"assetId"`
	OfferID         string `json:"offerId"`
	UseCase         string `json:"useCase,omitempty"`
	// UseCaseRevision is the one that the offer under negotiation came from.
	UseCaseRevision *RevisionRef `json:"useCaseRevision,omitempty"`
	AgreementID     string       `json:"agreementId,omitempty"`
	Reason          *Reason      `json:"reason,omitempty"`
	Waiting         string       `json:"waiting,omitempty"` // what it waits for, for people
	Retry           *Retry       `json:"retry,omitempty"`
	Terms           *Terms       `json:"terms,omitempty"`
	// Decides says that terms of the counterparty's wait for this side: accept, counter or terminate.
	Decides bool `json:"decides,omitempty"`
	// Gates is what the provider waits for before it goes on, now or later.
	Gates     []GateState `json:"gates,omitempty"`
	History   []Event     `json:"history"`
	Traces    []Trace     `json:"traces,omitempty"`
	CreatedAt time.Time   `json:"createdAt"`
	UpdatedAt time.Time   `json:"updatedAt"`
	Revision  int64       `json:"revision"` // grows with every change
}

// Terms are what a negotiation is about now.
type Terms struct {
	Policy    json.RawMessage `json:"policy"` // the offer, verbatim
	Hash      string          `json:"hash"`   // SHA-256 (hex) of the policy's rules in normal form: the same for all that say the same
	Sentences []string        `json:"sentences"`
	DE        []string        `json:"de,omitempty"` // the sentences in German
}

// Acceptance is POST /negotiations/{id}/accept; it may be absent.
type Acceptance struct {
	// TermsHash is that of the terms which the person has seen; others are not accepted (409). Empty accepts whatever is under negotiation.
	TermsHash string `json:"termsHash,omitempty"`
}

// CounterOffer is POST /negotiations/{id}/counter: other terms about the same asset, on which the counterparty decides. A consumer answers an offer
// with it, a provider a request that it holds or whose terms it was not the one to offer.
type CounterOffer struct {
	Policy json.RawMessage `json:"policy"` // ODRL Set
	// OfferID of the provider's catalog, where the terms are those of an offer in it.
	OfferID string `json:"offerId,omitempty"`
}

// ReasonRequest is the body of terminate and suspend; it may be absent.
type ReasonRequest struct {
	Reason string `json:"reason,omitempty"`
}

// Reason says why something ended.
type Reason struct {
	Code    string `json:"code"` // e.g. policy-denied, counterparty-terminated, counterparty-unreachable, identity-refused
	Message string `json:"message"`
	By      string `json:"by"` // own, counterparty
}

// Retry is about an own message that the counterparty has not taken yet.
type Retry struct {
	Attempts int        `json:"attempts"` // so far
	Error    string     `json:"error"`    // of the last one
	Next     *time.Time `json:"next,omitempty"`
	Until    *time.Time `json:"until,omitempty"` // when sending is given up
}

// Event is a transition.
type Event struct {
	At     time.Time `json:"at"`
	State  string    `json:"state"`
	Detail string    `json:"detail,omitempty"`
}

// Agreement is GET /agreements/{id}; GET /agreements lists. GET /negotiations/{id}/agreement and GET /transfers/{id}/agreement answer the ODRL
// Agreement alone, byte for byte as it was sent or received.
type Agreement struct {
	ID            string          `json:"id"` // wire id
	NegotiationID string          `json:"negotiationId"`
	Profile       string          `json:"profile"`
	AssetID       string          `json:"assetId"`
	Provider      string          `json:"provider"`
	Consumer      string          `json:"consumer"`
	SignedAt      time.Time       `json:"signedAt"`
	Policy        json.RawMessage `json:"policy"`
	UseCase       string          `json:"useCase,omitempty"`
	// UseCaseRevision is the one that was agreed, which the agreement keeps.
	UseCaseRevision *RevisionRef `json:"useCaseRevision,omitempty"`
}

// TransferRequest is POST /transfers. ID is an idempotency key.
type TransferRequest struct {
	ID          string `json:"id,omitempty"`
	AgreementID string `json:"agreementId"`
	Format      string `json:"format,omitempty"` // default HttpData-PULL
}

// Transfer is GET /transfers/{id}; GET /transfers lists; POST /transfers/{id}/{suspend,resume,complete,terminate}.
// GET /transfers/{id}/data[/path][?query] fetches through the provider's data plane and answers its body, status and content type.
type Transfer struct {
	ID           string    `json:"id"`
	Profile      string    `json:"profile"`
	Role         string    `json:"role"`
	State        string    `json:"state"` // REQUESTED, STARTED, SUSPENDED, COMPLETED, TERMINATED
	AgreementID  string    `json:"agreementId"`
	AssetID      string    `json:"assetId"`
	Counterparty string    `json:"counterparty"`
	Endpoint     string    `json:"endpoint,omitempty"`   // never the token
	Suspension   *Reason   `json:"suspension,omitempty"` // why it is suspended, where somebody said
	Reason       *Reason   `json:"reason,omitempty"`
	Waiting      string    `json:"waiting,omitempty"` // what it waits for, for people
	Retry        *Retry    `json:"retry,omitempty"`
	History      []Event   `json:"history"`
	Traces       []Trace   `json:"traces,omitempty"`
	CreatedAt    time.Time `json:"createdAt"`
	UpdatedAt    time.Time `json:"updatedAt"`
	Revision     int64     `json:"revision"`
}

// GET /audit?after=<number>&last=<count>&limit=<count> answers a part of the audit trail as lines of an export (connector/audit), in order, the head last;
// as many records as fit. What comes from the cloud gets no bodies of types that may not leave the cell.

// Summary is GET /summary: counts for status pages.
type Summary struct {
	Negotiations map[string]int `json:"negotiations"` // by DSP state
	Transfers    map[string]int `json:"transfers"`
	Agreements   int            `json:"agreements"`
	LastFailure  *Negotiation   `json:"lastFailure,omitempty"`
}

// Trace is the record of one policy evaluation.
type Trace struct {
	Phase   profile.Phase `json:"phase"`
	Policy  string        `json:"policy"` // sha256 of the canonical policy
	At      time.Time     `json:"at"`
	By      string        `json:"by"` // DID of the evaluating party
	Allowed bool          `json:"allowed"`
	// Purposes are the stated purposes of use that are allowed; absent when the policy limits none.
	Purposes []string `json:"purposes,omitempty"`
	Checks   []Check  `json:"checks"`
}

// Check is one constraint of a trace.
type Check struct {
	Path         string          `json:"path"` // JSON path of the constraint
	LeftOperand  string          `json:"leftOperand"`
	Operator     string          `json:"operator"`
	RightOperand json.RawMessage `json:"rightOperand"`
	Subject      profile.Subject `json:"subject"`
	Party        string          `json:"party"` // DID
	Value        string          `json:"value"` // value seen, as text; empty when none
	// CredentialType is the type of credential that the value is read from; empty when none is needed.
	CredentialType string `json:"credentialType,omitempty"`
	Credential     string `json:"credential,omitempty"` // id of the credential it was read from
	Satisfied      bool   `json:"satisfied"`
	Sentence       string `json:"sentence"`
	Reason         string `json:"reason,omitempty"` // why not
	Remedy         string `json:"remedy,omitempty"`
	// DE has sentence, reason and remedy in German.
	DE *CheckWords `json:"de,omitempty"`
}

// CheckWords is what a check says to people.
type CheckWords struct {
	Sentence string `json:"sentence"`
	Reason   string `json:"reason,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// --- health port ---

// Readiness is GET /readyz on the health port of every role: 200 when every check passes, otherwise 503 with the same body.
type Readiness struct {
	Checks []ReadinessCheck `json:"checks"`
}

// ReadinessCheck is one thing that the role needs.
type ReadinessCheck struct {
	Name string `json:"name"` // CheckDatabase, CheckVault, or a name of the role's own
	// Error says why not, for people and without secrets; empty when it passes.
	Error string `json:"error,omitempty"`
}

// Names of checks that the operator reports in conditions of their own.
const (
	CheckDatabase = "database"
	CheckVault    = "vault"
)
