// SPDX-License-Identifier: FSL-1.1-ALv2

// Package cell makes a place where connectors run: a namespace with an agent, an account at the message server, databases and Vault
// roles. Of an on-premise cell it makes the account only: the rest is in the company's cluster, which it never reaches. It publishes
// what the cell must run and keeps what its agent reports. It never touches an EDC object itself: that is the agent's work, in every
// kind of cell.
package cell

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/controller/platform"
	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
)

// Finalizer of Cells: what was made for it outside its namespace is removed first.
const Finalizer = "cloud.kaphera.io/cell"

// Intervals.
const (
	again       = 3 * time.Second
	every       = 20 * time.Second // also finds out that an agent has fallen silent
	infraEvery  = 5 * time.Minute  // databases, Vault roles and the agent are compared with what they should be
	heardStep   = 30 * time.Second // lastHeard is written in steps, so that a report alone is no write
	takeDownFor = 2 * time.Minute  // how long a deleted cell's agent has to take everything down
	timeout     = 60 * time.Second
)

// Reconciler makes Cells.
type Reconciler struct {
	Access         parts.Access
	Links          *Links
	Defaults       cloud.PlatformImages
	ServiceAccount string
	Events         events.EventRecorder
	Now            func() time.Time

	memo memo
}

// SetupWithManager registers the controller.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	if err := kube.Expose(m, cellMetrics{r}); err != nil {
		return err
	}
	all := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, _ client.Object) []reconcile.Request { return r.allCells(ctx) })
	changed := builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, placeChanged{}))
	return ctrl.NewControllerManagedBy(m).For(&cloud.Cell{}, builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&cloud.Participant{}, all, changed).
		Watches(&cloud.DataspaceProfile{}, all, changed).
		Watches(&cloud.Platform{}, all).
		WatchesRawSource(source.Channel(r.Links.Events(), &handler.EnqueueRequestForObject{})).
		Named("cell").Complete(r)
}

func (r *Reconciler) allCells(ctx context.Context) []reconcile.Request {
	var cells cloud.CellList
	if err := r.Access.Client.List(ctx, &cells, client.InNamespace(r.Access.Namespace)); err != nil {
		return nil
	}
	var out []reconcile.Request
	for _, c := range cells.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&c)})
	}
	return out
}

// run is one reconcile of one Cell.
type run struct {
	*Reconciler
	cell         *cloud.Cell
	ns           string
	objects      manifest.Cell
	platform     *cloud.Platform
	images       cloud.PlatformImages
	cells        []cloud.Cell
	profiles     []cloud.DataspaceProfile
	participants []cloud.Participant
	retiring     bool     // some of those are log-ins of databases
	former       []string // credentials that a rotation has replaced and that still open something
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var c cloud.Cell
	if err := r.Access.Client.Get(ctx, req.NamespacedName, &c); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	w := &run{Reconciler: r, cell: &c, ns: snapshot.Namespace(c.Name), objects: manifest.Cell(c.Name)}
	if err := w.load(ctx); err != nil {
		return ctrl.Result{}, err
	}
	before := c.DeepCopy()
	if !c.DeletionTimestamp.IsZero() {
		done, err := w.delete(ctx)
		if done {
			return ctrl.Result{}, err
		}
		w.describe(err)
		return ctrl.Result{RequeueAfter: again}, kube.WriteStatus(ctx, r.Access.Client, r.Events, &c, before)
	}
	if err := kube.AddFinalizer(ctx, r.Access.Client, &c, Finalizer); err != nil {
		return ctrl.Result{}, err
	}
	before = c.DeepCopy()
	err := w.provision(ctx)
	w.describe(err)
	c.Status.ObservedGeneration = c.Generation
	if writeErr := kube.WriteStatus(ctx, r.Access.Client, r.Events, &c, before); writeErr != nil {
		return ctrl.Result{}, writeErr
	}
	if err != nil {
		return ctrl.Result{RequeueAfter: again}, nil
	}
	return ctrl.Result{RequeueAfter: every}, nil
}

func (r *run) load(ctx context.Context) error {
	in := client.InNamespace(r.Access.Namespace)
	var platforms cloud.PlatformList
	var cells cloud.CellList
	var profiles cloud.DataspaceProfileList
	var participants cloud.ParticipantList
	for _, l := range []client.ObjectList{&platforms, &cells, &profiles, &participants} {
		if err := r.Access.Client.List(ctx, l, in); err != nil {
			return fmt.Errorf("list what a cell depends on: %w", err)
		}
	}
	r.cells, r.profiles, r.participants = cells.Items, profiles.Items, participants.Items
	if len(platforms.Items) > 0 {
		r.platform = &platforms.Items[0]
		r.images = platform.Images(r.platform, r.Defaults)
	}
	return nil
}

// onPremise says that the cell is in a company's cluster, which the cloud does not reach.
func (r *run) onPremise() bool { return r.cell.Spec.Type == cloud.OnPremise }

// stopped is why a cell is not provisioned, when it is no failure of an attempt.
type stopped struct{ reason, message string }

func (s *stopped) Error() string { return s.message }

// provision makes everything up to the published snapshot.
func (r *run) provision(ctx context.Context) error {
	if err := r.prerequisites(); err != nil {
		return err
	}
	nats, err := r.Access.Endpoint(ctx, r.platform, parts.NATS)
	if err != nil {
		return err
	}
	facts, err := r.facts(ctx)
	if err != nil {
		return err
	}
	pull, wrong, err := r.pullSecrets(ctx)
	if err != nil {
		return err
	}
	runtimes := r.runtimes()
	revokeNow := r.cell.Annotations[cloud.RevokeNowAnnotation]
	digest := kube.Digest(runtimeNames(runtimes), nats, facts, r.images, pull, r.cell.UID, r.cell.Generation, r.rotation(), revokeNow)
	due := !r.onPremise() && r.memo.due(r.cell.Name, digest, r.Now())
	if due {
		if err := r.namespace(ctx); err != nil {
			return err
		}
		if err := r.copyPullSecrets(ctx, pull); err != nil {
			return err
		}
	}
	r.cell.Status.Namespace = r.ns
	account, err := r.account(ctx)
	if err != nil {
		return err
	}
	databases, grants := r.needs(cloud.ConditionPostgreSQLReady), r.needs(cloud.ConditionVaultReady)
	made := errors.Join(databases, grants)
	if due {
		agent := manifest.Agent{
			Image: r.images.Agent, PullSecrets: facts.PullSecrets, NATSURL: nats.URL, CA: nats.CA, Credentials: []byte(revokeNow), Replicas: r.cell.Spec.Replicas,
		}
		if databases == nil {
			databases = r.databases(ctx, runtimes)
		}
		if grants == nil {
			grants = r.grants(ctx, runtimes)
		}
		made = errors.Join(r.apply(ctx, r.objects.Deployment(agent)...), databases, grants)
		if made == nil && !r.retiring {
			r.memo.done(r.cell.Name, digest, r.Now())
		}
	}
	nc, err := r.connect(ctx, account) // also when the others fail: what is to be revoked in one waits for no other
	if err := errors.Join(made, err); err != nil {
		return err
	}
	objects, err := snapshot.Compile(snapshot.Input{
		Cell: *r.cell, Cells: r.cells, Profiles: r.profiles, Participants: r.participants, Facts: facts,
	})
	if err != nil {
		return &stopped{cloud.ReasonInvalid, fmt.Sprintf("%v; the cell keeps revision %d", err, r.cell.Status.Revision)}
	}
	revision, _, err := celllink.Publish(ctx, nc, r.cell.Name, r.cell.Status.Revision, objects)
	if err != nil {
		return err
	}
	r.cell.Status.Revision = revision
	if r.onPremise() {
		return nil // no issuer runs there, and nothing was made for one
	}
	if err := r.collect(ctx, runtimes); err != nil {
		return err
	}
	return wrong
}

// connect stores the account in the message server and enters it.
func (r *run) connect(ctx context.Context, a *account) (*nats.Conn, error) {
	if err := r.needs(cloud.ConditionNATSReady); err != nil {
		return nil, err
	}
	r.Links.Renew(r.cell.Name, a.cloud) // which the connection is to have when the former ones are revoked, and it with them
	if err := a.push(ctx); err != nil {
		return nil, err
	}
	nc, err := r.Links.Open(ctx, r.cell.Name, a.cloud)
	if err != nil {
		r.memo.forgetPushed(r.cell.Name)
	}
	return nc, err
}

func (r *run) prerequisites() error {
	if r.platform == nil {
		return &stopped{cloud.ReasonMissing, "there is no Platform in namespace " + r.Access.Namespace}
	}
	for _, c := range r.cells {
		if c.Name != r.cell.Name && c.Spec.Hostname == r.cell.Spec.Hostname && c.CreationTimestamp.Before(&r.cell.CreationTimestamp) {
			return &stopped{cloud.ReasonTaken, fmt.Sprintf("host name %s is that of cell %s", c.Spec.Hostname, c.Name)}
		}
	}
	return nil
}

// needs says what is missing of a part of the platform, by its condition. Of the cloud's an on-premise cell needs the message server alone.
func (r *run) needs(condition string) error {
	if r.onPremise() && condition != cloud.ConditionNATSReady {
		return nil
	}
	c := apimeta.FindStatusCondition(r.platform.Status.Conditions, condition)
	if c == nil {
		return &stopped{cloud.ReasonWaiting, fmt.Sprintf("waits for the platform: %s is not known yet", condition)}
	}
	if c.Status != metav1.ConditionTrue {
		return &stopped{cloud.ReasonWaiting, fmt.Sprintf("waits for the platform: %s: %s", condition, c.Message)}
	}
	return nil
}

// collect removes what was made for issuers that the cell no longer runs, once the agent has taken them down.
func (r *run) collect(ctx context.Context, runtimes []runtimeSpec) error {
	report, _ := r.Links.Report(r.cell.Name)
	if report == nil || report.AppliedRevision != r.cell.Status.Revision {
		return nil
	}
	former, err := r.formerIssuers(ctx)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, rt := range runtimes {
		wanted[rt.name] = true
	}
	for _, rt := range former {
		if wanted[rt.name] || report.Find("CredentialIssuer", rt.name) != nil {
			continue
		}
		if err := r.remove(ctx, rt); err != nil {
			return err
		}
		for role := range rt.resources.Roles {
			if err := r.deleteSecret(ctx, snapshot.DatabaseSecret(rt.name, role)); err != nil {
				return err
			}
		}
		if err := r.deleteSecret(ctx, snapshot.DatabaseSecret(rt.name, "")); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) deleteSecret(ctx context.Context, name string) error {
	return kube.Delete(ctx, r.Access.Client, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.ns, Name: name}})
}

// describe sets the conditions from what provision said and what the agent reported.
func (r *run) describe(err error) {
	ready := kube.Condition{Type: cloud.ConditionReady, Reason: cloud.ReasonFailed}
	var stop *stopped
	var known *fault.Error
	if err != nil {
		ready.Message = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	switch {
	case errors.As(err, &stop):
		ready.Reason = stop.reason
	case errors.As(err, &known):
		ready.Reason = known.Reason
	case errors.Is(err, parts.ErrNotSetUp):
		ready.Reason, ready.Message = cloud.ReasonWaiting, "waits for the platform: "+ready.Message
	}
	if r.notReadYet() {
		// What the operator before this one has said of the agent stands.
		if err != nil {
			kube.Set(&r.cell.Status.Conditions, r.cell.Generation, ready)
		}
		return
	}
	connected, applied := r.connected(), r.applied(err)
	if err == nil {
		var missing []string
		for _, c := range []kube.Condition{connected, applied, r.connector()} {
			if !c.OK {
				missing = append(missing, c.Message)
			}
		}
		ready.OK, ready.Reason, ready.Message = len(missing) == 0, cloud.ReasonReady, "the agent is connected and runs the newest snapshot"
		if !ready.OK {
			ready.Reason, ready.Message = cloud.ReasonWaiting, strings.Join(missing, "; ")
		}
	}
	kube.Set(&r.cell.Status.Conditions, r.cell.Generation, connected, applied, r.auditIntact(), ready)
	if r.rotation() != "" && (err == nil || r.cell.Status.RotatedFor != r.rotation()) {
		kube.Set(&r.cell.Status.Conditions, r.cell.Generation, r.rotated(err))
	}
}

// notReadYet says that the cell was heard from lately and this operator, new in its office, has not read that report: the agent is not silent.
func (r *run) notReadYet() bool {
	report, _ := r.Links.Report(r.cell.Name)
	last := r.cell.Status.LastHeard
	return report == nil && last != nil && r.Now().Sub(last.Time) <= celllink.SilentAfter
}

func (r *run) connected() kube.Condition {
	report, heard := r.Links.Report(r.cell.Name)
	c := kube.Condition{Type: cloud.ConditionConnected, Reason: cloud.ReasonNever, Message: "the agent has not reported yet"}
	if r.onPremise() && r.cell.Spec.AgentKey == "" {
		c.Message = "no agent is admitted: the public key of the company's agent is missing in $.spec.agentKey"
	}
	if last := r.cell.Status.LastHeard; report == nil && last != nil {
		c.Reason, c.Message = cloud.ReasonSilent, "not heard from since "+last.UTC().Format(time.RFC3339)
	}
	if report == nil {
		return c
	}
	if last := r.cell.Status.LastHeard; last == nil || heard.Sub(last.Time) >= heardStep || r.cell.Status.AppliedRevision != report.AppliedRevision {
		t := metav1.NewTime(heard.Truncate(time.Second))
		r.cell.Status.LastHeard = &t
	}
	r.cell.Status.AppliedRevision = report.AppliedRevision
	if r.Now().Sub(heard) > celllink.SilentAfter {
		c.Reason, c.Message = cloud.ReasonSilent, "not heard from since "+heard.UTC().Format(time.RFC3339)
		return c
	}
	c.OK, c.Reason, c.Message = true, cloud.ReasonReady, "the agent reports"
	return c
}

// auditIntact is about what happened after the last time that somebody says to have looked into it.
func (r *run) auditIntact() kube.Condition {
	since, _ := time.Parse(time.RFC3339, r.cell.Annotations[cloud.AuditSeenAnnotation]) // what is no time acknowledges nothing
	c := kube.Condition{Type: cloud.ConditionAuditIntact, OK: true, Reason: cloud.ReasonReady, Message: "each audit chain goes on from where it was reported before"}
	alarms := r.Links.Alarms(r.cell.Name, since)
	if len(alarms) == 0 {
		return c
	}
	c.OK, c.Reason = false, cloud.ReasonAudit
	c.Message = fmt.Sprintf("%d alarms, the newest on %s: %s; ask who runs the cell, compare with kaphera audit verify, and when that is settled set the annotation %s to the time",
		len(alarms), alarms[len(alarms)-1].At.UTC().Format(time.RFC3339), alarms[len(alarms)-1].What, cloud.AuditSeenAnnotation)
	return c
}

func (r *run) applied(err error) kube.Condition {
	report, _ := r.Links.Report(r.cell.Name)
	c := kube.Condition{Type: cloud.ConditionApplied, Reason: cloud.ReasonWaiting}
	switch revision := r.cell.Status.Revision; {
	case err != nil && revision == 0:
		c.Message = "no snapshot is published yet"
	case report == nil:
		c.Message = fmt.Sprintf("revision %d is published, the agent has not reported yet", revision)
	case report.Error != "":
		c.Reason, c.Message = cloud.ReasonRejected, fmt.Sprintf("revision %d: %s", report.SeenRevision, report.Error)
	case report.AppliedRevision != revision:
		c.Reason, c.Message = cloud.ReasonBehind, fmt.Sprintf("revision %d is published, the agent has applied %d", revision, report.AppliedRevision)
	default:
		c.OK, c.Reason, c.Message = true, cloud.ReasonReady, fmt.Sprintf("revision %d is applied", revision)
	}
	return c
}

// connector is the state of the cell's connector, from the report.
func (r *run) connector() kube.Condition {
	report, _ := r.Links.Report(r.cell.Name)
	o := report.Find("Connector", snapshot.ConnectorName)
	if o == nil {
		return kube.Condition{Message: "the connector is not made yet"}
	}
	c := ReadyOf(o)
	if c == nil {
		return kube.Condition{Message: "the connector has no status yet"}
	}
	return kube.Condition{OK: c.Status == metav1.ConditionTrue, Message: "connector: " + c.Message}
}

// delete takes the cell down step by step; done says that nothing is left to do.
func (r *run) delete(ctx context.Context) (done bool, err error) {
	if !controllerutil.ContainsFinalizer(r.cell, Finalizer) {
		return true, nil
	}
	if users := r.users(); len(users) > 0 {
		// It goes on working for them: their own deletion waits for the cell to take them down.
		if err := r.provision(ctx); err != nil {
			return false, err
		}
		return false, &stopped{cloud.ReasonInUse, "deletion waits until these no longer name the cell: " + strings.Join(users, ", ")}
	}
	if err := r.takeDown(ctx); err != nil {
		return false, err
	}
	if !r.onPremise() {
		if err := r.removeNamespace(ctx); err != nil {
			return false, err
		}
	}
	if err := r.removeAccount(ctx); err != nil {
		return false, err
	}
	r.memo.forget(r.cell.Name)
	return true, kube.RemoveFinalizer(ctx, r.Access.Client, r.cell, Finalizer)
}

// removeNamespace is done when the namespace, and what was made for what runs in it, is gone.
func (r *run) removeNamespace(ctx context.Context) error {
	ns := &corev1.Namespace{}
	if err := r.Access.Reader.Get(ctx, types.NamespacedName{Name: r.ns}, ns); err != nil {
		if client.IgnoreNotFound(err) == nil {
			return nil
		}
		return fmt.Errorf("read namespace %s: %w", r.ns, err)
	}
	if err := r.removeAll(ctx); err != nil {
		return err
	}
	if err := kube.Delete(ctx, r.Access.Client, ns); err != nil {
		return err
	}
	return &stopped{cloud.ReasonDeleting, "namespace " + r.ns + " is being deleted"}
}

func (r *run) users() []string {
	var out []string
	for i := range r.participants {
		p := &r.participants[i]
		switch {
		case slices.Contains(p.Cells(), r.cell.Name):
			out = append(out, "participant "+p.Name)
		case p.Status.Hostname == r.cell.Spec.Hostname: // whose paths at that host nobody else may have
			out = append(out, "participant "+p.Name+" in cell "+p.RunsIn()+", whose DID has the cell's host name")
		}
	}
	for _, p := range r.profiles {
		for _, i := range p.Spec.Issuers {
			if i.Cell == r.cell.Name {
				out = append(out, "issuer "+i.Name+" of dataspace profile "+p.Name)
			}
		}
	}
	return out
}
