// SPDX-License-Identifier: Apache-2.0

// Package participantcontext reconciles ParticipantContexts: a participant as a tenant of a running connector, configured through
// its internal API. Routes and everything that runs belong to controller/connector.
package participantcontext

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/controller/stage"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Name of the controller, for its queue and metrics.
const Name = "participantcontext"

const (
	// poll reads what happens in the runtime without an event in the cluster: credentials and contracts.
	poll = 15 * time.Second
	// controlPlaneTimeout and walletTimeout are those of one call; the wallet asks an issuer elsewhere meanwhile.
	controlPlaneTimeout = 5 * time.Second
	walletTimeout       = 20 * time.Second
)

// Reconciler brings ParticipantContexts about.
type Reconciler struct {
	Stages  *stage.Runner
	Settler outcome.Settler
	pace    *pacer
}

// New returns a Reconciler.
func New(stages *stage.Runner, settler outcome.Settler) *Reconciler {
	settler.Conditions = []string{v1alpha1.ConditionDIDPublished, v1alpha1.ConditionCredentialsHeld, v1alpha1.ConditionActive}
	settler.Poll = poll
	return &Reconciler{Stages: stages, Settler: settler, pace: newPacer(stages.Now)}
}

// Reconcile implements reconcile.Reconciler.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (result ctrl.Result, err error) {
	var p v1alpha1.ParticipantContext
	if err := r.Stages.Client.Get(ctx, req.NamespacedName, &p); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := p.DeepCopy()
	defer func() {
		if result, err = r.Settler.Settle(ctx, before, &p, err); err == nil && joining(&p, r.pace.now()) {
			result.RequeueAfter = min(result.RequeueAfter, stage.RetrySoon)
		}
	}()
	if !p.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.leave(ctx, &p)
	}
	return ctrl.Result{}, r.join(ctx, &p)
}

// joining reports whether p has been on its way to readiness for a short while only: a DID about to answer, an issuer about to learn
// of it. Waiting for the next poll would then be most of the time that it takes.
func joining(p *v1alpha1.ParticipantContext, now time.Time) bool {
	const while = 2 * time.Minute
	ready := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
	return p.DeletionTimestamp.IsZero() && ready != nil && ready.Status != metav1.ConditionTrue && now.Sub(ready.LastTransitionTime.Time) < while
}

// tenancy is where a participant lives, and the clients of the roles that serve it.
type tenancy struct {
	connector    *v1alpha1.Connector
	controlPlane *runtimeclient.Client
	wallet       *runtimeclient.Client
}

func (r *Reconciler) join(ctx context.Context, p *v1alpha1.ParticipantContext) error {
	c, err := r.connector(ctx, p)
	if err != nil {
		return err
	}
	if !hosted(c, p.Spec.Hostname) {
		return outcome.Terminal(v1alpha1.ConditionReady, v1alpha1.ReasonHostUnknown, "spec.hostname %q is no host of Connector %s: add it to the Connector's spec.furtherHosts", p.Spec.Hostname, c.Name)
	}
	at := exposure(c, p)
	p.Status.DID, p.Status.ProtocolURL = workload.DID(at, p.Spec.Context), workload.ProtocolURL(at, p.Spec.Context)
	profiles, err := profilesOf(c, p)
	if err != nil {
		return err
	}
	if available := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionWorkloadsReady); available == nil || available.Status != metav1.ConditionTrue {
		return outcome.Waiting(stage.RetryLate, v1alpha1.ConditionReady, v1alpha1.ReasonConnectorNotReady, "Connector %s is not ready: %s", c.Name, why(c))
	}
	t, err := r.tenancy(ctx, c)
	if err != nil {
		return err
	}
	if err := outcome.AddFinalizer(ctx, r.Stages.Client, p); err != nil {
		return err
	}
	if err := configure(ctx, t, p, profiles); err != nil {
		return err
	}
	if problem := r.Stages.Published(ctx, at, c.Spec.Trust, p.Spec.Context); problem != "" {
		outcome.Set(p, v1alpha1.ConditionDIDPublished, metav1.ConditionFalse, v1alpha1.ReasonNotPublished, problem)
	} else {
		outcome.True(p, v1alpha1.ConditionDIDPublished, v1alpha1.ReasonPublished, p.Status.DID+" answers at "+workload.DIDURL(at, p.Spec.Context))
	}
	if err := r.credentials(ctx, t, p); err != nil {
		return err
	}
	return contracts(ctx, t, p)
}

// connector finds the Connector, and refuses a context id that an older object holds.
func (r *Reconciler) connector(ctx context.Context, p *v1alpha1.ParticipantContext) (*v1alpha1.Connector, error) {
	name := p.Spec.ConnectorRef.Name
	contexts, err := Of(ctx, r.Stages.Client, p.Namespace, name)
	if err != nil {
		return nil, err
	}
	if h := holder(contexts, p); h.UID != p.UID {
		return nil, outcome.Waiting(stage.RetryLate, v1alpha1.ConditionReady, v1alpha1.ReasonContextTaken,
			"context %s of Connector %s belongs to ParticipantContext %s: choose another spec.context", p.Spec.Context, name, h.Name)
	}
	var c v1alpha1.Connector
	err = r.Stages.Client.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: name}, &c)
	switch {
	case apierrors.IsNotFound(err):
		return nil, outcome.Terminal(v1alpha1.ConditionReady, v1alpha1.ReasonConnectorMissing, "there is no Connector %s in namespace %s", name, p.Namespace)
	case err != nil:
		return nil, fmt.Errorf("read Connector %s/%s: %w", p.Namespace, name, err)
	}
	return &c, nil
}

// profilesOf are the profiles that the participant takes part in, the default one first.
func profilesOf(c *v1alpha1.Connector, p *v1alpha1.ParticipantContext) ([]adminapi.Profile, error) {
	byName := map[string]adminapi.Profile{}
	known := "it has none"
	for i, profile := range c.Spec.Profiles {
		byName[profile.Name] = profile
		if known += ", " + profile.Name; i == 0 {
			known = "it has " + profile.Name
		}
	}
	out := make([]adminapi.Profile, 0, 1+len(p.Spec.FurtherProfiles))
	for i, name := range append([]string{p.Spec.Profile}, p.Spec.FurtherProfiles...) {
		profile, ok := byName[name]
		if !ok {
			field := "spec.profile"
			if i > 0 {
				field = fmt.Sprintf("spec.furtherProfiles[%d]", i-1)
			}
			return nil, outcome.Terminal(v1alpha1.ConditionReady, v1alpha1.ReasonProfileUnknown, "%s %q is no profile of Connector %s: %s", field, name, c.Name, known)
		}
		out = append(out, profile)
	}
	return out, nil
}

func (r *Reconciler) tenancy(ctx context.Context, c *v1alpha1.Connector) (tenancy, error) {
	token, err := r.Stages.InternalToken(ctx, c.Namespace, c.Status.InternalSecret, v1alpha1.ConditionReady)
	if err != nil {
		return tenancy{}, err
	}
	walletToken, err := r.Stages.InternalToken(ctx, c.Namespace, workload.Runtime{Name: c.Name}.InternalSecret(workload.Wallet), v1alpha1.ConditionReady)
	if err != nil {
		return tenancy{}, err
	}
	return tenancy{
		connector:    c,
		controlPlane: runtimeclient.New(c.Status.InternalURL, token, r.Stages.Dial, controlPlaneTimeout),
		wallet:       runtimeclient.New(c.Status.WalletURL, walletToken, r.Stages.Dial, walletTimeout),
	}, nil
}

// configure tells the wallet first, so that the DID document is there before the first protocol message.
func configure(ctx context.Context, t tenancy, p *v1alpha1.ParticipantContext, profiles []adminapi.Profile) error {
	var trusted []profile.TrustedIssuer // in any of them: what a credential is good for is for each profile to say
	for _, f := range profiles {
		trusted = append(trusted, f.TrustedIssuers...)
	}
	body := adminapi.WalletParticipant{DID: p.Status.DID, TrustedIssuers: trusted, Key: adminapi.Key{Algorithm: p.Spec.Key.Algorithm, Generation: int(p.Spec.Key.Generation)}}
	if at := exposure(t.connector, p); at.Hostname != t.connector.Spec.Exposure.Hostname { // a member that runtimes before this one refuse
		body.PublicURL = workload.PublicURL(at)
	}
	wallet, err := t.wallet.PutWalletParticipant(ctx, p.Spec.Context, body)
	if err != nil {
		return stage.RuntimeError(v1alpha1.ConditionDIDPublished, "the wallet", err)
	}
	p.Status.KeyID = wallet.KeyID
	for _, f := range profiles {
		if err := t.controlPlane.PutProfile(ctx, f); err != nil {
			return stage.RuntimeError(v1alpha1.ConditionActive, "the control plane, given profile "+f.Name+",", err)
		}
	}
	err = t.controlPlane.PutParticipant(ctx, p.Spec.Context, adminapi.Participant{
		DID: p.Status.DID, BPN: p.Spec.BusinessPartnerNumber, Profile: p.Spec.Profile, FurtherProfiles: p.Spec.FurtherProfiles,
		Active: p.Spec.Active, SelfCheck: adminapi.SelfCheck(p.Spec.SelfCheck),
	})
	if err != nil {
		return stage.RuntimeError(v1alpha1.ConditionActive, "the control plane", err)
	}
	if p.Spec.Active {
		outcome.True(p, v1alpha1.ConditionActive, v1alpha1.ReasonActive, "takes part in the protocol at "+p.Status.ProtocolURL)
	} else {
		outcome.Set(p, v1alpha1.ConditionActive, metav1.ConditionFalse, v1alpha1.ReasonInactive, "spec.active is false: protocol messages are answered with 503, the data stays")
	}
	return nil
}

// exposure is how the participant is reached: as its Connector, at the host name that it has.
func exposure(c *v1alpha1.Connector, p *v1alpha1.ParticipantContext) v1alpha1.Exposure {
	e := c.Spec.Exposure
	e.Hostname = cmp.Or(p.Spec.Hostname, e.Hostname)
	return e
}

// contracts copies the counts of negotiations into the status.
func contracts(ctx context.Context, t tenancy, p *v1alpha1.ParticipantContext) error {
	s, err := t.controlPlane.Summary(ctx, p.Spec.Context)
	if err != nil {
		return stage.RuntimeError(v1alpha1.ConditionActive, "the control plane", err)
	}
	counts := &v1alpha1.ContractStatus{Active: int32(s.Agreements)}
	for state, n := range s.Negotiations {
		switch state {
		case "FINALIZED": // counted as an agreement
		case "TERMINATED":
			counts.Failed += int32(n)
		default:
			counts.Waiting += int32(n)
		}
	}
	if f := s.LastFailure; f != nil && f.Reason != nil {
		counts.LastFailure = f.Reason.Message
	}
	p.Status.Contracts = counts
	return nil
}

// leave takes the participant out of the runtime: it stops taking part, its DID document vanishes, and its keys and credentials with
// it. When its Connector is gone, or is being deleted and does not answer, nothing of it runs any more and there is nothing to wait for.
func (r *Reconciler) leave(ctx context.Context, p *v1alpha1.ParticipantContext) error {
	if !slices.Contains(p.Finalizers, v1alpha1.Finalizer) {
		return nil
	}
	var c v1alpha1.Connector
	err := r.Stages.Client.Get(ctx, client.ObjectKey{Namespace: p.Namespace, Name: p.Spec.ConnectorRef.Name}, &c)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read Connector %s/%s: %w", p.Namespace, p.Spec.ConnectorRef.Name, err)
	}
	if err == nil {
		if err := r.remove(ctx, &c, p); err != nil && c.DeletionTimestamp.IsZero() {
			return err
		}
	}
	r.pace.forget(p.UID)
	return outcome.RemoveFinalizer(ctx, r.Stages.Client, p)
}

func (r *Reconciler) remove(ctx context.Context, c *v1alpha1.Connector, p *v1alpha1.ParticipantContext) error {
	t, err := r.tenancy(ctx, c)
	if err != nil {
		return err
	}
	for _, runtime := range []*runtimeclient.Client{t.controlPlane, t.wallet} {
		if err := runtime.DeleteParticipant(ctx, p.Spec.Context); err != nil {
			return outcome.Waiting(stage.RetryLate, v1alpha1.ConditionReady, v1alpha1.ReasonDeleting,
				"being deleted: Connector %s has not let go of context %s yet, which would stay active there: %v", c.Name, p.Spec.Context, err)
		}
	}
	return nil
}

// why says in words why a Connector is not ready.
func why(c *v1alpha1.Connector) string {
	if ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); ready != nil && ready.Message != "" {
		return ready.Message
	}
	return "it has not been looked at yet"
}
