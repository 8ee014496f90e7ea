// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/client/install"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/preflight"
	"github.com/kaphera/kaphera/test/apiserver"
)

const companyNamespace = "cell-foundry"

// company is a company's own cluster, and the cloud in which its cell is described.
type company struct {
	*bundle
	config *rest.Config
	kube   ctrl.Client
}

var update = flag.Bool("update", false, "write the list of permissions in docs/on-premise.md anew")

func newCompany(t *testing.T) *company {
	t.Helper()
	env, err := apiserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := edc.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := &company{bundle: setup(t), config: env.Config}
	if c.kube, err = ctrl.New(env.Config, ctrl.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	c.onPremise()
	c.sign("foundry")
	return c
}

// open prepares an installation by the organization's administrator with an account of the cluster.
func (c *company) open(account *rest.Config) *install.Installation {
	c.Helper()
	i, err := install.Open(c.Context(), c.client(brandt), "foundry", account)
	if err != nil {
		c.Fatal(err)
	}
	return i
}

func (c *company) apply(account *rest.Config, o install.Options) []string {
	c.Helper()
	written, err := c.open(account).Apply(c.Context(), c.client(brandt), o)
	if err != nil {
		c.Fatal(err)
	}
	return written
}

func (c *company) get(o ctrl.Object, name string) {
	c.Helper()
	if err := c.kube.Get(c.Context(), ctrl.ObjectKey{Namespace: companyNamespace, Name: name}, o); err != nil {
		c.Fatal(err)
	}
}

// agent is the public key in the Secret, which must be that of the JWT beside it.
func (c *company) agent() string {
	c.Helper()
	var s corev1.Secret
	c.get(&s, install.CredentialsSecret)
	creds := s.Data[install.CredentialsKey]
	token, err := jwt.ParseDecoratedJWT(creds)
	if err != nil {
		c.Fatal(err)
	}
	claims, err := jwt.DecodeUserClaims(token)
	if err != nil {
		c.Fatal(err)
	}
	key, err := nkeys.FromSeed([]byte(c.seed()))
	if err != nil {
		c.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil || public != claims.Subject {
		c.Fatalf("the key is %s (%v), the JWT of %s", public, err, claims.Subject)
	}
	return public
}

// seed is the private key in the Secret.
func (c *company) seed() string {
	c.Helper()
	var s corev1.Secret
	c.get(&s, install.CredentialsSecret)
	key, err := jwt.ParseDecoratedUserNKey(s.Data[install.CredentialsKey])
	if err != nil {
		c.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		c.Fatal(err)
	}
	return string(seed)
}

// different are the objects that are not in place.
func (c *company) different() map[string]string {
	c.Helper()
	state, err := c.open(c.config).State(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	for id, s := range state {
		if s == install.InPlace {
			delete(state, id)
		}
	}
	return state
}

func TestACellIsInstalledInItsCompanysCluster(t *testing.T) {
	c := newCompany(t)
	var said strings.Builder
	o := install.Options{Progress: func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }}
	if n := len(c.different()); n == 0 {
		t.Error("everything is in place before anything was installed")
	}
	written := c.apply(c.config, o)
	first := c.agent()
	if left := c.different(); len(left) > 0 {
		t.Errorf("after the installation: %v", left)
	}
	cell := decodeTo[Cell](t, c.call(operator, "GET", "/cells/foundry", nil))
	if cell.Spec.AgentKey != first || !slices.Contains(written, "Secret "+companyNamespace+"/"+install.CredentialsSecret) {
		t.Errorf("the cloud has key %s, the cluster %s; written: %v", cell.Spec.AgentKey, first, written)
	}
	if strings.Contains(said.String(), c.seed()) {
		t.Errorf("the private key is said: %s", said.String())
	}
	if again := c.apply(c.config, o); len(again) > 0 || c.agent() != first {
		t.Errorf("repeated, it writes %v, key %s", again, c.agent())
	}

	t.Run("what was changed or removed is found and put back", func(t *testing.T) {
		var d appsv1.Deployment
		c.get(&d, "edc-operator")
		d.Spec.Template.Spec.Containers[0].Image = "evil:1"
		role := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: companyNamespace, Name: "edc-operator"}}
		if err := c.kube.Update(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
		if err := c.kube.Delete(t.Context(), role); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"Deployment cell-foundry/edc-operator":     "changed: spec.template.spec.containers[0].image",
			"ServiceAccount cell-foundry/edc-operator": "missing",
		}
		if got := c.different(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("different: %v", got)
		}
		if written := c.apply(c.config, o); len(written) != 2 || len(c.different()) > 0 {
			t.Errorf("written %v, different %v", written, c.different())
		}
	})

	t.Run("a new key takes the place of the former", func(t *testing.T) {
		c.apply(c.config, install.Options{RotateKey: true})
		second := c.agent()
		if second == first || len(c.different()) > 0 {
			t.Errorf("key %s, different %v", second, c.different())
		}
		c.want(http.StatusOK, c.call(brandt, "POST", "/cells/foundry/install", map[string]string{"agentKey": agentKey(t)}))
		if got := c.different()["Secret cell-foundry/cell-agent-nats"]; got != "the key of another agent" {
			t.Errorf("a key that the cloud no longer admits is %q", got)
		}
		c.apply(c.config, o)
		if c.agent() == second || len(c.different()) > 0 {
			t.Error("a key that was replaced is used again")
		}
	})
	t.Run("it waits until the agent is connected", c.waits)
	t.Run("removed, nothing runs and the administrator's part stays", c.removes)
}

func (c *company) waits(t *testing.T) {
	i := c.open(c.config)
	told := make(chan string, 100)
	o := install.Options{Progress: func(format string, args ...any) { told <- fmt.Sprintf(format, args...) }}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- i.Wait(ctx, c.client(brandt), o) }()
	said := func(words string) {
		for text := range told {
			if strings.Contains(text, words) {
				return
			}
		}
	}
	said("edc-operator has 0 of 2 pods available")
	for _, name := range []string{"edc-operator", "kaphera-cell-agent"} {
		var d appsv1.Deployment
		c.get(&d, name)
		n := *d.Spec.Replicas
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: n, UpdatedReplicas: n, ReadyReplicas: n, AvailableReplicas: n}
		if err := c.kube.Status().Update(t.Context(), &d); err != nil {
			t.Fatal(err)
		}
	}
	said("the cloud has not looked")
	c.connected(metav1.ConditionFalse, "the agent has not reported yet")
	said("the agent has not reported yet")
	c.connected(metav1.ConditionTrue, "the agent reports")
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.connected(metav1.ConditionFalse, "not heard from since yesterday")
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := i.Wait(short, c.client(brandt), install.Options{}); err == nil || !strings.Contains(err.Error(), "not connected in time") {
		t.Errorf("a cell that does not connect: %v", err)
	}
}

// connected writes what the cloud operator would have observed; the keys of agents are signed beside it.
func (c *company) connected(status metav1.ConditionStatus, message string) {
	c.Helper()
	for {
		var cell cloudv1.Cell
		if err := kube.Get(c.Context(), ctrl.ObjectKey{Namespace: c.namespace, Name: "foundry"}, &cell); err != nil {
			c.Fatal(err)
		}
		cell.Status.Conditions = []metav1.Condition{{Type: cloudv1.ConditionConnected, Status: status, Reason: "Test", Message: message, LastTransitionTime: metav1.Now()}}
		err := kube.Status().Update(c.Context(), &cell)
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			c.Fatal(err)
		}
	}
}

func (c *company) removes(t *testing.T) {
	i, o := c.open(c.config), install.Options{}
	meta := metav1.ObjectMeta{Namespace: companyNamespace, Name: "cars"}
	participant := &edc.ParticipantContext{ObjectMeta: meta, Spec: edc.ParticipantContextSpec{ConnectorRef: corev1.LocalObjectReference{Name: "connector"}, Context: "cars", Profile: "auto"}}
	if err := c.kube.Create(t.Context(), participant); err != nil {
		t.Fatal(err)
	}
	if err := i.Remove(t.Context(), c.client(brandt), o); err == nil || !strings.Contains(err.Error(), "cars") {
		t.Errorf("with a participant: %v", err)
	}
	if left := c.different(); len(left) > 0 {
		t.Errorf("refused, it removed %v", left)
	}
	if err := c.kube.Delete(t.Context(), participant); err != nil {
		t.Fatal(err)
	}
	own := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: companyNamespace, Name: "dataspace-owner"}}
	if err := c.kube.Create(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	if err := i.Remove(t.Context(), c.client(brandt), o); err != nil {
		t.Fatal(err)
	}
	c.get(&corev1.Secret{}, "dataspace-owner")
	for id, state := range c.different() {
		kind, _, _ := strings.Cut(id, " ")
		if state != "missing" || slices.Contains([]string{"Namespace", "CustomResourceDefinition", "Role", "RoleBinding"}, kind) {
			t.Errorf("%s: %s", id, state)
		}
	}
	if n := len(c.different()); n < 8 {
		t.Errorf("only %d objects were removed", n)
	}
	if cell := decodeTo[Cell](t, c.call(operator, "GET", "/cells/foundry", nil)); cell.Spec.AgentKey != "" {
		t.Error("the cloud still admits an agent")
	}
	if err := i.Remove(t.Context(), c.client(brandt), o); err != nil {
		t.Errorf("repeated: %v", err)
	}
}

// as is the cluster for a service account of the cell's namespace.
func (c *company) as(name string) *rest.Config {
	cfg := rest.CopyConfig(c.config)
	cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + companyNamespace + ":" + name, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + companyNamespace, "system:authenticated"},
	}
	return cfg
}

// administrator applies what a cluster's administrator gives.
func (c *company) administrator() {
	c.Helper()
	objects, err := c.open(nil).AdministratorsPart()
	if err != nil {
		c.Fatal(err)
	}
	for _, o := range objects {
		if err := c.kube.Apply(c.Context(), ctrl.ApplyConfigurationFromUnstructured(o.DeepCopy()), ctrl.FieldOwner("admin"), ctrl.ForceOwnership); err != nil {
			c.Fatal(err)
		}
	}
}

// decides waits until the authorizer, which hears of a change of rights a little later, allows or denies.
func (c *company) decides(allowed bool, p install.Permission, verb string) {
	c.Helper()
	name := ""
	if len(p.Names) > 0 {
		name = p.Names[0]
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: c.as(install.Account).Impersonate.UserName, Groups: c.as(install.Account).Impersonate.Groups,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: p.Group, Resource: p.Resource, Namespace: p.Namespace, Name: name},
		}}
		if err := c.kube.Create(c.Context(), r); err != nil {
			c.Fatal(err)
		}
		if r.Status.Allowed == allowed {
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s %s %s %q: allowed %v", verb, p.Resource, p.Namespace, name, r.Status.Allowed)
		}
		<-tick.C
	}
}

// without takes a verb from the rule of a permission, and returns what gives it back.
func (c *company) without(p install.Permission, verb string) (restore func()) {
	c.Helper()
	kind, name := "Role", install.Account
	if p.Namespace != companyNamespace {
		name += "-" + companyNamespace
	}
	if p.Namespace == "" {
		kind = "ClusterRole"
	}
	role := &unstructured.Unstructured{}
	role.SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind(kind))
	if err := c.kube.Get(c.Context(), ctrl.ObjectKey{Namespace: p.Namespace, Name: name}, role); err != nil {
		c.Fatal(err)
	}
	var typed rbacv1.ClusterRole // a Role has the same fields
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(role.Object, &typed); err != nil {
		c.Fatal(err)
	}
	for n, rule := range typed.Rules {
		if rule.APIGroups[0] == p.Group && rule.Resources[0] == p.Resource && slices.Equal(rule.Verbs, p.Verbs) {
			typed.Rules[n].Verbs = slices.DeleteFunc(slices.Clone(rule.Verbs), func(v string) bool { return v == verb })
			if len(typed.Rules[n].Verbs) == 0 {
				typed.Rules = slices.Delete(typed.Rules, n, n+1)
			}
			break
		}
	}
	changed, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&typed)
	if err != nil {
		c.Fatal(err)
	}
	role.Object["rules"] = changed["rules"]
	if err := c.kube.Update(c.Context(), role); err != nil {
		c.Fatal(err)
	}
	c.decides(false, p, verb)
	return func() {
		c.administrator()
		c.decides(true, p, verb)
		c.apply(c.config, install.Options{})
	}
}

// Each right that the installer's account has is needed, and what fails without it says which; nothing opens a Secret elsewhere.
func TestAnInstallationNeedsEachOfItsRights(t *testing.T) {
	c := newCompany(t)
	c.administrator()
	account := c.as(install.Account)
	c.apply(account, install.Options{})
	if left := c.different(); len(left) > 0 {
		t.Fatalf("installed with the rights given: %v", left)
	}
	if is := c.checkRights(account); is.Result != preflight.Passed || !strings.Contains(is.Detail, "all rights to install cell foundry") {
		t.Errorf("with the rights given: %+v", is)
	}
	for _, p := range c.open(nil).Permissions() {
		for _, verb := range p.Verbs {
			t.Run(verb+" "+p.Resource+" in "+p.Namespace, func(t *testing.T) {
				t.Cleanup(c.without(p, verb))
				err := c.tryWithout(p, verb)
				if err == nil || !strings.Contains(err.Error(), verb+" resource \""+p.Resource+"\"") || p.Namespace != "" && p.Resource != "namespaces" && !strings.Contains(err.Error(), "namespace \""+p.Namespace+"\"") {
					t.Errorf("without the right: %v", err)
				}
				if is := c.checkRights(account); is.Result != preflight.Failed || !strings.Contains(is.Detail, "it may not: "+verb+" "+p.Resource) {
					t.Errorf("checked without the right: %+v", is)
				}
			})
		}
	}
	t.Run("no Secret elsewhere is readable", func(t *testing.T) {
		const other = "another"
		if err := c.kube.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: other}}); err != nil {
			t.Fatal(err)
		}
		for _, ns := range []string{other, metav1.NamespaceDefault} {
			if err := c.kube.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: install.CredentialsSecret}}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{install.Account, "edc-operator", "kaphera-cell-agent"} {
			as, err := ctrl.New(c.as(name), ctrl.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, ns := range []string{other, metav1.NamespaceDefault} {
				if err := as.Get(t.Context(), ctrl.ObjectKey{Namespace: ns, Name: install.CredentialsSecret}, &corev1.Secret{}); !apierrors.IsForbidden(err) {
					t.Errorf("%s reads a Secret in %s: %v", name, ns, err)
				}
			}
			for _, ns := range []string{"", other, metav1.NamespaceDefault, companyNamespace} {
				if err := as.List(t.Context(), &corev1.SecretList{}, ctrl.InNamespace(ns)); !apierrors.IsForbidden(err) {
					t.Errorf("%s lists the Secrets of %q: %v", name, ns, err)
				}
			}
		}
	})
}

// checkRights is what the preflight says of an account's rights.
func (c *company) checkRights(account *rest.Config) preflight.Check {
	c.Helper()
	report, err := c.open(account).Check(c.Context(), c.client(brandt), install.CheckOptions{})
	if err != nil {
		c.Fatal(err)
	}
	at := slices.IndexFunc(report.Checks, func(is preflight.Check) bool { return is.Name == "kubernetes-permissions" })
	if at < 0 {
		c.Fatalf("the rights are not checked: %+v", report)
	}
	return report.Checks[at]
}

// tryWithout does what needs the verb, with the installer's account.
func (c *company) tryWithout(p install.Permission, verb string) error {
	c.Helper()
	i, ctx := c.open(c.as(install.Account)), c.Context()
	object := &unstructured.Unstructured{}
	kinds := map[string]string{"secrets": "Secret", "serviceaccounts": "ServiceAccount", "configmaps": "ConfigMap", "deployments": "Deployment", "poddisruptionbudgets": "PodDisruptionBudget", "networkpolicies": "NetworkPolicy"}
	for _, o := range i.Objects() {
		if o.GetKind() == kinds[p.Resource] {
			object = o.DeepCopy()
		}
	}
	if p.Resource == "secrets" {
		object.SetAPIVersion("v1")
		object.SetKind("Secret")
		object.SetNamespace(companyNamespace)
		object.SetName(install.CredentialsSecret)
	}
	switch {
	case verb == "get":
		_, err := i.State(ctx)
		return err
	case p.Resource == "pods":
		waiting, cancel := context.WithCancel(ctx)
		defer cancel()
		var said error
		err := i.Wait(waiting, c.client(brandt), install.Options{Progress: func(format string, args ...any) {
			said = fmt.Errorf(format, args...)
			cancel()
		}})
		if !errors.Is(err, context.Canceled) {
			return err
		}
		return said
	case verb == "list":
		return i.Remove(ctx, c.client(brandt), install.Options{})
	case p.Resource == "connectors":
		connector := &unstructured.Unstructured{Object: map[string]any{"apiVersion": edc.GroupVersion.String(), "kind": "Connector",
			"metadata": map[string]any{"name": "connector", "namespace": companyNamespace}, "spec": map[string]any{
				"exposure": map[string]any{"hostname": "h.example"}, "database": map[string]any{"host": "h", "name": "d", "ownerSecret": map[string]any{"name": "s"}},
				"vault": map[string]any{"address": "https://v", "prefix": "p", "auth": map[string]any{"method": "Kubernetes"}}}}}
		if err := c.kube.Create(ctx, connector); err != nil {
			c.Fatal(err)
		}
		return errors.Join(i.Remove(ctx, c.client(brandt), install.Options{}), c.kube.Delete(ctx, connector))
	case verb == "delete":
		return i.Remove(ctx, c.client(brandt), install.Options{})
	case verb == "create":
		if err := c.kube.Delete(ctx, object); err != nil {
			c.Fatal(err)
		}
	default: // patch
		if err := c.kube.Get(ctx, ctrl.ObjectKeyFromObject(object), object); err != nil {
			c.Fatal(err)
		}
		labels := object.GetLabels()
		delete(labels, "app.kubernetes.io/part-of")
		object.SetLabels(labels)
		if err := c.kube.Update(ctx, object); err != nil {
			c.Fatal(err)
		}
	}
	_, err := i.Apply(ctx, c.client(brandt), install.Options{})
	return err
}

// The lists in docs/on-premise.md are those by which rights are given.
func TestPermissionsAreDocumented(t *testing.T) {
	b := setup(t)
	b.onPremise()
	i, err := install.Open(t.Context(), b.client(brandt), "foundry", nil)
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	list.WriteString("| Where | Resource | Names | Verbs | Why |\n|---|---|---|---|---|\n")
	for _, p := range i.Permissions() {
		list.WriteString(row(p.Namespace, []string{p.Group}, []string{p.Resource}, p.Names, p.Verbs) + p.Why + " |\n")
	}
	documented(t, "permissions", func(string) string { return list.String() })
	documented(t, "operators' rights", func(is string) string { return operatorsRights(t, i, is) })
}

// row of a table of rights, up to the reason.
func row(namespace string, groups, resources, names, verbs []string) string {
	list := func(names []string) string { return "`" + strings.Join(names, "`, `") + "`" }
	where, which := list([]string{namespace}), "all"
	if namespace == "" {
		where = "the cluster"
	}
	if len(names) > 0 {
		which = list(names)
	}
	var kinds []string
	for _, group := range groups {
		for _, resource := range resources {
			kinds = append(kinds, strings.TrimSuffix(resource+"."+group, "."))
		}
	}
	return strings.ReplaceAll(fmt.Sprintf("| %s | %s | %s | %s | ", where, list(kinds), which, strings.Join(verbs, ", ")), companyNamespace, "cell-CELL")
}

// operatorsRights are those that the administrator gives to the operators' accounts. The reasons are those that stand in the list as it is.
func operatorsRights(t *testing.T, i *install.Installation, is string) string {
	t.Helper()
	roles, accounts := map[string]rbacv1.Role{}, map[string][]rbacv1.RoleBinding{}
	for _, o := range i.Objects() {
		into := func(v any) {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, v); err != nil {
				t.Fatal(err)
			}
		}
		switch o.GetKind() {
		case "Role":
			var r rbacv1.Role
			into(&r)
			roles[r.Namespace+"/"+r.Name] = r
		case "RoleBinding":
			var b rbacv1.RoleBinding
			into(&b)
			accounts[b.Subjects[0].Name] = append(accounts[b.Subjects[0].Name], b)
		}
	}
	var out strings.Builder
	out.WriteString("| Account | Where | Resource | Names | Verbs | Why |\n|---|---|---|---|---|---|\n")
	for _, account := range slices.Sorted(maps.Keys(accounts)) {
		for _, b := range accounts[account] {
			for _, rule := range roles[b.Namespace+"/"+b.RoleRef.Name].Rules {
				r := "| `" + account + "` " + row(b.Namespace, rule.APIGroups, rule.Resources, rule.ResourceNames, rule.Verbs)
				_, why, _ := strings.Cut(is, r)
				why, _, _ = strings.Cut(why, " |\n")
				if why == "" {
					t.Errorf("docs/on-premise.md does not say why: %s", r)
				}
				out.WriteString(r + why + " |\n")
			}
		}
	}
	return out.String()
}

// documented compares a list in docs/on-premise.md with what it should be, or writes it.
func documented(t *testing.T, name string, want func(is string) string) {
	t.Helper()
	const file = "../../docs/on-premise.md"
	begin, end := "<!-- "+name+": go test ./cloud/api -run PermissionsAreDocumented -update -->\n", "<!-- end of "+name+" -->"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), begin)
	is, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the list of %s", file, name)
	}
	should := want(is)
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+should+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if is != should {
		t.Errorf("%s lists other %s than are given: go test ./cloud/api -run PermissionsAreDocumented -update", file, name)
	}
}
