// SPDX-License-Identifier: Apache-2.0

// Package controllertest tests the operator against a real API server: it runs with exactly the rights of config/rbac.yaml, and
// what a cluster has besides an API server (kubelets, Job and Deployment controllers, a connector) is played by the tests.
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
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator"
	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/rights/rightstest"
	"github.com/kaphera/kaphera/test/apiserver"
)

const (
	connectorImage  = "kaphera.local/connector:test"
	operatorAccount = "system:serviceaccount:kaphera-system:edc-operator"
)

var (
	admin   client.Client
	manager ctrl.Manager
	adminTo *rest.Config
	net1    = &network{routes: map[string]string{}}
	// apiServer is the address of the API server in its own EndpointSlice.
	apiServer string
)

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
	env, err := apiserver.Start(filepath.Join("..", "config", "crd"))
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	adminTo = env.Config
	if admin, err = client.New(adminTo, client.Options{Scheme: edcoperator.Scheme()}); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := install(ctx, func(*unstructured.Unstructured) bool { return true }); err != nil {
		return 1, err
	}
	if err := ownEndpoints(ctx); err != nil {
		return 1, err
	}
	var asked rightstest.Asked
	if manager, err = edcoperator.NewManager(ctx, asked.By(as(operatorAccount)), edcoperator.Options{
		ConnectorImage: connectorImage, LeaderElection: true, LeaderElectionNamespace: "kaphera-system",
		MetricsAddress: "0", HealthAddress: "0", Dial: net1.dial, Namespace: "kaphera-system",
	}); err != nil {
		return 1, err
	}
	done := make(chan error, 1)
	go func() { done <- manager.Start(ctx) }()
	code = m.Run()
	cancel()
	if err := <-done; err != nil || code != 0 || !rightstest.Whole() {
		return code, err
	}
	return 0, unused(&asked)
}

// unused fails when the operator has a right that it did not use in all the tests.
func unused(asked *rightstest.Asked) error {
	asks, again := "the API server asks whether who makes an object may", "an event that comes again is counted up"
	reasons := map[string]string{ // also of what may not be needed in one run of the tests
		"list pods": "says why those of a workload that does not come up do not start", "delete jobs.batch": "those that ended, once there is another", "delete ingresses.networking.k8s.io": "those without participants",
		"update connectors/finalizers.edc.kaphera.io": asks, "update credentialissuers/finalizers.edc.kaphera.io": asks,
		"patch events": again, "patch events.events.k8s.io": again,
	}
	given, err := config.OperatorRights("")
	var rules []rbacv1.PolicyRule
	for _, r := range given {
		rules = append(rules, r.Rules...)
	}
	return errors.Join(err, asked.Unused(rules, reasons))
}

// ownEndpoints finds the API server's own EndpointSlice, or makes one: a server that listens on loopback only has none.
func ownEndpoints(ctx context.Context) error {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To[int32](6443), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	err := admin.Create(ctx, slice)
	if apierrors.IsAlreadyExists(err) {
		err = admin.Get(ctx, client.ObjectKeyFromObject(slice), slice)
	}
	apiServer = slice.Endpoints[0].Addresses[0]
	return err
}

// as returns a configuration with the rights of an account and no other.
func as(account string) *rest.Config {
	cfg := rest.CopyConfig(adminTo)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: account, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return cfg
}

// install applies what of install.yaml is wanted.
func install(ctx context.Context, want func(*unstructured.Unstructured) bool) error {
	raw, err := config.Install(config.OperatorImage, connectorImage)
	if err != nil {
		return err
	}
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := dec.Decode(o)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("install.yaml: %w", err)
		}
		if len(o.Object) == 0 || !want(o) {
			continue
		}
		if err := admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("test"), client.ForceOwnership); err != nil {
			return fmt.Errorf("install %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
}

// eventually repeats check until it returns nil.
func eventually(t *testing.T, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("did not come about: %v", last)
		case <-tick.C:
		}
	}
}
