// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/edcoperator"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/test/apiserver"
)

func onPremiseCell(name, organization string) *cloud.Cell {
	secret := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	return &cloud.Cell{ObjectMeta: named(name), Spec: cloud.CellSpec{
		Type: cloud.OnPremise, Organization: organization, Hostname: name + ".oem.example", OperatingParty: "OEM",
		Database: &edc.Database{Host: "postgresql.oem.example", Name: "dataspace", CABundle: "of the OEM", OwnerSecret: secret("dataspace-owner")},
		Vault: &edc.Vault{Address: "https://vault.oem.example:8200", Mount: "industrial/kv", Prefix: "dataspace", Auth: edc.VaultAuth{
			Method: edc.VaultMethodAppRole, MountPath: "oem-approle", AppRoleSecrets: &edc.RoleSecrets{ControlPlane: "cp", Wallet: "w", DataPlane: "dp"},
		}},
		Ingress: &cloud.CellIngress{ClassName: "oem", TLSSecretName: "oem-tls"},
	}}
}

// company is a company's own cluster: an API server of which the cloud knows nothing.
type company struct {
	admin client.Client
	to    *rest.Config
	cell  string
}

// startCompany starts the cluster and applies there what a company gets for the cell, and nothing else.
func startCompany(t *testing.T, cell string) *company {
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
	c := &company{to: env.Config, cell: cell}
	if c.admin, err = client.New(env.Config, client.Options{Scheme: admin.Scheme()}); err != nil {
		t.Fatal(err)
	}
	objects, err := manifest.Cell(cell).Bundle(manifest.Agent{Image: "agent:1", NATSURL: "tls://nats.example", CA: []byte("ca")}, "edc-operator:1", "connector:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := kube.Apply(t.Context(), c.admin, nil, o); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func(ctx context.Context) error {
		return errors.Join(c.admin.List(ctx, &edc.ConnectorList{}), c.admin.List(ctx, &edc.CredentialIssuerList{}), c.admin.List(ctx, &edc.ParticipantContextList{}))
	})
	return c
}

func (c *company) account(name string) string {
	return "system:serviceaccount:" + snapshot.Namespace(c.cell) + ":" + name
}

// runAgent runs the agent with the rights of its service account in the company's cluster.
func (c *company) runAgent(t *testing.T, creds []byte) (stop func()) {
	t.Helper()
	var ca corev1.ConfigMap
	if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.ConfigCA}, &ca); err != nil {
		t.Fatal(err)
	}
	return runAgent(t, accountOf(c.to, c.account(parts.Agent)), c.cell, "tls://"+node.addresses()[parts.NATS], mountedFile(t, creds), mountedFile(t, []byte(ca.Data["ca.crt"])))
}

func (c *company) get(ctx context.Context, o client.Object, name string) error {
	return c.admin.Get(ctx, types.NamespacedName{Namespace: snapshot.Namespace(c.cell), Name: name}, o)
}

// may asks the authorizer of the company's cluster.
func (c *company) may(t *testing.T, account, verb, group, resource, namespace, name string) bool {
	t.Helper()
	r := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: c.account(account), Groups: []string{"system:serviceaccounts", "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: namespace, Name: name},
	}}
	if err := c.admin.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return r.Status.Allowed
}

// admitAgent makes a key as the company does, has it admitted and returns the credentials that the agent gets.
func admitAgent(t *testing.T, cell *cloud.Cell) []byte {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	change(t, cell, func() { cell.Spec.AgentKey = pub })
	var creds []byte
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(cell), cell); err != nil {
			return err
		}
		if c, err := jwt.DecodeUserClaims(cell.Status.AgentJWT); err != nil || c.Subject != pub {
			return fmt.Errorf("the key is not signed: %w", err)
		}
		creds, err = jwt.FormatUserConfig(cell.Status.AgentJWT, seed)
		return err
	})
	return creds
}

// logIn connects as an agent does and says why it may not.
func logIn(t *testing.T, creds []byte) (*nats.Conn, error) {
	t.Helper()
	var ca corev1.ConfigMap
	if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: parts.ConfigCA}, &ca); err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := pki.ClientTLS([]byte(ca.Data["ca.crt"]), "")
	if err != nil {
		t.Fatal(err)
	}
	return cellrpc.Connect("tls://"+node.addresses()[parts.NATS], "test", tlsConfig, func() ([]byte, error) { return creds, nil }, nats.NoReconnect())
}

// onPremise follows a cell in a company's cluster from its description to its end, cut off in between.
func onPremise(t *testing.T) {
	const name = "oem"
	ns := snapshot.Namespace(name)
	organization := &cloud.Organization{ObjectMeta: named(name), Spec: cloud.OrganizationSpec{DisplayName: "OEM", ContactEmail: "data@oem.example"}}
	cell := onPremiseCell(name, name)
	own := &cloud.Participant{ObjectMeta: named(name), Spec: cloud.ParticipantSpec{
		Organization: name, Identity: cloud.Identity{Context: "cars", BusinessPartnerNumber: "BPNL000000000004"}, Cell: name, Profile: "auto",
	}}
	for _, o := range []client.Object{organization, cell, own} {
		create(t, o)
	}
	eventually(t, func(ctx context.Context) error {
		err := condition(ctx, cell, cloud.ConditionConnected, metav1.ConditionFalse, cloud.ReasonNever)
		if err == nil && (cell.Status.Revision == 0 || !strings.Contains(message(cell, cloud.ConditionReady), "$.spec.agentKey")) {
			err = fmt.Errorf("revision %d, %s", cell.Status.Revision, message(cell, cloud.ConditionReady))
		}
		return err
	})
	oem := startCompany(t, name)
	oem.operatorStarts(t)
	creds := admitAgent(t, cell)
	stop := oem.runAgent(t, creds)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionApplied, metav1.ConditionTrue, "")
	})

	var connector edc.Connector
	eventually(t, func(ctx context.Context) error {
		return errors.Join(oem.get(ctx, &connector, snapshot.ConnectorName), oem.get(ctx, &edc.ParticipantContext{}, "cars"))
	})
	if s := connector.Spec; s.Database.Host != "postgresql.oem.example" || s.Vault.Mount != "industrial/kv" || s.Exposure.IngressClassName != "oem" || s.Exposure.Hostname != "oem.oem.example" {
		t.Errorf("the connector is %+v", s)
	}
	if err := absent(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}); err != nil {
		t.Errorf("in the cloud's cluster: %v", err)
	}
	if made := databases(t); slices.ContainsFunc(made, func(d string) bool { return strings.HasPrefix(d, "cell_"+name) }) {
		t.Errorf("in the cloud's PostgreSQL: %v", made)
	}
	eventually(t, func(ctx context.Context) error {
		if err := oem.get(ctx, &connector, snapshot.ConnectorName); err != nil {
			return err
		}
		connector.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Ready", Message: "ok", LastTransitionTime: metav1.Now()}}
		return oem.admin.Status().Update(ctx, &connector)
	})
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionReady, metav1.ConditionTrue, "")
	})
	t.Run("rights in the company's cluster end at the cell's namespace", oem.rights)

	t.Run("a key that was replaced opens nothing", func(t *testing.T) {
		former := creds
		creds = admitAgent(t, cell)
		eventually(t, func(context.Context) error {
			nc, err := logIn(t, former)
			if err == nil {
				nc.Close()
				return errors.New("the former key still logs in")
			}
			if !errors.Is(err, nats.ErrAuthorization) {
				return err
			}
			return nil
		})
		stop()
		stop = oem.runAgent(t, creds)
		change(t, own, func() { own.Spec.SelfCheck = "Off" })
		eventually(t, func(ctx context.Context) error {
			var pc edc.ParticipantContext
			err := oem.get(ctx, &pc, "cars")
			if err == nil && pc.Spec.SelfCheck != "Off" {
				err = errors.New("the change has not come")
			}
			return err
		})
	})

	lost := onPremiseCell("lost", name)
	left := &cloud.Participant{ObjectMeta: named("left"), Spec: cloud.ParticipantSpec{
		Organization: name, Identity: cloud.Identity{Context: "left", BusinessPartnerNumber: "BPNL000000000005"}, Cell: "lost", Profile: "auto",
	}}
	uninstalled, stayed := onPremiseCell("former", name), left.DeepCopy()
	stayed.Name, stayed.Spec.Cell, stayed.Spec.Identity = "stayed", "former", cloud.Identity{Context: "stayed", BusinessPartnerNumber: "BPNL000000000006"}
	create(t, left)
	create(t, stayed)
	for _, c := range []*cloud.Cell{lost, uninstalled} {
		create(t, c)
		nc, err := logIn(t, admitAgent(t, c))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		eventually(t, func(ctx context.Context) error { // the account's streams may not be there yet
			return celllink.SendReport(ctx, nc, celllink.Report{Cell: c.Name, At: time.Now()})
		})
		eventually(t, func(ctx context.Context) error {
			err := admin.Get(ctx, client.ObjectKeyFromObject(c), c)
			if err == nil && c.Status.LastHeard == nil {
				err = errors.New("the report is not heard")
			}
			return err
		})
	}
	stop()
	for _, o := range []client.Object{own, left, stayed, organization, cell, lost, uninstalled} {
		if err := admin.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	clock.forward(celllink.SilentAfter)
	for _, o := range []*cloud.Cell{cell, lost, uninstalled} {
		eventually(t, func(ctx context.Context) error {
			return condition(ctx, o, cloud.ConditionConnected, metav1.ConditionFalse, cloud.ReasonSilent)
		})
	}
	t.Run("what runs in a cluster that is cut off is not forgotten", func(t *testing.T) {
		eventually(t, func(ctx context.Context) error {
			if err := condition(ctx, left, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonDeleting); err != nil {
				return err
			}
			for _, c := range left.Status.Conditions {
				if c.Type == cloud.ConditionReady && !strings.Contains(c.Message, cloud.AbandonAnnotation) {
					return fmt.Errorf("the participant does not say what to do: %s", c.Message)
				}
			}
			return condition(ctx, lost, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonInUse)
		})
		if err := errors.Join(oem.get(t.Context(), &edc.Connector{}, snapshot.ConnectorName), oem.get(t.Context(), &edc.ParticipantContext{}, "cars")); err != nil {
			t.Errorf("a cell that is cut off does not go on: %v", err)
		}
		change(t, lost, func() { lost.Annotations = map[string]string{cloud.AbandonAnnotation: "true"} })
		for _, o := range []client.Object{left, lost} {
			eventually(t, func(ctx context.Context) error { return absent(ctx, o) })
		}
	})
	oem.runAgent(t, creds)
	t.Run("a cell that was uninstalled waits for nobody", func(t *testing.T) {
		change(t, uninstalled, func() { uninstalled.Spec.AgentKey = "" })
		for _, o := range []client.Object{stayed, uninstalled} {
			eventually(t, func(ctx context.Context) error { return absent(ctx, o) })
		}
	})
	for _, o := range []client.Object{own, cell, organization} {
		eventually(t, func(ctx context.Context) error { return absent(ctx, o) })
	}
	var connectors edc.ConnectorList
	var contexts edc.ParticipantContextList
	if err := errors.Join(oem.admin.List(t.Context(), &connectors), oem.admin.List(t.Context(), &contexts)); err != nil {
		t.Fatal(err)
	}
	if n := len(connectors.Items) + len(contexts.Items); n > 0 {
		t.Errorf("%d objects are left in the company's cluster", n)
	}
	if _, err := logIn(t, creds); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("the agent of a cell that is gone logs in: %v", err)
	}
}

// rights asks what both operators may do: their own work in the cell's namespace, and nothing elsewhere.
func (c *company) rights(t *testing.T) {
	ns := snapshot.Namespace(c.cell)
	const operator = "edc-operator"
	for _, w := range []struct {
		account, verb, group, resource, name string
		may                                  bool
	}{
		{parts.Agent, "get", "", "secrets", "connector-internal", true},
		{parts.Agent, "get", "", "secrets", manifest.AgentCredentials, false},
		{parts.Agent, "get", "", "secrets", "dataspace-owner", false},
		{parts.Agent, "list", "", "secrets", "", false},
		{parts.Agent, "patch", "edc.kaphera.io", "connectors", "", true},
		{parts.Agent, "list", "", "pods", "", false},
		{operator, "get", "", "secrets", "dataspace-owner", true},
		{operator, "list", "", "secrets", "", false},
		{operator, "create", "apps", "deployments", "", true},
	} {
		if got := c.may(t, w.account, w.verb, w.group, w.resource, ns, w.name); got != w.may {
			t.Errorf("%s may %s %s %q: %v", w.account, w.verb, w.resource, w.name, got)
		}
	}
	for _, account := range []string{parts.Agent, operator} {
		for _, namespace := range []string{"", "default", "kube-system"} {
			for group, resources := range map[string]string{
				"": "secrets configmaps pods services serviceaccounts namespaces nodes events", "apps": "deployments", "batch": "jobs", "networking.k8s.io": "ingresses networkpolicies",
				"rbac.authorization.k8s.io": "roles rolebindings clusterroles clusterrolebindings", "edc.kaphera.io": "connectors participantcontexts", "apiextensions.k8s.io": "customresourcedefinitions",
			} {
				for _, resource := range strings.Fields(resources) {
					for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete"} {
						if c.may(t, account, verb, group, resource, namespace, "") {
							t.Errorf("%s may %s %s in namespace %q", account, verb, resource, namespace)
						}
					}
				}
			}
		}
	}
	if !c.may(t, operator, "get", "discovery.k8s.io", "endpointslices", "default", "kubernetes") {
		t.Error("the EDC operator cannot find the Kubernetes API")
	}
}

// operatorStarts: the EDC operator takes its lease and fills its caches with the rights that the bundle gives it.
func (c *company) operatorStarts(t *testing.T) {
	t.Helper()
	ns := snapshot.Namespace(c.cell)
	m, err := edcoperator.NewManager(t.Context(), accountOf(c.to, c.account("edc-operator")), edcoperator.Options{
		ConnectorImage: "connector:1", Namespaces: []string{ns}, Namespace: ns, LeaderElection: true, LeaderElectionNamespace: ns,
		MetricsAddress: "0", HealthAddress: "0", SkipNameValidation: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Start(ctx) }()
	eventually(t, func(ctx context.Context) error {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the operator ended: %v", err)
		case <-m.Elected():
		case <-ctx.Done():
			return errors.New("the operator has no lease")
		}
		if !m.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the operator's caches do not fill")
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
