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
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// Managers of objects, as the header X-Kaphera-Manager names them.
const (
	ManagerTerraform = "terraform"
	ManagerCLI       = "cli"
	ManagerConsole   = "console"
	ManagerAPI       = "api"
)

// kind is one custom resource kind as the API serves it.
type kind[S, T any] struct {
	noun string // "use case"
	path string // "use-cases"
	// object and list make empty ones; parts points into an object.
	object func() ctrl.Object
	list   func() ctrl.ObjectList
	parts  func(ctrl.Object) (*S, *T)
	// organization that an object belongs to; nil when the kind belongs to none and everybody with a row sees all.
	organization func(name string, spec *S) string
	// open: everybody with a row also reaches the objects that belong to no organization.
	open bool
	// check judges what the Kubernetes API can't: references, policies, fields of one role. old is nil when the object is new.
	check func(ctx context.Context, s *Service, name string, spec, old *S, dryRun bool) (warnings []string, err error)
}

// WriteOptions are the conditions of a write.
type WriteOptions struct {
	Manager  string // terraform, cli, console, api
	Revision string // must still be the newest, when set
	Create   bool   // the object must not exist
	DryRun   bool   // judge, but change nothing
	Force    bool   // change what somebody else manages
}

// PageOptions choose a page of objects, which are ordered by name.
type PageOptions struct {
	After string
	Limit int
}

func (k kind[S, T]) show(o ctrl.Object) Object[S, T] {
	spec, status := k.parts(o)
	return Object[S, T]{
		Name: o.GetName(), ManagedBy: managedBy(o), Revision: revision(o), Generation: o.GetGeneration(), Deleting: !o.GetDeletionTimestamp().IsZero(), Spec: *spec, Status: *status,
	}
}

func (k kind[S, T]) covered(a authz.Access, name string, spec *S) bool {
	if k.organization == nil {
		return a.Scope == authz.All
	}
	organization := k.organization(name, spec)
	return a.Covers(organization) || k.open && organization == "" && a.Scope != authz.None
}

func (k kind[S, T]) page(ctx context.Context, s *Service, opts PageOptions) (List[Object[S, T]], error) {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	list := k.list()
	if err := s.Cached.List(ctx, list, ctrl.InNamespace(s.Namespace)); err != nil {
		return List[Object[S, T]]{}, k.problem("", err)
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return List[Object[S, T]]{}, internalError(err)
	}
	access := authz.From(ctx)
	out := List[Object[S, T]]{Items: []Object[S, T]{}}
	for _, item := range items {
		o := item.(ctrl.Object) //nolint:forcetypeassert // what a client lists are objects
		if spec, _ := k.parts(o); k.covered(access, o.GetName(), spec) && o.GetName() > opts.After {
			out.Items = append(out.Items, k.show(o))
		}
	}
	slices.SortFunc(out.Items, func(a, b Object[S, T]) int { return strings.Compare(a.Name, b.Name) })
	if opts.Limit > 0 && len(out.Items) > opts.Limit {
		out.Items = out.Items[:opts.Limit]
		out.Next = out.Items[opts.Limit-1].Name
	}
	return out, nil
}

// live reads the object as it is now; a *Problem 404 also when the caller may not see it.
func (k kind[S, T]) live(ctx context.Context, s *Service, name string) (ctrl.Object, error) {
	if len(content.IsPathSegmentName(name)) > 0 { // the client would fail on it
		return nil, notFound(k.noun, name)
	}
	o := k.object()
	if err := s.Client.Get(ctx, ctrl.ObjectKey{Namespace: s.Namespace, Name: name}, o); err != nil {
		return nil, k.problem(name, err)
	}
	if spec, _ := k.parts(o); !k.covered(authz.From(ctx), name, spec) {
		return nil, notFound(k.noun, name)
	}
	return o, nil
}

func (k kind[S, T]) get(ctx context.Context, s *Service, name string) (Object[S, T], error) {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	o, err := k.live(ctx, s, name)
	if err != nil {
		return Object[S, T]{}, err
	}
	return k.show(o), nil
}

// put creates or replaces the object's spec. created tells which of the two it did.
func (k kind[S, T]) put(ctx context.Context, s *Service, name string, spec S, opts WriteOptions) (out Object[S, T], created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	const attempts = 5 // a controller may write the object between our reading and our writing
	for range attempts {
		out, created, err = k.tryPut(ctx, s, name, spec, opts)
		if !apierrors.IsConflict(err) {
			break
		}
	}
	if err != nil {
		return out, false, k.problem(name, err)
	}
	return out, created, nil
}

func (k kind[S, T]) tryPut(ctx context.Context, s *Service, name string, spec S, opts WriteOptions) (out Object[S, T], created bool, err error) {
	o := k.object()
	err = s.Client.Get(ctx, ctrl.ObjectKey{Namespace: s.Namespace, Name: name}, o)
	created = apierrors.IsNotFound(err)
	if err != nil && !created {
		return out, false, err
	}
	target, _ := k.parts(o)
	var old *S
	access := authz.From(ctx)
	if created {
		if opts.Revision != "" {
			return out, false, problem(http.StatusNotFound, CodeNotFound, fmt.Sprintf("%s %q no longer exists, so revision %q can't be replaced", k.noun, name, opts.Revision),
				"leave revision out to create it again")
		}
		o.SetNamespace(s.Namespace)
		o.SetName(name)
	} else {
		before := *target
		old = &before
		if !k.covered(access, name, old) {
			return out, false, problem(http.StatusConflict, CodeExists, fmt.Sprintf("the name %q is taken", name), "choose another name")
		}
		if err := k.mayReplace(o, old, &spec, opts); err != nil {
			return out, false, err
		}
	}
	if !k.covered(access, name, &spec) {
		p := problem(http.StatusForbidden, CodeForbidden, fmt.Sprintf("%s may write %ss of the own organization (%s) only", access.Principal.Name, k.noun, access.Principal.Organization), "")
		return out, false, p
	}
	var warnings []string
	if k.check != nil {
		if warnings, err = k.check(ctx, s, name, &spec, old, opts.DryRun); err != nil {
			return out, false, err
		}
	}
	*target = spec
	setManager(o, old == nil, opts)
	setChanger(o, access.Principal)
	if created {
		var createOpts []ctrl.CreateOption
		if opts.DryRun {
			createOpts = append(createOpts, ctrl.DryRunAll)
		}
		err = s.Client.Create(ctx, o, createOpts...)
	} else {
		var updateOpts []ctrl.UpdateOption
		if opts.DryRun {
			updateOpts = append(updateOpts, ctrl.DryRunAll)
		}
		err = s.Client.Update(ctx, o, updateOpts...)
	}
	if err != nil {
		return out, false, err
	}
	out = k.show(o)
	out.Warnings = warnings
	return out, created, nil
}

// mayReplace tells why an existing object may not be replaced.
func (k kind[S, T]) mayReplace(o ctrl.Object, old, spec *S, opts WriteOptions) error {
	switch {
	case opts.Create:
		p := problem(http.StatusConflict, CodeExists, fmt.Sprintf("%s %q exists already, managed by %s", k.noun, name(o), managedBy(o)), "import it, or choose another name")
		p.ManagedBy = managedBy(o)
		return p
	case !o.GetDeletionTimestamp().IsZero():
		return problem(http.StatusConflict, CodeConflict, fmt.Sprintf("%s %q is being removed", k.noun, name(o)), "wait until it is gone, then create it again")
	case opts.Revision != "" && opts.Revision != revision(o):
		return problem(http.StatusPreconditionFailed, CodeConflict,
			fmt.Sprintf("%s %q has changed: revision %s was sent, %s is the newest", k.noun, name(o), opts.Revision, revision(o)), "read it again and repeat the change")
	case managedBy(o) == ManagerTerraform && opts.Manager != ManagerTerraform && !opts.Force:
		if changed := changedFields(old, spec); len(changed) > 0 {
			return k.managedElsewhere(o, "would be changed: "+strings.Join(changed, ", "))
		}
	}
	return nil
}

func (k kind[S, T]) managedElsewhere(o ctrl.Object, what string) *Problem {
	p := problem(http.StatusConflict, CodeManagedElsewhere, fmt.Sprintf("%s %q is managed by %s; %s", k.noun, name(o), managedBy(o), what),
		"change it there; or repeat with force=true, and the next plan there will show the difference")
	p.ManagedBy = managedBy(o)
	return p
}

func (k kind[S, T]) remove(ctx context.Context, s *Service, name string, opts WriteOptions) error {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	o, err := k.live(ctx, s, name)
	if err != nil {
		return err
	}
	if opts.Revision != "" && opts.Revision != revision(o) {
		return problem(http.StatusPreconditionFailed, CodeConflict,
			fmt.Sprintf("%s %q has changed: revision %s was sent, %s is the newest", k.noun, name, opts.Revision, revision(o)), "read it again and repeat")
	}
	if managedBy(o) == ManagerTerraform && opts.Manager != ManagerTerraform && !opts.Force {
		return k.managedElsewhere(o, "it would be removed")
	}
	uid := o.GetUID()
	delOpts := []ctrl.DeleteOption{ctrl.Preconditions{UID: &uid}}
	if opts.DryRun {
		delOpts = append(delOpts, ctrl.DryRunAll)
	}
	return k.problem(name, s.Client.Delete(ctx, o, delOpts...))
}

// problem maps an error of the Kubernetes API.
func (k kind[S, T]) problem(name string, err error) error {
	var known *Problem
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case apierrors.IsNotFound(err):
		return notFound(k.noun, name)
	case apierrors.IsConflict(err):
		return problem(http.StatusConflict, CodeConflict, fmt.Sprintf("%s %q keeps changing", k.noun, name), "try again")
	case apierrors.IsInvalid(err) && errors.As(err, &status):
		p := problem(http.StatusUnprocessableEntity, CodeInvalid, fmt.Sprintf("%s %q is not valid", k.noun, name), "correct the fields listed")
		if d := status.Status().Details; d != nil {
			for _, c := range d.Causes {
				if c.Field != "<nil>" { // that rules were left out because of the others
					p.Errors = append(p.Errors, FieldError{c.Field, c.Message})
				}
			}
		}
		return p
	case apierrors.IsTimeout(err), apierrors.IsServerTimeout(err), apierrors.IsTooManyRequests(err), errors.Is(err, context.DeadlineExceeded):
		p := problem(http.StatusServiceUnavailable, CodeNotReady, "the Kubernetes API of the platform does not answer in time", "try again in a moment")
		p.cause = err
		return p
	}
	return internalError(err)
}

func name(o ctrl.Object) string { return o.GetName() }

func managedBy(o ctrl.Object) string {
	if m := o.GetAnnotations()[cloudv1.ManagedByAnnotation]; m != "" {
		return m
	}
	return ManagerAPI
}

// setManager records who manages the object. A forced change leaves Terraform the manager: its next plan shows the difference.
func setManager(o ctrl.Object, isNew bool, opts WriteOptions) {
	if o.GetAnnotations() == nil {
		o.SetAnnotations(map[string]string{})
	}
	if !isNew && managedBy(o) == ManagerTerraform {
		return
	}
	a := o.GetAnnotations()
	a[cloudv1.ManagedByAnnotation] = nonEmpty(opts.Manager, ManagerAPI)
	o.SetAnnotations(a)
}

// setChanger records who changes the object, for people.
func setChanger(o ctrl.Object, who authz.Principal) {
	o.GetAnnotations()[cloudv1.ChangedByAnnotation] = nonEmpty(who.Name, who.Subject)
}

// revision is opaque: it changes with spec, and with the object's identity.
func revision(o metav1.Object) string {
	uid, _, _ := strings.Cut(string(o.GetUID()), "-")
	return fmt.Sprintf("%d-%s", o.GetGeneration(), uid)
}

// changedFields names the members of spec that differ.
func changedFields(a, b any) []string {
	before, after := members(a), members(b)
	var out []string
	for k := range before {
		if string(before[k]) != string(after[k]) {
			out = append(out, "spec."+k)
		}
	}
	for k := range after {
		if _, ok := before[k]; !ok {
			out = append(out, "spec."+k)
		}
	}
	slices.Sort(out)
	return out
}

func members(v any) (out map[string]json.RawMessage) {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return map[string]json.RawMessage{"?": []byte(err.Error())}
	}
	for k, m := range out { // policies keep the order in which they were written; compare their meaning
		var x any
		if json.Unmarshal(m, &x) == nil {
			if canonical, err := json.Marshal(x); err == nil {
				out[k] = canonical
			}
		}
	}
	return out
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
