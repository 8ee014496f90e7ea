// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// findings gathers what is wrong with a spec. What can't be judged yet is a warning in a dry run, since a plan may create what it refers
// to, and an error otherwise.
type findings struct {
	dryRun   bool
	errors   []FieldError
	warnings []string
}

func (f *findings) wrong(location, format string, args ...any) {
	f.errors = append(f.errors, FieldError{location, fmt.Sprintf(format, args...)})
}

func (f *findings) missing(location, noun, name string) {
	msg := fmt.Sprintf("there is no %s %q: create it first", noun, name)
	if f.dryRun {
		f.warnings = append(f.warnings, location+": "+msg)
		return
	}
	f.wrong(location, "%s", msg)
}

// policy adds the errors of a policy or a profile, whose paths start with "$".
func (f *findings) policy(location string, err error) {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			f.policy(location, e)
		}
		return
	}
	var at *odrl.Error
	if errors.As(err, &at) {
		f.wrong(location+strings.TrimPrefix(at.Path, "$"), "%s", at.Message)
	} else if err != nil {
		f.wrong(location, "%s", err.Error())
	}
}

func (f *findings) result(noun, name string) ([]string, error) {
	if len(f.errors) == 0 {
		return f.warnings, nil
	}
	p := problem(http.StatusUnprocessableEntity, CodeInvalid, fmt.Sprintf("%s %q is not valid", noun, name), "correct the fields listed")
	p.Errors = f.errors
	return nil, p
}

// exists reads the object into o; false when there is none.
func (s *Service) exists(ctx context.Context, name string, o ctrl.Object) (bool, error) {
	if len(content.IsPathSegmentName(name)) > 0 {
		return false, nil
	}
	err := s.Client.Get(ctx, ctrl.ObjectKey{Namespace: s.Namespace, Name: name}, o)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// ConnectorProfile is the profile as connectors get it. Its issuers are did:web:<hostname>:issuer.
func ConnectorProfile(name string, spec *cloudv1.DataspaceProfileSpec) profile.Profile {
	p := profile.Profile{
		Name: name, Protocol: nonEmpty(spec.Protocol, "dataspace-protocol-http:2025-1"), RequiredCredentials: spec.RequiredCredentials, Operands: spec.Operands, Duties: spec.Duties,
	}
	for _, i := range spec.Issuers {
		t := profile.TrustedIssuer{DID: "did:web:" + i.Hostname + ":issuer"}
		for _, c := range i.CredentialTypes {
			t.Types = append(t.Types, c.Type)
		}
		p.TrustedIssuers = append(p.TrustedIssuers, t)
	}
	return p
}

func checkCell(ctx context.Context, s *Service, name string, spec, old *cloudv1.CellSpec, dryRun bool) ([]string, error) {
	f := &findings{dryRun: dryRun}
	if old != nil && spec.AgentKey == "" {
		spec.AgentKey = old.AgentKey // the company's, whoever describes the rest of the cell: it is replaced, never left out
	}
	if spec.Organization != "" {
		ok, err := s.exists(ctx, spec.Organization, &cloudv1.Organization{})
		if err != nil {
			return nil, err
		}
		if !ok {
			f.missing("spec.organization", "organization", spec.Organization)
		}
	}
	var others cloudv1.CellList
	if err := s.Client.List(ctx, &others, ctrl.InNamespace(s.Namespace)); err != nil {
		return nil, err
	}
	for i := range others.Items {
		if o := &others.Items[i]; o.Name != name && o.Spec.Hostname == spec.Hostname {
			f.wrong("spec.hostname", "%q is that of cell %q: choose another", spec.Hostname, o.Name)
		}
	}
	return f.result("cell", name)
}

func checkProfile(ctx context.Context, s *Service, name string, spec, _ *cloudv1.DataspaceProfileSpec, dryRun bool) ([]string, error) {
	f := &findings{dryRun: dryRun}
	for i, issuer := range spec.Issuers {
		var c cloudv1.Cell
		ok, err := s.exists(ctx, issuer.Cell, &c)
		if err != nil {
			return nil, err
		}
		location := fmt.Sprintf("spec.issuers[%d].cell", i)
		if !ok {
			f.missing(location, "cell", issuer.Cell)
		} else if c.Spec.Organization != "" {
			f.wrong(location, "cell %q is for participants of organization %q alone: name a shared cell", c.Name, c.Spec.Organization)
		}
	}
	evaluator, err := odrl.NewEvaluator(ConnectorProfile(name, spec))
	f.policy("spec", err)
	if err != nil {
		return f.result("dataspace profile", name)
	}
	// A vocabulary that a use case relies on can't be taken away.
	var list cloudv1.UseCaseList
	if err := s.Client.List(ctx, &list, ctrl.InNamespace(s.Namespace)); err != nil {
		return nil, err
	}
	for i := range list.Items {
		if u := &list.Items[i]; u.Spec.Profile == name {
			for _, e := range policyErrors(evaluator, &u.Spec) {
				f.wrong("spec.operands", "use case %q would no longer be valid: %s: %s", u.Name, e.Location, e.Message)
			}
		}
	}
	return f.result("dataspace profile", name)
}

func checkUseCase(ctx context.Context, s *Service, name string, spec, _ *cloudv1.UseCaseSpec, dryRun bool) ([]string, error) {
	f := &findings{dryRun: dryRun}
	var p cloudv1.DataspaceProfile
	ok, err := s.exists(ctx, spec.Profile, &p)
	if err != nil {
		return nil, err
	}
	if !ok {
		f.missing("spec.profile", "dataspace profile", spec.Profile)
		f.errors = append(f.errors, policyErrors(nil, spec)...)
		return f.result("use case", name)
	}
	evaluator, err := odrl.NewEvaluator(ConnectorProfile(p.Name, &p.Spec))
	if err != nil {
		f.wrong("spec.profile", "dataspace profile %q is not valid itself: %v", p.Name, err)
		return f.result("use case", name)
	}
	f.errors = append(f.errors, policyErrors(evaluator, spec)...)
	return f.result("use case", name)
}

// policyErrors judges the policies of a use case; without an evaluator, their form alone.
func policyErrors(e *odrl.Evaluator, spec *cloudv1.UseCaseSpec) []FieldError {
	f := &findings{}
	judge := func(location string, raw json.RawMessage, check func(*odrl.Evaluator, *odrl.Policy) error) {
		policy, err := odrl.Parse(raw)
		if err == nil && e != nil {
			err = check(e, policy)
		}
		f.policy(location, err)
	}
	judge("spec.contractPolicy", spec.ContractPolicy.Raw, (*odrl.Evaluator).Check)
	if spec.AccessPolicy != nil {
		judge("spec.accessPolicy", spec.AccessPolicy.Raw, (*odrl.Evaluator).CheckAccess)
	}
	for i, g := range spec.Gates {
		at := fmt.Sprintf("spec.gates[%d]", i)
		f.gate(at, g)
		if g.Policy != nil {
			judge(at+".policy", g.Policy.Raw, (*odrl.Evaluator).Check)
		}
	}
	return f.errors
}

// gate adds what would make every offer with a gate fail, whoever has registered keys then.
func (f *findings) gate(location string, g cloudv1.UseCaseGate) {
	if err := gate.CheckDeadline(g.Deadline); err != nil {
		f.wrong(location+".deadline", "%s", err)
	}
	people := map[string]bool{} // a role, which may be any number of people, is the empty name
	for _, a := range g.Approvers {
		people[a.Person] = true
	}
	if g.Required > len(people) && !people[""] {
		f.wrong(location+".required", "is %d, the gate has %d approvers", g.Required, len(people))
	}
	if g.Webhook != nil {
		if _, _, err := gate.PublicKey(g.Webhook.PublicKey.Raw); err != nil {
			f.wrong(location+".webhook.publicKey", "%s", err)
		}
	}
}

func checkParticipant(ctx context.Context, s *Service, name string, spec, old *cloudv1.ParticipantSpec, dryRun bool) ([]string, error) {
	if err := mayVouch(ctx, spec, old); err != nil {
		return nil, err
	}
	if err := mayNameHost(ctx, spec, old); err != nil {
		return nil, err
	}
	f := &findings{dryRun: dryRun}
	type reference struct {
		location, noun, name string
		object               ctrl.Object
	}
	var cell cloudv1.Cell
	references := []reference{
		{"spec.organization", "organization", spec.Organization, &cloudv1.Organization{}},
		{"spec.cell", "cell", spec.Cell, &cell},
	}
	found := make([]cloudv1.DataspaceProfile, len(spec.Profiles()))
	for i, profileName := range spec.Profiles() {
		location := "spec.profile"
		if i > 0 {
			location = fmt.Sprintf("spec.furtherProfiles[%d]", i-1)
		}
		if slices.Contains(spec.Profiles()[:i], profileName) {
			f.wrong(location, "profile %q is named twice: leave it out here", profileName)
		}
		references = append(references, reference{location, "dataspace profile", profileName, &found[i]})
	}
	for _, ref := range references {
		ok, err := s.exists(ctx, ref.name, ref.object)
		if err != nil {
			return nil, err
		}
		if !ok {
			f.missing(ref.location, ref.noun, ref.name)
		}
	}
	if !cell.Spec.Hosts(spec.Organization) {
		if !authz.From(ctx).Covers(cell.Spec.Organization) { // who may not see the cell
			f.missing("spec.cell", "cell", spec.Cell)
			return f.result("participant", name)
		}
		f.wrong("spec.cell", "cell %q is for participants of organization %q alone: choose another", cell.Name, cell.Spec.Organization)
	}
	profiles := make([]profile.Profile, 0, len(found))
	for i := range found {
		if p := &found[i]; p.Name != "" {
			profiles = append(profiles, ConnectorProfile(p.Name, &p.Spec))
		}
	}
	if len(profiles) == len(found) {
		checkEntitlements(f, spec, profiles)
	}
	var others cloudv1.ParticipantList
	if err := s.Client.List(ctx, &others, ctrl.InNamespace(s.Namespace)); err != nil {
		return nil, err
	}
	here := &cloudv1.Participant{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *spec}
	for i := range others.Items {
		if o := &others.Items[i]; o.Name == name {
			here.Status = o.Status
		}
	}
	if cell.Name != "" && here.RunsIn() != spec.Cell {
		if err := checkMove(ctx, s, f, here, &cell); err != nil {
			return nil, err
		}
	}
	for i := range others.Items {
		o := &others.Items[i]
		if o.Name == name || o.Spec.Identity.Context != spec.Identity.Context {
			continue
		}
		if slices.Contains(o.Cells(), spec.Cell) || cell.Name != "" && o.Status.Hostname == cell.Spec.Hostname && here.Status.Hostname != cell.Spec.Hostname {
			f.wrong("spec.identity.context", "%q is taken in cell %q: choose another", spec.Identity.Context, spec.Cell)
		}
	}
	return f.result("participant", name)
}

// checkMove judges whether a participant can go to another cell than that in which it runs.
func checkMove(ctx context.Context, s *Service, f *findings, p *cloudv1.Participant, to *cloudv1.Cell) error {
	var from cloudv1.Cell
	if _, err := s.exists(ctx, p.RunsIn(), &from); err != nil {
		return err
	}
	switch m := p.Status.Move; {
	case from.Spec.Type == cloudv1.OnPremise || to.Spec.Type == cloudv1.OnPremise:
		f.wrong("spec.cell", "a participant does not move from cell %q to %q: the platform reaches neither the database nor the Vault of an on-premise cell. Keep %q and make another participant there, or let those who run both connectors move it (docs/operator.md, Move a participant to another Connector)",
			p.RunsIn(), to.Name, p.RunsIn())
	case !to.DeletionTimestamp.IsZero():
		f.wrong("spec.cell", "cell %q is being removed: choose another", to.Name)
	case m != nil && to.Name != m.From && to.Name != m.To:
		f.wrong("spec.cell", "the participant is on its way from cell %q to %q: wait until it has arrived, or give that up by naming %q", m.From, m.To, m.From)
	}
	return nil
}

// mayVouch refuses a change, by anybody but the governance authority, of what it vouches for: the credentials and the dataspaces whose issuers
// issue them. Whoever makes a participant chooses its dataspaces, and starts in them without a credential.
func mayVouch(ctx context.Context, spec, old *cloudv1.ParticipantSpec) error {
	if old == nil {
		old = &cloudv1.ParticipantSpec{Profile: spec.Profile, FurtherProfiles: spec.FurtherProfiles}
	}
	access := authz.From(ctx)
	changed := changedFields(vouchedFor(old), vouchedFor(spec))
	if access.Principal.Has(authz.GovernanceAuthority) || len(changed) == 0 {
		return nil
	}
	p := problem(http.StatusForbidden, CodeForbidden, fmt.Sprintf("%s may not change %s: it is what the governance authority vouches for", access.Principal.Name, strings.Join(changed, ", ")),
		"leave it as it is, and ask somebody with the role "+string(authz.GovernanceAuthority)+" to change it")
	for _, field := range changed {
		p.Errors = append(p.Errors, FieldError{field, "only the governance authority may change it"})
	}
	return p
}

// mayNameHost refuses a host name other than the cell's in the DID by anybody but who runs the platform: it is another's.
func mayNameHost(ctx context.Context, spec, old *cloudv1.ParticipantSpec) error {
	access, host := authz.From(ctx), spec.Identity.Hostname
	if host == "" || old != nil && old.Identity.Hostname == host || access.Principal.Has(authz.PlatformOperator) {
		return nil
	}
	p := problem(http.StatusForbidden, CodeForbidden, access.Principal.Name+" may not choose the host name of a DID", "leave spec.identity.hostname out: it is that of the cell, or ask somebody with the role "+string(authz.PlatformOperator))
	p.Errors = append(p.Errors, FieldError{"spec.identity.hostname", "only a platform operator may name one"})
	return p
}

func vouchedFor(spec *cloudv1.ParticipantSpec) map[string]any {
	return map[string]any{
		"profile": spec.Profile, "furtherProfiles": append([]string{}, spec.FurtherProfiles...), "credentials": append([]edc.HolderCredential{}, spec.Credentials...),
	}
}

func checkEntitlements(f *findings, spec *cloudv1.ParticipantSpec, profiles []profile.Profile) {
	var issued []string
	for _, p := range profiles {
		for _, t := range p.TrustedIssuers {
			issued = append(issued, t.Types...)
		}
	}
	for i, c := range spec.Credentials {
		if !slices.Contains(issued, c.Type) {
			f.wrong(fmt.Sprintf("spec.credentials[%d].type", i), "no issuer of profile %q issues %s: it issues %s", strings.Join(spec.Profiles(), ", "), c.Type, strings.Join(issued, ", "))
		}
	}
	for _, p := range profiles {
		for _, t := range p.RequiredCredentials {
			if !slices.ContainsFunc(spec.Credentials, func(c edc.HolderCredential) bool { return c.Type == t }) {
				f.warnings = append(f.warnings, fmt.Sprintf("spec.credentials: profile %q requires %s, which is not granted yet; the connector stays inactive until it is", p.Name, t))
			}
		}
	}
}
