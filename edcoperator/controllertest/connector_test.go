// SPDX-License-Identifier: Apache-2.0

package controllertest

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/google/go-cmp/cmp"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/connector"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/controller/participantcontext"
	"github.com/kaphera/kaphera/edcoperator/controller/stage"
)

func TestConnectorRunsItsRolesApart(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	for _, role := range []string{"control-plane", "wallet", "data-plane"} {
		var d appsv1.Deployment
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "shared-" + role}, &d))
		pod := d.Spec.Template.Spec
		if pod.ServiceAccountName != d.Name || ptr.Deref(pod.AutomountServiceAccountToken, true) {
			t.Errorf("%s: service account %s, automount %v", role, pod.ServiceAccountName, pod.AutomountServiceAccountToken)
		}
		main := pod.Containers[0]
		if main.Image != connectorImage || main.Args[1] != "--roles="+role {
			t.Errorf("%s: image %s, args %v", role, main.Image, main.Args)
		}
		sc := main.SecurityContext
		if !ptr.Deref(sc.ReadOnlyRootFilesystem, false) || ptr.Deref(sc.AllowPrivilegeEscalation, true) || !ptr.Deref(sc.RunAsNonRoot, false) ||
			sc.Capabilities.Drop[0] != "ALL" || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s: security context %+v", role, sc)
		}
		if main.Resources.Limits.Memory().IsZero() || main.ReadinessProbe.HTTPGet.Path != "/readyz" || main.LivenessProbe.HTTPGet.Path != "/livez" {
			t.Errorf("%s: resources %v, probes %v %v", role, main.Resources, main.ReadinessProbe, main.LivenessProbe)
		}
		var s corev1.Service
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "shared-" + role}, &s))
		if s.Spec.Ports[0].Port != 80 || s.Spec.Ports[1].Port != 8081 {
			t.Errorf("%s: ports %v", role, s.Spec.Ports)
		}
	}
	if conn.Status.PublicURL != "https://"+c.hostname || conn.Status.InternalSecret != "shared-internal" ||
		conn.Status.InternalURL != "http://shared-control-plane."+c.namespace+".svc:8081" || conn.Status.ObservedGeneration != conn.Generation {
		t.Errorf("status %+v", conn.Status)
	}
}

// An update takes no Pod away before its successor is ready, a Pod that ends serves until nobody is sent to it any more, and a node that is
// drained takes one Pod of each role.
func TestRolesAreReplacedOneByOne(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.connector()
	conn.Spec.Replicas = ptr.To[int32](2)
	create(t, conn)
	c.play()
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	for _, role := range []string{"control-plane", "wallet", "data-plane"} {
		key := client.ObjectKey{Namespace: c.namespace, Name: "shared-" + role}
		var d appsv1.Deployment
		must(t, admin.Get(t.Context(), key, &d))
		update, pod := d.Spec.Strategy.RollingUpdate, d.Spec.Template.Spec
		if *d.Spec.Replicas != 2 || update.MaxUnavailable.IntValue() != 0 || update.MaxSurge.IntValue() != 1 {
			t.Errorf("%s: %d replicas, update %+v", role, *d.Spec.Replicas, update)
		}
		sleep := pod.Containers[0].Lifecycle.PreStop.Sleep
		if sleep == nil || sleep.Seconds <= 0 || *pod.TerminationGracePeriodSeconds <= sleep.Seconds+int64(config.ShutdownGrace.Seconds()) {
			t.Errorf("%s: sleeps %v of %d s, of which the runtime takes up to %s", role, sleep, *pod.TerminationGracePeriodSeconds, config.ShutdownGrace)
		}
		var over []string
		for _, s := range pod.TopologySpreadConstraints {
			if over = append(over, s.TopologyKey); !maps.Equal(s.LabelSelector.MatchLabels, d.Spec.Selector.MatchLabels) || s.WhenUnsatisfiable != corev1.ScheduleAnyway {
				t.Errorf("%s: spread %+v", role, s)
			}
		}
		if !slices.Equal(over, []string{corev1.LabelTopologyZone, corev1.LabelHostname}) {
			t.Errorf("%s: spread over %v", role, over)
		}
		var budget policyv1.PodDisruptionBudget
		must(t, admin.Get(t.Context(), key, &budget))
		if !maps.Equal(budget.Spec.Selector.MatchLabels, d.Spec.Selector.MatchLabels) || budget.Spec.MaxUnavailable.IntValue() != 1 || *budget.Spec.UnhealthyPodEvictionPolicy != policyv1.AlwaysAllow {
			t.Errorf("%s: disruption budget %+v", role, budget.Spec)
		}
	}
}

// The runtime reads what the operator writes: parsed by its own package, which refuses unknown keys.
func TestConfigurationIsOneTheRuntimeReads(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.secret("db-wallet", map[string]string{"username": "wallet_user", "password": "hush-wallet"})
	conn := c.connector()
	conn.Spec.Database.RoleSecrets.Wallet = "db-wallet"
	create(t, conn)
	var cm corev1.ConfigMap
	eventually(t, func(ctx context.Context) error {
		return admin.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: "shared-config"}, &cm)
	})
	users := map[string]string{"control-plane": "owner", "wallet": "wallet_user", "data-plane": "owner", "migrate": "owner", "backup": "owner", "restore": "owner"}
	for role, user := range users {
		cfg, err := config.Parse([]byte(cm.Data[role+".yaml"]))
		if err != nil {
			t.Errorf("%s: %v", role, err)
		}
		if cfg.Database.User != user || cfg.PublicURL != "https://"+c.hostname {
			t.Errorf("%s: connects as %q, public at %q", role, cfg.Database.User, cfg.PublicURL)
		}
		switch vault := cfg.Vault; role {
		case "migrate":
			if diff := cmp.Diff(config.Roles{Wallet: "wallet_user"}, cfg.Database.Roles); diff != "" {
				t.Errorf("grants: %s", diff)
			}
		case "backup", "restore":
			if vault.Auth.Role != "shared-"+role || vault.Auth.Method != "kubernetes" || vault.Prefix != conn.Spec.Vault.Prefix || cfg.Internal != (config.Internal{}) {
				t.Errorf("%s: vault %+v, internal %+v", role, vault, cfg.Internal)
			}
		default:
			if vault.Auth.Role != "shared-"+role || vault.Auth.Method != "kubernetes" || cfg.Internal.WalletURL != "http://shared-wallet."+c.namespace+".svc:8081" {
				t.Errorf("%s: vault %+v, internal %+v", role, vault, cfg.Internal)
			}
		}
	}
	tokens := map[string]bool{c.internalToken("shared-internal"): true, c.internalToken("shared-wallet-internal"): true, c.internalToken("shared-data-plane-internal"): true}
	if len(tokens) != 3 || tokens[""] {
		t.Error("the roles do not have a token each")
	}
	for key, text := range cm.Data {
		if strings.Contains(text, "hush-") || slices.ContainsFunc(slices.Collect(maps.Keys(tokens)), func(token string) bool { return strings.Contains(text, token) }) {
			t.Errorf("%s holds a secret:\n%s", key, text)
		}
	}
}

func TestSecondReconcileChangesNothing(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	p := c.participant("supplier", "brandt-guss")
	create(t, p)
	c.publish("brandt-guss", c.did("brandt-guss"))
	c.await(p, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	stages := &stage.Runner{Client: manager.GetClient(), Reader: manager.GetAPIReader(), Dial: net1.dial, Now: time.Now}
	settler := outcome.Settler{Client: manager.GetClient(), Recorder: manager.GetEventRecorder("test")}
	connectors, participants := connector.New(stages, settler, connectorImage), participantcontext.New(stages, settler)
	// The operator itself may still be at it, and the cache behind; one that writes each time never comes to an end.
	eventually(t, func(ctx context.Context) error {
		before := c.versions()
		if len(before) != 24 {
			return fmt.Errorf("%d objects: %v", len(before), before)
		}
		for range 2 {
			if _, err := connectors.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(conn)}); err != nil {
				return err
			}
			if _, err := participants.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(p)}); err != nil {
				return err
			}
		}
		if diff := cmp.Diff(before, c.versions()); diff != "" {
			return fmt.Errorf("a reconcile of what is there already wrote: %s", diff)
		}
		return nil
	})
}

// versions are the resource versions of everything in the namespace that the operator may write.
func (c *cell) versions() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for _, l := range []client.ObjectList{
		&v1alpha1.ConnectorList{}, &v1alpha1.ParticipantContextList{}, &appsv1.DeploymentList{}, &batchv1.JobList{}, &corev1.ServiceList{}, &corev1.ConfigMapList{},
		&corev1.ServiceAccountList{}, &networkingv1.IngressList{}, &corev1.SecretList{}, &policyv1.PodDisruptionBudgetList{},
	} {
		must(c.t, admin.List(c.t.Context(), l, client.InNamespace(c.namespace)))
		must(c.t, eachItem(l, func(o client.Object) {
			out[fmt.Sprintf("%T %s", o, o.GetName())] = o.GetResourceVersion()
		}))
	}
	return out
}

func TestMissingSecretsAreNamed(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.play()
	conn := c.connector()
	conn.Spec.Database.OwnerSecret.Name = "absent"
	create(t, conn)
	c.await(conn, v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonSecretMissing,
		"Secret "+c.namespace+"/absent does not exist: create it with the keys username and password")
	c.await(conn, v1alpha1.ConditionWorkloadsReady, metav1.ConditionUnknown, v1alpha1.ReasonNotReached, "absent")
	s := c.secret("absent", map[string]string{"username": "owner"})
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSecretMissing, "Secret "+c.namespace+"/absent has no key password")
	update(t, s, func(s *corev1.Secret) { s.StringData = map[string]string{"password": "there now"} })
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	eventually(t, func(ctx context.Context) error {
		var events eventsv1.EventList
		if err := admin.List(ctx, &events, client.InNamespace(c.namespace)); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Regarding.Name == "shared" && e.Reason == v1alpha1.ReasonSecretMissing && e.Type == corev1.EventTypeWarning {
				return nil
			}
		}
		return fmt.Errorf("no event tells of it: %v", events.Items)
	})
}

func TestVaultIsProbedBeforeAnythingRuns(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	net1.route("plain.example:80", plain)
	net1.route("example.com:443", tls)
	net1.route("sealed.example:8200", vaultDouble(t, `{"initialized":true,"sealed":true}`))
	net1.route("new.example:8200", vaultDouble(t, `{"initialized":false,"sealed":true}`))
	for address, want := range map[string]struct{ reason, text string }{
		"http://nowhere.example:8200": {v1alpha1.ReasonVaultUnreachable, "no host of the name nowhere.example is known"},
		"http://plain.example":        {v1alpha1.ReasonVaultUnreachable, "answered 404 Not Found to /v1/sys/health, which no Vault does"},
		"https://example.com":         {v1alpha1.ReasonVaultUnreachable, "signed by an authority that spec.vault.caBundle does not hold"},
		"http://sealed.example:8200":  {v1alpha1.ReasonVaultSealed, "is sealed: unseal it"},
		"http://new.example:8200":     {v1alpha1.ReasonVaultSealed, "is not initialised"},
	} {
		t.Run(want.text, func(t *testing.T) {
			t.Parallel()
			c := newCell(t)
			conn := c.connector()
			conn.Spec.Vault.Address = address
			create(t, conn)
			c.await(conn, v1alpha1.ConditionVaultReady, metav1.ConditionFalse, want.reason, want.text)
			c.await(conn, v1alpha1.ConditionReady, metav1.ConditionFalse, want.reason, address)
			var jobs batchv1.JobList
			must(t, admin.List(t.Context(), &jobs, client.InNamespace(c.namespace)))
			if len(jobs.Items) > 0 {
				t.Error("the migration has started all the same")
			}
		})
	}
}

func TestVaultTokenIsMountedOnlyWhereTheMethodAsksForIt(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.play()
	conn := c.connector()
	conn.Spec.Vault.Auth = v1alpha1.VaultAuth{Method: v1alpha1.VaultMethodToken, TokenSecret: &corev1.LocalObjectReference{Name: "vault-token"}}
	create(t, conn)
	c.await(conn, v1alpha1.ConditionVaultReady, metav1.ConditionFalse, v1alpha1.ReasonSecretMissing, "vault-token does not exist: create it with the key token")
	c.secret("vault-token", map[string]string{"token": "s.abc"})
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	var d appsv1.Deployment
	must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "shared-wallet"}, &d))
	for _, s := range d.Spec.Template.Spec.Volumes[1].Projected.Sources {
		if s.ServiceAccountToken != nil {
			t.Error("a service account token is mounted though the Vault is given a token of its own")
		}
	}
}

// Each role gets the AppRole of its own Secret, and no other's.
func TestEachRoleLogsInWithItsOwnAppRole(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.play()
	conn := c.connector()
	conn.Spec.Vault.Auth = v1alpha1.VaultAuth{Method: v1alpha1.VaultMethodAppRole, MountPath: "industrial", AppRoleSecrets: &v1alpha1.RoleSecrets{
		ControlPlane: "approle-cp", Wallet: "approle-w", DataPlane: "approle-dp",
	}}
	create(t, conn)
	c.await(conn, v1alpha1.ConditionVaultReady, metav1.ConditionFalse, v1alpha1.ReasonSecretMissing, "approle-cp does not exist: create it with the keys role-id and secret-id")
	for _, name := range []string{"approle-cp", "approle-w"} {
		c.secret(name, map[string]string{"role-id": "r", "secret-id": "s"})
	}
	c.secret("approle-dp", map[string]string{"role-id": "r"})
	c.await(conn, v1alpha1.ConditionVaultReady, metav1.ConditionFalse, v1alpha1.ReasonSecretMissing, "approle-dp has no key secret-id")
	must(t, admin.Patch(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "approle-dp"}},
		client.RawPatch(types.MergePatchType, []byte(`{"stringData":{"secret-id":"s"}}`))))
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
	for role, want := range map[string]string{"control-plane": "approle-cp", "wallet": "approle-w", "data-plane": "approle-dp"} {
		var d appsv1.Deployment
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "shared-" + role}, &d))
		var mounted []string
		for _, s := range d.Spec.Template.Spec.Volumes[1].Projected.Sources {
			if s.ServiceAccountToken != nil {
				t.Errorf("%s gets a service account token too", role)
			}
			if s.Secret != nil && strings.HasPrefix(s.Secret.Name, "approle") {
				mounted = append(mounted, s.Secret.Name)
			}
		}
		if !slices.Equal(mounted, []string{want}) {
			t.Errorf("%s gets %q, want %s", role, mounted, want)
		}
	}
	var config corev1.ConfigMap
	must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: "shared-config"}, &config))
	if text := config.Data["wallet.yaml"]; !strings.Contains(text, "method: approle") || !strings.Contains(text, "mountPath: industrial") || !strings.Contains(text, "/vault-secret-id") {
		t.Errorf("the wallet is told:\n%s", text)
	}
}

func TestFailedMigrationSpeaksAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.connector()
	create(t, conn)
	job := c.job("")
	c.await(conn, v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonMigrationRunning, job.Name)
	c.pod("migration", job.Spec.Template.Labels, corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{
		Name: "main", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: "starting\nreach the database: no route to host\n"}},
	}}})
	must(t, endJob(t.Context(), job, batchv1.JobFailureTarget, batchv1.JobFailed, time.Now().Add(-time.Minute)))
	c.await(conn, v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonMigrationFailed, "postgresql.example:5432: reach the database: no route to host")
	again := c.job(string(job.UID))
	c.await(conn, v1alpha1.ConditionDatabaseReady, metav1.ConditionFalse, v1alpha1.ReasonMigrationFailed, "no route to host")
	must(t, endJob(t.Context(), again, batchv1.JobSuccessCriteriaMet, batchv1.JobComplete, time.Now()))
	c.await(conn, v1alpha1.ConditionDatabaseReady, metav1.ConditionTrue, v1alpha1.ReasonMigrated, "")
}

// job waits for the migration Job that is not the one with the given UID.
func (c *cell) job(not string) *batchv1.Job {
	c.t.Helper()
	var out batchv1.Job
	eventually(c.t, func(ctx context.Context) error {
		var jobs batchv1.JobList
		if err := admin.List(ctx, &jobs, client.InNamespace(c.namespace)); err != nil {
			return err
		}
		if len(jobs.Items) != 1 || string(jobs.Items[0].UID) == not {
			return fmt.Errorf("%d migration Jobs", len(jobs.Items))
		}
		out = jobs.Items[0]
		return nil
	})
	out.Spec.Template.Labels[batchv1.JobNameLabel] = out.Name
	return &out
}

func TestRolesSayWhyTheyAreNotReady(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.connector()
	create(t, conn)
	must(t, endJob(t.Context(), c.job(""), batchv1.JobSuccessCriteriaMet, batchv1.JobComplete, time.Now()))
	c.await(conn, v1alpha1.ConditionWorkloadsReady, metav1.ConditionFalse, v1alpha1.ReasonStarting, "control-plane: starting")
	labels := func(role string) map[string]string {
		return map[string]string{"app.kubernetes.io/name": "connector", "app.kubernetes.io/instance": "shared", "app.kubernetes.io/component": role}
	}
	c.pod("wallet", labels("wallet"), corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "192.0.2.1", PodIPs: []corev1.PodIP{{IP: "192.0.2.1"}}})
	c.readyz("192.0.2.1", adminapi.Readiness{Checks: []adminapi.ReadinessCheck{
		{Name: adminapi.CheckDatabase}, {Name: adminapi.CheckVault, Error: `vault.mount "kv": no such mount; it sees: secret`},
	}})
	c.pod("data-plane", labels("data-plane"), corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
		Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"}},
	}}})
	c.await(conn, v1alpha1.ConditionVaultReady, metav1.ConditionFalse, v1alpha1.ReasonVaultRefused, `wallet: vault.mount "kv": no such mount; it sees: secret`)
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonVaultRefused, "no such mount")
	c.await(conn, v1alpha1.ConditionWorkloadsReady, metav1.ConditionFalse, v1alpha1.ReasonPodFailing, "data-plane: ImagePullBackOff: no such image")
	c.play()
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
}

func TestScaledToZeroIsSaid(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.play()
	conn := c.connector()
	conn.Spec.Replicas = ptr.To[int32](0)
	create(t, conn)
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonScaledToZero, "spec.replicas is 0")
}

func TestNewImageMigratesThenRollsOut(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	conn := c.runConnector()
	old := c.job("")
	update(t, conn, func(conn *v1alpha1.Connector) { conn.Spec.Image = "kaphera.local/connector:next" })
	eventually(t, func(ctx context.Context) error {
		var d appsv1.Deployment
		if err := admin.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: "shared-wallet"}, &d); err != nil {
			return err
		}
		if image := d.Spec.Template.Spec.Containers[0].Image; image != "kaphera.local/connector:next" {
			return fmt.Errorf("the wallet runs %s", image)
		}
		return nil
	})
	if next := c.job(string(old.UID)); next.Spec.Template.Spec.Containers[0].Image != "kaphera.local/connector:next" {
		t.Errorf("migrated with %s", next.Spec.Template.Spec.Containers[0].Image)
	}
	c.await(conn, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonReady, "")
}

func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.runConnector()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "shared-wallet"}}
	update(t, d, func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "somebody/else:1" })
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
			return err
		}
		if image := d.Spec.Template.Spec.Containers[0].Image; image != connectorImage {
			return fmt.Errorf("the wallet runs %s", image)
		}
		return nil
	})
}

func TestIngressHasARulePerParticipant(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.runConnector()
	name := client.ObjectKey{Namespace: c.namespace, Name: "shared"}
	if err := admin.Get(t.Context(), name, &networkingv1.Ingress{}); !apierrors.IsNotFound(err) {
		t.Fatalf("without a participant there is an Ingress: %v", err)
	}
	p, other := c.participant("supplier", "brandt-guss"), c.participant("oem", "rheintal-motoren")
	create(t, p)
	create(t, other)
	paths := func(ctx context.Context) (map[string]string, error) {
		var ing networkingv1.Ingress
		if err := admin.Get(ctx, name, &ing); err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		out := map[string]string{}
		for _, path := range ing.Spec.Rules[0].HTTP.Paths {
			out[path.Path] = fmt.Sprintf("%s %s:%d", *path.PathType, path.Backend.Service.Name, path.Backend.Service.Port.Number)
		}
		if ing.Spec.Rules[0].Host != c.hostname || ing.Spec.TLS[0].Hosts[0] != c.hostname {
			return nil, fmt.Errorf("the Ingress is for %v", ing.Spec)
		}
		return out, nil
	}
	rules := func(ids ...string) map[string]string {
		out := map[string]string{}
		for _, id := range ids {
			out["/"+id+"/did.json"] = "Exact shared-wallet:80"
			out["/"+id+"/dcp"] = "Prefix shared-wallet:80"
			out["/"+id+"/dsp"] = "Prefix shared-control-plane:80"
			out["/"+id+"/.well-known"] = "Prefix shared-control-plane:80"
			out["/"+id+"/data"] = "Prefix shared-data-plane:80"
		}
		return out
	}
	expect := func(want map[string]string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			got, err := paths(ctx)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				return fmt.Errorf("%w %s", err, diff)
			}
			return nil
		})
	}
	expect(rules("brandt-guss", "rheintal-motoren"))
	must(t, admin.Delete(t.Context(), other))
	expect(rules("brandt-guss"))
	must(t, admin.Delete(t.Context(), p))
	expect(nil)
}
