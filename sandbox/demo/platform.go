// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kaphera/kaphera/sandbox/stage"
)

// Where the demo's objects live.
const (
	platformNamespace = "kaphera-system"
	backendNamespace  = "supplier-backend"
	backendKeys       = "pcf-backend-keys"
)

// installs are the manifests that install Kaphera on any cluster, relative to
// the repository's root.
var installs = []string{"edcoperator/config/install.yaml", "cloudoperator/config/install.yaml"}

const backendManifest = "examples/pcf-backend/deploy.yaml"

// platformImages are the Platform's image fields and the images they get.
var platformImages = map[string]string{
	"postgresql": "kaphera.local/postgresql:15", "openbao": "kaphera.local/openbao:2", "nats": "kaphera.local/nats:2", "keycloak": "kaphera.local/keycloak:26",
	"cloud": "kaphera.local/cloud:dev", "agent": "kaphera.local/cloud-operator:dev", "connector": "kaphera.local/connector:dev",
}

// Limits on waiting: several times what a busy machine with two cores took.
const (
	operatorLimit = 4 * time.Minute
	platformLimit = 10 * time.Minute
	backendLimit  = 4 * time.Minute
)

//go:embed platform.yaml
var platformTemplate string

func (d *demo) manifest(path string) ([]*unstructured.Unstructured, error) {
	data, err := os.ReadFile(filepath.Join(d.root, path))
	if err != nil {
		return nil, fmt.Errorf("%w: run make generate", err)
	}
	objects, err := parse(data, d.images())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return objects, nil
}

func (d *demo) installOperators(ctx context.Context, log *stage.Log) error {
	k, err := newKube(d.path("kubeconfig"), "")
	if err != nil {
		return err
	}
	if d.IngressClass != "" {
		if err := k.ingressClass(ctx, d.IngressClass); err != nil {
			return err
		}
	}
	var all []*unstructured.Unstructured
	for _, path := range installs {
		objects, err := d.manifest(path)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if o.GetKind() == "Deployment" { // a demo needs none in reserve
				if err := unstructured.SetNestedField(o.Object, int64(1), "spec", "replicas"); err != nil {
					return fmt.Errorf("%s of %s: %w", o.GetName(), path, err)
				}
			}
		}
		if err := k.apply(ctx, log, objects); err != nil {
			return err
		}
		all = append(all, objects...)
	}
	return k.deployed(ctx, log, all, operatorLimit)
}

// platform renders the demo's Platform.
func (d *demo) platform(ca string) (*unstructured.Unstructured, error) {
	images := map[string]string{}
	for field, ref := range platformImages {
		images[field] = ref
	}
	t, err := template.New("platform.yaml").Option("missingkey=error").Parse(platformTemplate)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, map[string]any{"Namespace": platformNamespace, "Domain": d.Domain, "IngressClass": d.IngressClass, "CA": ca, "Images": images})
	if err != nil {
		return nil, err
	}
	objects, err := parse(out.Bytes(), d.images())
	if err != nil {
		return nil, err
	}
	return objects[0], nil
}

func (d *demo) applyPlatform(ctx context.Context, log *stage.Log) error {
	k, err := newKube(d.path("kubeconfig"), "")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(d.path("ca.crt"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	p, err := d.platform(string(ca))
	if err != nil {
		return err
	}
	if err := k.apply(ctx, log, []*unstructured.Unstructured{p}); err != nil {
		return err
	}
	if err := k.ready(ctx, log, p, platformLimit); err != nil {
		return err
	}
	return d.writePlatformFiles(ctx, k)
}

// writePlatformFiles leaves the log-ins and what a shell needs in the demo's folder.
func (d *demo) writePlatformFiles(ctx context.Context, k *kube) error {
	people, err := k.secret(ctx, platformNamespace, "people")
	if err != nil {
		return err
	}
	clients, err := k.secret(ctx, platformNamespace, "oidc-clients")
	if err != nil {
		return err
	}
	p, err := d.platform("")
	if err != nil {
		return err
	}
	logins, err := logins(p, people)
	if err != nil {
		return err
	}
	env, err := d.environment(string(clients[terraformClient]))
	if err != nil {
		return err
	}
	return errors.Join(
		replaceFile(d.path("people.txt"), []byte(logins), 0o600),
		replaceFile(d.path("env"), env.shell(), 0o600), // holds the client's secret
	)
}

const terraformClient = "kaphera-terraform"

// logins lists the Platform's people with their roles and passwords.
func logins(platform *unstructured.Unstructured, passwords map[string][]byte) (string, error) {
	list, _, err := unstructured.NestedSlice(platform.Object, "spec", "people")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, entry := range list {
		person, _ := entry.(map[string]any)
		user := fmt.Sprint(person["username"])
		password, ok := passwords[user]
		if !ok {
			return "", fmt.Errorf("the Secret people has no password of %s", user)
		}
		what := strings.Trim(fmt.Sprint(person["roles"]), "[]")
		if org, ok := person["organization"]; ok {
			what += fmt.Sprintf(" of %v", org)
		}
		fmt.Fprintf(&out, "%-10s %-26s %s\n", user, password, what)
	}
	return out.String(), nil
}

// applyBackend deploys the supplier's own backend, for the shared cell's data plane.
func (d *demo) applyBackend(ctx context.Context, log *stage.Log) error {
	k, err := newKube(d.path("kubeconfig"), "")
	if err != nil {
		return err
	}
	return d.backend(ctx, log, k, backendNamespace, "cell-shared")
}

// backend deploys the backend in a namespace with keys made here once, for the data plane of a cell.
func (d *demo) backend(ctx context.Context, log *stage.Log, k *kube, namespace, cell string) error {
	data, err := os.ReadFile(filepath.Join(d.root, backendManifest))
	if err != nil {
		return err
	}
	objects, err := parse([]byte(strings.NewReplacer(backendNamespace, namespace, "cell-shared", cell).Replace(string(data))), d.images())
	if err != nil {
		return fmt.Errorf("read %s: %w", backendManifest, err)
	}
	if err := k.apply(ctx, log, objects[:1]); err != nil {
		return err
	}
	if err := k.create(ctx, namespace, backendKeys, map[string][]byte{"writer": []byte(rand.Text()), "reader": []byte(rand.Text())}); err != nil {
		return err
	}
	if err := k.apply(ctx, log, objects[1:]); err != nil {
		return err
	}
	return k.deployed(ctx, log, objects, backendLimit)
}
