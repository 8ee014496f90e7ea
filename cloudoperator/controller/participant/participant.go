// SPDX-License-Identifier: FSL-1.1-ALv2

// Package participant runs the onboarding checks of a Participant and keeps what its cell reports about it. What runs for it in the cell
// comes from the snapshot.
package participant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/cell"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Finalizer of Participants: the cell takes its context down first.
const Finalizer = "cloud.kaphera.io/participant"

// Reports returns what the agent of a cell last said and when; nil when nothing is known.
type Reports func(cell string) (*celllink.Report, time.Time)

// Reconciler onboards Participants.
type Reconciler struct {
	Client  client.Client
	Events  events.EventRecorder
	Reports Reports
	// Reported gets a Cell whenever its agent has reported.
	Reported <-chan event.GenericEvent
	// DID checks that the DID document at an address is the participant's.
	DID DIDCheck
	Now func() time.Time
	// Transfer of those that move; nil refuses moves.
	Transfer Transfer
	// Reader reads from the API itself.
	Reader client.Reader

	transferring sync.Mutex

	mu   sync.Mutex
	last map[string]heard // that participants were reconciled for, by cell
}

// heard is a report and when it came.
type heard struct {
	report *celllink.Report
	at     time.Time
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	if err := index(context.Background(), m.GetFieldIndexer()); err != nil {
		return err
	}
	everybody := kube.EnqueueAll(r.Client, func() client.ObjectList { return &cloud.ParticipantList{} })
	b := ctrl.NewControllerManagedBy(m).
		For(&cloud.Participant{}, builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, moved{}))).
		Watches(&cloud.Participant{}, handler.EnqueueRequestsFromMapFunc(r.ofContext), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&cloud.Cell{}, handler.EnqueueRequestsFromMapFunc(r.ofCell), builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, connectedChanged{}))).
		Watches(&cloud.Organization{}, everybody, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&cloud.DataspaceProfile{}, everybody, builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	if r.Reported != nil {
		b = b.WatchesRawSource(source.Channel(r.Reported, handler.EnqueueRequestsFromMapFunc(r.reportedAnew)))
	}
	// A check may wait for a participant that does not answer.
	return b.WithOptions(controller.Options{MaxConcurrentReconciles: 8}).Named("participant").Complete(r)
}

// run is one reconcile of one Participant.
type run struct {
	*Reconciler
	p    *cloud.Participant
	org  *cloud.Organization
	cell *cloud.Cell // in which it runs
	// profiles that it takes part in, the default one first; none when one of them does not exist.
	profiles []cloud.DataspaceProfile
	bundle   []byte // the platform's authorities
	report   *celllink.Report
	heard    time.Time
	context  *celllink.Object // the participant's context, as reported
	status   edc.ParticipantContextStatus
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var p cloud.Participant
	if err := r.Client.Get(ctx, req.NamespacedName, &p); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	w := &run{Reconciler: r, p: &p}
	if p.DeletionTimestamp.IsZero() {
		if err := kube.AddFinalizer(ctx, r.Client, &p, Finalizer); err != nil {
			return ctrl.Result{}, err
		}
	}
	before := p.DeepCopy()
	problem, err := w.load(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	deleted := !p.DeletionTimestamp.IsZero()
	if deleted && !p.Between() {
		if w.gone(problem) {
			return ctrl.Result{}, kube.RemoveFinalizer(ctx, r.Client, &p, Finalizer)
		}
		message := "deletion waits until cell " + p.RunsIn() + " has taken it down"
		if heard := w.reported(); heard.Reason == cloud.ReasonSilent {
			message += "; " + heard.Message
		}
		if w.cell != nil && w.cell.Spec.Type == cloud.OnPremise {
			message += "; if its agent will never report again, delete the cell and set its annotation " + cloud.AbandonAnnotation + " to true"
		}
		kube.Set(&p.Status.Conditions, p.Generation, kube.Condition{Type: cloud.ConditionReady, Reason: cloud.ReasonDeleting, Message: message})
		return ctrl.Result{RequeueAfter: soon}, w.write(ctx, before)
	}
	if w.begins() {
		return ctrl.Result{RequeueAfter: soon}, w.write(ctx, before)
	}
	moving, err := w.move(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	if deleted {
		ready := kube.Condition{Type: cloud.ConditionReady, Reason: cloud.ReasonDeleting, Message: "deletion waits until it is in one cell alone: " + moving.Message}
		kube.Set(&p.Status.Conditions, p.Generation, moving, ready)
		return ctrl.Result{RequeueAfter: w.patience()}, w.write(ctx, before)
	}
	w.observe()
	next := w.check(ctx)
	w.describe(problem, moving)
	if p.RunsIn() != p.Spec.Cell || p.Status.Move != nil {
		next = w.patience()
	}
	p.Status.ObservedGeneration = p.Generation
	return ctrl.Result{RequeueAfter: next}, w.write(ctx, before)
}

// write writes the status. Where the participant runs is written only over what was read: what another leader, or this one a moment ago, has written is
// more than what an old cache says.
func (r *run) write(ctx context.Context, before *cloud.Participant) error {
	if a, b := &before.Status, &r.p.Status; a.Cell != b.Cell || !equality.Semantic.DeepEqual(a.Move, b.Move) {
		return kube.WriteStatusOver(ctx, r.Client, r.Events, r.p, before)
	}
	return kube.WriteStatus(ctx, r.Client, r.Events, r.p, before)
}

// begins reports that this operator has become the leader just now and has no report yet of a cell that was well: what stands of the participant is
// more than it knows itself.
func (r *run) begins() bool {
	return r.cell != nil && r.report == nil && r.cell.Status.LastHeard != nil && r.Now().Sub(r.cell.Status.LastHeard.Time) <= celllink.SilentAfter
}

// load reads what the participant refers to. The condition says what is wrong with its spec; OK when nothing is.
func (r *run) load(ctx context.Context) (kube.Condition, error) {
	p := r.p
	problem := kube.Condition{OK: true}
	get := func(o client.Object, path, what, name string) (bool, error) {
		err := r.Client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: name}, o)
		if err != nil && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("read %s %s: %w", what, name, err)
		}
		if err != nil && problem.OK {
			problem = kube.Condition{Reason: cloud.ReasonMissing, Message: fmt.Sprintf("$.spec.%s: there is no %s %q", path, what, name)}
		}
		return err == nil, nil
	}
	var org cloud.Organization
	var c cloud.Cell
	hasOrg, err1 := get(&org, "organization", "organization", p.Spec.Organization)
	hasCell, err2 := get(&c, "cell", "cell", p.RunsIn())
	if err := errors.Join(err1, err2); err != nil {
		return problem, err
	}
	for i, name := range p.Spec.Profiles() {
		path := "profile"
		if i > 0 {
			path = fmt.Sprintf("furtherProfiles[%d]", i-1)
		}
		var prof cloud.DataspaceProfile
		has, err := get(&prof, path, "dataspace profile", name)
		if err != nil {
			return problem, err
		}
		if has {
			r.profiles = append(r.profiles, prof)
		}
	}
	if len(r.profiles) < len(p.Spec.Profiles()) {
		r.profiles = nil
	}
	if hasOrg {
		r.org = &org
	}
	if hasCell {
		r.cell = &c
		r.report, r.heard = r.Reports(c.Name)
	}
	hosted := hasCell && c.Spec.Hosts(p.Spec.Organization)
	if hasCell && !hosted && problem.OK {
		problem = kube.Condition{Reason: cloud.ReasonRefused, Message: fmt.Sprintf(
			"$.spec.cell: there is no cell %s for participants of organization %s; choose another", c.Name, p.Spec.Organization)} // whose it is, its owner tells only
	}
	taken, err := r.taken(ctx)
	if err != nil {
		return problem, err
	}
	if problem.OK {
		problem = taken
	}
	if problem.OK {
		problem = r.unissued()
	}
	if taken.OK && hosted {
		r.context = r.report.Find("ParticipantContext", p.Spec.Identity.Context)
		if r.context != nil && len(r.context.Status) > 0 && json.Unmarshal(r.context.Status, &r.status) != nil {
			r.status = edc.ParticipantContextStatus{}
		}
		if p.Status.Cell == "" && p.DeletionTimestamp.IsZero() { // before anything moves it
			p.Status.Cell, p.Status.Hostname = c.Name, snapshot.Hostname(p, &c.Spec)
		}
	}
	var platforms cloud.PlatformList
	if err := r.Client.List(ctx, &platforms, client.InNamespace(p.Namespace)); err != nil {
		return problem, fmt.Errorf("list the platforms: %w", err)
	}
	if len(platforms.Items) > 0 {
		r.bundle = []byte(platforms.Items[0].Spec.CABundle)
	}
	return problem, nil
}

// taken finds another participant that keeps this one from having its context.
func (r *run) taken(ctx context.Context) (kube.Condition, error) {
	others, err := r.list(ctx, r.p.Namespace, indexContext, r.p.Spec.Identity.Context)
	if err != nil || r.cell == nil {
		return kube.Condition{OK: true}, err
	}
	o := snapshot.Taken(r.p, others, &r.cell.Spec)
	switch {
	case o == nil:
		return kube.Condition{OK: true}, nil
	case slices.Contains(o.Cells(), r.cell.Name):
		return kube.Condition{Reason: cloud.ReasonTaken, Message: fmt.Sprintf(
			"$.spec.identity.context: %q in cell %s is that of participant %s", o.Spec.Identity.Context, r.cell.Name, o.Name)}, nil
	}
	return kube.Condition{Reason: cloud.ReasonTaken, Message: fmt.Sprintf(
		"$.spec.identity.context: %q in cell %s would have the DID of another participant, which was made there and has moved away; choose another", o.Spec.Identity.Context, r.cell.Name)}, nil
}

// unissued finds a credential that no issuer of the profiles issues, or a claim that an issuer demands and that is not given.
func (r *run) unissued() kube.Condition {
	for i, c := range r.p.Spec.Credentials {
		if len(snapshot.IssuersOf(r.profiles, c.Type)) == 0 {
			return kube.Condition{Reason: cloud.ReasonInvalid, Message: fmt.Sprintf(
				"$.spec.credentials[%d].type: no issuer of dataspace profile %s issues %q", i, strings.Join(r.p.Spec.Profiles(), ", "), c.Type)}
		}
		for _, p := range r.profiles {
			if missing := missingClaim(p, c); missing != "" {
				return kube.Condition{Reason: cloud.ReasonInvalid, Message: fmt.Sprintf(
					"$.spec.credentials[%d].claims: the issuer of %s demands the claim %q", i, c.Type, missing)}
			}
		}
	}
	return kube.Condition{OK: true}
}

func missingClaim(p cloud.DataspaceProfile, c edc.HolderCredential) string {
	claims := map[string]any{}
	if c.Claims != nil && json.Unmarshal(c.Claims.Raw, &claims) != nil {
		return "(an object)"
	}
	for _, i := range p.Spec.Issuers {
		for _, t := range i.CredentialTypes {
			if t.Type != c.Type {
				continue
			}
			for _, want := range t.RequiredClaims {
				if _, ok := claims[want]; !ok {
					return want
				}
			}
			return ""
		}
	}
	return ""
}

// gone says whether the cell has nothing left of the participant.
func (r *run) gone(problem kube.Condition) bool {
	switch {
	case r.cell == nil, r.cell.Abandoned(), problem.Reason == cloud.ReasonTaken, problem.Reason == cloud.ReasonRefused:
		return true
	case r.cell.Status.Revision == 0:
		return true // nothing was ever published
	case r.report == nil:
		return false
	}
	return r.context == nil && r.report.AppliedRevision == r.cell.Status.Revision
}

// observe takes over what the cell reports.
func (r *run) observe() {
	st := &r.p.Status
	if r.cell == nil {
		return
	}
	if st.Cell == "" {
		st.DID, st.ProtocolURL = "", "" // another's, or of no cell for it
		return
	}
	if did := snapshot.DID(st.Hostname, r.p.Spec.Identity.Context); did != st.DID {
		st.DID, st.Checks, st.Credentials, st.Contracts = did, nil, nil, nil // another identity is onboarded anew
	}
	st.ProtocolURL = "https://" + st.Hostname + "/" + r.p.Spec.Identity.Context + "/dsp/2025-1"
	if r.context != nil && len(r.context.Status) > 0 {
		st.Credentials, st.Contracts = r.status.Credentials, r.status.Contracts
	}
}

// describe sets the conditions.
func (r *run) describe(problem, moving kube.Condition) {
	onboarded := r.onboarded(problem)
	active := kube.Condition{Type: cloud.ConditionActive, Reason: cloud.ReasonWaiting}
	held := kube.Condition{Type: cloud.ConditionCredentials, Reason: cloud.ReasonWaiting}
	reported := r.reported()
	for _, c := range []struct {
		to   *kube.Condition
		from string
	}{{&active, edc.ConditionActive}, {&held, edc.ConditionCredentialsHeld}} {
		from := cell.ConditionOf(r.context, c.from)
		switch {
		case !problem.OK:
			c.to.Reason, c.to.Message = problem.Reason, problem.Message
		case from == nil:
			c.to.Message = reported.Message
			if reported.OK {
				c.to.Message = "the connector has not reported it yet"
			}
		default:
			c.to.OK, c.to.Reason, c.to.Message = from.Status == metav1.ConditionTrue, from.Reason, from.Message
		}
	}
	if missing := r.undelivered(); held.OK && len(missing) > 0 { // the report is of a time before they were granted
		held.OK, held.Reason, held.Message = false, cloud.ReasonWaiting, "granted and not delivered yet: "+strings.Join(missing, ", ")
	}
	if problem.OK && !onboarded.OK && !active.OK {
		active.Reason, active.Message = cloud.ReasonChecks, "inactive until it is onboarded: "+onboarded.Message
	}
	ready := kube.Condition{Type: cloud.ConditionReady, OK: true, Reason: cloud.ReasonReady, Message: "takes part in the dataspace"}
	switch {
	case !problem.OK:
		ready.OK, ready.Reason, ready.Message = false, problem.Reason, problem.Message
	case r.p.RunsIn() != r.p.Spec.Cell || r.p.Status.Move != nil:
		ready.OK, ready.Reason, ready.Message = false, moving.Reason, moving.Message
	case !reported.OK:
		ready.OK, ready.Reason, ready.Message = false, reported.Reason, reported.Message
	case !onboarded.OK:
		ready.OK, ready.Reason, ready.Message = false, onboarded.Reason, onboarded.Message
	case !active.OK:
		ready.OK, ready.Reason, ready.Message = false, active.Reason, active.Message
	default:
		if c := cell.ReadyOf(r.context); c != nil && c.Status != metav1.ConditionTrue {
			ready.OK, ready.Reason, ready.Message = false, c.Reason, c.Message
		}
	}
	kube.Set(&r.p.Status.Conditions, r.p.Generation, onboarded, active, held, moving, ready)
}

// undelivered are the types that are granted and not in the cell's report at all.
func (r *run) undelivered() (types []string) {
	for _, granted := range r.p.Spec.Credentials {
		if !slices.ContainsFunc(r.p.Status.Credentials, func(c edc.CredentialStatus) bool { return c.Type == granted.Type }) {
			types = append(types, granted.Type)
		}
	}
	return types
}

// reported says whether the cell is heard from and runs the participant.
func (r *run) reported() kube.Condition {
	switch {
	case r.cell == nil:
		return kube.Condition{Reason: cloud.ReasonMissing, Message: "there is no cell " + r.p.RunsIn()}
	case r.report == nil:
		return kube.Condition{Reason: cloud.ReasonNever, Message: "cell " + r.cell.Name + " has not reported yet"}
	case r.Now().Sub(r.heard) > celllink.SilentAfter:
		return kube.Condition{Reason: cloud.ReasonSilent, Message: fmt.Sprintf("cell %s: not heard from since %s", r.cell.Name, r.heard.UTC().Format(time.RFC3339))}
	case r.context == nil:
		return kube.Condition{Reason: cloud.ReasonWaiting, Message: "cell " + r.cell.Name + " has not set it up yet"}
	}
	return kube.Condition{OK: true}
}

// onboarded is true once every check has passed; later failures are told and change nothing, because policies judge credentials anyway.
func (r *run) onboarded(problem kube.Condition) kube.Condition {
	c := kube.Condition{Type: cloud.ConditionOnboarded, OK: true, Reason: cloud.ReasonPassed, Message: "every onboarding check has passed"}
	if r.profiles == nil {
		return kube.Condition{Type: cloud.ConditionOnboarded, Reason: problem.Reason, Message: problem.Message}
	}
	if !problem.OK {
		return kube.Condition{Type: cloud.ConditionOnboarded, Reason: problem.Reason, Message: problem.Message}
	}
	var open, failing []string
	for _, k := range r.p.Status.Checks {
		text := k.Name
		if k.Reason != "" {
			text += ": " + k.Reason
		}
		switch {
		case k.PassedAt == nil:
			open = append(open, text)
		case k.State != StatePassed:
			failing = append(failing, text)
		}
	}
	if len(open) > 0 {
		c.OK, c.Reason, c.Message = false, cloud.ReasonChecks, strings.Join(open, "; ")
	} else if len(failing) > 0 {
		c.Message += "; at present not: " + strings.Join(failing, "; ")
	}
	return c
}
