// SPDX-License-Identifier: FSL-1.1-ALv2

package participant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// place is what a cell has of the participant: what its connector would say, and what is in its database and Vault.
type place struct {
	key        string // of the copy that is there; empty when there is none
	held       bool
	generation int64
	spec       string
	active     bool // the connector acts for it
	revision   int64
	report     *celllink.Report
	silent     bool
}

// moving is two cells, the objects of the platform and an operator that may be killed at any call that changes something.
type moving struct {
	t      *testing.T
	api    client.WithWatch
	now    time.Time
	places map[string]*place
	made   int // keys
	calls  int
	kill   int  // which call
	after  bool // it has done its work
}

var errKilled = errors.New("the operator was killed")

// at counts a call of the operator, which is killed before or after it.
func (w *moving) at(call func() error) error {
	w.calls++
	if w.calls != w.kill {
		return call()
	}
	if w.after {
		_ = call()
	}
	return errKilled
}

func (w *moving) Move(_ context.Context, from, to *cloud.Cell, _ string) error {
	return w.at(func() error {
		a, b := w.places[from.Name], w.places[to.Name]
		if a.active || b.active {
			w.t.Errorf("transferred while it is active: %+v, %+v", a, b)
		}
		if a.key == "" {
			return errors.New("there is no such context")
		}
		a.held, b.key, b.held = true, a.key, false
		return nil
	})
}

func (w *moving) Release(_ context.Context, from, to *cloud.Cell, _ string) error {
	return w.at(func() error {
		if w.places[to.Name].key != "" {
			return fmt.Errorf("it is there: %w", ErrTransferred)
		}
		w.places[from.Name].held = false
		return nil
	})
}

func newMoving(t *testing.T) *moving {
	s := runtime.NewScheme()
	if err := cloud.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	w := &moving{t: t, now: time.Unix(1_800_000_000, 0), places: map[string]*place{"shared": {}, "own": {}}}
	named := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "n", Name: name, UID: "1", CreationTimestamp: metav1.NewTime(w.now.Add(-time.Hour))}
	}
	registered := fields{}
	if err := index(t.Context(), registered); err != nil {
		t.Fatal(err)
	}
	b := kubefake.NewClientBuilder().WithScheme(s).WithStatusSubresource(&cloud.Participant{}, &cloud.Cell{}).WithObjects(
		&cloud.Organization{ObjectMeta: named("acme"), Spec: cloud.OrganizationSpec{ContactEmail: "a@acme.example"}},
		&cloud.DataspaceProfile{ObjectMeta: named("auto"), Spec: cloud.DataspaceProfileSpec{OnboardingChecks: []string{CheckContact, CheckDID}}},
		&cloud.Participant{ObjectMeta: named("acme"), Spec: cloud.ParticipantSpec{Organization: "acme", Cell: "shared", Profile: "auto", Identity: cloud.Identity{Context: "acme"}}},
	)
	ready := cloud.CellStatus{Conditions: []metav1.Condition{{Type: cloud.ConditionReady, Status: metav1.ConditionTrue, Reason: cloud.ReasonReady, LastTransitionTime: metav1.NewTime(w.now)}}}
	for name, spec := range map[string]cloud.CellSpec{
		"shared": {Type: cloud.Shared, Hostname: "shared.example"}, "own": {Type: cloud.Dedicated, Organization: "acme", Hostname: "own.example"},
		"theirs": {Type: cloud.OnPremise, Organization: "acme", Hostname: "theirs.example"}, "others": {Type: cloud.Dedicated, Organization: "other", Hostname: "others.example"},
	} {
		b = b.WithObjects(&cloud.Cell{ObjectMeta: named(name), Spec: spec, Status: ready})
	}
	for field, of := range registered {
		b = b.WithIndex(&cloud.Participant{}, field, of)
	}
	w.api = b.Build()
	return w
}

// operator is a new process.
func (w *moving) operator() *Reconciler {
	c := interceptor.NewClient(w.api, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return w.at(func() error { return c.Patch(ctx, o, p, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return w.at(func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	})
	return &Reconciler{
		Client: c, Reader: c, Transfer: w, Now: func() time.Time { return w.now },
		DID: func(_ context.Context, _ []byte, host, id string) error {
			for _, p := range w.places {
				if host == "shared.example" && p.key != "" && !p.held {
					return nil
				}
			}
			return fmt.Errorf("https://%s/%s/did.json does not answer", host, id)
		},
		Reports: func(cell string) (*celllink.Report, time.Time) {
			p := w.places[cell]
			if p == nil || p.report == nil {
				return nil, time.Time{}
			}
			return p.report, p.report.At
		},
	}
}

// apply is the work of the cell's controller, its agent and its connector.
func (w *moving) apply(name string) {
	w.t.Helper()
	p := w.places[name]
	var cells cloud.CellList
	var profiles cloud.DataspaceProfileList
	var participants cloud.ParticipantList
	for _, l := range []client.ObjectList{&cells, &profiles, &participants} {
		if err := w.api.List(w.t.Context(), l); err != nil {
			w.t.Fatal(err)
		}
	}
	in := snapshot.Input{Cells: cells.Items, Profiles: profiles.Items, Participants: participants.Items}
	for _, c := range cells.Items {
		if c.Name == name {
			in.Cell = c
		}
	}
	objects, err := snapshot.Compile(in)
	if err != nil {
		w.t.Fatal(err)
	}
	var pc *edc.ParticipantContext
	for _, o := range objects {
		if o.GetKind() == "ParticipantContext" {
			pc = &edc.ParticipantContext{}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, pc); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	p.revision++
	in.Cell.Status.Revision = p.revision
	if err := w.api.Status().Update(w.t.Context(), &in.Cell); err != nil {
		w.t.Fatal(err)
	}
	if p.silent {
		return
	}
	p.report = &celllink.Report{At: w.now, AppliedRevision: p.revision}
	if pc == nil {
		if p.generation > 0 { // the connector deletes what it has, of one that is held all but the trail
			p.key, p.active, p.generation = "", false, 0
		}
		return
	}
	if p.key == "" {
		w.made++
		p.key = fmt.Sprint("key-", w.made)
	}
	if raw := fmt.Sprint(pc.Spec); raw != p.spec || p.generation == 0 {
		p.spec, p.generation = raw, p.generation+1
	}
	p.active = pc.Spec.Active && !p.held
	host := in.Cell.Spec.Hostname
	if pc.Spec.Hostname != "" {
		host = pc.Spec.Hostname
	}
	active := metav1.Condition{Type: edc.ConditionActive, Status: metav1.ConditionFalse, Reason: edc.ReasonInactive, ObservedGeneration: p.generation}
	if p.active {
		active.Status, active.Reason = metav1.ConditionTrue, edc.ReasonActive
	}
	status, err := json.Marshal(edc.ParticipantContextStatus{ObservedGeneration: p.generation, DID: snapshot.DID(host, "acme"), KeyID: p.key, Conditions: []metav1.Condition{active}})
	if err != nil {
		w.t.Fatal(err)
	}
	p.report.Objects = []celllink.Object{{Kind: "ParticipantContext", Name: "acme", Generation: p.generation, Status: status}}
}

func (w *moving) participant() *cloud.Participant {
	w.t.Helper()
	var p cloud.Participant
	if err := w.api.Get(w.t.Context(), client.ObjectKey{Namespace: "n", Name: "acme"}, &p); client.IgnoreNotFound(err) != nil {
		w.t.Fatal(err)
	}
	return &p
}

func (w *moving) change(f func(p *cloud.Participant)) {
	w.t.Helper()
	p := w.participant()
	f(p)
	if err := w.api.Update(w.t.Context(), p); err != nil {
		w.t.Fatal(err)
	}
}

// round lets everybody work once; an operator that was killed is followed by another. Nothing is ever active twice.
func (w *moving) round(r *Reconciler) *Reconciler {
	w.t.Helper()
	w.now = w.now.Add(5 * time.Second)
	for _, name := range []string{"shared", "own"} {
		w.apply(name)
		if a, b := w.places["shared"], w.places["own"]; a.active && b.active {
			w.t.Fatalf("active in both cells: %+v, %+v", a, b)
		}
	}
	if _, err := r.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Namespace: "n", Name: "acme"}}); err != nil {
		if !errors.Is(err, errKilled) {
			w.t.Fatal(err)
		}
		return w.operator()
	}
	return r
}

// until lets everybody work until something holds.
func (w *moving) until(r *Reconciler, what string, holds func(p *cloud.Participant) bool) *Reconciler {
	w.t.Helper()
	for range 60 {
		if p := w.participant(); holds(p) {
			return r
		}
		r = w.round(r)
	}
	p := w.participant()
	w.t.Fatalf("%s did not come about (killed at call %d, after it: %v): %+v, %s; %+v, %+v", what, w.kill, w.after, p.Status.Move, conditionsOf(p), *w.places["shared"], *w.places["own"])
	return nil
}

func conditionsOf(p *cloud.Participant) (out []string) {
	for _, c := range p.Status.Conditions {
		out = append(out, c.Type+"="+string(c.Status)+" "+c.Reason+": "+c.Message)
	}
	return out
}

func settled(cell string) func(p *cloud.Participant) bool {
	return func(p *cloud.Participant) bool {
		return p.Status.Cell == cell && p.Status.Move == nil && meta.IsStatusConditionTrue(p.Status.Conditions, cloud.ConditionReady)
	}
}

func inPhase(phase string) func(p *cloud.Participant) bool {
	return func(p *cloud.Participant) bool { return p.Status.Move != nil && p.Status.Move.Phase == phase }
}

func gone(p *cloud.Participant) bool { return p.Name == "" }

// moves are the ways that a move may go, and how it must end.
var moves = map[string]struct {
	then func(w *moving, r *Reconciler) *Reconciler // begins in cell shared, ready
	ends string                                     // the cell, empty when the participant is deleted
}{
	"to the other cell": {func(_ *moving, r *Reconciler) *Reconciler { return r }, "own"},
	"and back when it has ended": {func(w *moving, r *Reconciler) *Reconciler {
		r = w.until(r, "the move", settled("own"))
		w.change(func(p *cloud.Participant) { p.Spec.Cell = "shared" })
		return r
	}, "shared"},
	"given up while it stops": {back(cloud.MoveStopping), "shared"}, "given up before the transfer": {back(cloud.MoveTransferring), "shared"},
	"back after the transfer": {back(cloud.MoveLeaving), "shared"}, "back on arrival": {back(cloud.MoveArriving), "shared"}, "back while it is made active": {back(cloud.MoveActivating), "shared"},
	"deleted while it stops": {deleted(cloud.MoveStopping), ""}, "deleted before the transfer": {deleted(cloud.MoveTransferring), ""}, "deleted after the transfer": {deleted(cloud.MoveLeaving), ""},
	"deleted on arrival": {deleted(cloud.MoveArriving), ""}, "deleted while it is made active": {deleted(cloud.MoveActivating), ""},
	"given up when a crash has hidden that it was transferred": {func(w *moving, r *Reconciler) *Reconciler {
		r = hidden(w, r)
		w.change(func(p *cloud.Participant) { p.Spec.Cell = "shared" })
		return r
	}, "shared"},
	"deleted when a crash has hidden that it was transferred": {func(w *moving, r *Reconciler) *Reconciler {
		r = hidden(w, r)
		if err := w.api.Delete(w.t.Context(), w.participant()); err != nil {
			w.t.Fatal(err)
		}
		return r
	}, ""},
	"given up, and then deleted": {func(w *moving, r *Reconciler) *Reconciler {
		r = back(cloud.MoveTransferring)(w, r)
		r = w.until(r, "the release", inPhase(cloud.MoveReleasing))
		if err := w.api.Delete(w.t.Context(), w.participant()); err != nil {
			w.t.Fatal(err)
		}
		return r
	}, ""},
}

// hidden transfers, and nobody has noted it.
func hidden(w *moving, r *Reconciler) *Reconciler {
	r = w.until(r, "the transfer", inPhase(cloud.MoveTransferring))
	a, b := w.places["shared"], w.places["own"]
	a.held, b.key = true, a.key
	return r
}

func back(phase string) func(w *moving, r *Reconciler) *Reconciler {
	return func(w *moving, r *Reconciler) *Reconciler {
		r = w.until(r, phase, inPhase(phase))
		w.change(func(p *cloud.Participant) { p.Spec.Cell = "shared" })
		return r
	}
}

func deleted(phase string) func(w *moving, r *Reconciler) *Reconciler {
	return func(w *moving, r *Reconciler) *Reconciler {
		r = w.until(r, phase, inPhase(phase))
		if err := w.api.Delete(w.t.Context(), w.participant()); err != nil {
			w.t.Fatal(err)
		}
		return r
	}
}

// TestAMoveEndsAsItMust with the operator killed before and after each call that changes something, and not killed.
func TestAMoveEndsAsItMust(t *testing.T) {
	for what, c := range moves {
		t.Run(what, func(t *testing.T) {
			for _, after := range []bool{false, true} {
				for kill := 0; ; kill++ {
					w := newMoving(t)
					r := w.until(w.operator(), "the onboarding", settled("shared"))
					w.change(func(p *cloud.Participant) { p.Spec.Cell = "own" })
					w.calls, w.kill, w.after = 0, kill, after
					r = c.then(w, r)
					if c.ends == "" {
						w.until(r, "the end", gone)
						for range 2 {
							w.apply("shared")
							w.apply("own")
						}
						for name, p := range w.places {
							if p.key != "" {
								t.Fatalf("killed at call %d: cell %s has it still: %+v", kill, name, p)
							}
						}
					} else {
						w.until(r, "the end", settled(c.ends))
						w.apply("shared")
						w.apply("own")
						p := w.participant()
						if at := w.places[c.ends]; at.key != "key-1" || !at.active || p.Status.DID != "did:web:shared.example:acme" || p.Status.Checks[0].PassedAt == nil {
							t.Fatalf("killed at call %d: %+v, %+v", kill, at, p.Status)
						}
						for name, at := range w.places {
							if name != c.ends && at.key != "" {
								t.Fatalf("killed at call %d: cell %s has it still: %+v", kill, name, at)
							}
						}
					}
					if w.calls < kill {
						break
					}
				}
			}
		})
	}
}

// TestWhatASilentCellHoldsUp: a move stays where it is until the cell is heard again.
func TestWhatASilentCellHoldsUp(t *testing.T) {
	for phase, silent := range map[string]string{cloud.MoveStopping: "shared", cloud.MoveLeaving: "shared", cloud.MoveArriving: "own", cloud.MoveActivating: "own"} {
		t.Run(phase, func(t *testing.T) {
			w := newMoving(t)
			r := w.until(w.operator(), "the onboarding", settled("shared"))
			w.change(func(p *cloud.Participant) { p.Spec.Cell = "own" })
			r = w.until(r, phase, inPhase(phase))
			w.places[silent].silent = true
			w.now = w.now.Add(3 * time.Hour)
			for range 5 {
				r = w.round(r)
			}
			p := w.participant()
			m := meta.FindStatusCondition(p.Status.Conditions, cloud.ConditionMoving)
			if !inPhase(phase)(p) || m == nil || m.Status != metav1.ConditionTrue || !strings.Contains(m.Message, "cell "+silent+": not heard from since") {
				t.Fatalf("%+v, %+v", p.Status.Move, m)
			}
			w.places[silent].silent = false
			w.until(r, "the end", settled("own"))
		})
	}
}

// TestWithAnotherKeyItStaysInactive, for its counterparties would not know it.
func TestWithAnotherKeyItStaysInactive(t *testing.T) {
	w := newMoving(t)
	r := w.until(w.operator(), "the onboarding", settled("shared"))
	w.change(func(p *cloud.Participant) { p.Spec.Cell = "own" })
	r = w.until(r, "arrival", inPhase(cloud.MoveArriving))
	w.places["own"].key = "another"
	for range 5 {
		r = w.round(r)
	}
	p := w.participant()
	if m := meta.FindStatusCondition(p.Status.Conditions, cloud.ConditionMoving); !inPhase(cloud.MoveArriving)(p) || !strings.Contains(m.Message, "the key another there, not did:web:shared.example:acme and key-1") {
		t.Fatalf("%+v, %s", p.Status.Move, conditionsOf(p))
	}
	w.places["own"].key = "key-1"
	w.until(r, "the end", settled("own"))
}

// TestMovesThatDoNotBegin leave the participant as it is, and say why.
func TestMovesThatDoNotBegin(t *testing.T) {
	other := func(change func(p *cloud.Participant)) func(w *moving) {
		return func(w *moving) {
			o := &cloud.Participant{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "other", CreationTimestamp: metav1.NewTime(w.now)}, Spec: cloud.ParticipantSpec{Organization: "acme", Profile: "nothing", Identity: cloud.Identity{Context: "acme"}}}
			change(o)
			status := o.Status
			if err := w.api.Create(w.t.Context(), o); err != nil {
				w.t.Fatal(err)
			}
			o.Status = status
			if err := w.api.Status().Update(w.t.Context(), o); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	for what, c := range map[string]struct {
		to     string
		before func(w *moving)
		reason string
		says   string
	}{
		"to no cell":                         {"nowhere", nil, cloud.ReasonMissing, `there is no cell nowhere`},
		"to another organization's":          {"others", nil, cloud.ReasonMissing, `there is no cell others for participants of organization acme`},
		"into a company's own cluster":       {"theirs", nil, cloud.ReasonRefused, `cell theirs is on-premise`},
		"to one whose context is there":      {"own", other(func(o *cloud.Participant) { o.Spec.Cell, o.Status.Cell = "own", "own" }), cloud.ReasonTaken, `is that of participant other`},
		"to one whose context is named":      {"own", other(func(o *cloud.Participant) { o.Spec.Cell = "own" }), cloud.ReasonTaken, `is that of participant other`},
		"to one whose context has moved off": {"own", other(func(o *cloud.Participant) { o.Spec.Cell, o.Status.Cell, o.Status.Hostname = "x", "x", "own.example" }), cloud.ReasonTaken, `is that of participant other`},
		"to one to which another moves": {"own", other(func(o *cloud.Participant) {
			o.Spec.Cell, o.Status.Cell, o.Status.Move = "own", "x", &cloud.ParticipantMove{From: "x", To: "own", Phase: cloud.MoveStopping}
		}), cloud.ReasonTaken, `is that of participant other`},
		"to one that is not ready": {"own", func(w *moving) {
			var c cloud.Cell
			if err := w.api.Get(w.t.Context(), client.ObjectKey{Namespace: "n", Name: "own"}, &c); err != nil {
				w.t.Fatal(err)
			}
			c.Status.Conditions[0].Status, c.Status.Conditions[0].Message = metav1.ConditionFalse, "its Vault is sealed"
			if err := w.api.Status().Update(w.t.Context(), &c); err != nil {
				w.t.Fatal(err)
			}
		}, cloud.ReasonWaiting, `waits until cell own is ready: its Vault is sealed`},
		"from one that is silent": {"own", func(w *moving) { w.places["shared"].silent = true; w.now = w.now.Add(time.Hour) }, cloud.ReasonWaiting, `cell shared: not heard from since`},
	} {
		t.Run(what, func(t *testing.T) {
			w := newMoving(t)
			r := w.until(w.operator(), "the onboarding", settled("shared"))
			if c.before != nil {
				c.before(w)
			}
			w.change(func(p *cloud.Participant) { p.Spec.Cell = c.to })
			for range 3 {
				r = w.round(r)
			}
			p := w.participant()
			m := meta.FindStatusCondition(p.Status.Conditions, cloud.ConditionMoving)
			if p.Status.Move != nil || p.Status.Cell != "shared" || m.Reason != c.reason || !strings.Contains(m.Message, c.says) || !strings.Contains(m.Message, "it stays in cell shared") {
				t.Fatalf("%+v, %+v", p.Status.Move, m)
			}
			if !w.places["shared"].active || meta.IsStatusConditionTrue(p.Status.Conditions, cloud.ConditionReady) {
				t.Errorf("%+v, %s", w.places["shared"], conditionsOf(p))
			}
		})
	}
}
