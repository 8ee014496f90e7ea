// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/limits"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/connector/usecase"
)

const (
	supplier = "did:web:supplier.example"
	buyer    = "did:web:buyer.example"
	// attested is the operand of the tests: the age of the provider's attestation.
	attested = "https://example.org/policy/attested"
	purpose  = "https://example.org/policy/purpose"
	patience = 2 * time.Minute
)

var testProfile = profile.Profile{
	Name: "pilot", Protocol: wire.Protocol,
	TrustedIssuers:      []profile.TrustedIssuer{{DID: "did:web:authority.example", Types: []string{"MembershipCredential", "AttestationCredential"}}},
	RequiredCredentials: []string{"MembershipCredential"},
	Operands: []profile.Operand{
		{Name: attested, Subject: profile.SubjectProvider, Credential: "AttestationCredential", Expression: "timestamp(credential.subject.completedAt)",
			ValueType: profile.ValueAge, Operators: []string{"lt"}, Phases: []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation, profile.PhaseTransfer},
			Sentence: profile.Translation{EN: "the attestation is younger than {right}"}, Remedy: profile.Translation{EN: "renew the attestation"}},
		{Name: "https://example.org/policy/bpn", Subject: profile.SubjectConsumer, Credential: "MembershipCredential", Expression: "credential.subject.bpn",
			ValueType: profile.ValueString, Operators: []string{"eq"}, Phases: []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation},
			Sentence: profile.Translation{EN: "the consumer's number is {right}"}},
		{Name: purpose, Subject: profile.SubjectConsumer, Expression: "request.purpose", ValueType: profile.ValueString, Operators: []string{"eq", "isAnyOf"}, Purpose: true,
			Phases: []profile.Phase{profile.PhaseNegotiation, profile.PhaseTransfer, profile.PhaseAccess}, Sentence: profile.Translation{EN: "the purpose is {right}"}},
		{Name: "https://example.org/policy/method", Subject: profile.SubjectConsumer, Expression: "request.method", ValueType: profile.ValueString, Operators: []string{"eq"},
			Phases: []profile.Phase{profile.PhaseAccess}, Sentence: profile.Translation{EN: "it is read by {right}"}},
		{Name: "https://example.org/policy/bpnAtAccess", Subject: profile.SubjectConsumer, Credential: "MembershipCredential", Expression: "credential.subject.bpn",
			ValueType: profile.ValueString, Operators: []string{"eq"}, Phases: []profile.Phase{profile.PhaseAccess}, Sentence: profile.Translation{EN: "the consumer's number is still {right}"}},
		{Name: "https://example.org/policy/attestedAtAccess", Subject: profile.SubjectProvider, Credential: "AttestationCredential", Expression: "timestamp(credential.subject.completedAt)",
			ValueType: profile.ValueAge, Operators: []string{"lt"}, Phases: []profile.Phase{profile.PhaseAccess}, Sentence: profile.Translation{EN: "the attestation is still younger than {right}"}},
	},
	Duties: []profile.Duty{{Name: "https://example.org/policy/recordAccess", Fulfilment: profile.FulfilRecordAccess, Sentence: profile.Translation{EN: "every access is recorded"}}},
}

const (
	attestedPolicy = `{"@type":"Set","permission":[{"action":"use","constraint":[{"leftOperand":"` + attested + `","operator":"lt","rightOperand":"P12M"}]}]}`
	openPolicy     = `{"@type":"Set","permission":[{"action":"use"}]}`
)

// oneConnection is what each participant has: whoever wanted a second one meanwhile would get an error.
func oneConnection() *limits.Shares {
	return limits.NewShares(limits.Share{Name: "statements", Most: 1, Queue: 10_000, Patience: patience})
}

// people is an identity service whose tokens say who they are, and whose credentials are given by the test.
type people struct {
	sync.Mutex
	credentials map[string][]identity.Credential
	endpoints   map[string]string
	unavailable bool
	// cutOff says that no issuer is reached.
	cutOff bool
	// trust names the one issuer that a profile trusts; the profiles that it does not name trust everybody.
	trust map[string]string
	// slow, when set, is waited for while the credentials of a party are asked for.
	slow map[string]chan struct{}
}

func newPeople() *people {
	p := &people{credentials: map[string][]identity.Credential{}, endpoints: map[string]string{}}
	for _, did := range []string{supplier, buyer} {
		p.give(did, "MembershipCredential", map[string]any{"bpn": "BPN-" + did})
	}
	p.give(supplier, "AttestationCredential", map[string]any{"completedAt": time.Now().Add(-48 * time.Hour).UTC().Format(time.RFC3339)})
	return p
}

// give replaces a credential.
func (p *people) give(did, credentialType string, subject map[string]any) {
	p.Lock()
	defer p.Unlock()
	rest := slices.DeleteFunc(p.credentials[did], func(c identity.Credential) bool { return c.Type == credentialType })
	p.credentials[did] = append(rest, identity.Credential{ID: "urn:" + credentialType, Type: credentialType, Issuer: "did:web:authority.example",
		Subject: subject, ValidFrom: time.Now().Add(-time.Hour), Raw: credentialType})
}

// token has the form of a JWT, and is signed by nobody.
type token struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"`
	Scopes   []string `json:"scopes"`
}

func (t token) String() string {
	raw, _ := json.Marshal(t)
	return "Bearer e30." + base64.RawURLEncoding.EncodeToString(raw) + ".unsigned"
}

func (p *people) Token(_ context.Context, local identity.Local, audience string, scopes []string) (string, error) {
	return token{local.DID, audience, scopes}.String(), nil
}

func (p *people) Verify(_ context.Context, local identity.Local, authorization string, scopes []string) (identity.Agent, error) {
	var t token
	if parts := strings.Split(authorization, "."); len(parts) == 3 {
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(raw, &t)
	}
	if t.Issuer == "" {
		return identity.Agent{}, identity.Unauthenticated("not a token")
	}
	p.Lock()
	slow := p.slow[t.Issuer]
	p.Unlock()
	if slow != nil {
		<-slow
	}
	if t.Audience != local.DID {
		return identity.Agent{}, identity.Unauthenticated("the token is for %s", t.Audience)
	}
	return p.agent(t.Issuer, local.Profile, func(scope string) bool { return slices.Contains(scopes, scope) && slices.Contains(t.Scopes, scope) })
}

func (p *people) Self(_ context.Context, local identity.Local, scopes []string) (identity.Agent, error) {
	return p.agent(local.DID, local.Profile, func(scope string) bool { return slices.Contains(scopes, scope) })
}

// Recheck takes a credential's type for the credential.
func (p *people) Recheck(_ context.Context, local identity.Local, holder string, raw []string) (identity.Agent, error) {
	return p.agent(holder, local.Profile, func(scope string) bool {
		return slices.ContainsFunc(raw, func(t string) bool { return identity.TypeScope(t) == scope })
	})
}

func (p *people) agent(did, profile string, shown func(scope string) bool) (identity.Agent, error) {
	p.Lock()
	defer p.Unlock()
	if p.unavailable {
		return identity.Agent{}, fmt.Errorf("credential service: connection refused")
	}
	a := identity.Agent{ID: did}
	for _, c := range p.credentials[did] {
		switch issuer := p.trust[profile]; {
		case !shown(identity.TypeScope(c.Type)):
		case p.cutOff:
			a.Refused = append(a.Refused, identity.Refusal{ID: c.ID, Type: c.Type, Issuer: c.Issuer, Code: identity.CodeUnreachable, Reason: "its issuer is not reached"})
		case issuer != "" && issuer != c.Issuer:
			a.Refused = append(a.Refused, identity.Refusal{ID: c.ID, Type: c.Type, Issuer: c.Issuer, Code: "wrong-issuer", Reason: c.Issuer + " is not trusted for it"})
		default:
			a.Credentials = append(a.Credentials, c)
		}
	}
	return a, nil
}

// statement has the form of a signed one, and is signed by nobody.
type statement struct {
	By  string `json:"by"`
	For string `json:"for"`
	adminapi.HeadStatement
}

func (p *people) SignHead(_ context.Context, local identity.Local, audience string, s adminapi.HeadStatement) (string, error) {
	raw, err := json.Marshal(statement{local.DID, audience, s})
	return string(raw), err
}

func (p *people) VerifyHead(_ context.Context, local identity.Local, from, signed string) (adminapi.HeadStatement, error) {
	var s statement
	if err := json.Unmarshal([]byte(signed), &s); err != nil || s.By != from || s.For != local.DID {
		return adminapi.HeadStatement{}, fmt.Errorf("it is by %s for %s", s.By, s.For)
	}
	return s.HeadStatement, nil
}

func (p *people) Endpoint(_ context.Context, did, _ string) (string, error) {
	p.Lock()
	defer p.Unlock()
	if e := p.endpoints[did]; e != "" {
		return e, nil
	}
	return "", fmt.Errorf("%s has no such service", did)
}

// flows is a data plane that remembers what it was told.
type flows struct {
	sync.Mutex
	state  map[string]string
	starts int
	last   dps.Flow // started
	fail   error
}

func (f *flows) Start(_ context.Context, flow dps.Flow) (dps.DataAddress, error) {
	f.Lock()
	defer f.Unlock()
	if f.fail != nil {
		return dps.DataAddress{}, f.fail
	}
	f.starts++
	f.last = flow
	f.state[flow.FlowID] = "started"
	return dps.DataAddress{EndpointType: "https://w3id.org/idsa/v4.1/HTTP", Endpoint: "https://supplier.example/data/" + flow.FlowID,
		Properties: map[string]string{"authorization": fmt.Sprint("token ", f.starts), "authType": "bearer"}}, nil
}

func (f *flows) set(id, s string) error {
	f.Lock()
	defer f.Unlock()
	f.state[id] = s
	return nil
}

func (f *flows) Suspend(_ context.Context, id string) error   { return f.set(id, "suspended") }
func (f *flows) Terminate(_ context.Context, id string) error { return f.set(id, "terminated") }
func (f *flows) Complete(_ context.Context, id string) error  { return f.set(id, "completed") }

func (f *flows) is(id string) string {
	f.Lock()
	defer f.Unlock()
	return f.state[id]
}

// side is one connector with one participant.
type side struct {
	t      testing.TB
	ctx    string
	did    string
	store  *store.Store
	engine *dsp.Engine
	server *httptest.Server
	flows  *flows
	before atomic.Pointer[interceptor]
}

// interceptor sees a request before the connector does; false means it has answered.
type interceptor func(w http.ResponseWriter, r *http.Request) bool

// intercept shows every further request to i first.
func (s *side) intercept(i interceptor) { s.before.Store(&i) }

type option func(*dsp.Options)

func newSide(t testing.TB, who *people, name, did string, opts ...option) *side {
	t.Helper()
	dsn := pgtest.NewDatabase(t)
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), cfg.ConnConfig, nil); err != nil {
		t.Fatal(err)
	}
	s := &side{t: t, ctx: name, did: did, flows: &flows{state: map[string]string{}}}
	if s.store, err = store.Open(t.Context(), cfg, store.Options{Owner: name, Connections: oneConnection()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.store.Close)
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i := s.before.Load(); i == nil || (*i)(w, r) {
			limits.Handler(s.engine.Handler(), limits.Options{}).ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.server.Close)
	options := dsp.Options{Store: s.store, Identity: who, DataPlane: s.flows, HTTP: &http.Client{Timeout: time.Minute}, PublicURL: s.server.URL, AllowPlainHTTP: true,
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond, HeadPoll: 10 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
	for _, o := range opts {
		o(&options)
	}
	if s.engine, err = dsp.New(options); err != nil {
		t.Fatal(err)
	}
	if err := s.store.PutProfile(t.Context(), testProfile); err != nil {
		t.Fatal(err)
	}
	if err := s.store.PutParticipant(t.Context(), name, adminapi.Participant{DID: did, Profile: "pilot", Active: true}); err != nil {
		t.Fatal(err)
	}
	who.Lock()
	who.endpoints[did] = s.base("")
	who.Unlock()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.engine.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// base is the DSP base of the participant in one of its profiles; empty is the default one.
func (s *side) base(profile string) string {
	s.t.Helper()
	p, err := s.store.Participant(s.t.Context(), s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	in, ok := p.In(profile)
	if !ok {
		s.t.Fatalf("%s takes no part in %q", s.ctx, profile)
	}
	return s.engine.Base(in)
}

// world is a supplier and a buyer, each with a connector of its own.
func world(t testing.TB, opts ...option) (who *people, provider, consumer *side) {
	who = newPeople()
	provider = newSide(t, who, "supplier", supplier, opts...)
	consumer = newSide(t, who, "buyer", buyer, opts...)
	return who, provider, consumer
}

// offer puts an asset and offers it.
func (s *side) offer(id, policy string, gates ...adminapi.Gate) string {
	s.t.Helper()
	if err := s.store.PutAsset(s.t.Context(), store.Asset{Ctx: s.ctx, ID: "asset-" + id, Properties: map[string]any{"name": "gear"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://backend"}}); err != nil {
		s.t.Fatal(err)
	}
	if err := s.store.PutDefinition(s.t.Context(), store.Definition{Ctx: s.ctx, ID: id, ContractPolicyID: id, ContractPolicy: json.RawMessage(policy),
		Selector: store.SelectAssets([]string{"asset-" + id}), Gates: gates}); err != nil {
		s.t.Fatal(err)
	}
	p, err := odrl.Parse(json.RawMessage(policy))
	if err != nil {
		s.t.Fatal(err)
	}
	return wire.OfferID(id, "asset-"+id, p)
}

// revise brings a signed revision of a use case into force, as profile pilot means it, and puts all offers under it.
func (s *side) revise(useCase, policy string) {
	s.t.Helper()
	c, err := usecase.Make(usecase.Content{UseCase: useCase, Number: 1, AssetType: "urn:parts", ContractPolicy: json.RawMessage(policy)}, testProfile)
	if err != nil {
		s.t.Fatal(err)
	}
	text, hash, err := usecase.Write(c)
	if err != nil {
		s.t.Fatal(err)
	}
	r := adminapi.UseCaseRevision{UseCase: useCase, Number: 1, Hash: hash, Content: text, SignOff: "verified when it came"}
	terms := store.Terms{ContractPolicy: c.ContractPolicy, Applies: func([]string) bool { return true }}
	offers, err := s.store.Definitions(s.t.Context(), s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, d := range offers {
		d.UseCase = useCase
		if err := s.store.PutDefinition(s.t.Context(), *d); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.store.BringIntoForce(s.t.Context(), s.ctx, useCase, terms, func(*adminapi.UseCaseRevision) (adminapi.UseCaseRevision, error) { return r, nil }); err != nil {
		s.t.Fatal(err)
	}
}

// wait waits until check holds for a negotiation.
func (s *side) wait(id, what string, check func(*store.Negotiation) bool) *store.Negotiation {
	s.t.Helper()
	return await(s, id, what, s.store.Negotiation, check)
}

func (s *side) waitTransfer(id, what string, check func(*store.Transfer) bool) *store.Transfer {
	s.t.Helper()
	return await(s, id, what, s.store.Transfer, check)
}

func await[T any](s *side, id, what string, read func(context.Context, string, string) (*T, error), check func(*T) bool) *T {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		changed := s.engine.Watch(s.ctx, id)
		v, err := read(s.t.Context(), s.ctx, id)
		if err != nil {
			s.t.Fatal(err)
		}
		if check(v) {
			return v
		}
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("%s: waiting for %s, have %s", s.ctx, what, describe(v))
		}
	}
}

func describe(v any) string {
	raw, _ := json.MarshalIndent(v, "", " ")
	return string(raw)
}

func at(step string) func(*store.Negotiation) bool {
	return func(n *store.Negotiation) bool { return n.Step == step }
}

func transferAt(step string) func(*store.Transfer) bool {
	return func(t *store.Transfer) bool { return t.Step == step }
}

func states(history []adminapi.Event) string {
	var out []string
	for _, e := range history {
		out = append(out, e.State)
	}
	return strings.Join(out, " ")
}

// peer finds the other side's row of a process.
func (s *side) peer(n *store.Negotiation) *store.Negotiation {
	s.t.Helper()
	p, err := s.store.FindNegotiation(s.t.Context(), s.ctx, n.Role.Other(), map[string]string{supplier: buyer, buyer: supplier}[s.did], n.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}
