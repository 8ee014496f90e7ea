// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"
)

// templates are the components' configuration files; they hold every setting
// that has a reason to differ from its default, with the reason beside it.
//
//go:embed config
var templates embed.FS

// values is what the templates may use.
type values struct {
	Name, Domain, ClusterDomain    string
	Dir, Etc, PKI, Socket, CNI     string
	Cgroup, PauseImage, Kubeconfig string
	addresses
	GatewayCA string // PEM
	Others    []name // of the clusters that this one reaches
}

// name is a domain with the address of its gateway.
type name struct {
	Domain string
	Node   netip.Addr
}

// others are a company's cloud, or the companies of a cloud.
func others(s *state) ([]name, error) {
	all, err := clusters()
	if err != nil {
		return nil, err
	}
	var found []name
	for _, o := range all {
		if o.Name == s.Cloud || o.Cloud == s.Name {
			found = append(found, name{o.Domain, addressesOf(o.Slot).Node})
		}
	}
	return found, nil
}

func newValues(l layout, s *state) (values, error) {
	cni, ok := cniFolder(cniFolders)
	if !ok {
		return values{}, fmt.Errorf("no network plug-ins in %v; install the package %s", cniFolders, cniPackage)
	}
	ca, err := os.ReadFile(l.gatewayCA())
	if err != nil {
		return values{}, err
	}
	reached, err := others(s)
	if err != nil {
		return values{}, err
	}
	return values{
		Name: l.name, Domain: s.Domain, ClusterDomain: clusterDomain,
		Dir: l.dir, Etc: l.path("etc"), PKI: l.path("pki"), Socket: l.containerdSocket(), CNI: cni,
		Cgroup: "/" + l.cgroup(), PauseImage: pauseRef, Kubeconfig: l.path("kubeconfig"),
		addresses: addressesOf(s.Slot), GatewayCA: string(ca), Others: reached,
	}, nil
}

func render(name string, v values) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs(template.FuncMap{
		"quote": func(s string) (string, error) {
			data, err := json.Marshal(s) // valid in YAML, JSON and TOML
			return string(data), err
		},
	}).ParseFS(templates, "config/"+name)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, v); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", name, err)
	}
	return out.Bytes(), nil
}

func writeConfigs(l layout, v values) error {
	for _, name := range []string{"containerd.toml", "cni.conflist", "kubelet.yaml", "proxy.yaml", "Corefile"} {
		data, err := render(name, v)
		if err != nil {
			return err
		}
		path := l.etc(name)
		if name == "cni.conflist" {
			path = l.etc(filepath.Join("cni", "10-"+name)) // containerd reads the whole folder
		}
		if err := writeFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
