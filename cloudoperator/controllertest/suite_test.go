// SPDX-License-Identifier: FSL-1.1-ALv2

// Package controllertest tests the operator and the agent against a real API server, with exactly the rights of config/rbac.yaml, and
// against the real PostgreSQL, OpenBao and NATS that the operator's own objects describe: the tests play the kubelet that runs them.
// What the EDC operator and a connector do is played by the tests.
package controllertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloudoperator"
	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/config"
	"github.com/kaphera/kaphera/cloudoperator/controller/platform"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
	"github.com/kaphera/kaphera/cloudoperator/openbao"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/rights/rightstest"
	"github.com/kaphera/kaphera/test/apiserver"
	"github.com/kaphera/kaphera/test/freeport"
)

const (
	system          = config.Namespace
	operatorAccount = "system:serviceaccount:kaphera-system:cloud-operator"
)

var (
	admin   client.Client
	adminTo *rest.Config
	node    *kubelet
	didDocs didDocuments
	clock   operatorClock
	metrics string // address of the operator's

	agentAsked rightstest.Asked
)

// didDocuments says which DID documents answer.
type didDocuments struct {
	mu sync.Mutex
	up map[string]bool
}

func (d *didDocuments) publish(host, contextID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.up == nil {
		d.up = map[string]bool{}
	}
	d.up[host+"/"+contextID] = true
}

func (d *didDocuments) check(_ context.Context, _ []byte, host, contextID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.up[host+"/"+contextID] {
		return fmt.Errorf("https://%s/%s/did.json answers 404", host, contextID)
	}
	return nil
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	code, err := suite(m)
	if err != nil {
		log.Print(err)
		code = 1
	}
	os.Exit(code)
}

func suite(m *testing.M) (code int, err error) {
	env, err := apiserver.Start(filepath.Join("..", "..", "edcoperator", "config", "crd"))
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	adminTo = env.Config
	scheme, err := cloudoperator.Scheme()
	if err != nil {
		return 1, err
	}
	if err := edc.AddToScheme(scheme); err != nil {
		return 1, err
	}
	if admin, err = client.New(adminTo, client.Options{Scheme: scheme}); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := install(ctx); err != nil {
		return 1, err
	}
	if node, err = newKubelet(); err != nil {
		return 1, err
	}
	defer node.stop()
	token, err := serviceAccountToken(ctx, system, "cloud-operator", openbao.Audience)
	if err != nil {
		return 1, err
	}
	tokenFile := filepath.Join(node.dir, "operator-token")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return 1, err
	}
	port, err := freeport.Pick()
	if err != nil {
		return 1, err
	}
	metrics = fmt.Sprintf("127.0.0.1:%d", port)
	done := make(chan error, 1)
	go func() { done <- operate(ctx, tokenFile) }()
	code = m.Run()
	var unused error
	if code == 0 && rightstest.Whole() {
		unused = allUsed()
	}
	cancel()
	return code, errors.Join(<-done, unused)
}

// allUsed fails when an agent has a right that none used in all the tests.
func allUsed() error {
	rules, err := config.Rules(manifest.AgentRole)
	if err != nil {
		return err
	}
	return agentAsked.Unused(rules, nil)
}

// operate runs the operator, and as a kubelet does again when it has ended: on a machine that is busy it may lose its lease.
func operate(ctx context.Context, tokenFile string) error {
	for {
		manager, err := cloudoperator.NewManager(as(operatorAccount), cloudoperator.Options{
			Namespace: system, ServiceAccount: "cloud-operator", Images: platform.ImagesFromEnv(), TokenFile: tokenFile, KeycloakOptimized: true, LeaderElection: true,
			MetricsAddress: metrics, HealthAddress: "0", Dial: node.addresses(), DID: didDocs.check, Now: clock.now, SkipNameValidation: ptr.To(true),
		})
		if err == nil {
			err = manager.Start(ctx)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		log.Printf("the operator has ended and is started again: %v", err)
	}
}

// operatorClock is the operator's; a test that sets it forward need not wait until somebody has been silent for long.
type operatorClock struct{ ahead atomic.Int64 }

func (c *operatorClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *operatorClock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// serviceAccountToken is what a kubelet mounts; without an audience it is for the API server.
func serviceAccountToken(ctx context.Context, namespace, name string, audience ...string) (string, error) {
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audience}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := admin.SubResource("token").Create(ctx, account, r); err != nil {
		return "", fmt.Errorf("token of %s: %w", name, err)
	}
	return r.Status.Token, nil
}

// as returns a configuration with the rights of an account and no other.
func as(account string) *rest.Config { return accountOf(adminTo, account) }

func accountOf(cluster *rest.Config, account string) *rest.Config {
	cfg := rest.CopyConfig(cluster)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: account, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return cfg
}

// install applies install.yaml and waits until the API server serves its kinds.
func install(ctx context.Context) error {
	raw, err := config.Install(nil)
	if err != nil {
		return err
	}
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := dec.Decode(o)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("install.yaml: %w", err)
		}
		if len(o.Object) == 0 {
			continue
		}
		if err := admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership); err != nil {
			return fmt.Errorf("install %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return until(ctx, func(ctx context.Context) error {
		lists := []client.ObjectList{&cloud.PlatformList{}, &cloud.CellList{}, &cloud.DataspaceProfileList{}, &cloud.UseCaseList{}, &cloud.UseCaseRevisionList{}, &cloud.OrganizationList{}, &cloud.ParticipantList{}, &cloud.ApprovalKeyList{}}
		var errs []error
		for _, l := range lists {
			errs = append(errs, admin.List(ctx, l))
		}
		return errors.Join(errs...)
	})
}

const patience = 3 * time.Minute

// until repeats check until it returns nil.
func until(ctx context.Context, check func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("did not come about: %w", last)
		case <-tick.C:
		}
	}
}

func eventually(t *testing.T, check func(ctx context.Context) error) {
	t.Helper()
	if err := until(t.Context(), check); err != nil {
		t.Fatal(err)
	}
}

// change reads o, changes it and writes it, again if the operator wrote meanwhile.
func change(t *testing.T, o client.Object, f func()) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
			return err
		}
		f()
		return admin.Update(ctx, o)
	})
}

// condition waits for a condition of o and returns an error with what it is instead.
func condition(ctx context.Context, o client.Object, kind string, status metav1.ConditionStatus, reason string) error {
	if err := admin.Get(ctx, client.ObjectKeyFromObject(o), o); err != nil {
		return err
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return err
	}
	items, _, err := unstructured.NestedSlice(m, "status", "conditions")
	if err != nil {
		return err
	}
	for _, i := range items {
		c, _ := i.(map[string]any)
		if c["type"] != kind {
			continue
		}
		if c["status"] == string(status) && (reason == "" || c["reason"] == reason) {
			return nil
		}
		return fmt.Errorf("%T %s: %s is %v, %v: %v", o, o.GetName(), kind, c["status"], c["reason"], c["message"])
	}
	return fmt.Errorf("%T %s has no condition %s", o, o.GetName(), kind)
}

func message(o *cloud.Cell, kind string) string {
	for _, c := range o.Status.Conditions {
		if c.Type == kind {
			return c.Message
		}
	}
	return ""
}
