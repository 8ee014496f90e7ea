// SPDX-License-Identifier: FSL-1.1-ALv2

package participant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/cell"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Transfer brings what is kept of a participant from one cell's database and Vault into another's. Both are of a type whose database and Vault the
// platform runs or knows. Each call may be one that was cut off before, at any point.
type Transfer interface {
	// Move holds the context in from, and brings its rows, keys and kept audit heads into to. Called again it finishes, or finds that it was finished.
	Move(ctx context.Context, from, to *cloud.Cell, context string) error
	// Release lets from go on with a context that is not in to. The error wraps ErrTransferred when it is, and then nothing was changed.
	Release(ctx context.Context, from, to *cloud.Cell, context string) error
}

// ErrTransferred is wrapped by Transfer.Release when the context has been brought into the other cell: the move can no more be given up.
var ErrTransferred = errors.New("the context has been brought into the other cell")

// transferLimit is how long one call of Transfer may take.
const transferLimit = 10 * time.Minute

// A move goes through the phases of cloud.ParticipantMove, one transition in one reconcile. What a phase does begins in the reconcile, of this controller
// or the cells', that reads the phase: so it is written before the first thing is done for it, whoever is killed when. The steps:
//
//	Stopping      from's snapshot has it inactive. Undone by forgetting the move: nothing else was done.
//	Transferring  Transfer.Move, until it says that it is finished. A crash between that and the next phase has it say so again.
//	Releasing     Transfer.Release, when the move was given up. A crash after it has it done again, which changes nothing. It refuses when the transfer
//	              had been finished, which only a crash can have hidden: then the move goes on.
//	Leaving       from's snapshot has it no more, to's not yet. From here on there is one copy, in to, so that there is no way back but another move.
//	Arriving      status.cell is to, whose snapshot has it, inactive.
//	Activating    to's snapshot has it active, since it has reported the same DID and key.
//
// It is active in from before Stopping has ended and in to after Activating has begun, and Transferring is between: held in from, where nothing can be done
// for it that would be recorded. What this process believes of the phase may be old (another one may lead, its cache may be behind): so transitions are
// written only over what was read, and Transfer is called only after the phase was read from the API itself. A cell that is silent stops a move where it is:
// each transition rests on a report that has what was waited for.

// move takes the step that is due and describes how far the participant is. It changes the status, which the caller writes.
func (r *run) move(ctx context.Context) (kube.Condition, error) {
	st := &r.p.Status
	if st.Move == nil {
		if st.Cell == "" || st.Cell == r.p.Spec.Cell || !r.p.DeletionTimestamp.IsZero() {
			return kube.Condition{Type: cloud.ConditionMoving, Reason: cloud.ReasonReady, Message: "it runs in the cell that it names"}, nil
		}
		c, err := r.begin(ctx)
		c.Type = cloud.ConditionMoving
		return c, err
	}
	why, err := r.step(ctx)
	if err != nil {
		return kube.Condition{}, err
	}
	c := kube.Condition{Type: cloud.ConditionMoving, Reason: cloud.ReasonMoving}
	if m := st.Move; m != nil {
		c.OK, c.Message = true, fmt.Sprintf("%s: from cell %s to %s: %s", m.Phase, m.From, m.To, cmp.Or(why, doing[m.Phase]))
	} else {
		c.Message = cmp.Or(why, "it has been moved to cell "+st.Cell)
	}
	return c, nil
}

// doing is what happens at the beginning of a phase.
var doing = map[string]string{
	cloud.MoveStopping:     "it is being made inactive",
	cloud.MoveTransferring: "its data and keys are being brought over",
	cloud.MoveReleasing:    "given up: the cell that it is in is to go on with it",
	cloud.MoveLeaving:      "it is being taken out of the cell that it was in",
	cloud.MoveArriving:     "it is being set up, inactive",
	cloud.MoveActivating:   "it is being made active",
}

func (r *run) enter(phase string) {
	r.p.Status.Move.Phase, r.p.Status.Move.Since = phase, metav1.NewTime(r.Now().Truncate(time.Second))
}

// patience is when to look again at a move: the longer its phase takes, the less often. What a cell reports wakes it besides.
func (r *run) patience() time.Duration {
	if r.p.Status.Move == nil {
		return soon
	}
	return min(max(soon, r.Now().Sub(r.p.Status.Move.Since.Time)/4), time.Minute)
}

// begin begins a move when there is nothing against it. Until both cells are as they should be, the participant goes on where it is.
func (r *run) begin(ctx context.Context) (kube.Condition, error) {
	p := r.p
	refused := func(reason, format string, args ...any) (kube.Condition, error) {
		return kube.Condition{Reason: reason, Message: fmt.Sprintf(format, args...) + "; it stays in cell " + p.Status.Cell}, nil
	}
	var to cloud.Cell
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: p.Namespace, Name: p.Spec.Cell}, &to)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return kube.Condition{}, fmt.Errorf("read cell %s: %w", p.Spec.Cell, err)
	case r.cell == nil:
		return refused(cloud.ReasonMissing, "there is no cell %s, from which it would be moved", p.Status.Cell)
	case err != nil || !to.Spec.Hosts(p.Spec.Organization): // whose it is, its owner tells only
		return refused(cloud.ReasonMissing, "$.spec.cell: there is no cell %s for participants of organization %s", p.Spec.Cell, p.Spec.Organization)
	case r.Transfer == nil:
		return refused(cloud.ReasonRefused, "$.spec.cell: this operator moves no participants")
	case !to.DeletionTimestamp.IsZero():
		return refused(cloud.ReasonRefused, "$.spec.cell: cell %s is being deleted", to.Name)
	}
	for _, c := range []*cloud.Cell{r.cell, &to} {
		if c.Spec.Type == cloud.OnPremise {
			return refused(cloud.ReasonRefused, "$.spec.cell: cell %s is on-premise, and the platform reaches neither its database nor its Vault: set it back to %s, and make another participant in the other cell", c.Name, p.Status.Cell)
		}
	}
	if c := r.reported(); !c.OK {
		return refused(cloud.ReasonWaiting, "waits: %s", c.Message)
	}
	for _, c := range []*cloud.Cell{r.cell, &to} {
		if ready := apimeta.FindStatusCondition(c.Status.Conditions, cloud.ConditionReady); ready == nil || ready.Status != metav1.ConditionTrue {
			return refused(cloud.ReasonWaiting, "waits until cell %s is ready: %s", c.Name, cmp.Or(ready, &metav1.Condition{Message: "it has not been looked at yet"}).Message)
		}
	}
	if o, err := r.occupied(ctx, &to); err != nil || o != nil {
		if err != nil {
			return kube.Condition{}, err
		}
		return refused(cloud.ReasonTaken, "$.spec.cell: the context %q in cell %s is that of participant %s", p.Spec.Identity.Context, to.Name, o.Name)
	}
	p.Status.Move = &cloud.ParticipantMove{From: p.Status.Cell, To: to.Name, Key: p.Spec.Key}
	r.enter(cloud.MoveStopping)
	return kube.Condition{OK: true, Reason: cloud.ReasonMoving, Message: fmt.Sprintf("%s: from cell %s to %s: %s", cloud.MoveStopping, p.Status.Cell, to.Name, doing[cloud.MoveStopping])}, nil
}

// occupied finds who has the participant's context in the cell to which it is to move, or is about to: two that announce themselves in their status at
// the same moment see each other the next time, since both read what is written now.
func (r *run) occupied(ctx context.Context, to *cloud.Cell) (*cloud.Participant, error) {
	var all cloud.ParticipantList
	if err := r.Reader.List(ctx, &all, client.InNamespace(r.p.Namespace)); err != nil {
		return nil, fmt.Errorf("list the participants: %w", err)
	}
	for i := range all.Items {
		o := &all.Items[i]
		if o.Name == r.p.Name || o.Spec.Identity.Context != r.p.Spec.Identity.Context {
			continue
		}
		cells := []string{o.Status.Cell}
		if m := o.Status.Move; m != nil {
			cells = append(cells, m.From, m.To)
		}
		if o.Status.Cell == "" && to.Spec.Hosts(o.Spec.Organization) {
			cells = append(cells, o.Spec.Cell)
		}
		// Where one was made, its audit trail is kept under its context when it has moved away.
		if slices.Contains(cells, to.Name) || o.Status.Hostname == to.Spec.Hostname {
			return o, nil
		}
	}
	return nil, nil
}

// step takes the step of the phase, and says what it waits for.
func (r *run) step(ctx context.Context) (waits string, err error) {
	st, m := &r.p.Status, r.p.Status.Move
	deleted := !r.p.DeletionTimestamp.IsZero()
	elsewhere := deleted || r.p.Spec.Cell != m.To
	switch m.Phase {
	case cloud.MoveStopping:
		if elsewhere {
			st.Move = nil
			return "given up before anything was moved", nil
		}
		if waits := r.stopped(); waits != "" {
			return waits, nil
		}
		from, err := r.cellNamed(ctx, m.From)
		if err != nil {
			return "", err
		}
		if r.report.AppliedRevision < from.Status.Revision { // newer than the cache's
			return fmt.Sprintf("cell %s has not applied revision %d yet", from.Name, from.Status.Revision), nil
		}
		to, err := r.cellNamed(ctx, m.To)
		gone := apierrors.IsNotFound(err)
		if err != nil && !gone {
			return "", err
		}
		if gone || !to.DeletionTimestamp.IsZero() { // which waits for those that have announced themselves
			st.Move = nil
			return "given up: cell " + m.To + " is being deleted", nil
		}
		if o, err := r.occupied(ctx, to); err != nil || o != nil {
			if err != nil {
				return "", err
			}
			if other := o.Status.Move; other != nil && other.To == m.To && other.Phase == cloud.MoveStopping && snapshot.First(r.p, o) {
				return "participant " + o.Name + ", which was to move there too with the same context, has to give way", nil
			}
			st.Move = nil
			return fmt.Sprintf("given up: the context %q in cell %s is that of participant %s", r.p.Spec.Identity.Context, to.Name, o.Name), nil
		}
		m.KeyID = r.status.KeyID
		r.enter(cloud.MoveTransferring)
	case cloud.MoveTransferring:
		if elsewhere {
			r.enter(cloud.MoveReleasing)
			return "", nil
		}
		if waits, err := r.transfer(ctx, Transfer.Move); waits != "" || err != nil {
			return waits, err
		}
		r.enter(cloud.MoveLeaving)
	case cloud.MoveReleasing:
		waits, err := r.transfer(ctx, func(t Transfer, ctx context.Context, from, to *cloud.Cell, id string) error {
			err := t.Release(ctx, from, to, id)
			if !errors.Is(err, ErrTransferred) {
				return err
			}
			if err := t.Move(ctx, from, to, id); err != nil { // all of it, such as the audit heads
				return err
			}
			r.enter(cloud.MoveLeaving)
			return nil
		})
		if waits != "" || err != nil {
			return waits, err
		}
		if m.Phase == cloud.MoveReleasing {
			st.Move = nil
			return "given up, and nothing was moved", nil
		}
	case cloud.MoveLeaving:
		if r.report == nil || r.context != nil || r.report.AppliedRevision < r.cell.Status.Revision {
			waits := "cell " + m.From + " has not taken it down yet; it runs nowhere since " + m.Since.UTC().Format(time.RFC3339)
			if c := r.reported(); c.Reason == cloud.ReasonSilent || c.Reason == cloud.ReasonNever {
				waits += "; " + c.Message + ": bring its agent back"
			}
			return waits, nil
		}
		st.Cell = m.To
		r.enter(cloud.MoveArriving)
	case cloud.MoveArriving:
		if deleted && r.status.KeyID != "" { // its connector has it, and takes it down
			st.Move = nil
			return "", nil
		}
		if waits := r.arrived(); waits != "" {
			return waits, nil
		}
		r.enter(cloud.MoveActivating)
	case cloud.MoveActivating:
		waits := r.arrived()
		if active := cell.ConditionOf(r.context, edc.ConditionActive); waits == "" && apimeta.IsStatusConditionTrue(st.Conditions, cloud.ConditionOnboarded) && (active == nil || active.Status != metav1.ConditionTrue) {
			waits = "the connector has not made it active yet"
		}
		if waits != "" {
			return waits, nil
		}
		st.Move = nil
	}
	return "", nil
}

// stopped says what is missing until the cell in which the participant runs has made it inactive.
func (r *run) stopped() string {
	if c := r.reported(); !c.OK {
		return c.Message
	}
	if r.report.AppliedRevision < r.cell.Status.Revision {
		return fmt.Sprintf("cell %s has not applied revision %d yet", r.cell.Name, r.cell.Status.Revision)
	}
	switch active := cell.ConditionOf(r.context, edc.ConditionActive); {
	case active == nil || active.ObservedGeneration != r.context.Generation || active.Reason != edc.ReasonInactive:
		return "its connector has not made it inactive yet"
	case r.status.KeyID == "":
		return "cell " + r.cell.Name + " has not reported its key yet"
	}
	return ""
}

// arrived says what is missing until the cell to which it moves has set it up as it was.
func (r *run) arrived() string {
	if c := r.reported(); !c.OK {
		return c.Message
	}
	m := r.p.Status.Move
	switch {
	case r.report.AppliedRevision < r.cell.Status.Revision:
		return fmt.Sprintf("cell %s has not applied revision %d yet", r.cell.Name, r.cell.Status.Revision)
	case r.status.ObservedGeneration != r.context.Generation || r.status.KeyID == "":
		if c := cell.ReadyOf(r.context); c != nil && c.Status != metav1.ConditionTrue {
			return "the connector has not set it up yet: " + c.Message
		}
		return "the connector has not set it up yet"
	case r.status.DID != r.p.Status.DID || r.status.KeyID != m.KeyID:
		return fmt.Sprintf("it has the DID %s and the key %s there, not %s and %s: it stays inactive until cell %s has what was moved", r.status.DID, r.status.KeyID, r.p.Status.DID, m.KeyID, m.To)
	}
	return ""
}

func (r *run) cellNamed(ctx context.Context, name string) (*cloud.Cell, error) {
	c := &cloud.Cell{}
	if err := r.Reader.Get(ctx, types.NamespacedName{Namespace: r.p.Namespace, Name: name}, c); err != nil {
		return nil, fmt.Errorf("read cell %s: %w", name, err)
	}
	return c, nil
}

// transfer calls one of Transfer for the move, one at a time, and says what it waits for.
func (r *run) transfer(ctx context.Context, call func(t Transfer, ctx context.Context, from, to *cloud.Cell, id string) error) (waits string, err error) {
	if !r.transferring.TryLock() {
		return "another participant is being transferred", nil
	}
	defer r.transferring.Unlock()
	m := r.p.Status.Move
	from, err1 := r.cellNamed(ctx, m.From)
	to, err2 := r.cellNamed(ctx, m.To)
	if err := errors.Join(err1, err2); err != nil {
		return err.Error(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, transferLimit)
	defer cancel()
	var now cloud.Participant
	if err := r.Reader.Get(ctx, client.ObjectKeyFromObject(r.p), &now); err != nil {
		return "", fmt.Errorf("read participant %s: %w", r.p.Name, err)
	}
	if now.UID != r.p.UID || !equality.Semantic.DeepEqual(now.Status.Move, m) {
		return "", apierrors.NewConflict(cloud.GroupVersion.WithResource("participants").GroupResource(), r.p.Name, errors.New("its move has gone on"))
	}
	if err := call(r.Transfer, ctx, from, to, r.p.Spec.Identity.Context); err != nil {
		return err.Error() + "; it is tried again, and given up when $.spec.cell is set back to " + m.From, nil
	}
	return "", nil
}

// moved lets a Participant through whose move has gone on, so that the next step finds in the cache what was written.
type moved struct{ predicate.Funcs }

func (moved) Update(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*cloud.Participant)
	after, ok2 := e.ObjectNew.(*cloud.Participant)
	return ok && ok2 && (before.Status.Cell != after.Status.Cell || before.Phase() != after.Phase())
}
