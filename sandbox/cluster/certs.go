// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/kaphera/kaphera/sandbox/pki"
)

const (
	clusterDomain = "cluster.local"
	apiPort       = "6443"
	// mastersGroup is Kubernetes' built-in group that may do everything.
	mastersGroup = "system:masters"
	// frontProxyUser is the API server when it passes requests on to an extension of it.
	frontProxyUser = "front-proxy-client"
)

// users are those who have a kubeconfig, with the identity that it carries.
func users(l layout) map[string]pki.Leaf {
	return map[string]pki.Leaf{
		"admin":              {CommonName: "sandbox-admin", Organizations: []string{mastersGroup}},
		"agent":              {CommonName: "sandbox-agent", Organizations: []string{mastersGroup}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"proxy":              {CommonName: "system:kube-proxy"},
		"dns":                {CommonName: "sandbox:dns"},
		"kubelet":            {CommonName: "system:node:" + l.name, Organizations: []string{"system:nodes"}},
	}
}

// ensureCertificates makes the cluster's authorities, certificates and
// kubeconfigs, or renews what is about to expire. etcd has an authority of its
// own, so that no certificate of a Kubernetes user opens it.
func ensureCertificates(l layout, s *state, now time.Time) error {
	a, dir := addressesOf(s.Slot), l.path("pki")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	authority := map[string]*pki.Authority{}
	for name, title := range map[string]string{
		"ca": "kaphera sandbox " + l.name, "etcd-ca": "kaphera sandbox " + l.name + " etcd",
		"gateway-ca": "kaphera sandbox " + l.name + " gateway", "front-proxy-ca": "kaphera sandbox " + l.name + " front proxy",
	} {
		var err error
		if authority[name], err = pki.EnsureAuthority(dir, name, title, now); err != nil {
			return err
		}
	}
	loopback, node := net.IPv4(127, 0, 0, 1), net.IP(a.Node.AsSlice())
	for _, c := range []struct {
		ca, name string
		leaf     pki.Leaf
	}{
		{"etcd-ca", "etcd", pki.Leaf{CommonName: "etcd", DNSNames: []string{"localhost"}, IPs: []net.IP{loopback}}},
		{"etcd-ca", "etcd-client", pki.Leaf{CommonName: "kube-apiserver"}},
		{"ca", "apiserver", pki.Leaf{CommonName: "kube-apiserver", IPs: []net.IP{loopback, node, a.API.AsSlice()}, DNSNames: []string{
			"localhost", l.name, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain}}},
		{"ca", "apiserver-kubelet", pki.Leaf{CommonName: "kube-apiserver-kubelet-client", Organizations: []string{mastersGroup}}},
		{"front-proxy-ca", "front-proxy", pki.Leaf{CommonName: frontProxyUser}},
		{"ca", "node", pki.Leaf{CommonName: "system:node:" + l.name, DNSNames: []string{l.name}, IPs: []net.IP{node}}},
	} {
		if _, err := authority[c.ca].Ensure(dir, c.name, c.leaf, now); err != nil {
			return err
		}
	}
	if err := pki.EnsureKey(dir, "service-account"); err != nil {
		return err
	}
	for user, leaf := range users(l) {
		pair, err := authority["ca"].Ensure(dir, "user-"+user, leaf, now)
		if err != nil {
			return err
		}
		if err := writeKubeconfig(l, user, "https://"+net.JoinHostPort(a.Node.String(), apiPort), authority["ca"].PEM, pair); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig writes a kubeconfig that stands alone, readable by its owner only.
func writeKubeconfig(l layout, user, server string, ca []byte, pair pki.Pair) error {
	name := "sandbox-" + l.name
	config := api.NewConfig()
	config.Clusters[name] = &api.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos[user] = &api.AuthInfo{ClientCertificateData: pair.Cert, ClientKeyData: pair.Key}
	config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: user}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return writeFile(l.kubeconfig(user), data, 0o600)
}
