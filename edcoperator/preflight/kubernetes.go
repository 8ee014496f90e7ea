// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/rights"
)

// minKubernetes is the oldest version whose API server takes the custom resources: their rules use isCIDR, which new rules may since 1.31.
var minKubernetes = version.MajorMinor(1, 31)

// noCluster is why something is skipped.
const noCluster = "no cluster is given"

// kubernetesVersion also prepares the client of the other checks.
func (p *preflight) kubernetesVersion(ctx context.Context) finding {
	if p.Cluster == nil {
		return skipped(noCluster)
	}
	cfg := rest.CopyConfig(p.Cluster)
	cfg.Timeout, cfg.QPS, cfg.Burst = p.timeout, 50, 100
	hc, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return failed("correct the kubeconfig", "the kubeconfig: %v", err)
	}
	host, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return failed("correct the kubeconfig", "the kubeconfig: %v", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, host.JoinPath("version").String(), nil)
	if err != nil {
		return failed("correct the kubeconfig", "the kubeconfig: %v", err)
	}
	resp, err := p.timed("Kubernetes", hc, req)
	if err != nil {
		if f, ok := untrusted(err, "the kubeconfig"); ok {
			f.detail = host.Host + ": " + f.detail
			return f
		}
		return p.unreachable(err, host.Host, "the kubeconfig's server")
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	var is struct {
		GitVersion string `json:"gitVersion"`
	}
	switch {
	case err != nil:
		return failed("try again", "%s: the answer breaks off: %v", host.Host, err).retry()
	case resp.StatusCode == http.StatusUnauthorized:
		return failed("log in to the cluster again, or give another kubeconfig", "%s does not know who asks: %s", host.Host, resp.Status)
	case resp.StatusCode != http.StatusOK || json.Unmarshal(raw, &is) != nil:
		return failed("check the kubeconfig's server", "%s answers %s to /version", host.Host, resp.Status).retry()
	}
	v, err := version.ParseGeneric(is.GitVersion)
	if err != nil {
		return failed("check the kubeconfig's server", "%s says it is version %q", host.Host, is.GitVersion)
	}
	if v.LessThan(minKubernetes) {
		return failed("upgrade the cluster", "Kubernetes %s is older than %s, which the custom resources need", is.GitVersion, minKubernetes)
	}
	if p.cluster, err = client.New(cfg, client.Options{HTTPClient: hc}); err != nil {
		return failed("check the kubeconfig", "%v", err)
	}
	return passed("%s runs Kubernetes %s", host.Host, is.GitVersion)
}

// kubernetesPermissions asks the API server for each right that the operator needs: in the cluster and the runtime's namespace, or else in that
// namespace alone, in which it may be installed too. Whoever installs it needs them himself: Kubernetes lets nobody give what he has not. Where an
// administrator has given them for a cell, whoever installs it needs Installer and none of them.
func (p *preflight) kubernetesPermissions(ctx context.Context) finding {
	const remedy = "give this account these rights (edcoperator/config/rbac.yaml lists all), or install the operator with one that has them: nobody can give what he has not"
	ns := p.Runtime.Namespace
	everywhere, err := config.OperatorRights(ns)
	if err != nil {
		return failed("use another release", "%v", err)
	}
	within, err := config.OperatorRightsIn(ns)
	if err != nil {
		return failed("use another release", "%v", err)
	}
	inside, err := rights.Lacking(ctx, p.cluster, within)
	if err != nil {
		return rightsUnknown(err)
	}
	if p.Cell != "" {
		return p.installerPermissions(ctx, inside)
	}
	lacks, err := rights.Lacking(ctx, p.cluster, everywhere)
	switch {
	case err != nil:
		return rightsUnknown(err)
	case len(lacks) == 0:
		return passed("all rights that the operator needs in the cluster and in namespace %s", ns)
	case len(inside) > 0:
		return failed(remedy, "this account may not: %s", sentences(lacks))
	}
	return warning("run the operator in this namespace, with --namespaces="+ns, "all rights that the operator needs in namespace %s, and not in the whole cluster: this account may not: %s", ns, sentences(lacks))
}

func rightsUnknown(err error) finding {
	return failed("check the kubeconfig's account", "asking for the rights: %v", err).retry()
}

// installerPermissions judges an account by what it lacks of the operator's rights in the cell's namespace, and by Installer.
func (p *preflight) installerPermissions(ctx context.Context, inside []string) finding {
	give := "have the cluster's administrator apply what `kaphera cell permissions " + p.Cell + "` writes, and use the account that is in it"
	switch {
	case len(inside) == 0:
		return passed("all rights that the operator needs in namespace %s", p.Runtime.Namespace)
	case p.Installer == nil:
		return failed(give+"; whether this one is it could not be found out: "+p.InstallerUnknown, "this account may not: %s", sentences(inside))
	}
	lacks, err := rights.Lacking(ctx, p.cluster, p.Installer)
	switch {
	case err != nil:
		return rightsUnknown(err)
	case len(lacks) > 0:
		return failed(give, "this account can neither give the operators their rights nor install the cell when an administrator has: it may not: %s", sentences(lacks))
	}
	return passed("all rights to install cell %s, where an administrator gives the operators theirs", p.Cell)
}

func (p *preflight) ingressClass(ctx context.Context) finding {
	want := p.Runtime.Exposure.IngressClassName
	var all networkingv1.IngressClassList
	err := p.cluster.List(ctx, &all)
	if apierrors.IsForbidden(err) {
		return skipped("this account may not list ingressclasses.networking.k8s.io")
	}
	if err != nil {
		return failed("try again", "listing the ingress classes: %v", err).retry()
	}
	names := []string{}
	for _, c := range all.Items {
		names = append(names, c.Name)
		if want == "" && c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
			return passed("none is named, and %s is the default", c.Name)
		}
	}
	switch {
	case want == "":
		return warning("name one in spec.exposure.ingressClassName", "spec.exposure.ingressClassName is empty, and no class is the default; there are: %s", orNone(names))
	case !slices.Contains(names, want):
		return failed("correct spec.exposure.ingressClassName, or install the ingress controller", "there is no ingress class %q; there are: %s", want, orNone(names))
	}
	return passed("there is an ingress class %s", want)
}

// imagePullSecrets looks whether the Secrets are there with which nodes pull images, and of a type that they take.
func (p *preflight) imagePullSecrets(ctx context.Context) finding {
	if len(p.Runtime.PullSecrets) == 0 {
		return skipped("spec.imagePullSecrets names none")
	}
	var names []string
	for _, ref := range p.Runtime.PullSecrets {
		var s corev1.Secret
		where := fmt.Sprintf("Secret %s/%s", p.Runtime.Namespace, ref.Name)
		remedy := "create it: kubectl -n " + p.Runtime.Namespace + " create secret docker-registry " + ref.Name + " --docker-server=… --docker-username=… --docker-password=…"
		switch err := p.cluster.Get(ctx, client.ObjectKey{Namespace: p.Runtime.Namespace, Name: ref.Name}, &s); {
		case apierrors.IsNotFound(err):
			return failed(remedy, "%s does not exist", where)
		case apierrors.IsForbidden(err):
			return skipped("this account may not read %s", where)
		case err != nil:
			return failed("try again", "%s: %v", where, err).retry()
		case s.Type != corev1.SecretTypeDockerConfigJson && s.Type != corev1.SecretTypeDockercfg:
			return failed(remedy, "%s is of type %s, with which nodes do not pull", where, s.Type)
		}
		names = append(names, ref.Name)
	}
	return passed("nodes find %s", strings.Join(names, ", "))
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// secret returns the wanted keys of a Secret of the runtime's namespace: as given along, or from the cluster. A finding with a result says why not.
func (p *preflight) secret(ctx context.Context, name string, keys ...string) (map[string]string, finding) {
	data, given := p.Secrets[name]
	where := fmt.Sprintf("Secret %s/%s", p.Runtime.Namespace, name)
	if !given {
		if p.cluster == nil {
			return nil, skipped("%s is not in the manifest, and the cluster is not reached from here", where)
		}
		var s corev1.Secret
		err := p.cluster.Get(ctx, client.ObjectKey{Namespace: p.Runtime.Namespace, Name: name}, &s)
		switch {
		case apierrors.IsNotFound(err):
			return nil, failed("create it: kubectl -n "+p.Runtime.Namespace+" create secret generic "+name+fromLiterals(keys), "%s does not exist", where)
		case apierrors.IsForbidden(err):
			return nil, skipped("this account may not read %s, and it is not in the manifest", where)
		case err != nil:
			return nil, failed("try again", "%s: %v", where, err).retry()
		}
		data = map[string]string{}
		for k, v := range s.Data {
			data[k] = string(v)
		}
	}
	out := map[string]string{}
	for _, k := range keys {
		if data[k] == "" {
			return nil, failed("add it to the Secret", "%s has no key %s", where, k)
		}
		out[k] = data[k]
	}
	return out, finding{}
}

func fromLiterals(keys []string) string {
	out := ""
	for _, k := range keys {
		out += " --from-literal=" + k + "=…"
	}
	return out
}
