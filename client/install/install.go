// SPDX-License-Identifier: Apache-2.0

// Package install puts what runs an on-premise cell into its company's cluster, compares it with what should be there, and removes it. What that is
// comes from the Cloud API; the private key of the cell's agent is made here and goes nowhere but into a Secret of that cluster.
package install

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/client"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// FieldOwner is who installs, in server-side apply.
const FieldOwner = "kaphera-cell-install"

// The Secret in the cell's namespace with which the agent logs in at the cloud.
const (
	CredentialsSecret = "cell-agent-nats" // #nosec G101 -- a name
	CredentialsKey    = "agent.creds"
)

const callTimeout = 30 * time.Second // of one call to the cluster

// Installation is an on-premise cell in its company's cluster.
type Installation struct {
	client.CellInstallation

	objects []*unstructured.Unstructured
	config  *rest.Config
	cluster kube.Client
}

// Open reads from the cloud what the cell needs and prepares to reach the cluster; it asks nothing of the cluster yet. cluster may be nil where only
// Objects and Permissions are wanted.
func Open(ctx context.Context, cloud *client.API, cell string, cluster *rest.Config) (*Installation, error) {
	r, err := cloud.GetCellInstallationWithResponse(ctx, cell)
	if err != nil {
		return nil, err
	}
	i := &Installation{config: cluster}
	if cluster != nil {
		scheme := runtime.NewScheme()
		if err := errors.Join(clientgoscheme.AddToScheme(scheme), edc.AddToScheme(scheme)); err != nil {
			return nil, fmt.Errorf("kubernetes types: %w", err)
		}
		cfg := rest.CopyConfig(cluster)
		cfg.Timeout, cfg.QPS, cfg.Burst = callTimeout, 50, 100
		if i.cluster, err = kube.New(cfg, kube.Options{Scheme: scheme}); err != nil {
			return nil, fmt.Errorf("kubernetes client: %w", err)
		}
	}
	return i, i.take(*r.JSON200)
}

// take takes over what the cloud answered, unless something in it is not this cell's: whoever installs lends the cloud rights for this cell only.
func (i *Installation) take(is client.CellInstallation) error {
	i.CellInstallation, i.objects = is, nil
	if is.Namespace != "cell-"+is.Cell {
		return fmt.Errorf("the cloud names namespace %q for cell %q: nothing is installed there", is.Namespace, is.Cell)
	}
	for _, raw := range is.Objects {
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(raw); err != nil {
			return fmt.Errorf("an object of the cloud's answer cannot be read: %w; client and cloud may be of different versions", err)
		}
		i.objects = append(i.objects, o)
	}
	for _, o := range i.objects {
		if !i.own(o) {
			i.objects = nil
			return fmt.Errorf("the cloud's answer holds %s, which reaches beyond cell %s: nothing is installed", ID(o), is.Cell)
		}
	}
	return nil
}

// own says whether an object reaches no further than the cell: it is in its namespace, or that namespace, a kind of the EDC operator, or the right to
// find the Kubernetes API; and whoever is bound to a role is in the namespace.
func (i *Installation) own(o *unstructured.Unstructured) bool {
	inside := o.GetNamespace() == i.Namespace
	finder := o.GetNamespace() == metav1.NamespaceDefault && o.GetName() == "kaphera-edc-operator-api-servers-"+i.Namespace
	switch o.GroupVersionKind().GroupKind().String() {
	case "Namespace":
		return o.GetName() == i.Namespace && o.GetLabels()["pod-security.kubernetes.io/enforce"] == "restricted"
	case "CustomResourceDefinition.apiextensions.k8s.io":
		_, converted, _ := unstructured.NestedMap(o.Object, "spec", "conversion")
		return strings.HasSuffix(o.GetName(), "."+edc.GroupVersion.Group) && !converted
	case "Role.rbac.authorization.k8s.io":
		var r rbacv1.Role
		find := rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, ResourceNames: []string{"kubernetes"}, Verbs: []string{"get"}}
		return convert(o, &r) && (inside || finder && reflect.DeepEqual(r.Rules, []rbacv1.PolicyRule{find}))
	case "RoleBinding.rbac.authorization.k8s.io":
		var b rbacv1.RoleBinding
		return convert(o, &b) && (inside || finder) && b.RoleRef.Kind == "Role" &&
			slices.ContainsFunc(i.objects, func(r *unstructured.Unstructured) bool {
				return r.GetKind() == "Role" && r.GetNamespace() == o.GetNamespace() && r.GetName() == b.RoleRef.Name
			}) &&
			!slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool { return s.Kind != rbacv1.ServiceAccountKind || s.Namespace != i.Namespace })
	case "ServiceAccount", "ConfigMap", "Deployment.apps", "PodDisruptionBudget.policy", "NetworkPolicy.networking.k8s.io":
		return inside
	}
	return false
}

func convert(o *unstructured.Unstructured, into any) bool {
	return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into) == nil
}

// given says whether an object is an administrator's to give: the cell's namespace, kinds and rights. They stay when the cell is removed.
func given(o *unstructured.Unstructured) bool {
	return slices.Contains([]string{"Namespace", "CustomResourceDefinition", "Role", "RoleBinding"}, o.GetKind())
}

// ID names an object, as "Deployment cell-x/name".
func ID(o *unstructured.Unstructured) string {
	name := o.GetName()
	if o.GetNamespace() != "" {
		name = o.GetNamespace() + "/" + name
	}
	return o.GetKind() + " " + name
}

// Objects that are applied besides the Secret.
func (i *Installation) Objects() []*unstructured.Unstructured { return i.objects }

// InPlace is the state of an object that is as it should be.
const InPlace = "in place"

// IDs is what State says when everything is in place.
func (i *Installation) IDs() map[string]string {
	out := map[string]string{ID(i.secret(nil)): InPlace}
	for _, o := range i.objects {
		out[ID(o)] = InPlace
	}
	return out
}

// State compares the cluster with what should be there, by ID: InPlace, missing, or what is otherwise first. The Secret is in place when it holds the
// key of the agent that is admitted.
func (i *Installation) State(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, o := range i.objects {
		state, err := i.state(ctx, o)
		if err != nil {
			return nil, err
		}
		out[ID(o)] = state
	}
	key, err := i.agentKey(ctx)
	if err != nil {
		return nil, err
	}
	switch secret := ID(i.secret(nil)); {
	case key == nil:
		out[secret] = "missing"
	case key.public != i.AgentKey:
		out[secret] = "the key of another agent"
	default:
		out[secret] = InPlace
	}
	return out, nil
}

func (i *Installation) state(ctx context.Context, o *unstructured.Unstructured) (string, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	switch err := i.cluster.Get(ctx, kube.ObjectKeyFromObject(o), live); {
	case apierrors.IsNotFound(err):
		return "missing", nil
	case err != nil:
		return "", fmt.Errorf("read %s: %w", ID(o), err)
	}
	if at := difference(o.Object, live.Object, ""); at != "" {
		return "changed: " + at, nil
	}
	return InPlace, nil
}

// difference is the path of the first value of want that is not in have; empty when all are. Absent and empty are the same.
func difference(want, have any, path string) string {
	switch w := want.(type) {
	case map[string]any:
		h, _ := have.(map[string]any)
		keys := make([]string, 0, len(w))
		for k := range w {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if at := difference(w[k], h[k], strings.TrimPrefix(path+"."+k, ".")); at != "" {
				return at
			}
		}
	case []any:
		h, _ := have.([]any)
		if len(w) != len(h) {
			return path
		}
		for n := range w {
			if at := difference(w[n], h[n], fmt.Sprintf("%s[%d]", path, n)); at != "" {
				return at
			}
		}
	case nil:
	default:
		if fmt.Sprint(want) != fmt.Sprint(have) && (have != nil || fmt.Sprint(want) != "") {
			return path
		}
	}
	return ""
}

// key is the agent's: the private half as NATS spells it.
type key struct {
	public string
	seed   []byte
}

// agentKey is the key in the cluster; nil when there is none that can be used.
func (i *Installation) agentKey(ctx context.Context) (*key, error) {
	var s corev1.Secret
	err := i.cluster.Get(ctx, kube.ObjectKey{Namespace: i.Namespace, Name: CredentialsSecret}, &s)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", i.Namespace, CredentialsSecret, err)
	}
	pair, err := jwt.ParseDecoratedUserNKey(s.Data[CredentialsKey])
	if err != nil {
		return nil, nil //nolint:nilerr // whatever is there, it is replaced
	}
	return keyOf(pair)
}

func keyOf(pair nkeys.KeyPair) (*key, error) {
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("key of the agent: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, fmt.Errorf("key of the agent: %w", err)
	}
	return &key{public, seed}, nil
}

// secret is the Secret of the agent's credentials.
func (i *Installation) secret(creds []byte) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": string(corev1.SecretTypeOpaque),
		"metadata": map[string]any{"name": CredentialsSecret, "namespace": i.Namespace},
	}}
	if creds != nil {
		o.Object["stringData"] = map[string]any{CredentialsKey: string(creds)}
	}
	return o
}

// Options of Apply.
type Options struct {
	// RotateKey has the agent log in with a new key; the one before opens nothing any more.
	RotateKey bool
	// Progress is told what is done, unless nil.
	Progress func(format string, args ...any)
}

func (o Options) say(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(format, args...)
	}
}

// Apply has the agent admitted and brings what is not as it should be in the cluster into place. A key that is there and admitted stays. Before
// anything is written, the API server is asked whether it would accept each object; the error lists what it would not, and nothing is done then but
// that the namespace may have been made. It returns the IDs of what was written.
func (i *Installation) Apply(ctx context.Context, cloud *client.API, o Options) (written []string, err error) {
	if err := i.namespace(ctx, &written, o); err != nil {
		return written, err
	}
	agent, err := i.agentKey(ctx)
	if err != nil {
		return written, err
	}
	renew := o.RotateKey || agent == nil || i.AgentKey != "" && i.AgentKey != agent.public
	if renew {
		pair, err := nkeys.CreateUser()
		if err != nil {
			return written, fmt.Errorf("make the key of the agent: %w", err)
		}
		if agent, err = keyOf(pair); err != nil {
			return written, err
		}
	}
	if err := i.judge(ctx); err != nil {
		return written, err
	}
	o.say("admitting the agent with key %s", agent.public)
	r, err := cloud.InstallCellWithResponse(ctx, i.Cell, client.CellInstall{AgentKey: agent.public})
	if err != nil {
		return written, err
	}
	if err := i.take(*r.JSON200); err != nil {
		return written, err
	}
	creds, err := jwt.FormatUserConfig(i.AgentJWT, agent.seed)
	if err != nil {
		return written, fmt.Errorf("credentials of the agent: %w", err)
	}
	if same, err := i.holds(ctx, creds); err != nil {
		return written, err
	} else if !same {
		if err := i.write(ctx, i.secret(creds), &written, o); err != nil {
			return written, err
		}
	}
	for _, obj := range i.objects {
		state, err := i.state(ctx, obj)
		if err == nil && state != InPlace {
			err = i.write(ctx, obj, &written, o)
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// holds says whether the Secret has the credentials.
func (i *Installation) holds(ctx context.Context, creds []byte) (bool, error) {
	var s corev1.Secret
	err := i.cluster.Get(ctx, kube.ObjectKey{Namespace: i.Namespace, Name: CredentialsSecret}, &s)
	return err == nil && string(s.Data[CredentialsKey]) == string(creds), kube.IgnoreNotFound(err)
}

// namespace makes the cell's namespace, without which nothing else can be judged.
func (i *Installation) namespace(ctx context.Context, written *[]string, o Options) error {
	for _, obj := range i.objects {
		if obj.GetKind() != "Namespace" {
			continue
		}
		state, err := i.state(ctx, obj)
		if err == nil && state == "missing" {
			err = i.write(ctx, obj, written, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// judge asks the API server whether it would accept what is not in place.
func (i *Installation) judge(ctx context.Context) error {
	var refused []error
	for _, o := range append([]*unstructured.Unstructured{i.secret(nil)}, i.objects...) {
		if o.GetKind() != "Secret" {
			state, err := i.state(ctx, o)
			if err != nil {
				refused = append(refused, err)
				continue
			}
			if state == InPlace {
				continue
			}
		}
		err := i.apply(ctx, o, kube.DryRunAll)
		if o.GetKind() == "RoleBinding" && apierrors.IsNotFound(err) {
			continue // the Role that comes before it is not there yet
		}
		if err != nil {
			refused = append(refused, err)
		}
	}
	if len(refused) == 0 {
		return nil
	}
	return &RefusedError{i.Cell, refused}
}

// RefusedError is what the cluster's API server would not accept of an installation.
type RefusedError struct {
	Cell    string
	Reasons []error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the cluster would not accept the installation, and nothing was deployed:\n%v", errors.Join(e.Reasons...))
}

// Next is what to do.
func (e *RefusedError) Next() string {
	return "have the cluster's administrator give what is missing (kaphera cell permissions " + e.Cell + " writes all of it), and repeat"
}

func (i *Installation) apply(ctx context.Context, o *unstructured.Unstructured, opts ...kube.ApplyOption) error {
	opts = append(opts, kube.FieldOwner(FieldOwner), kube.ForceOwnership)
	if err := i.cluster.Apply(ctx, kube.ApplyConfigurationFromUnstructured(o.DeepCopy()), opts...); err != nil {
		return fmt.Errorf("apply %s: %w", ID(o), err)
	}
	return nil
}

func (i *Installation) write(ctx context.Context, o *unstructured.Unstructured, written *[]string, opts Options) error {
	if err := i.apply(ctx, o); err != nil {
		return err
	}
	opts.say("applied %s", ID(o))
	*written = append(*written, ID(o))
	return nil
}

// ErrInUse says that participants are in the cell.
var ErrInUse = errors.New("participants are in the cell")

// Remove takes the cell down: the agent first, then the connector, which the EDC operator clears away, then that operator and the agent's key; at last
// the cloud is told that no agent will come back. Participants must have been removed before. What an administrator gave stays: the namespace with the
// company's own Secrets, kinds and rights.
func (i *Installation) Remove(ctx context.Context, cloud *client.API, o Options) error {
	var participants edc.ParticipantContextList
	if err := i.cluster.List(ctx, &participants, kube.InNamespace(i.Namespace)); absentKind(err) != nil {
		return fmt.Errorf("list the participants in %s: %w", i.Namespace, err)
	}
	if n := len(participants.Items); n > 0 {
		return fmt.Errorf("%w: %d, the first is %s: remove them before the cell is uninstalled, or the keys of their identities stay behind", ErrInUse, n, participants.Items[0].Name)
	}
	operators := slices.DeleteFunc(slices.Clone(i.objects), given)
	slices.Reverse(operators)
	agent := slices.IndexFunc(operators, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Deployment" })
	if agent < 0 {
		return errors.New("the cloud's answer holds no Deployment; client and cloud may be of different versions")
	}
	if err := i.removeAll(ctx, operators[agent:agent+1], o); err != nil {
		return err
	}
	pods := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	if err := i.gone(ctx, pods, kube.MatchingLabels(podLabels(operators[agent]))); err != nil {
		return err
	}
	connectors := edc.GroupVersion.WithKind("Connector")
	list, err := i.list(ctx, connectors)
	if err != nil {
		return err
	}
	for n := range list {
		if err := i.removeAll(ctx, []*unstructured.Unstructured{&list[n]}, o); err != nil {
			return err
		}
	}
	if err := i.gone(ctx, connectors); err != nil {
		return err
	}
	if err := i.removeAll(ctx, append(operators, i.secret(nil)), o); err != nil {
		return err
	}
	_, err = cloud.UninstallCellWithResponse(ctx, i.Cell)
	return err
}

// podLabels are those by which a Deployment knows its pods.
func podLabels(deployment *unstructured.Unstructured) map[string]string {
	labels, _, _ := unstructured.NestedStringMap(deployment.Object, "spec", "selector", "matchLabels")
	return labels
}

func (i *Installation) removeAll(ctx context.Context, objects []*unstructured.Unstructured, o Options) error {
	for _, obj := range objects {
		err := i.cluster.Delete(ctx, obj, kube.PropagationPolicy(metav1.DeletePropagationBackground))
		if absentKind(kube.IgnoreNotFound(err)) != nil {
			return fmt.Errorf("delete %s: %w", ID(obj), err)
		}
		if err == nil {
			o.say("removed %s", ID(obj))
		}
	}
	return nil
}

func (i *Installation) list(ctx context.Context, kind schema.GroupVersionKind, opts ...kube.ListOption) ([]unstructured.Unstructured, error) {
	var l unstructured.UnstructuredList
	l.SetGroupVersionKind(kind)
	if err := i.cluster.List(ctx, &l, append(opts, kube.InNamespace(i.Namespace))...); absentKind(err) != nil {
		return nil, fmt.Errorf("list %ss in %s: %w", kind.Kind, i.Namespace, err)
	}
	return l.Items, nil
}

// gone waits until there are no such objects any more.
func (i *Installation) gone(ctx context.Context, kind schema.GroupVersionKind, opts ...kube.ListOption) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		left, err := i.list(ctx, kind, opts...)
		if err == nil && len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d %ss are still there in namespace %s: %w", len(left), kind.Kind, i.Namespace, ctx.Err()), err)
		case <-tick.C:
		}
	}
}

// absentKind passes over an API that the cluster does not have.
func absentKind(err error) error {
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil
	}
	return err
}
