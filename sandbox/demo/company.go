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
	"slices"
	"strings"
	"text/template"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/kaphera/kaphera/sandbox/cluster"
	"github.com/kaphera/kaphera/sandbox/internal/proc"
	"github.com/kaphera/kaphera/sandbox/pki"
	"github.com/kaphera/kaphera/sandbox/stage"
)

// The company that runs its connector itself, behind a firewall, in a cluster of its own.
const (
	companyCell      = "oem-frankfurt"
	companyNamespace = "industrial"
	plantNamespace   = "plant"
	cellNamespace    = "cell-" + companyCell
	companyAccount   = "dataspace"
	companyLimit     = 4 * time.Minute
)

// companyImages run in the company's cluster: its own systems, and what Kaphera installs there.
var companyImages = []string{"postgresql", "openbao", "connector", "edc-operator", "cloud-operator", "pcf-backend"}

// vaultPolicies are what the roles of a connector may do, below the cell's path and nowhere else.
var vaultPolicies = map[string]string{
	"wallet":        vaultPolicy("data", "keys", `"create", "read", "update"`) + vaultPolicy("metadata", "keys", `"list", "delete"`),
	"control-plane": vaultPolicy("data", "secrets", `"create", "update"`) + vaultPolicy("metadata", "secrets", `"list", "delete"`),
	"data-plane":    vaultPolicy("data", "secrets", `"read"`),
	"backup":        vaultPolicy("data", "+", `"read"`) + vaultPolicy("metadata", "+", `"list"`),
	"restore":       vaultPolicy("data", "+", `"create", "read"`), // here it stands always
}

func vaultPolicy(tree, kind, capabilities string) string {
	return fmt.Sprintf("    path \"industrial/kv/%s/dataspace/+/%s/*\" { capabilities = [%s] }\n", tree, kind, capabilities)
}

//go:embed company.yaml
var companyTemplate string

// companyStages make the company's cluster and what it has of its own, and which of them the platform and the workspace wait for.
func (d *demo) companyStages() (stages []stage.Stage, platform, workspace []string) {
	if d.company == nil {
		return nil, nil, nil
	}
	kubectl := "`sandbox kubectl " + d.company.name + " get pods -A` and the log show what does not run"
	return []stage.Stage{
		{Name: "company cluster", Group: stage.Provision, Needs: []string{"cluster"}, Run: d.upCompany, Remedy: "`" + d.downCommand() + "` removes what is half there; then run it again"},
		{Name: "company images", Group: stage.Provision, Needs: append([]string{"company cluster"}, prefixed(companyImages)...), Run: d.load(d.company, companyImages), Remedy: "run it again"},
		{Name: "company systems", Group: stage.Provision, Needs: []string{"company images"}, Run: d.applyCompany, Remedy: kubectl},
		{Name: "company plant", Group: stage.Provision, Needs: []string{"company images"}, Run: d.applyPlant, Remedy: kubectl},
		{Name: "company account", Group: stage.Provision, Needs: []string{"platform", "commands", "opentofu", "company systems"}, Run: d.letInstall, Remedy: "run it again"},
	}, []string{"company cluster"}, []string{"company account", "company plant"}
}

func (d *demo) upCompany(ctx context.Context, log *stage.Log) error {
	a, err := d.company.up(ctx, log)
	if err != nil {
		return err
	}
	var both []byte
	for _, name := range []string{d.Name, d.company.name} {
		path, err := cluster.CAFile(name)
		if err != nil {
			return err
		}
		ca, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		both = append(both, ca...)
	}
	vpn := fmt.Sprintf("#!/bin/sh\n# Runs a command in the VPN of %s, from where its API server is reached.\nexec nsenter --net=%s -- \"$@\"\n", d.company.name, a.vpn)
	return errors.Join(replaceFile(d.path("ca.crt"), both, 0o644), // who meets at their gateways trusts both
		os.MkdirAll(d.path("bin"), 0o755), replaceFile(d.path("bin", "vpn"), []byte(vpn), 0o755),
		copyFile(a.kubeconfig, d.path("company-kubeconfig"), 0o600))
}

// applyCompany brings up what the company has of its own.
func (d *demo) applyCompany(ctx context.Context, log *stage.Log) error {
	k, err := d.companyKube()
	if err != nil {
		return err
	}
	t, err := template.New("company.yaml").Option("missingkey=error").Parse(companyTemplate)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, map[string]any{"Namespace": cellNamespace, "Policies": vaultPolicies}); err != nil {
		return err
	}
	objects, err := parse(out.Bytes(), d.images())
	if err != nil {
		return err
	}
	var namespaces, rest []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == "Namespace" {
			namespaces = append(namespaces, o)
		} else {
			rest = append(rest, o)
		}
	}
	if err := k.apply(ctx, log, namespaces); err != nil {
		return err
	}
	if err := d.companySecrets(ctx, k); err != nil {
		return err
	}
	if err := k.apply(ctx, log, rest); err != nil {
		return err
	}
	return k.deployed(ctx, log, rest, companyLimit)
}

// companySecrets makes what only the company knows, once.
func (d *demo) companySecrets(ctx context.Context, k *kube) error {
	dir := d.path("company")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	authority, err := pki.EnsureAuthority(dir, "ca", "Rheintal Motoren AG, infrastructure", time.Now())
	if err != nil {
		return err
	}
	for _, service := range []string{"openbao", "postgresql"} {
		host := service + "." + companyNamespace + ".svc"
		pair, err := authority.Ensure(dir, service, pki.Leaf{CommonName: host, DNSNames: []string{host}}, time.Now())
		if err != nil {
			return err
		}
		if err := k.create(ctx, companyNamespace, service+"-tls", map[string][]byte{corev1.TLSCertKey: pair.Cert, corev1.TLSPrivateKeyKey: pair.Key}); err != nil {
			return err
		}
	}
	unseal := make([]byte, 32)
	_, _ = rand.Read(unseal) // never fails
	if err := k.create(ctx, companyNamespace, "openbao-unseal", map[string][]byte{"key": unseal}); err != nil {
		return err
	}
	account := map[string][]byte{"username": []byte(companyAccount), "password": []byte(rand.Text())}
	if err := k.create(ctx, companyNamespace, "dataspace-account", account); err != nil {
		return err
	}
	// The account that is there, which may be an earlier demo's.
	if account, err = k.secret(ctx, companyNamespace, "dataspace-account"); err != nil {
		return err
	}
	return k.create(ctx, cellNamespace, "dataspace-account", account)
}

// installerTokenLife is how long the workspace can be applied before the demo is run again.
const installerTokenLife = 30 * 24 * time.Hour

// letInstall has the company's administrator give what an installation of its cell takes: the workspace describes the cell, the CLI writes what it needs,
// the administrator applies that. From then on the workspace has the account that is among it, and nothing of the administrator's.
func (d *demo) letInstall(ctx context.Context, log *stage.Log) error {
	if err := d.tofuInit(ctx, log); err != nil {
		return err
	}
	if err := d.tofuApply(ctx, log, "-target=kaphera_cell.frankfurt"); err != nil {
		return err
	}
	env, err := d.savedEnvironment()
	if err != nil {
		return err
	}
	log.Printf("kaphera cell permissions %s", companyCell)
	given, err := proc.Output(ctx, proc.Cmd{Name: d.path("bin", "kaphera"), Args: []string{"cell", "permissions", companyCell}, Env: env.process(), Log: log})
	if err != nil {
		return err
	}
	objects, err := parse([]byte(given), nil)
	if err != nil {
		return err
	}
	k, err := d.companyKube()
	if err != nil {
		return err
	}
	if err := k.apply(ctx, log, objects); err != nil {
		return err
	}
	at := slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == "ServiceAccount" }) // there is one
	if at < 0 {
		return fmt.Errorf("kaphera cell permissions %s writes no ServiceAccount", companyCell)
	}
	life := int64(installerTokenLife.Seconds())
	token, err := k.typed.CoreV1().ServiceAccounts(objects[at].GetNamespace()).CreateToken(ctx, objects[at].GetName(),
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &life}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("token of %s: %w", objects[at].GetName(), err)
	}
	return d.installerKubeconfig(objects[at].GetName(), token.Status.Token)
}

// installerKubeconfig writes the administrator's kubeconfig with an account's token in the administrator's place.
func (d *demo) installerKubeconfig(account, token string) error {
	config, err := clientcmd.LoadFromFile(d.path("company-kubeconfig"))
	if err != nil {
		return err
	}
	config.AuthInfos = map[string]*api.AuthInfo{account: {Token: token}}
	for _, c := range config.Contexts {
		c.AuthInfo = account
	}
	raw, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return replaceFile(d.path("installer-kubeconfig"), raw, 0o600)
}

// create makes a Secret unless it is there.
func (k *kube) create(ctx context.Context, namespace, name string, data map[string][]byte) error {
	_, err := k.typed.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: data}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the Secret %s/%s: %w", namespace, name, err)
	}
	return nil
}

// applyPlant deploys the backend of the company's plant, which is like the supplier's.
func (d *demo) applyPlant(ctx context.Context, log *stage.Log) error {
	k, err := d.companyKube()
	if err != nil {
		return err
	}
	return d.backend(ctx, log, k, plantNamespace, cellNamespace)
}

// companyKube talks to the company's cluster, from its VPN.
func (d *demo) companyKube() (*kube, error) {
	vpn, err := cluster.VPN(d.company.name)
	if err != nil {
		return nil, err
	}
	return newKube(d.path("company-kubeconfig"), vpn)
}

// showFirewall prints what went through the company's firewall since it stands.
func (d *demo) showFirewall(ctx context.Context) error {
	seen, err := cluster.Firewall(ctx, d.company.name)
	if err != nil {
		return err
	}
	platform := 0
	for _, c := range seen.Callers {
		if strings.HasPrefix(c.Pod, platformNamespace+"/") {
			platform += c.Connections
		}
	}
	n := seen.Connections
	_, err = fmt.Fprintf(d.Out, `
The firewall of %s has seen these attempts to connect since it stands:
  from the cloud to its gateway, DSP and DCP    %d
  from the cloud to anything else               %d
  from the cloud's own parts (%s)   %d
  from it to the cloud's gateway                %d
  from it to anywhere else, refused             %d
  from its VPN, where Terraform runs            %d
`, d.company.name, n["cloud-dsp"], n["cloud-refused"], platformNamespace, platform, n["out-cloud"], n["out-refused"], n["vpn-api"])
	return err
}
