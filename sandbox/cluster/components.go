// SPDX-License-Identifier: Apache-2.0

package cluster

import "path/filepath"

// Components in the order in which they are started; the first two need
// nothing, all after kube-apiserver need only it.
const (
	etcd              = "etcd"
	containerd        = "containerd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	kubelet           = "kubelet"
	kubeProxy         = "kube-proxy"
	dns               = "coredns"
	agent             = "agent"
)

// components says how every program of the cluster is started; self is the
// sandbox program.
func components(l layout, s *state, kube, coredns, self string) []component {
	a := addressesOf(s.Slot)
	pki := func(flag, file string) string { return "--" + flag + "=" + l.pki(file) }
	controller := func(program, user string, more ...string) component {
		file := l.kubeconfig(user)
		return component{name: program, files: []string{file, l.pki("node.crt")}, argv: append([]string{
			kube, program, "--kubeconfig=" + file, "--authentication-kubeconfig=" + file, "--authorization-kubeconfig=" + file,
			"--bind-address=" + a.Node.String(), pki("tls-cert-file", "node.crt"), pki("tls-private-key-file", "node.key"),
			"--leader-elect=false", "--profiling=false",
		}, more...)}
	}
	return []component{
		{name: etcd, argv: []string{
			kube, etcd, "--name=" + l.name, "--data-dir=" + l.path("etcd"), "--log-level=warn",
			"--listen-client-urls=https://127.0.0.1:2379", "--advertise-client-urls=https://127.0.0.1:2379",
			"--listen-peer-urls=https://127.0.0.1:2380", "--initial-advertise-peer-urls=https://127.0.0.1:2380",
			"--initial-cluster=" + l.name + "=https://127.0.0.1:2380",
			pki("trusted-ca-file", "etcd-ca.crt"), pki("cert-file", "etcd.crt"), pki("key-file", "etcd.key"), "--client-cert-auth",
			pki("peer-trusted-ca-file", "etcd-ca.crt"), pki("peer-cert-file", "etcd.crt"), pki("peer-key-file", "etcd.key"), "--peer-client-cert-auth",
			// A killed process loses nothing by it, only a machine that loses power; the cluster can be made again.
			"--unsafe-no-fsync",
		}, files: []string{l.pki("etcd.crt")}},
		{name: containerd, argv: []string{"containerd", "--config=" + l.etc("containerd.toml"), "--log-level=warn"},
			files: []string{l.etc("containerd.toml"), l.etc("cni/10-cni.conflist")}},
		{name: apiServer, argv: []string{
			kube, apiServer, "--advertise-address=" + a.Node.String(), "--secure-port=" + apiPort,
			"--allow-privileged=true", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			pki("client-ca-file", "ca.crt"), pki("tls-cert-file", "apiserver.crt"), pki("tls-private-key-file", "apiserver.key"),
			"--etcd-servers=https://127.0.0.1:2379", pki("etcd-cafile", "etcd-ca.crt"), pki("etcd-certfile", "etcd-client.crt"), pki("etcd-keyfile", "etcd-client.key"),
			pki("kubelet-certificate-authority", "ca.crt"), pki("kubelet-client-certificate", "apiserver-kubelet.crt"), pki("kubelet-client-key", "apiserver-kubelet.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-cluster-ip-range=" + a.Services.String(),
			"--service-account-issuer=https://kubernetes.default.svc." + clusterDomain,
			pki("service-account-key-file", "service-account.pub"), pki("service-account-signing-key-file", "service-account.key"),
			pki("requestheader-client-ca-file", "front-proxy-ca.crt"), "--requestheader-allowed-names=" + frontProxyUser,
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
			pki("proxy-client-cert-file", "front-proxy.crt"), pki("proxy-client-key-file", "front-proxy.key"),
			"--profiling=false",
		}, files: []string{l.pki("apiserver.crt"), l.pki("ca.crt")}},
		controller(controllerManager, "controller-manager",
			"--use-service-account-credentials=true", pki("service-account-private-key-file", "service-account.key"), pki("root-ca-file", "ca.crt"),
			pki("client-ca-file", "ca.crt"), pki("cluster-signing-cert-file", "ca.crt"), pki("cluster-signing-key-file", "ca.key"),
			// A busy machine is late with its heartbeats, and there is no other node to go to.
			"--node-monitor-grace-period=120s",
			// A new node takes pods only after the next look at it.
			"--node-monitor-period=1s",
			// At its default pace it takes 5 s just to get an account for each controller.
			"--kube-api-qps=200", "--kube-api-burst=400",
		),
		controller(scheduler, "scheduler"),
		{name: kubelet, argv: []string{
			kube, kubelet, "--config=" + l.etc("kubelet.yaml"), "--kubeconfig=" + l.kubeconfig("kubelet"),
			"--hostname-override=" + l.name, "--node-ip=" + a.Node.String(), "--root-dir=" + l.path("kubelet"),
		}, files: []string{l.etc("kubelet.yaml"), l.kubeconfig("kubelet"), l.pki("node.crt")}},
		{name: kubeProxy, argv: []string{kube, kubeProxy, "--config=" + l.etc("proxy.yaml")},
			files: []string{l.etc("proxy.yaml"), l.kubeconfig("proxy")}},
		{name: dns, argv: []string{coredns, "-conf", l.etc("Corefile")},
			files: []string{l.etc("Corefile"), l.kubeconfig("dns")}},
		{name: agent, argv: []string{self, AgentCommand, l.name, filepath.Dir(l.dir), kube, coredns},
			files: []string{l.kubeconfig("agent"), l.gatewayCA()}},
	}
}
